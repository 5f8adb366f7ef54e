"""Multiple choice: one output a choice, and a softmax over the choices of an example."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from promptpanda.tasks.encoding import Encoded, Layout
from promptpanda.tasks.inputs import Input
from promptpanda.training.objectives.objective import Objective


@dataclass(frozen=True)
class MultipleChoice(Objective):
    """Negative log of the probability that the right choices have together.

    Targets: whether each row is a right choice. *Shape:* (rows,), bool.
    """

    outputs: int = 1

    def targets(self, encoded: Encoded, labels: np.ndarray) -> Tensor:
        targets = torch.zeros(len(encoded.input_ids), dtype=torch.bool)
        for example, right in enumerate(labels):
            targets[[encoded.rows_of(example)[position] for position in right]] = True
        return targets

    def loss(self, outputs: Tensor, targets: Tensor, layout: Layout) -> Tensor:
        logits = self.logits(outputs, layout)
        right = torch.zeros_like(logits, dtype=torch.bool)
        right[layout.owner, _place(layout)] = targets[layout.rows]
        return (logits.logsumexp(1) - logits.masked_fill(~right, -torch.inf).logsumexp(1)).mean()

    def logits(self, outputs: Tensor, layout: Layout) -> Tensor:
        """*Shape:* (examples, most choices)."""
        place = _place(layout)
        shape = (len(layout.examples), int(place.max()) + 1)
        padded = torch.full(shape, -torch.inf, device=outputs.device)
        return padded.index_put((layout.owner, place), outputs.float()[:, 0])

    def predictions(self, outputs: np.ndarray, encoded: Encoded, texts: tuple[Input, ...]) -> np.ndarray:
        """Positions of the choices taken. *Shape:* (examples,)."""
        scores = [outputs[list(encoded.rows_of(example)), 0] for example in range(len(encoded))]
        return np.asarray([int(values.argmax()) for values in scores])


def _place(layout: Layout) -> Tensor:
    """Which choice of its example each row is. *Shape:* (rows,)."""
    first = torch.searchsorted(layout.owner, torch.arange(len(layout.examples), device=layout.owner.device))
    return torch.arange(len(layout.owner), device=layout.owner.device) - first[layout.owner]
