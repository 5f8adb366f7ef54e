"""What a task kind wants of a model: how many outputs, which loss, how outputs become predictions.

A further kind (multiple choice, tokens, spans) adds its objective here; the loop, the methods and the bank stay as
they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from promptpanda.tasks.spec import Kind


class Objective(Protocol):
    """One task kind.

    Attributes:
        outputs: width of the head.
        scale, shift: what the head learns, times scale, plus shift, is in the units of the labels; both are folded
            into the head that is kept (1 and 0 but for regression).
    """

    @property
    def outputs(self) -> int: ...

    @property
    def scale(self) -> float: ...

    @property
    def shift(self) -> float: ...

    def targets(self, labels: np.ndarray) -> Tensor:
        """Labels as the loss takes them. *Shape:* (examples,)."""

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean task loss of what the head learns. *Shape:* (batch, outputs), (batch,) -> ()."""

    def unfold(self, outputs: np.ndarray) -> np.ndarray:
        """Outputs of a kept head, back in the units of `loss`. *Shape:* (examples, outputs)."""

    def predictions(self, outputs: np.ndarray) -> np.ndarray:
        """Class indices or values from the outputs of a kept head. *Shape:* (examples, outputs) -> (examples,)."""


@dataclass(frozen=True)
class Classification:
    """Cross-entropy over `outputs` classes."""

    outputs: int
    scale: float = 1.0
    shift: float = 0.0

    def targets(self, labels: np.ndarray) -> Tensor:
        return torch.from_numpy(labels)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs.float(), targets)

    def unfold(self, outputs: np.ndarray) -> np.ndarray:
        return outputs

    def predictions(self, outputs: np.ndarray) -> np.ndarray:
        predictions: np.ndarray = outputs.argmax(axis=1)
        return predictions


@dataclass(frozen=True)
class Regression:
    """Mean squared error on targets standardised by the training part.

    One learning rate then fits every unit of measurement; the head kept in the bank has scale and shift folded in.
    """

    scale: float
    shift: float
    outputs: int = 1

    def targets(self, labels: np.ndarray) -> Tensor:
        return torch.from_numpy((labels - self.shift) / self.scale).float()

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.mse_loss(outputs.float()[:, 0], targets)

    def unfold(self, outputs: np.ndarray) -> np.ndarray:
        return (outputs - self.shift) / self.scale

    def predictions(self, outputs: np.ndarray) -> np.ndarray:
        return outputs[:, 0].astype(np.float64)


def objective_for(kind: Kind, classes: int, train_labels: np.ndarray) -> Objective:
    """The objective of a task kind, fitted to the labels of the training part where it needs them."""
    if kind == Kind.REGRESSION:
        spread = float(train_labels.std())
        return Regression(scale=spread if spread > 0 else 1.0, shift=float(train_labels.mean()))
    return Classification(classes)
