"""What a task kind wants of a model: which outputs, which loss, how outputs become predictions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from torch import Tensor

from promptpanda.backbone import Backbone
from promptpanda.names import HeadReadout
from promptpanda.tasks.encoding import Encoded, Layout
from promptpanda.tasks.inputs import Input
from promptpanda.training.batching import shuffled_batches

Threshold = float | tuple[float, ...]


@dataclass(frozen=True)
class Objective(ABC):
    """One task kind.

    Outputs are what the head gives: *shape:* (rows, outputs) where it reads one vector a row, (rows, units, outputs)
    where it reads tokens. A layout tells which rows belong together and which units are padding.

    Attributes:
        outputs: width of the head.
        scale, shift: what the head learns, times scale, plus shift, is in the units of the labels; both are folded
            into the head that is kept (1 and 0 but for regression).
        threshold: what is chosen on the validation part: by how much the best answer must beat "no answer", where
            questions may have none; of several labels the probability from which on each is given; else None.
        reads_tokens: whether the head reads tokens one by one; else one vector a row.
        headless: whether the outputs are what a head would read, with no head in between.
        takes_readout: whether the user's readout concerns it; else the backbone's own (`auto`) serves.
        gives_logits: whether outputs are unnormalised log-probabilities, which a temperature can divide.
    """

    outputs: int
    scale: float = 1.0
    shift: float = 0.0
    threshold: Threshold | None = None
    reads_tokens: ClassVar[bool] = False
    takes_readout: ClassVar[bool] = False
    headless: ClassVar[bool] = False
    gives_logits: ClassVar[bool] = True

    def readout(self, backbone: Backbone, asked: str) -> HeadReadout:
        """How the head reads hidden states, if `asked` is what the user said."""
        if self.reads_tokens:
            return "token"
        if self.takes_readout and asked == "compare":
            return "compare"
        return backbone.resolve_readout(asked if self.takes_readout else "auto")

    @abstractmethod
    def targets(self, encoded: Encoded, labels: np.ndarray) -> Tensor:
        """Labels of all examples as the loss takes them: one entry an example, or one a row."""

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor, layout: Layout) -> Tensor:
        """Mean task loss of what the head learns, on a batch. *Shape:* () from `targets` of all examples."""

    @abstractmethod
    def logits(self, outputs: Tensor, layout: Layout) -> Tensor:
        """Unnormalised log-probabilities of every distribution that is predicted, -inf where there is no class.

        *Shape:* (distributions, classes). Raises TypeError for a regression.
        """

    @abstractmethod
    def predictions(self, outputs: np.ndarray, encoded: Encoded, texts: tuple[Input, ...]) -> Any:
        """What the metrics compare with the labels, one entry an example, from the outputs of a kept head."""

    def probabilities(self, outputs: np.ndarray) -> np.ndarray | None:
        """Of every class or label, from the outputs of a kept head; None where examples have not all the same.

        *Shape:* (examples, classes).
        """
        return None

    def batches(self, lengths: np.ndarray, targets: Tensor, size: int, rng: np.random.Generator) -> list[np.ndarray]:
        """The batches of one epoch.

        Args:
            lengths: tokens of each example. *Shape:* (examples,).
            targets: of all examples, as `targets` gives them.
        """
        return shuffled_batches(lengths, size, rng)

    def unpadded(self, outputs: Tensor, layout: Layout) -> Tensor:
        """The outputs that are no padding, which a student compares with its teacher's.

        *Shape:* (rows, outputs), or (units of all rows, outputs).
        """
        return outputs if layout.real is None else outputs[layout.real]

    def unfold(self, outputs: np.ndarray) -> np.ndarray:
        """Outputs of a kept head, back in the units of `loss`."""
        return outputs

    def calibrated(self, outputs: np.ndarray, encoded: Encoded, texts: tuple[Input, ...], labels: np.ndarray) -> Self:
        """The objective with what is chosen on validation outputs (thresholds); most kinds choose nothing."""
        return self

    def balanced(self, labels: np.ndarray) -> Self:
        """The objective with classes weighted by scikit-learn's `balanced`. Raises TypeError where there are none.

        Args:
            labels: of the training part.
        """
        raise TypeError("there are no classes to weight")

    def reordered(self, order: list[int]) -> Self:
        """The objective for outputs in another order.

        Args:
            order: which output stands at each place.
        """
        return self
