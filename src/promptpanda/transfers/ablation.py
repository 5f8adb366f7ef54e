"""Controls that the PANDA paper lacks: the default with one thing changed at a time, tunings with PANDA's budget."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from promptpanda.tasks.inputs import Split
from promptpanda.training.distillation import DistillationOptions
from promptpanda.transfers.methods import METHODS
from promptpanda.transfers.trial import Trial


@dataclass(frozen=True)
class Control:
    """A method, and what is changed about its distillation.

    Attributes:
        name: as in results, and as the variant of a sweep.
        question: what it answers.
        distillation: fields of `DistillationOptions` that differ; none for the method as it is.
    """

    name: str
    question: str
    method: str
    distillation: dict[str, Any] = field(default_factory=dict)

    def options(self, base: DistillationOptions) -> DistillationOptions:
        """The default's settings with what is changed."""
        return replace(base, **self.distillation)

    def changes(self, base: DistillationOptions) -> bool:
        """Whether it is something else than the default."""
        return self.options(base).used() != base.used()

    @property
    def changed(self) -> str:
        """What is changed, in words."""
        return ", ".join(f"{name} {value}" for name, value in self.distillation.items())


BASELINE = Control("prompt_tuning", "no transfer", "prompt_tuning")
CONTROLS: tuple[Control, ...] = (
    BASELINE,
    Control("prompt_tuning_twice", "is it the longer training?", "prompt_tuning_twice"),
    Control("best_of_two", "is it the second try?", "best_of_two"),
    Control("pot", "is the teacher itself better?", "pot"),
    Control("panda", "the default", "panda"),
    Control("random_teacher", "does the teacher's knowledge matter?", "panda", {"teacher": "random"}),
    Control("student_from_source", "must the student start afresh?", "panda", {"student": "source"}),
    Control("coefficient_published", "the authors' coefficient", "panda", {"coefficient": "published"}),
    Control("coefficient_adaptive", "by the predicted transferability", "panda", {"coefficient": "adaptive"}),
    Control("coefficient_0.1", "a weak teacher", "panda", {"coefficient": "0.1"}),
    Control("coefficient_1", "as strong as the labels", "panda", {"coefficient": "1"}),
    Control("coefficient_10", "a strong teacher", "panda", {"coefficient": "10"}),
    Control("distance_mse", "logits compared", "panda", {"distance": "mse"}),
    Control("distance_kl", "probabilities compared", "panda", {"distance": "kl"}),
)


@dataclass(frozen=True)
class Ablated:
    """One control over all seeds; every list has one entry a seed.

    Attributes:
        scores: test scores, or None where there is no test data.
        gains: over prompt tuning with the same seed, in test scores, or validation scores where there are no others.
        cost: trainings a seed, those of teachers included (contract: cost).
    """

    control: Control
    validation: tuple[float, ...]
    scores: tuple[float, ...] | None
    gains: tuple[float, ...]
    cost: float

    def to_json(self) -> dict[str, Any]:
        """An entry of `ablation` in what `panda transfer --ablate --json` prints."""
        return {
            "method": self.control.method,
            "changes": self.control.distillation,
            "mean": None if self.scores is None else statistics.fmean(self.scores),
            "std": None if self.scores is None else spread(self.scores),
            "scores": None if self.scores is None else list(self.scores),
            "validation": list(self.validation),
            "gain": statistics.fmean(self.gains),
            "cost": self.cost,
        }


def ablate(trials: Sequence[Trial], test: Split | None) -> dict[str, Ablated]:
    """Train every control on every trial, around the trials' own settings; test data gives final figures alone.

    Controls that change nothing, or that the kind of task has not (kl for a regression), are left out. Teachers and
    methods that the trials know, or their bank, are not trained again.
    """
    found: dict[str, Ablated] = {}
    base = trials[0].distillation
    for control in CONTROLS:
        options = control.options(base)
        if (control.distillation and not control.changes(base)) or not options.suits(trials[0].task.kind):
            continue
        method = METHODS[control.method]
        validation, scores, costs = [], [], []
        for trial in trials:
            trial.check(method)
            one = trial if not control.distillation else _with(trial, options)
            validation.append(one.outcome(method).card.score)
            if test is not None:
                scores.append(one.test(method, test)[1].scores[trial.task.spec.metric])
            unit = trial.options.epochs * len(trial.partition.train)
            costs.append(sum(part.card.work for part in one.trained([method])) / unit)
        tested = tuple(scores) if test is not None else None
        first = found.get(BASELINE.name)
        gains = (0.0,) * len(trials)
        if first is not None:
            base_scores = first.validation if first.scores is None else first.scores
            own = validation if tested is None else tested
            gains = tuple(mine - theirs for mine, theirs in zip(own, base_scores, strict=True))
        found[control.name] = Ablated(control, tuple(validation), tested, gains, statistics.fmean(costs))
    return found


def spread(values: Sequence[float]) -> float | None:
    """Sample standard deviation; None for fewer than two."""
    return statistics.stdev(values) if len(values) > 1 else None


def _with(trial: Trial, options: DistillationOptions) -> Trial:
    """The trial under other settings; what does not depend on them is known to it."""
    same = {name: outcome for name, outcome in trial.known.items() if METHODS[name].teacher is None}
    return replace(trial, distillation=options, known=same)
