"""What learns: a prompt and a head; for baselines the head alone, or the head and a copy of the whole model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from promptpanda.backbone import Backbone, TextBatch
from promptpanda.depth import Below
from promptpanda.names import HeadReadout
from promptpanda.progress import Progress
from promptpanda.prompts.dropout import keep_mask
from promptpanda.prompts.prompt import Prompt, PromptStack
from promptpanda.prompts.trainable import DirectPrompt, ReparameterizedPrompt
from promptpanda.tasks.encoding import Encoded, Layout
from promptpanda.training.below import RowsBelow
from promptpanda.training.heads import Head, HeadStart, features, folded, fresh_head, no_head, started, width_of
from promptpanda.training.inference import Data, read_rows
from promptpanda.training.objectives.objective import Objective
from promptpanda.training.options import TrainingOptions

Trained = Literal["prompt", "head", "model"]

_MOST_SEEN = 2**28  # bytes of tokens' vectors that are kept while a head alone is trained


class Streams:
    """Independent random streams of one seed: whatever one method draws, the others' draws stay the same.

    Args:
        restart: 0 for the streams that all methods share; others for a second try of the same seed.
    """

    def __init__(self, seed: int, device: torch.device, restart: int = 0) -> None:
        self.order = np.random.default_rng(_entropy(seed, 2, restart))
        self.unlabeled = np.random.default_rng(_entropy(seed, 7, restart))
        self.prompt = torch.Generator().manual_seed(stream_seed(seed, 3, restart))
        self.head = torch.Generator().manual_seed(stream_seed(seed, 4, restart))
        self.dropout = torch.Generator(device).manual_seed(stream_seed(seed, 5, restart))


class TorchStream:
    """torch's own random stream as one training sees it; what others draw from it in between plays no part."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._states: tuple[Tensor, list[Tensor]] | None = None

    @contextlib.contextmanager
    def used(self) -> Iterator[None]:
        with torch.random.fork_rng():
            if self._states is None:
                torch.manual_seed(self._seed)
            else:
                torch.set_rng_state(self._states[0])
                torch.cuda.set_rng_state_all(self._states[1])
            try:
                yield
            finally:
                on_gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
                self._states = torch.get_rng_state(), on_gpus


def stream_seed(seed: int, stream: int, restart: int = 0) -> int:
    """The seed of one of a seed's streams."""
    return int(np.random.SeedSequence(_entropy(seed, stream, restart)).generate_state(1, np.uint32)[0])


def _entropy(seed: int, stream: int, restart: int) -> list[int]:
    return [seed, stream, restart] if restart else [seed, stream]


def is_read_once(readout: HeadReadout, vectors: int, hidden_size: int) -> bool:
    """Whether a head alone learns from what was read once: a vector a row always, one a token where they fit."""
    return readout != "token" or 4 * vectors * hidden_size <= _MOST_SEEN


@dataclass(frozen=True)
class Seen:
    """What a head reads of every training row, one row after the other.

    Attributes:
        vectors: *Shape:* (vectors, hidden).
        first: the place of each row's first. *Shape:* (rows,).
    """

    vectors: Tensor
    first: Tensor

    @classmethod
    def of(cls, rows: list[np.ndarray], device: torch.device) -> Seen:
        """Of one vector a row, *Shape:* (hidden,), or one a unit, *Shape:* (units, hidden)."""
        each = [np.atleast_2d(row) for row in rows]
        first = np.cumsum([0, *(len(row) for row in each[:-1])])
        return cls(torch.from_numpy(np.concatenate(each)).to(device), torch.from_numpy(first).to(device))

    def read(self, layout: Layout) -> Tensor:
        """*Shape:* (rows, hidden), or (rows, units, hidden); what stands at units that are padding is not defined."""
        places = self.first[layout.rows]
        if layout.units is not None:
            places = places[:, None] + torch.arange(layout.units.shape[1], device=places.device)
        return self.vectors[places.clamp(max=len(self.vectors) - 1)]


@dataclass
class Learner:
    """The trainable parts and how they are run.

    Attributes:
        seen: what the head reads of every training row, where nothing in front of it learns and it was read once.
    """

    backbone: Backbone
    prompt: DirectPrompt | ReparameterizedPrompt | None
    head: nn.Linear
    readout: HeadReadout
    dropout: float
    generator: torch.Generator
    seen: Seen | None = None

    @classmethod
    def of(
        cls,
        backbone: Backbone,
        objective: Objective,
        options: TrainingOptions,
        streams: Streams,
        start: Prompt | None,
        trained: Trained,
        head_start: HeadStart | None = None,
    ) -> Learner:
        """A head that is fresh or goes on from `head_start`, and a prompt that starts from `start` or is drawn.

        Raises:
            PandaError: the prompt does not fit the backbone.
        """
        readout = objective.readout(backbone, options.readout)
        prompt = None
        if trained == "prompt":
            prompt = _prompt(backbone, options, streams, start).to(backbone.device)
        if trained == "model":
            backbone = backbone.trainable_copy()
        width = width_of(readout, backbone.hidden_size)
        if objective.headless:
            head = no_head(width)
        else:
            head = fresh_head(width, objective.outputs, bias=readout != "last", generator=streams.head)
            if head_start is not None:
                head = started(head, head_start, scale=objective.scale, shift=objective.shift)
        return cls(backbone, prompt, head.to(backbone.device), readout, options.dropout, streams.dropout)

    @property
    def parameters(self) -> list[nn.Parameter]:
        trained = [p for p in self.backbone.model.parameters() if p.requires_grad]
        return [*trained, *(() if self.prompt is None else self.prompt.parameters()), *self.head.parameters()]

    @property
    def tunes_model(self) -> bool:
        """Whether the whole model learns: it alone has dropout of its own, and another learning rate."""
        return any(p.requires_grad for p in self.backbone.model.parameters())

    def read_once(self, train: Data) -> None:
        """Read every training row once: nothing in front of the head learns."""
        rows = read_rows(self.backbone, train.encoded, self.readout)
        if self.readout == "token":
            assert train.encoded.units is not None
            # Copies, since the arrays are views of whole batches.
            rows = [row[: len(units)].copy() for row, units in zip(rows, train.encoded.units, strict=True)]
        self.seen = Seen.of(rows, self.backbone.device)

    def below(self, encoded: Encoded, progress: Progress) -> RowsBelow | None:
        """What enters the lowest layer that learns, of all rows; None where all layers learn, or no prompt does.

        Raises:
            PandaError: see `RowsBelow.of`.
        """
        if self.prompt is None or self.prompt.fixed is None:
            return None
        prompt = Prompt(self.prompt.kind, self.prompt().detach())
        return RowsBelow.of(self.backbone, prompt, len(self.prompt.fixed), encoded, progress)

    def outputs(self, batch: TextBatch, layout: Layout, below: Below | None = None) -> Tensor:
        """Outputs in training.

        Args:
            below: of the batch, where `below` gave something for the data.

        *Shape:* (rows, outputs) or (rows, units, outputs).
        """
        return self.answers(self._read(batch, layout, below))

    def answers(self, read: Tensor) -> Tensor:
        """What the head makes of what it reads, with dropout if it learns. *Shape:* as of `outputs`."""
        if self.dropout > 0 and self.head.weight.requires_grad:
            read = read * keep_mask(read.shape, self.dropout, read.device, self.generator) / (1 - self.dropout)
        outputs: Tensor = self.head(read)
        return outputs

    def _read(self, batch: TextBatch, layout: Layout, below: Below | None) -> Tensor:
        if self.seen is not None:
            return self.seen.read(layout)
        stack = None
        if self.prompt is not None:
            stack = PromptStack(self.prompt.kind, self.prompt.learning[None], None, self.dropout, (self.generator,))
        return features(self.backbone, batch, layout, stack, self.readout, below)

    def frozen(self, objective: Objective) -> tuple[Prompt | None, Head]:
        """Prompt and head as they stand, on the CPU."""
        head = folded(self.head, scale=objective.scale, shift=objective.shift, readout=self.readout)
        if self.prompt is None:
            return None, head
        return Prompt(self.prompt.kind, self.prompt().detach().cpu().contiguous().clone()), head

    def snapshot(self) -> list[Tensor]:
        return [parameter.detach().clone() for parameter in self.parameters]

    def restore(self, snapshot: list[Tensor]) -> None:
        with torch.no_grad():
            for parameter, value in zip(self.parameters, snapshot, strict=True):
                parameter.copy_(value)


def _prompt(
    backbone: Backbone, options: TrainingOptions, streams: Streams, start: Prompt | None
) -> DirectPrompt | ReparameterizedPrompt:
    if start is not None:
        backbone.check_prompt(start, "The source prompt")
        return DirectPrompt(start, options.train_layers)
    fresh = Prompt.fresh(options.prompt_kind, backbone.shape, options.prompt_length, options.init_std, streams.prompt)
    if options.reparameterize is None:
        return DirectPrompt(fresh, options.train_layers)
    return ReparameterizedPrompt(fresh, backbone.hidden_size, options.reparameterize, streams.prompt)
