"""From a prompt's predictions on labelled examples to all that is told of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from promptpanda.assessment.bootstrap import (
    NO_INTERVAL,
    Measured,
    Scorer,
    interval,
    resampled,
    share_interval,
    whole,
    widened,
)
from promptpanda.assessment.calibration import Bin, bins_of, chance_error, expected_calibration_error
from promptpanda.assessment.classes import ClassRow
from promptpanda.assessment.comparison import Comparison
from promptpanda.assessment.evaluated import Answers, Evaluated
from promptpanda.assessment.forms.form import Confusion, Form
from promptpanda.assessment.forms.kinds import form_of
from promptpanda.assessment.mistakes import Mistake, mistakes
from promptpanda.assessment.selective import Selected, accuracy_at, selected
from promptpanda.report.resample import scorer
from promptpanda.sweep.work import answers_of, plain
from promptpanda.tasks.metrics import compute_metrics
from promptpanda.tasks.spec import Kind

_CONFUSIONS = 20  # pairs that are told


@dataclass(frozen=True)
class Calibration:
    """How far confidence is from accuracy, as the model gives it and after temperature scaling.

    Attributes:
        answers: how many there are.
        answers_are: of what.
        ece, scaled: expected calibration errors; `scaled` is None without a temperature.
        chance: the error that a perfectly calibrated model would show on so few answers.
        bins, scaled_bins: what they are made of.
    """

    answers: int
    answers_are: str
    ece: Measured
    chance: float
    bins: tuple[Bin, ...]
    temperature: float | None
    scaled: Measured | None
    scaled_bins: tuple[Bin, ...]


@dataclass(frozen=True)
class Assessment:
    """All that is told of a prompt on labelled examples.

    Attributes:
        metric: the task's, in which it is scored.
        examples, units: how many examples there are, and how many of them are independent of each other.
        metrics: by name, the task's own first.
        by_class: one row a class or type; none where there are none.
        calibration: None where the model is not more or less sure, or gives no answer.
        coverage: what is right among the surest answers.
        mistakes: where it is wrong and most sure.
        values: right values and predicted ones of a regression, else None.
        notes: what must be known to judge the figures, in sentences.
    """

    prompt: str
    task: str
    kind: Kind
    metric: str
    examples: int
    units: int
    metrics: dict[str, Measured]
    by_class: tuple[ClassRow, ...]
    confusion: Confusion | None
    calibration: Calibration | None
    coverage: tuple[Selected, ...]
    mistakes: tuple[Mistake, ...]
    values: tuple[np.ndarray, np.ndarray] | None
    comparison: Comparison | None
    notes: tuple[str, ...]

    @property
    def score(self) -> Measured:
        return self.metrics[self.metric]

    @property
    def confusions(self) -> list[tuple[str, str, int]]:
        """(expected, predicted, times), the most frequent first."""
        return [] if self.confusion is None else self.confusion.commonest(_CONFUSIONS)


def assess(
    evaluated: Evaluated, *, temperature: float | None = None, other: Evaluated | None = None, notes: Sequence[str] = ()
) -> Assessment:
    """Count everything, and resample it.

    Args:
        temperature: fitted on data that is not judged here; None leaves scaled figures out.
        other: another prompt on the same examples, to compare with.
        notes: sentences to tell beside the figures.
    """
    form = form_of(evaluated.task.kind)
    answers, scaled = form.answers(evaluated), None
    if answers is not None and temperature is not None:
        scaled = form.answers(evaluated, temperature)
    own, by_class = metric_scorers(evaluated, form), form.by_class(evaluated)
    scorers: dict[str, Scorer] = {f"metric {name}": score for name, score in own.items()}
    if by_class is not None:
        scorers["classes"] = by_class.scorer()
    for name, given in (("ece", answers), ("scaled", scaled)):
        if given is not None:
            scorers[name] = expected_calibration_error(given, len(evaluated))
    if answers is not None:
        scorers["coverage"] = accuracy_at(answers)
    metric = evaluated.task.spec.metric
    if other is not None and metric in own:
        scorers["difference"] = _difference(own[metric], metric_scorers(other, form)[metric])
    drawn = resampled(scorers, evaluated.units)
    values = metric_values(evaluated, form)
    comparison = None
    if other is not None:
        scores = values[metric], metric_values(other, form)[metric]
        comparison = Comparison.of(form, evaluated, other, scores, drawn.get("difference", np.empty(0)))
    return Assessment(
        prompt=evaluated.id,
        task=evaluated.task.name,
        kind=evaluated.task.kind,
        metric=metric,
        examples=len(evaluated),
        units=len(np.unique(evaluated.units)),
        metrics={
            name: _measured(name, value, drawn.get(f"metric {name}"), evaluated.units) for name, value in values.items()
        },
        by_class=() if by_class is None else tuple(by_class.table(drawn["classes"], evaluated.units)),
        confusion=form.confusion(evaluated),
        calibration=None
        if answers is None
        else _calibration(form, answers, scaled, temperature, drawn, len(evaluated)),
        coverage=() if answers is None else tuple(selected(answers, evaluated.units, drawn["coverage"])),
        mistakes=tuple(mistakes(evaluated, form, answers)),
        values=(evaluated.split.labels, evaluated.predictions) if evaluated.task.kind == Kind.REGRESSION else None,
        comparison=comparison,
        notes=(*notes, *_notes(evaluated, answers)),
    )


def _measured(name: str, value: float, replicates: np.ndarray | None, units: np.ndarray) -> Measured:
    if replicates is None:
        return Measured(value, NO_INTERVAL)
    if name == "accuracy":
        return Measured(value, share_interval(value, replicates, len(np.unique(units))))
    return Measured(value, interval(replicates))


def metric_values(evaluated: Evaluated, form: Form) -> dict[str, float]:
    """The task's metrics, and those that the form adds."""
    spec = evaluated.task.spec
    names = tuple(dict.fromkeys((*spec.metrics, *form.more)))
    told = spec.model_copy(update={"metrics": names})
    probabilities = evaluated.objective.probabilities(evaluated.outputs)
    values = compute_metrics(told, evaluated.task.labels, evaluated.split, evaluated.predictions, probabilities)
    more = {name: float(whole(score, len(evaluated))) for name, score in form.metrics(evaluated).items()}
    return values | {name: value for name, value in more.items() if name not in values}


def metric_scorers(evaluated: Evaluated, form: Form) -> dict[str, Scorer]:
    """How each metric is computed on resampled examples; those that cannot be are left out."""
    gold, said = answers_of(evaluated.task, evaluated.split), plain(evaluated.predictions)
    found: dict[str, Scorer] = dict(form.metrics(evaluated))
    for name in dict.fromkeys((*evaluated.task.spec.metrics, *form.more)):
        score = None if name in found else scorer(gold, name, said)
        if score is not None:
            found[name] = score
    return found


def _difference(this: Scorer, other: Scorer) -> Scorer:
    return lambda counts: this(counts) - other(counts)


def _calibration(
    form: Form,
    answers: Answers,
    scaled: Answers | None,
    temperature: float | None,
    drawn: Mapping[str, np.ndarray],
    examples: int,
) -> Calibration:
    def error(given: Answers, name: str) -> Measured:
        value = float(whole(expected_calibration_error(given, examples), examples))
        return Measured(value, widened(value, drawn[name]))

    return Calibration(
        len(answers),
        form.answers_are,
        error(answers, "ece"),
        chance_error(answers.confidence),
        tuple(bins_of(answers)),
        temperature,
        None if scaled is None else error(scaled, "scaled"),
        () if scaled is None else tuple(bins_of(scaled)),
    )


def _notes(evaluated: Evaluated, answers: Answers | None) -> list[str]:
    found = []
    units = len(np.unique(evaluated.units))
    if units < len(evaluated):
        found.append(
            f"The {len(evaluated)} examples are {units} independent groups (equal texts, shared passages); intervals "
            "draw whole groups."
        )
    if units < 2:
        found.append("All examples belong together, so that there are no intervals.")
    elif answers is not None and len(np.unique(answers.right)) == 1 and len(answers) < 1000:
        what = "right" if answers.right[0] else "wrong"
        found.append(
            f"All {len(answers)} are {what}, so that resampling shows no spread; accuracy, precision and recall have "
            "exact binomial limits instead."
        )
    return found


def to_json(found: Assessment) -> dict[str, Any]:
    """The object that `panda evaluate --json` prints."""
    calibration, confusion = found.calibration, found.confusion
    scaled = None if calibration is None else calibration.scaled
    return {
        "prompt": found.prompt,
        "task": found.task,
        "metric": found.metric,
        "score": found.score.value,
        "low": found.score.interval.low,
        "high": found.score.interval.high,
        "n_test": found.examples,
        "metrics": {name: one.value for name, one in found.metrics.items()},
        "per_class": {
            row.name: {name: one.value for name, one in row.figures.items()} | {"support": row.support}
            for row in found.by_class
        },
        "confusion": {
            "labels": [] if confusion is None else list(confusion.labels),
            "matrix": [] if confusion is None else confusion.matrix.tolist(),
        },
        "calibration": {
            "ece": None if calibration is None else calibration.ece.value,
            "ece_scaled": None if scaled is None else scaled.value,
            "temperature": None if calibration is None else calibration.temperature,
        },
        "intervals": {
            "metrics": {name: list(one.interval) for name, one in found.metrics.items()},
            "per_class": {
                row.name: {name: list(one.interval) for name, one in row.figures.items()} for row in found.by_class
            },
            "calibration": {
                "ece": [None, None] if calibration is None else list(calibration.ece.interval),
                "ece_scaled": [None, None] if scaled is None else list(scaled.interval),
            },
        },
        "groups": found.units,
        "reliability": None if calibration is None else _reliability(calibration),
        "coverage": [
            {
                "coverage": one.coverage,
                "confidence": one.confidence,
                "accuracy": one.accuracy,
                "low": one.interval.low,
                "high": one.interval.high,
            }
            for one in found.coverage
        ],
        "confusions": [
            {"expected": expected, "predicted": predicted, "count": count}
            for expected, predicted, count in found.confusions
        ],
        "mistakes": [vars(one) for one in found.mistakes],
        "values": None
        if found.values is None
        else {"labels": found.values[0].tolist(), "predictions": found.values[1].tolist()},
        "comparison": None if found.comparison is None else found.comparison.to_json(),
        "notes": list(found.notes),
    }


def _reliability(calibration: Calibration) -> dict[str, Any]:
    return {
        "answers": calibration.answers,
        "answers_are": calibration.answers_are,
        "ece_by_chance": calibration.chance,
        "bins": [vars(one) for one in calibration.bins],
        "scaled_bins": [vars(one) for one in calibration.scaled_bins],
    }
