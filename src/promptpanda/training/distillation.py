"""What the student learns from the teacher: a distance between their outputs, and its coefficient.

Reference: PANDA, arXiv 2208.10160. The teacher's outputs are constants (backbone and teacher are frozen and run without
dropout), so they are computed once. Unlabelled text is ours: there the distance alone counts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from promptpanda.errors import PandaError
from promptpanda.tasks.encoding import Encoded, Layout
from promptpanda.tasks.spec import Kind
from promptpanda.training.objectives.objective import Objective

DistanceName = Literal["mse", "kl"]
Start = Literal["fresh", "source"]
Teacher = Literal["trained", "random"]

_LARGEST = 1e9  # of a weight: beyond it, float32 has no digits left for the task's own loss
_HOTTEST = 1e3  # temperature, whose square scales the term; and one part of it the coldest


@dataclass(frozen=True)
class DistillationOptions:
    """How a student learns from its teacher (PANDA, arXiv 2208.10160): task loss + coefficient x distance.

    Attributes:
        coefficient: the weight of the distance to the teacher's outputs: `adaptive`, the default (scale x the source's
            transferability, limited to 0 to 1), `published` (0.1 x beta / batch size), or a number as text.
        scale: factor of `adaptive`, 1 by default.
        beta: factor of `published`, .1 by default.
        distance: between the outputs of student and teacher: `mse`, the default, or `kl` (not for regression).
        temperature: softens both distributions of `kl`; 1 by default, from .001 to 1000.
        student: where the student starts: from a `fresh` prompt, the default, or from that of the `source`.
        teacher: the `trained` one, the default, or, as a control, a `random` prompt and head that learnt nothing.
        unlabeled_weight: the weight of the distance on unlabelled text, 1 by default, whatever the coefficient.
        confidence: whether an unlabelled text counts by how certain the teacher is of it; off by default, and only for
            classification of whole texts.
    """

    coefficient: str = "adaptive"
    scale: float = 1.0
    beta: float = 0.1
    distance: DistanceName = "mse"
    temperature: float = 1.0
    student: Start = "fresh"
    teacher: Teacher = "trained"
    unlabeled_weight: float = 1.0
    confidence: bool = False

    def used(self, *, unlabeled: bool = False) -> dict[str, object]:
        """The settings that have an effect: what does not matter must not make two runs differ.

        Args:
            unlabeled: whether there is unlabelled text.
        """
        values: dict[str, object] = {"coefficient": self.coefficient, "distance": self.distance}
        if self.coefficient == "adaptive":
            values["scale"] = self.scale
        if self.coefficient == "published":
            values["beta"] = self.beta
        if self.distance == "kl":
            values["temperature"] = self.temperature
        # These came later: a default is left out, so that runs from before keep their identity.
        if self.student != "fresh":
            values["student"] = self.student
        if self.teacher != "trained":
            values["teacher"] = self.teacher
        if unlabeled and self.unlabeled_weight != 1.0:
            values["unlabeled_weight"] = self.unlabeled_weight
        if unlabeled and self.confidence:
            values["confidence"] = True
        return values

    def supports(self, kind: Kind) -> bool:
        """Whether a kind of task has these settings; whether they are any at all is another question."""
        try:
            self._check_kind(kind)
        except PandaError:
            return False
        return True

    def check(self, kind: Kind) -> None:
        """Refuse settings that a kind of task has not, or that are none. Raises PandaError."""
        self.check_values()
        self._check_kind(kind)

    def check_values(self) -> None:
        """Refuse numbers that no kind of task has. Raises PandaError."""
        bounds = {"coefficient-scale": self.scale, "beta": self.beta, "unlabeled-weight": self.unlabeled_weight}
        for name, value in bounds.items():
            if not 0.0 <= value <= _LARGEST:
                raise PandaError(f"--{name} must be a finite number from 0 to {_LARGEST:g}, found {value}.")
        if not 1 / _HOTTEST <= self.temperature <= _HOTTEST:
            raise PandaError(
                f"--temperature must be a finite number from {1 / _HOTTEST:g} to {_HOTTEST:g}, found "
                f"{self.temperature}."
            )
        if self.coefficient not in ("adaptive", "published"):
            coefficient_value(self.coefficient, transferability=None, scale=self.scale, beta=self.beta, batch_size=1)

    def _check_kind(self, kind: Kind) -> None:
        check_distance(self.distance, kind)
        if self.confidence and not kind.classifies:
            raise PandaError(
                f"--confidence weights texts by their class probabilities, and {kind.words} predicts none over "
                "classes of a whole text; leave it out."
            )


@dataclass(frozen=True)
class Distillation:
    """The second term of the student's loss.

    Attributes:
        teacher: outputs of the teacher for every row of the training part. *Shape:* (rows, outputs), or (rows, units,
            outputs) of a head that reads tokens.
        coefficient: weight of the term beside the task loss.
        distance: `mse` (mean over everything that is learnt: classes, labels, choices, words and tags, tokens and start
            and end) or `kl` (mean over the distributions that are predicted: of an example over its classes or choices,
            or over yes and no of each label, of a word over tags, of start and of end over tokens; times the
            temperature squared).
        temperature: softens both sides of `kl`.
        weights: how much each example counts, where one example is one row; None: all alike. *Shape:* (examples,).
    """

    teacher: Tensor
    coefficient: float
    distance: DistanceName = "mse"
    temperature: float = 1.0
    weights: Tensor | None = None

    def to(self, device: torch.device) -> Distillation:
        """The same on a device."""
        weights = None if self.weights is None else self.weights.to(device)
        return replace(self, teacher=self.teacher.to(device), weights=weights)

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
            unpadded, target = objective.unpadded(outputs, layout).float(), objective.unpadded(taught, layout)
            if self.weights is None:
                return self.coefficient * F.mse_loss(unpadded, target)
            each = F.mse_loss(unpadded, target, reduction="none").mean(1)
            return self.coefficient * (self.weights[layout.examples] * each).mean()
        student, target = (
            F.log_softmax(objective.logits(side, layout).float() / self.temperature, dim=-1)
            for side in (outputs, taught)
        )
        # A class that is not there (padding among choices or tokens) has probability 0 on both sides.
        nowhere = target == -torch.inf
        divergence = F.kl_div(
            student.masked_fill(nowhere, 0.0), target.masked_fill(nowhere, 0.0), reduction="none", log_target=True
        )
        each = divergence.masked_fill(nowhere, 0.0).sum(1)
        if self.weights is not None:
            each = self.weights[layout.examples] * each
        return self.coefficient * self.temperature**2 * each.mean()


@dataclass(frozen=True)
class Unlabeled:
    """Texts without labels, of which every step of a student takes as many as it takes labelled examples.

    Attributes:
        encoded: their rows.
        distillation: what the teacher makes of them; its coefficient is the weight of the distance, which alone counts.
    """

    encoded: Encoded
    distillation: Distillation


def confidences(logits: Tensor) -> Tensor:
    """How sure a teacher is: 1 - entropy / log(classes) of what it predicts; 1 for one class, 0 for all alike.

    *Shape:* (examples, classes) -> (examples,).
    """
    logs = F.log_softmax(logits.double(), dim=-1)
    entropy = -(logs.exp() * logs).sum(-1)
    return (1.0 - entropy / math.log(logits.shape[-1])).clamp(0.0, 1.0).float()


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
                "give a number, or published, or leave PANDA out (--methods prompt_tuning,pot)."
            )
        return scale * min(max(transferability, 0.0), 1.0)
    try:
        value = float(rule)
    except ValueError as error:
        raise PandaError(f"--coefficient must be adaptive, published or a number, found {rule!r}.") from error
    if not 0.0 <= value <= _LARGEST:
        raise PandaError(f"--coefficient must be a finite number of at least 0, at most {_LARGEST:g}, found {rule}.")
    return value
