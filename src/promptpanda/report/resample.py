"""Metrics of resampled test rows, all replicates at once: what the bootstrap of gains needs.

Nearly every metric is a function of sums over examples (right answers, counts of classes, moments), so that a matrix of
how often each replicate drew each row gives all replicates by one matrix product. Spearman needs the ranks within each
replicate, which cumulative counts in the order of the values give.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import FiniteFloat, NonNegativeInt, TypeAdapter, ValidationError

from promptpanda.errors import PandaError
from promptpanda.sweep.row import Answers, first_error
from promptpanda.tasks.answers import exact_match, token_f1
from promptpanda.tasks.spec import Kind, TaskSpec
from promptpanda.tasks.tags import spans_of

Scorer = Callable[[np.ndarray], np.ndarray]
"""From how often each row was drawn, *shape:* (replicates, rows), to scores, *shape:* (replicates,)."""

_TINY = 1e-12


@dataclass(frozen=True)
class TestRows:
    """The rows of one test set and the units that are drawn: rows, or the groups that belong together (MultiRC).

    Attributes:
        unit: of every row. *Shape:* (rows,).
    """

    __test__ = False  # no test of pytest

    unit: np.ndarray

    @classmethod
    def of(cls, answers: Answers) -> TestRows:
        if answers.groups is None:
            return cls(np.arange(len(answers.labels)))
        return cls(np.unique(np.asarray(answers.groups), return_inverse=True)[1].ravel())

    def draw(self, replicates: int, rng: np.random.Generator) -> np.ndarray:
        """How often each row is drawn if units are drawn with replacement. *Shape:* (replicates, rows)."""
        units = int(self.unit.max()) + 1
        drawn = rng.integers(0, units, (replicates, units)) + units * np.arange(replicates)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=replicates * units).reshape(replicates, units)
        return counts[:, self.unit].astype(np.float64)


def scorer(answers: Answers, metric: str, predictions: Sequence[Any]) -> Scorer | None:
    """How a metric of these predictions is computed on resampled rows; None where it cannot be.

    ReCoRD's scores compare the texts of choices, which the rows of a store do not hold.

    Args:
        predictions: in the store's compact form, one entry a test example.
    """
    spec = TaskSpec.parse(answers.task_spec, f"the answers of {answers.task}")
    if len(predictions) != len(answers.labels):
        return None
    _check_values(spec, answers, predictions)
    if spec.kind == Kind.MULTIPLE_CHOICE and metric == "accuracy":
        return _share([taken in right for taken, right in zip(predictions, answers.labels, strict=True)])
    if spec.kind == Kind.TOKEN_CLASSIFICATION:
        return _spans(metric, answers.class_names, answers.labels, predictions)
    if spec.kind == Kind.MULTI_LABEL:
        sides = (_matrix(side, len(answers.class_names)) for side in (answers.labels, predictions))
        return _label_sets(metric, *sides)
    if spec.kind == Kind.REGRESSION:
        return _correlation(metric, np.asarray(answers.labels, float), np.asarray(predictions, float))
    if spec.kind == Kind.EXTRACTIVE_QA:
        score = {"squad_f1": token_f1, "squad_em": exact_match}.get(metric)
        return (
            None
            if score is None
            else _share([score(predicted, gold) for predicted, gold in zip(predictions, answers.labels, strict=True)])
        )
    if spec.kind.classifies:
        labels, found = np.asarray(answers.labels), np.asarray(predictions)
        positive = answers.class_names.index(spec.positive) if spec.positive else len(answers.class_names) - 1
        return _classes(metric, labels, found, positive, TestRows.of(answers).unit)
    return None


_FITTING: dict[Kind, tuple[TypeAdapter[Any], TypeAdapter[Any]]] = {
    Kind.MULTI_LABEL: (TypeAdapter(list[list[NonNegativeInt]]), TypeAdapter(list[list[NonNegativeInt]])),
    Kind.REGRESSION: (TypeAdapter(list[FiniteFloat]), TypeAdapter(list[FiniteFloat])),
    Kind.MULTIPLE_CHOICE: (TypeAdapter(list[list[int]]), TypeAdapter(list[int])),
    Kind.TOKEN_CLASSIFICATION: (TypeAdapter(list[list[NonNegativeInt]]), TypeAdapter(list[list[NonNegativeInt]])),
    Kind.EXTRACTIVE_QA: (TypeAdapter(list[list[str]]), TypeAdapter(list[str])),
}
_CLASSES = TypeAdapter(list[NonNegativeInt])
_GROUPS = TypeAdapter(list[int] | list[str] | None)


def _check_values(spec: TaskSpec, answers: Answers, predictions: Sequence[Any]) -> None:
    """Raises PandaError if right answers or predictions are not what a task of this kind has."""
    of_labels, of_predictions = _FITTING.get(spec.kind, (_CLASSES, _CLASSES))
    why = None
    try:
        of_labels.validate_python(answers.labels)
        of_predictions.validate_python(predictions)
        _GROUPS.validate_python(answers.groups)
    except ValidationError as error:
        why = first_error(error)
    else:
        classes = len(answers.class_names)
        if not answers.labels or len(answers.labels) != len(answers.groups or answers.labels):
            why = f"{len(answers.labels)} labels and {len(answers.groups or ())} groups"
        elif spec.kind in (Kind.TOKEN_CLASSIFICATION, Kind.MULTI_LABEL) and any(
            tag >= classes for tags in (*answers.labels, *predictions) for tag in tags
        ):
            what = "tag" if spec.kind == Kind.TOKEN_CLASSIFICATION else "label"
            why = f"a {what} beyond the {classes} that there are"
        elif spec.positive and spec.kind.classifies and spec.positive not in answers.class_names:
            why = f"no class {spec.positive!r}"
    if why is not None:
        raise PandaError(
            f"The answers or predictions of {answers.task!r} are not those of a {spec.kind.value} ({why}); take the "
            "rows from the sweep again."
        )


def _classes(metric: str, labels: np.ndarray, found: np.ndarray, positive: int, unit: np.ndarray) -> Scorer | None:
    if metric == "accuracy":
        return _share(labels == found)
    if metric in ("f1", "f1a"):
        is_gold, is_found = labels == positive, found == positive
        return _f1(np.stack([is_gold & is_found, is_gold, is_found], axis=1))
    if metric == "question_em":
        # A question counts once, at its first row, and is right if no row of it is wrong.
        first = np.zeros(len(unit), dtype=bool)
        first[np.unique(unit, return_index=True)[1]] = True
        right = first & ~np.isin(unit, unit[labels != found])
        return _ratio(np.stack([right, first], axis=1))
    classes = np.unique(np.concatenate([labels, found]))
    gold, predicted = labels[:, None] == classes, found[:, None] == classes
    if metric == "macro_f1":
        return _macro_f1(gold, predicted)
    if metric == "balanced_accuracy":
        return _mean_recall(gold, gold & predicted)
    if metric == "matthews":
        return _matthews(gold, predicted)
    return None


def _share(right: Sequence[float] | np.ndarray) -> Scorer:
    values = np.asarray(right, dtype=np.float64)
    return _ratio(np.stack([values, np.ones(len(values))], axis=1))


def _ratio(values: np.ndarray) -> Scorer:
    """Sum of the first column over that of the second."""

    def score(counts: np.ndarray) -> np.ndarray:
        above, below = (counts @ values.astype(np.float64)).T
        return _divided(above, below)

    return score


def _f1(values: np.ndarray) -> Scorer:
    """Twice the first column's sum over the sum of the two others: right, gold, predicted."""

    def score(counts: np.ndarray) -> np.ndarray:
        right, gold, predicted = (counts @ values.astype(np.float64)).T
        return _divided(2 * right, gold + predicted)

    return score


def _macro_f1(gold: np.ndarray, predicted: np.ndarray) -> Scorer:
    """Mean over the classes that occur in a replicate's labels or predictions, as scikit-learn has it."""

    def score(counts: np.ndarray) -> np.ndarray:
        right, both = counts @ (gold & predicted), counts @ (gold.astype(np.float64) + predicted)
        return _divided(_divided(2 * right, both).sum(axis=1), (both > 0).sum(axis=1))

    return score


def _mean_recall(gold: np.ndarray, right: np.ndarray) -> Scorer:
    """Mean over the classes that occur in a replicate's labels."""

    def score(counts: np.ndarray) -> np.ndarray:
        found, there = counts @ right.astype(np.float64), counts @ gold.astype(np.float64)
        return _divided(_divided(found, there).sum(axis=1), (there > 0).sum(axis=1))

    return score


def _matrix(chosen: Sequence[Sequence[int]], labels: int) -> np.ndarray:
    """Whether each example has each label. *Shape:* (examples, labels), bool."""
    found = np.zeros((len(chosen), labels), dtype=bool)
    for row, places in enumerate(chosen):
        found[row, list(places)] = True
    return found


def _label_sets(metric: str, gold: np.ndarray, predicted: np.ndarray) -> Scorer | None:
    if metric == "macro_f1":
        return _macro_f1(gold, predicted)
    if metric == "micro_f1":
        return _f1(np.stack([(gold & predicted).sum(1), gold.sum(1), predicted.sum(1)], axis=1))
    return None


def _matthews(gold: np.ndarray, predicted: np.ndarray) -> Scorer:
    """R_K (Gorodkin 2004), which is Matthews' coefficient for two classes; 0 where undefined."""

    def score(counts: np.ndarray) -> np.ndarray:
        total = counts.sum(axis=1)
        right = (counts @ (gold & predicted)).sum(axis=1)
        by_gold, by_predicted = counts @ gold.astype(np.float64), counts @ predicted.astype(np.float64)
        covariance = right * total - (by_gold * by_predicted).sum(axis=1)
        spread = (total**2 - (by_gold**2).sum(axis=1)) * (total**2 - (by_predicted**2).sum(axis=1))
        return _divided(covariance, np.sqrt(np.maximum(spread, 0)))

    return score


def _correlation(metric: str, labels: np.ndarray, found: np.ndarray) -> Scorer | None:
    def pearson(counts: np.ndarray) -> np.ndarray:
        return _weighted_pearson(counts, _standard(labels), _standard(found))

    def spearman(counts: np.ndarray) -> np.ndarray:
        return _weighted_pearson(counts, _ranks(counts, labels), _ranks(counts, found))

    known: dict[str, Scorer] = {
        "pearson": pearson,
        "spearman": spearman,
        "pearson_spearman": lambda counts: (pearson(counts) + spearman(counts)) / 2,
    }
    return known.get(metric)


def _standard(values: np.ndarray) -> np.ndarray:
    """Without a unit of measurement, so that one threshold tells what is constant."""
    spread = float(values.std())
    standard: np.ndarray = (values - values.mean()) / (spread if spread > 0 else 1.0)
    return standard


def _ranks(counts: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Mean ranks of the values within each replicate, ties included. *Shape:* (replicates, rows)."""
    distinct, place = np.unique(values, return_inverse=True)
    by_value = np.zeros((len(counts), len(distinct)))
    np.add.at(by_value.T, place, counts.T)
    ranks: np.ndarray = by_value.cumsum(axis=1) - (by_value - 1) / 2
    return np.take(ranks, place, axis=1)


def _weighted_pearson(counts: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Correlation of two variables, *shape:* (rows,) or (replicates, rows); 0 where one is constant."""
    total = counts.sum(axis=1, keepdims=True)
    one = one - (counts * one).sum(axis=1, keepdims=True) / total
    other = other - (counts * other).sum(axis=1, keepdims=True) / total
    spreads = (counts * one**2).sum(axis=1), (counts * other**2).sum(axis=1)
    product = np.sqrt(spreads[0] * spreads[1])
    return _divided((counts * one * other).sum(axis=1), np.where(product > _TINY * total[:, 0], product, 0.0))


def _spans(metric: str, names: Sequence[str], labels: Sequence[Any], found: Sequence[Any]) -> Scorer | None:
    counts = []
    for gold, predicted in zip(labels, found, strict=True):
        if len(gold) != len(predicted):
            return None
        gold_spans = set(spans_of([names[tag] for tag in gold]))
        predicted_spans = set(spans_of([names[tag] for tag in predicted]))
        counts.append((len(gold_spans & predicted_spans), len(gold_spans), len(predicted_spans)))
    values = np.asarray(counts, dtype=np.float64)
    known = {
        "span_f1": lambda: _f1(values),
        "span_recall": lambda: _ratio(values[:, [0, 1]]),
        "span_precision": lambda: _ratio(values[:, [0, 2]]),
    }
    return known[metric]() if metric in known else None


def _divided(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    quotient: np.ndarray = np.divide(above, below, out=np.zeros(np.shape(above)), where=below != 0)
    return quotient
