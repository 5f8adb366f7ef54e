"""Whole texts: classification and regression."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from promptpanda.tasks.encoding import Encoded, Layout
from promptpanda.tasks.inputs import Input


@dataclass(frozen=True)
class Classification:
    """Cross-entropy over `outputs` classes. Targets: class indices. *Shape:* (examples,)."""

    outputs: int
    reads_tokens: bool = False
    scale: float = 1.0
    shift: float = 0.0
    threshold: float | None = None

    def targets(self, encoded: Encoded, labels: np.ndarray) -> Tensor:
        return torch.from_numpy(labels)

    def loss(self, outputs: Tensor, targets: Tensor, layout: Layout) -> Tensor:
        return F.cross_entropy(outputs.float(), targets[layout.examples])

    def learnt(self, outputs: Tensor, layout: Layout) -> Tensor:
        return outputs

    def logits(self, outputs: Tensor, layout: Layout) -> Tensor:
        return outputs

    def unfold(self, outputs: np.ndarray) -> np.ndarray:
        return outputs

    def predictions(self, outputs: np.ndarray, encoded: Encoded, texts: tuple[Input, ...]) -> np.ndarray:
        """Class indices. *Shape:* (examples,)."""
        predictions: np.ndarray = outputs.argmax(axis=1)
        return predictions

    def calibrated(
        self, outputs: np.ndarray, encoded: Encoded, texts: tuple[Input, ...], labels: np.ndarray
    ) -> Classification:
        return self


@dataclass(frozen=True)
class Regression:
    """Mean squared error on targets standardised by the training part. Targets: values. *Shape:* (examples,).

    One learning rate then fits every unit of measurement; the head kept in the bank has scale and shift folded in.
    """

    scale: float = 1.0
    shift: float = 0.0
    outputs: int = 1
    reads_tokens: bool = False
    threshold: float | None = None

    def targets(self, encoded: Encoded, labels: np.ndarray) -> Tensor:
        return torch.from_numpy((labels - self.shift) / self.scale).float()

    def loss(self, outputs: Tensor, targets: Tensor, layout: Layout) -> Tensor:
        return F.mse_loss(outputs.float()[:, 0], targets[layout.examples])

    def learnt(self, outputs: Tensor, layout: Layout) -> Tensor:
        return outputs

    def logits(self, outputs: Tensor, layout: Layout) -> Tensor:
        raise TypeError("a regression predicts no distribution")

    def unfold(self, outputs: np.ndarray) -> np.ndarray:
        return (outputs - self.shift) / self.scale

    def predictions(self, outputs: np.ndarray, encoded: Encoded, texts: tuple[Input, ...]) -> np.ndarray:
        """Values. *Shape:* (examples,)."""
        return outputs[:, 0].astype(np.float64)

    def calibrated(
        self, outputs: np.ndarray, encoded: Encoded, texts: tuple[Input, ...], labels: np.ndarray
    ) -> Regression:
        return self
