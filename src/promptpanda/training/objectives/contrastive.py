"""Supervised contrastive learning: the vectors of one class are drawn together, those of others pushed apart.

A warm-up of a prompt before its head is trained. Reference: Khosla et al. 2020 (arXiv 2004.11362), the loss L_out of
its equation 2; few labels make many pairs of examples, as in SetFit (arXiv 2209.11055), but here the model is frozen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from promptpanda.tasks.encoding import Layout
from promptpanda.training.batching import paired_batches
from promptpanda.training.objectives.sequence import Classification


@dataclass(frozen=True)
class Contrastive(Classification):
    """The supervised contrastive loss of what a head would read; `outputs` is how many numbers that are.

    Attributes:
        temperature: of the cosines; the smaller, the more the hardest examples count.
    """

    temperature: float = 0.1
    headless: ClassVar[bool] = True
    gives_logits: ClassVar[bool] = False

    def loss(self, outputs: Tensor, targets: Tensor, layout: Layout) -> Tensor:
        return supervised_contrastive(outputs.float(), targets[layout.examples], self.temperature)

    def batches(self, lengths: np.ndarray, targets: Tensor, size: int, rng: np.random.Generator) -> list[np.ndarray]:
        return paired_batches(targets.cpu().numpy(), size, rng)


def supervised_contrastive(vectors: Tensor, classes: Tensor, temperature: float) -> Tensor:
    """Minus the log share that an anchor's positives have among all others, by cosine; mean over positives and anchors.

    Anchors without a positive are left out; with no positive in the batch at all it is 0.

    *Shape:* (examples, hidden), (examples,) -> ().
    """
    unit = F.normalize(vectors, dim=1)
    itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    # Not -inf: the row of an example that is alone in its batch would have no gradient but NaN.
    cosines = (unit @ unit.T / temperature).masked_fill(itself, -1e9)
    log_shares = cosines.log_softmax(dim=1)
    positive = (classes[:, None] == classes[None, :]) & ~itself
    count = positive.sum(dim=1)
    means = (log_shares * positive).sum(dim=1) / count.clamp(min=1)
    return -means.sum() / (count > 0).sum().clamp(min=1)
