"""What the student learns from the teacher: a distance between their outputs, and its coefficient.

Reference: PANDA, arXiv 2208.10160. The teacher's outputs are constants (backbone and teacher are frozen and run without
dropout), so they are computed once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from promptpanda.errors import PandaError
from promptpanda.tasks.encoding import Layout
from promptpanda.tasks.spec import Kind
from promptpanda.training.objectives.objective import Objective

DistanceName = Literal["mse", "kl"]


@dataclass(frozen=True)
class Distillation:
    """The second term of the student's loss.

    Attributes:
        teacher: outputs of the teacher for every row of the training part. *Shape:* (rows, outputs), or (rows, units,
            outputs) of a head that reads tokens.
        coefficient: weight of the term beside the task loss.
        distance: `mse` (mean over everything that is learnt: classes, choices, words and tags, tokens and start and
            end) or `kl` (mean over the distributions that are predicted: of an example over its classes or choices, of
            a word over tags, of start and of end over tokens; times the temperature squared).
        temperature: softens both sides of `kl`.
    """

    teacher: Tensor
    coefficient: float
    distance: DistanceName = "mse"
    temperature: float = 1.0

    def loss(self, outputs: Tensor, teacher: Tensor, objective: Objective, layout: Layout) -> Tensor:
        """Coefficient x distance on a batch.

        Args:
            outputs: of the student. *Shape:* (rows, outputs) or (rows, units, outputs).
            teacher: `self.teacher`, on the device of the outputs.
        """
        if layout.real is not None and not layout.real.any():
            return outputs.float().sum() * 0.0  # no word of the batch has a token
        taught = teacher[layout.rows]
        if outputs.ndim == 3:
            taught = taught[:, : outputs.shape[1]]
        if self.distance == "mse":
            learnt = objective.learnt(outputs, layout).float()
            return self.coefficient * F.mse_loss(learnt, objective.learnt(taught, layout))
        student, target = (
            F.log_softmax(objective.logits(side, layout).float() / self.temperature, dim=-1)
            for side in (outputs, taught)
        )
        # A class that is not there (padding among choices or tokens) has probability 0 on both sides.
        nowhere = target == -torch.inf
        divergence = F.kl_div(
            student.masked_fill(nowhere, 0.0), target.masked_fill(nowhere, 0.0), reduction="none", log_target=True
        )
        return self.coefficient * self.temperature**2 * divergence.masked_fill(nowhere, 0.0).sum(1).mean()


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
