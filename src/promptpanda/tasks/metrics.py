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
from promptpanda.tasks.kinds import RANKING_METRICS
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
    # Not scikit-learn's own, which warns of classes that are predicted and not there.
    "balanced_accuracy": lambda labels, predictions, _: float(
        sk.recall_score(labels, predictions, labels=np.unique(labels), average="macro", zero_division=0.0)
    ),
    "matthews": lambda labels, predictions, _: float(sk.matthews_corrcoef(labels, predictions)),
    "pearson": _pearson,
    "spearman": _spearman,
    "pearson_spearman": lambda labels, predictions, _: (
        (_pearson(labels, predictions, 0) + _spearman(labels, predictions, 0)) / 2
    ),
}


def scorer(spec: TaskSpec, class_names: tuple[str, ...], split: Split) -> Callable[[Any], float]:
    """The task's own metric, as a function of predictions for a split."""
    return lambda predictions: compute_metrics(spec, class_names, split, predictions)[spec.metric]


def compute_metrics(
    spec: TaskSpec,
    class_names: tuple[str, ...],
    split: Split,
    predictions: Any,
    probabilities: np.ndarray | None = None,
) -> dict[str, float]:
    """All metrics of a task.

    Args:
        spec: names the metrics and the positive class of F1.
        class_names: by class, label or tag index; empty for the other kinds.
        split: what was predicted; its labels count.
        predictions: one entry an example: class indices or values, 0 or 1 for every label, positions of choices, tag
            indices of the words, or answers as text.
        probabilities: of classes or labels, for the metrics that judge a ranking; without them these are left out.
            *Shape:* (examples, classes).
    """
    scores = _all_metrics(spec, class_names, split, predictions)
    if probabilities is not None and RANKING_METRICS & set(spec.metrics):
        scores |= _ranking_metrics(spec, class_names, split, probabilities)
    return {name: scores[name] for name in spec.metrics if name in scores or name not in RANKING_METRICS}


def _all_metrics(spec: TaskSpec, class_names: tuple[str, ...], split: Split, predictions: Any) -> dict[str, float]:
    if spec.kind == Kind.MULTIPLE_CHOICE:
        return _choice_metrics(split, predictions)
    if spec.kind == Kind.TOKEN_CLASSIFICATION:
        names = (*class_names, *split.unseen_labels)
        gold, found = ([[names[tag] for tag in tags] for tags in side] for side in (split.labels, predictions))
        return span_scores(gold, found)
    if spec.kind == Kind.EXTRACTIVE_QA:
        return squad_scores(predictions, [[answer.text for answer in answers] for answers in split.labels])
    if spec.kind == Kind.MULTI_LABEL:
        return label_scores(split.labels, as_wide(predictions, split))
    positive = _positive(spec, class_names)
    simple = [name for name in spec.metrics if name in METRICS]
    scores: dict[str, float] = {name: METRICS[name](split.labels, predictions, positive) for name in simple}
    if {"f1a", "question_em"} & set(spec.metrics):
        groups = split.groups if split.groups is not None else np.arange(len(split))
        scores |= multirc_scores(split.labels == positive, predictions == positive, groups)
    return scores


def _positive(spec: TaskSpec, class_names: tuple[str, ...]) -> int:
    return class_names.index(spec.positive) if spec.positive is not None else len(class_names) - 1


def as_wide(predictions: np.ndarray, split: Split) -> np.ndarray:
    """Several labels a text: predictions with a column of 0 for each label that the examples alone have.

    *Shape:* (examples, labels and strangers).
    """
    missing = split.labels.shape[1] - predictions.shape[1]
    wide: np.ndarray = np.pad(predictions, ((0, 0), (0, missing)))
    return wide


def label_scores(labels: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
    """F1 of all decisions together (micro), and its mean over the labels that are there or predicted (macro).

    Those are scikit-learn's with `zero_division=nan`; 0 where nothing is there or predicted.

    Args:
        labels, predictions: 0 or 1. *Shape:* (examples, labels).
    """
    right, both = (labels * predictions).sum(0), (labels + predictions).sum(0)
    defined = both > 0
    if not defined.any():
        return {"micro_f1": 0.0, "macro_f1": 0.0}
    return {
        "micro_f1": float(2 * right.sum() / both.sum()),
        "macro_f1": float((2 * right[defined] / both[defined]).mean()),
    }


def _ranking_metrics(
    spec: TaskSpec, class_names: tuple[str, ...], split: Split, probabilities: np.ndarray
) -> dict[str, float]:
    """Average precision and the area under the ROC curve: of the positive class where there is one, else the mean over
    the classes or labels that some examples have and others have not (without any: what a guess scores, 0 and 1/2).
    """
    of_class = split.labels if spec.kind == Kind.MULTI_LABEL else split.labels[:, None] == np.arange(len(class_names))
    every = list(range(len(class_names)))
    if spec.kind.classifies and (spec.positive is not None or len(class_names) == 2):
        every = [_positive(spec, class_names)]
    chosen = [at for at in every if of_class[:, at].any() and not of_class[:, at].all()]
    if not chosen:
        return {"average_precision": 0.0, "roc_auc": 0.5}
    pairs = [(of_class[:, at], probabilities[:, at]) for at in chosen]
    return {
        "average_precision": float(np.mean([sk.average_precision_score(*pair) for pair in pairs])),
        "roc_auc": float(np.mean([sk.roc_auc_score(*pair) for pair in pairs])),
    }


def _choice_metrics(split: Split, predictions: np.ndarray) -> dict[str, float]:
    right = [int(taken) in labels for taken, labels in zip(predictions, split.labels, strict=True)]
    names = [text.names for text in split.texts if isinstance(text, Choices)]
    taken = [names[example][int(choice)] for example, choice in enumerate(predictions)]
    golds = [[names[example][place] for place in labels] for example, labels in enumerate(split.labels)]
    return {"accuracy": float(np.mean(right)), **record_scores(taken, golds)}


def baseline(spec: TaskSpec, class_names: tuple[str, ...], train: Split, split: Split) -> dict[str, float]:
    """The metrics of a prediction that needs no model: always one class or choice, the most frequent labels, the mean,
    no span, "". Those that judge a ranking are left out.

    Args:
        train: decides which class: the one with the best score there (of equal ones the most frequent).
        split: what is predicted.
    """
    predictions: Any
    if spec.kind == Kind.REGRESSION:
        predictions = np.full(len(split), train.labels.mean())
    elif spec.kind == Kind.MULTI_LABEL:
        always = _always(spec.metric, train.labels)
        predictions = np.tile(always, (len(split), 1))
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


def _always(metric: str, labels: np.ndarray) -> np.ndarray:
    """Which labels to give every example, for the best score on these: the most frequent ones. *Shape:* (labels,)."""
    counts = labels.sum(0)
    order = np.argsort(-counts, kind="stable")
    most = int((counts > 0).sum())
    if metric == "micro_f1" and most:
        taken = np.arange(1, most + 1)
        most = 1 + int((2 * counts[order][:most].cumsum() / (taken * len(labels) + counts.sum())).argmax())
    always = np.zeros(labels.shape[1], dtype=np.int64)
    always[order[:most]] = 1
    return always
