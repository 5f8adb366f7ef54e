"""Whole texts: classification and regression."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import softmax
from torch import Tensor

from promptpanda.errors import PandaError
from promptpanda.tasks.encoding import Encoded, Layout
from promptpanda.tasks.inputs import Input
from promptpanda.training.objectives.objective import Objective
from promptpanda.training.objectives.weights import balanced_weights

_LARGEST = 1e30  # of mean and standard deviation, which become part of the head
_FARTHEST = 1e15  # standard deviations, whose square single precision holds with room for a sum


@dataclass(frozen=True)
class Classification(Objective):
    """Cross-entropy over `outputs` classes. Targets: class indices. *Shape:* (examples,).

    Attributes:
        weights: of each class in the loss, or None; a mean over examples, as scikit-learn has it, not over weights.
    """

    weights: tuple[float, ...] | None = None
    takes_readout: ClassVar[bool] = True

    def targets(self, encoded: Encoded, labels: np.ndarray) -> Tensor:
        return torch.from_numpy(labels)

    def loss(self, outputs: Tensor, targets: Tensor, layout: Layout) -> Tensor:
        wanted = targets[layout.examples]
        if self.weights is None:
            return F.cross_entropy(outputs.float(), wanted)
        weights = outputs.new_tensor(self.weights, dtype=torch.float32)
        return F.cross_entropy(outputs.float(), wanted, weights, reduction="sum") / len(wanted)

    def logits(self, outputs: Tensor, layout: Layout) -> Tensor:
        return outputs

    def predictions(self, outputs: np.ndarray, encoded: Encoded, texts: tuple[Input, ...]) -> np.ndarray:
        """Class indices. *Shape:* (examples,)."""
        predictions: np.ndarray = outputs.argmax(axis=1)
        return predictions

    def probabilities(self, outputs: np.ndarray) -> np.ndarray:
        found: np.ndarray = softmax(outputs.astype(np.float64), axis=1)
        return found

    def balanced(self, labels: np.ndarray) -> Self:
        return replace(self, weights=balanced_weights(labels, self.outputs))


@dataclass(frozen=True)
class Regression(Objective):
    """Mean squared error on targets standardised by the training part. Targets: values. *Shape:* (examples,).

    One learning rate then fits every unit of measurement; the head kept in the bank has scale and shift folded in.
    """

    outputs: int = 1
    takes_readout: ClassVar[bool] = True
    gives_logits: ClassVar[bool] = False

    def targets(self, encoded: Encoded, labels: np.ndarray) -> Tensor:
        """Raises PandaError if single precision cannot hold the values, or their squared errors."""
        if not (1 / _LARGEST < self.scale < _LARGEST and abs(self.shift) < _LARGEST):
            raise PandaError(
                f"The values to predict have a mean of {self.shift:g} and a standard deviation of {self.scale:g}, "
                "which single precision cannot compute with; give them in another unit."
            )
        standardised = (labels - self.shift) / self.scale
        if len(labels) and np.abs(standardised).max() > _FARTHEST:
            raise PandaError(
                f"The value {labels[np.abs(standardised).argmax()]:g} is too far from those of the training part "
                f"(mean {self.shift:g}, standard deviation {self.scale:g}) to compute a loss; correct that row or "
                "leave it out."
            )
        return torch.from_numpy(standardised).float()

    def loss(self, outputs: Tensor, targets: Tensor, layout: Layout) -> Tensor:
        return F.mse_loss(outputs.float()[:, 0], targets[layout.examples])

    def logits(self, outputs: Tensor, layout: Layout) -> Tensor:
        raise TypeError("a regression predicts no distribution")

    def unfold(self, outputs: np.ndarray) -> np.ndarray:
        return (outputs - self.shift) / self.scale

    def predictions(self, outputs: np.ndarray, encoded: Encoded, texts: tuple[Input, ...]) -> np.ndarray:
        """Values. *Shape:* (examples,)."""
        return outputs[:, 0].astype(np.float64)
