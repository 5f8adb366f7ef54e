"""What the student learns from the teacher: a distance between their outputs, and its coefficient.

Reference: PANDA, arXiv 2208.10160. The teacher's outputs are constants (backbone and teacher are frozen and run without
dropout), so they are computed once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from promptpanda.errors import PandaError
from promptpanda.tasks.spec import Kind

DistanceName = Literal["mse", "kl"]


@dataclass(frozen=True)
class Distillation:
    """The second term of the student's loss.

    Attributes:
        teacher: outputs of the teacher for every training example. *Shape:* (examples, outputs).
        coefficient: weight of the term beside the task loss.
        distance: `mse` (mean over batch and classes) or `kl` (mean over the batch, times the temperature squared).
        temperature: softens both sides of `kl`.
    """

    teacher: Tensor
    coefficient: float
    distance: DistanceName = "mse"
    temperature: float = 1.0

    def loss(self, logits: Tensor, teacher: Tensor) -> Tensor:
        """Coefficient x distance. *Shape:* (batch, outputs) twice -> ()."""
        logits = logits.float()
        if self.distance == "mse":
            return self.coefficient * F.mse_loss(logits, teacher)
        return (
            self.coefficient
            * self.temperature**2
            * F.kl_div(
                F.log_softmax(logits / self.temperature, dim=-1),
                F.log_softmax(teacher / self.temperature, dim=-1),
                reduction="batchmean",
                log_target=True,
            )
        )


def check_distance(distance: str, kind: Kind) -> None:
    """Refuse a distance that the kind has not."""
    if distance not in ("mse", "kl"):
        raise PandaError(f"--distance must be mse or kl, found {distance!r}.")
    if distance == "kl" and kind == Kind.REGRESSION:
        raise PandaError("--distance kl compares class probabilities, and a regression has none; use --distance mse.")


def coefficient_value(rule: str, *, transferability: float | None, scale: float, beta: float, batch_size: int) -> float:
    """The coefficient that a rule gives.

    Args:
        rule: `adaptive` = scale x clip(transferability, 0, 1), our choice (the paper's is unknown); `published` =
            0.1 x beta / batch size, as in the authors' code; or a number.
        transferability: predicted for source and target; None where the source brings no signature, and then
            `adaptive` is refused.
    """
    if rule == "published":
        return 0.1 * beta / batch_size
    if rule == "adaptive":
        if transferability is None:
            raise PandaError(
                "--coefficient adaptive needs the source's signature, and this source has none (a foreign prompt); "
                "give a number, or published."
            )
        if not 0.0 <= scale < float("inf"):
            raise PandaError(f"--coefficient-scale must be a finite number of at least 0, found {scale}.")
        return scale * min(max(transferability, 0.0), 1.0)
    try:
        value = float(rule)
    except ValueError as error:
        raise PandaError(f"--coefficient must be adaptive, published or a number, found {rule!r}.") from error
    if not 0.0 <= value < float("inf"):
        raise PandaError(f"--coefficient must be a finite number of at least 0, found {rule}.")
    return value
