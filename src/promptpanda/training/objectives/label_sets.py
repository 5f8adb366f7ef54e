"""Several labels a text: a decision of its own for each, and a threshold for each from the validation part."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import expit
from torch import Tensor

from promptpanda.tasks.encoding import Encoded, Layout
from promptpanda.tasks.inputs import Input
from promptpanda.training.objectives.objective import Objective
from promptpanda.training.objectives.thresholds import label_thresholds
from promptpanda.training.objectives.weights import balanced_weights


@dataclass(frozen=True)
class MultiLabel(Objective):
    """Binary cross-entropy, mean over examples and labels. Targets: 0 or 1. *Shape:* (examples, labels).

    Attributes:
        threshold: the probability from which on each label is given, one a label.
        weights: of a 0 and of a 1 of each label in the loss, or None. *Shape:* (labels, 2).
    """

    threshold: tuple[float, ...] = ()
    weights: tuple[tuple[float, ...], ...] | None = None
    takes_readout: ClassVar[bool] = True

    def targets(self, encoded: Encoded, labels: np.ndarray) -> Tensor:
        return torch.from_numpy(labels).float()

    def loss(self, outputs: Tensor, targets: Tensor, layout: Layout) -> Tensor:
        wanted, weights = targets[layout.examples], None
        if self.weights is not None:
            absent, present = outputs.new_tensor(self.weights, dtype=torch.float32).T
            weights = torch.where(wanted > 0, present, absent)
        return F.binary_cross_entropy_with_logits(outputs.float(), wanted, weights)

    def logits(self, outputs: Tensor, layout: Layout) -> Tensor:
        """A distribution over no and yes for every example and label. *Shape:* (examples x labels, 2)."""
        flat = outputs.flatten()
        return torch.stack([torch.zeros_like(flat), flat], dim=1)

    def predictions(self, outputs: np.ndarray, encoded: Encoded, texts: tuple[Input, ...]) -> np.ndarray:
        """0 or 1. *Shape:* (examples, labels)."""
        given: np.ndarray = self.probabilities(outputs) >= np.asarray(self.threshold)
        return given.astype(np.int64)

    def probabilities(self, outputs: np.ndarray) -> np.ndarray:
        found: np.ndarray = expit(outputs.astype(np.float64))
        return found

    def calibrated(
        self, outputs: np.ndarray, encoded: Encoded, texts: tuple[Input, ...], labels: np.ndarray
    ) -> MultiLabel:
        """With the thresholds that serve best on these examples."""
        return replace(self, threshold=label_thresholds(self.probabilities(outputs), labels))

    def balanced(self, labels: np.ndarray) -> MultiLabel:
        return replace(self, weights=tuple(balanced_weights(column, 2) for column in labels.T))

    def reordered(self, order: list[int]) -> MultiLabel:
        return replace(self, threshold=tuple(self.threshold[place] for place in order))
