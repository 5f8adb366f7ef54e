"""What the lower layers make of every row of a dataset, computed once and kept while the layers above are trained."""

from __future__ import annotations

import math
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from promptpanda.backbone import Backbone
from promptpanda.depth import Below
from promptpanda.errors import PandaError
from promptpanda.progress import Progress
from promptpanda.prompts.prompt import Prompt, PromptStack
from promptpanda.tasks.encoding import Encoded
from promptpanda.training.batching import sorted_batches
from promptpanda.training.heads import separated

IN_MEMORY = 2**30  # bytes; more of them lie in a file
_BATCH = 32


@dataclass(frozen=True)
class RowsBelow:
    """The hidden states that enter a layer, of all rows under one prompt.

    Attributes:
        layer: which they enter.
        states: token after token, row after row. *Shape:* (tokens of all rows, hidden_size).
        ends: where each row ends; of pairs that are read apart, first texts come first, then all second ones.
            *Shape:* (rows + 1,), or (2 x rows + 1,), with a 0 in front.
        rows: of the dataset.
    """

    layer: int
    states: Tensor
    ends: np.ndarray
    rows: int

    @classmethod
    def of(
        cls,
        backbone: Backbone,
        prompt: Prompt,
        layer: int,
        encoded: Encoded,
        progress: Progress,
        limit: int = IN_MEMORY,
    ) -> RowsBelow:
        """One forward pass over all rows.

        Args:
            prompt: whose prefixes below `layer` stand in front of every row.
            limit: bytes that are kept in memory; more go into a temporary file, and a note says so.

        Raises:
            PandaError: the layers of this family cannot be run one by one, or there is no room for the file.
        """
        lengths = encoded.row_lengths
        if encoded.second is not None:
            lengths = np.concatenate([encoded.second, lengths - encoded.second])
        ends = np.concatenate([[0], np.cumsum(lengths)])
        states = _room(int(ends[-1]), backbone, limit, progress)
        stack = PromptStack(prompt.kind, prompt.tensor.to(backbone.device)[None])
        rows = len(encoded.input_ids)
        with torch.inference_mode():
            for number, indices in enumerate(sorted_batches(encoded.row_lengths, _BATCH)):
                batch, prompts = separated(encoded.batch(indices).to(backbone.device), stack)
                assert prompts is not None
                entering, last = backbone.entering(layer, batch, prompts)
                if number == 0:
                    backbone.check_divides(batch, prompts, last, Below(layer, entering))
                places = _places(indices, rows, apart=encoded.second is not None)
                for values, place in zip(entering, places.tolist(), strict=True):
                    states[ends[place] : ends[place + 1]] = values[: lengths[place]].to(states.device)
        return cls(layer, states, ends, rows)

    def take(self, rows: np.ndarray, device: torch.device) -> Below:
        """Of these rows, padded to the longest; of pairs that are read apart in the order of `TextBatch.apart`."""
        places = _places(rows, self.rows, apart=len(self.ends) > self.rows + 1)
        starts, ends = self.ends[places], self.ends[places + 1]
        width = int((ends - starts).max())
        columns = np.minimum(starts[:, None] + np.arange(width)[None], ends[:, None] - 1)
        taken = self.states[torch.from_numpy(columns).flatten()].view(len(places), width, -1)
        return Below(self.layer, taken.to(device))


def _places(indices: np.ndarray, rows: int, *, apart: bool) -> np.ndarray:
    """Where the texts of these rows stand, of so many rows in all; of pairs first texts come before second ones."""
    return np.concatenate([indices, indices + rows]) if apart else indices


def _room(tokens: int, backbone: Backbone, limit: int, progress: Progress) -> Tensor:
    """An empty tensor of the model's number format, in memory, or in a temporary file that vanishes with it.

    *Shape:* (tokens, hidden_size).
    """
    shape, dtype = (tokens, backbone.hidden_size), backbone.dtype
    size = math.prod(shape) * dtype.itemsize
    if size <= limit:
        return torch.empty(shape, dtype=dtype)
    folder = Path(tempfile.gettempdir())
    free = shutil.disk_usage(folder).free
    if size > free:
        raise PandaError(
            f"--train-layers keeps {size / 1e9:.1f} GB of hidden states for these texts, and {folder} has "
            f"{free / 1e9:.1f} GB free; set TMPDIR to a larger disk, or leave --train-layers out."
        )
    progress.note(f"The hidden states below the trained layers take {size / 1e9:.1f} GB; they are kept in {folder}.")
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        file.truncate(size)
        return torch.from_file(file.name, shared=True, size=math.prod(shape), dtype=dtype).view(shape)
