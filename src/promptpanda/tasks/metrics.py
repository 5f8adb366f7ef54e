"""Metrics, as fractions (correlations -1..1): by scikit-learn and scipy, those of spans and answers by definition."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import stats
from sklearn import metrics as sk

from promptpanda.tasks.answers import multirc_scores, record_scores, squad_scores
from promptpanda.tasks.inputs import Choices, Split
from promptpanda.tasks.spec import Kind, TaskSpec
from promptpanda.tasks.tags import span_scores

Score = Callable[[np.ndarray, np.ndarray, int], float]


def _correlation(function: Callable[..., object]) -> Score:
    def score(labels: np.ndarray, predictions: np.ndarray, positive: int) -> float:
        # A constant has no correlation with anything; GLUE tables show 0 for it.
        if len(labels) < 2 or np.ptp(labels) == 0 or np.ptp(predictions) == 0:
            return 0.0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", stats.NearConstantInputWarning)
            return float(function(labels, predictions).statistic)  # type: ignore[attr-defined]

    return score


_pearson = _correlation(stats.pearsonr)
_spearman = _correlation(stats.spearmanr)

METRICS: dict[str, Score] = {
    "accuracy": lambda labels, predictions, _: float(sk.accuracy_score(labels, predictions)),
    "f1": lambda labels, predictions, positive: float(
        sk.f1_score(labels == positive, predictions == positive, zero_division=0.0)
    ),
    "macro_f1": lambda labels, predictions, _: float(
        sk.f1_score(labels, predictions, average="macro", zero_division=0.0)
    ),
    "matthews": lambda labels, predictions, _: float(sk.matthews_corrcoef(labels, predictions)),
    "pearson": _pearson,
    "spearman": _spearman,
    "pearson_spearman": lambda labels, predictions, _: (
        (_pearson(labels, predictions, 0) + _spearman(labels, predictions, 0)) / 2
    ),
}


def compute_metrics(spec: TaskSpec, class_names: tuple[str, ...], split: Split, predictions: Any) -> dict[str, float]:
    """All metrics of a task.

    Args:
        spec: names the metrics and the positive class of F1.
        class_names: by class or tag index; empty for the other kinds.
        split: what was predicted; its labels count.
        predictions: one entry an example: class indices or values, positions of choices, tag indices of the words, or
            answers as text.
    """
    scores = _all_metrics(spec, class_names, split, predictions)
    return {name: scores[name] for name in spec.metrics}


def _all_metrics(spec: TaskSpec, class_names: tuple[str, ...], split: Split, predictions: Any) -> dict[str, float]:
    if spec.kind == Kind.MULTIPLE_CHOICE:
        return _choice_metrics(split, predictions)
    if spec.kind == Kind.TOKEN_CLASSIFICATION:
        gold, found = ([[class_names[tag] for tag in tags] for tags in side] for side in (split.labels, predictions))
        return span_scores(gold, found)
    if spec.kind == Kind.EXTRACTIVE_QA:
        return squad_scores(predictions, [[answer.text for answer in answers] for answers in split.labels])
    positive = _positive(spec, class_names)
    simple = [name for name in spec.metrics if name in METRICS]
    scores: dict[str, float] = {name: METRICS[name](split.labels, predictions, positive) for name in simple}
    if len(simple) < len(spec.metrics):
        groups = split.groups if split.groups is not None else np.arange(len(split))
        scores |= multirc_scores(split.labels == positive, predictions == positive, groups)
    return scores


def _positive(spec: TaskSpec, class_names: tuple[str, ...]) -> int:
    return class_names.index(spec.positive) if spec.positive is not None else len(class_names) - 1


def _choice_metrics(split: Split, predictions: np.ndarray) -> dict[str, float]:
    right = [int(taken) in labels for taken, labels in zip(predictions, split.labels, strict=True)]
    names = [text.names for text in split.texts if isinstance(text, Choices)]
    taken = [names[example][int(choice)] for example, choice in enumerate(predictions)]
    golds = [[names[example][place] for place in labels] for example, labels in enumerate(split.labels)]
    return {"accuracy": float(np.mean(right)), **record_scores(taken, golds)}


def baseline(spec: TaskSpec, class_names: tuple[str, ...], train: Split, split: Split) -> dict[str, float]:
    """The metrics of a prediction that needs no model: always one class or choice, the mean, no span, "".

    Args:
        train: decides which class: the one with the best score there (of equal ones the most frequent).
        split: what is predicted.
    """
    predictions: Any
    if spec.kind == Kind.REGRESSION:
        predictions = np.full(len(split), train.labels.mean())
    elif spec.kind == Kind.TOKEN_CLASSIFICATION:
        predictions = [(0,) * len(tags) for tags in split.labels]
    elif spec.kind == Kind.EXTRACTIVE_QA:
        predictions = [""] * len(split)
    elif spec.kind == Kind.MULTIPLE_CHOICE:
        place = np.bincount([right[0] for right in train.labels]).argmax()
        # Rows may have fewer choices than others.
        predictions = np.minimum(place, [len(text.names) - 1 for text in split.texts])  # type: ignore[union-attr]
    else:
        counts = np.bincount(train.labels, minlength=len(class_names))

        def on_train(label: int) -> tuple[float, int]:
            scores = compute_metrics(spec, class_names, train, np.full(len(train), label))
            return scores[spec.metric], int(counts[label])

        # Every metric depends on whether the class is the positive one, and beside that grows with its count.
        positive = _positive(spec, class_names)
        others = np.where(np.arange(len(counts)) == positive, -1, counts)
        predictions = np.full(len(split), max(sorted({positive, int(others.argmax())}), key=on_train))
    return compute_metrics(spec, class_names, split, predictions)
