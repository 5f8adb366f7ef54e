"""Controls that the PANDA paper lacks: the default with one thing changed at a time, tunings with PANDA's budget."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from promptpanda.errors import PandaError
from promptpanda.tasks.inputs import Split
from promptpanda.training.distillation import DistillationOptions
from promptpanda.training.loop import TrainingDivergedError
from promptpanda.transfers.methods import METHODS
from promptpanda.transfers.scores import OverSeeds
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
    Control("permuted_source", "is it the source's scale alone?", "permuted_source"),
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
class Ablated(OverSeeds):
    """One control over all seeds; every list has one entry a seed.

    Attributes:
        scores: test scores, or None where there is no test data.
        gains: over prompt tuning with the same seed, in test scores, or validation scores where there are no others.
        cost: trainings a seed, those of teachers included.
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
            **self.scores_json(),
            "validation": list(self.validation),
            "gain": statistics.fmean(self.gains),
            "cost": self.cost,
        }


def ablate(trials: Sequence[Trial], test: Split | None) -> dict[str, Ablated]:
    """Train every control on every trial, around the trials' own settings; test data gives final figures alone.

    Controls that change nothing, that the kind of task has not (kl for a regression), that the source does not allow or
    whose training diverges are left out. Teachers and methods that the trials or their bank know are not trained again.
    """
    found: dict[str, Ablated] = {}
    for control, changed in _able(trials):
        method = METHODS[control.method]
        validation, scores, costs = [], [], []
        try:
            for one in changed:
                validation.append(one.outcome(method).card.score)
                if test is not None:
                    scores.append(one.test(method, test)[1].scores[one.task.spec.metric])
                unit = one.options.epochs * len(one.partition.train)
                costs.append(sum(part.card.work for part in one.trained([method])) / unit)
        except TrainingDivergedError as error:
            trials[0].progress.note(f"The control {control.name} is left out: {error}")
            continue
        tested = tuple(scores) if test is not None else None
        first = found.get(BASELINE.name)
        gains = (0.0,) * len(trials)
        if first is not None:
            base_scores = first.validation if first.scores is None else first.scores
            own = validation if tested is None else tested
            gains = tuple(mine - theirs for mine, theirs in zip(own, base_scores, strict=True))
        found[control.name] = Ablated(control, tuple(validation), tested, gains, statistics.fmean(costs))
    return found


def _able(trials: Sequence[Trial]) -> list[tuple[Control, list[Trial]]]:
    """The controls that can be had, with the trials under their settings; those that a source does not allow are told.

    A foreign prompt brings no signature, so that nothing is predicted for it, and no coefficient can follow that.
    """
    found = []
    base = trials[0].distillation
    for control in CONTROLS:
        options = control.options(base)
        if (control.distillation and not control.changes(base)) or not options.supports(trials[0].task.kind):
            continue
        changed = [_with(trial, options) if control.distillation else trial for trial in trials]
        try:
            for one in changed:
                one.check(METHODS[control.method])
        except PandaError as error:
            trials[0].progress.note(f"The control {control.name} is left out: {error}")
            continue
        found.append((control, changed))
    return found


def _with(trial: Trial, options: DistillationOptions) -> Trial:
    """The trial under other settings; what does not depend on them is known to it."""
    same = {name: outcome for name, outcome in trial.cached.items() if METHODS[name].teacher is None}
    return replace(trial, distillation=options, cached=same)
