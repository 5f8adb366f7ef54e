"""Metrics, each computed by scikit-learn or scipy, as fractions (correlations -1..1)."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
from scipy import stats
from sklearn import metrics as sk

from promptpanda.tasks.spec import TaskSpec

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


def compute_metrics(
    spec: TaskSpec, class_names: tuple[str, ...], labels: np.ndarray, predictions: np.ndarray
) -> dict[str, float]:
    """All metrics of a task.

    Args:
        spec: names the metrics and the positive class of F1.
        class_names: by class index; empty for regression.
        labels, predictions: class indices, or values for regression. *Shape:* (examples,).
    """
    positive = class_names.index(spec.positive) if spec.positive is not None else len(class_names) - 1
    return {name: METRICS[name](labels, predictions, positive) for name in spec.metrics}
