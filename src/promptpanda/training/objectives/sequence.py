"""Whole texts: classification and regression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from promptpanda.tasks.encoding import Encoded, Layout
from promptpanda.tasks.inputs import Input
from promptpanda.training.objectives.objective import Objective


@dataclass(frozen=True)
class Classification(Objective):
    """Cross-entropy over `outputs` classes. Targets: class indices. *Shape:* (examples,)."""

    takes_readout: ClassVar[bool] = True

    def targets(self, encoded: Encoded, labels: np.ndarray) -> Tensor:
        return torch.from_numpy(labels)

    def loss(self, outputs: Tensor, targets: Tensor, layout: Layout) -> Tensor:
        return F.cross_entropy(outputs.float(), targets[layout.examples])

    def logits(self, outputs: Tensor, layout: Layout) -> Tensor:
        return outputs

    def predictions(self, outputs: np.ndarray, encoded: Encoded, texts: tuple[Input, ...]) -> np.ndarray:
        """Class indices. *Shape:* (examples,)."""
        predictions: np.ndarray = outputs.argmax(axis=1)
        return predictions


@dataclass(frozen=True)
class Regression(Objective):
    """Mean squared error on targets standardised by the training part. Targets: values. *Shape:* (examples,).

    One learning rate then fits every unit of measurement; the head kept in the bank has scale and shift folded in.
    """

    outputs: int = 1
    takes_readout: ClassVar[bool] = True

    def targets(self, encoded: Encoded, labels: np.ndarray) -> Tensor:
        return torch.from_numpy((labels - self.shift) / self.scale).float()

    def loss(self, outputs: Tensor, targets: Tensor, layout: Layout) -> Tensor:
        return F.mse_loss(outputs.float()[:, 0], targets[layout.examples])

    def logits(self, outputs: Tensor, layout: Layout) -> Tensor:
        raise TypeError("a regression predicts no distribution")

    def unfold(self, outputs: np.ndarray) -> np.ndarray:
        return (outputs - self.shift) / self.scale

    def predictions(self, outputs: np.ndarray, encoded: Encoded, texts: tuple[Input, ...]) -> np.ndarray:
        """Values. *Shape:* (examples,)."""
        return outputs[:, 0].astype(np.float64)
