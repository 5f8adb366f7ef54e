"""Rows of several requests, each under its own prompt, in one pass of the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from promptpanda.backbone import Backbone
from promptpanda.bank.folder import TrainedPrompt
from promptpanda.errors import PandaError
from promptpanda.tasks.encoding import Encoded, encode, joined
from promptpanda.tasks.inputs import Input
from promptpanda.training.inference import mixed_outputs
from promptpanda.transfers.outputs import predictions_of


@dataclass(eq=False)
class Work:
    """One request on its way through the model.

    Attributes:
        trained: the prompt and head that it asked for; they stay these, whatever happens to the bank meanwhile.
        encoded: the rows that the model reads: one or several for every input.
        done: called once, by the thread that runs the model: all outputs are there, or `error` is.
        outputs: of the rows that were computed. *Shape:* (outputs,) or (units, outputs) each.
        waiting: the rows that were not computed yet, longest first.
        arrived: when it came to the queue, on the monotonic clock.
    """

    trained: TrainedPrompt
    inputs: tuple[Input, ...]
    encoded: Encoded
    done: Callable[[], None]
    outputs: dict[int, np.ndarray] = field(default_factory=dict)
    waiting: dict[int, None] = field(default_factory=dict)
    error: Exception | None = None
    arrived: float = 0.0

    @property
    def rows(self) -> int:
        """Rows that the model reads."""
        return len(self.encoded.input_ids)

    @property
    def form(self) -> object:
        """Works of equal form can share a batch: their prompts have one shape, and their heads read the same."""
        prompt = self.trained.prompt
        return None if prompt is None else (prompt.kind, prompt.tensor.shape), self.trained.head.readout


Piece = tuple[Work, tuple[int, ...]]  # a work, and rows of it


def prepared(backbone: Backbone, trained: TrainedPrompt, inputs: tuple[Input, ...], done: Callable[[], None]) -> Work:
    """A work that can be queued. Raises PandaError if an input cannot be encoded."""
    encoded = encode(backbone, inputs, trained.card.options.max_length, apart=trained.card.readout == "compare")
    return Work(trained, inputs, encoded, done)


def compute(backbone: Backbone, pieces: Sequence[Piece]) -> None:
    """Run the rows of all pieces together, and put what comes out into their works."""
    by_prompt: dict[int, list[Piece]] = {}
    for piece in pieces:
        by_prompt.setdefault(id(piece[0].trained), []).append(piece)
    alike = list(by_prompt.values())
    models = [(own[0][0].trained.prompt, own[0][0].trained.head) for own in alike]
    parts = [joined([_taken(work.encoded, rows) for work, rows in own]) for own in alike]
    for own, outputs in zip(alike, mixed_outputs(backbone, models, parts), strict=True):
        values = iter(outputs)
        for work, rows in own:
            units = work.encoded.units
            for row in rows:
                found = next(values)
                work.outputs[row] = found if units is None else found[: len(units[row])]


def _taken(encoded: Encoded, rows: Sequence[int]) -> Encoded:
    """These rows, without what tells which example they are of."""
    types = encoded.token_type_ids
    return Encoded(
        tuple(encoded.input_ids[row] for row in rows),
        None if types is None else tuple(types[row] for row in rows),
        encoded.pad_id,
        units=None if encoded.units is None else tuple(encoded.units[row] for row in rows),
    )


def finished(work: Work) -> list[dict[str, Any]]:
    """The predictions, one an input, as `predict` gives them. Raises PandaError if outputs are not finite."""
    rows = [work.outputs[row] for row in range(work.rows)]
    if work.encoded.units is not None:
        width = max(len(values) for values in rows)
        rows = [np.pad(values, ((0, width - len(values)), (0, 0))) for values in rows]
    outputs = np.stack(rows)
    if not np.isfinite(outputs).all():
        raise PandaError(
            f"The outputs of {work.trained.card.id} are not finite: its numbers are too large for this model; train it "
            "again with a lower --lr."
        )
    return predictions_of(work.trained.card, outputs, work.encoded, work.inputs)
