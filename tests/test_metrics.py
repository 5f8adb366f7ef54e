"""Metrics equal their definitions written out, degenerate cases included."""

from __future__ import annotations

import numpy as np
import pytest

from promptpanda.tasks.metrics import METRICS, compute_metrics
from promptpanda.tasks.spec import TaskSpec

LABELS = np.random.default_rng(0).integers(0, 2, 80)
PREDICTIONS = np.where(np.random.default_rng(1).random(80) < 0.7, LABELS, 1 - LABELS)


def counts(labels, predictions, positive):
    tp = np.sum((labels == positive) & (predictions == positive))
    fp = np.sum((labels != positive) & (predictions == positive))
    fn = np.sum((labels == positive) & (predictions != positive))
    return tp, fp, fn, len(labels) - tp - fp - fn


def f1(labels, predictions, positive):
    tp, fp, fn, _ = counts(labels, predictions, positive)
    return 0.0 if tp == 0 else 2 * tp / (2 * tp + fp + fn)


def matthews(labels, predictions):
    tp, fp, fn, tn = (float(count) for count in counts(labels, predictions, 1))
    below = np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    return 0.0 if below == 0 else (tp * tn - fp * fn) / below


def pearson(x, y):
    x, y = x - x.mean(), y - y.mean()
    return float((x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum()))


def ranks(values):
    return np.array([(values < value).sum() + ((values == value).sum() + 1) / 2 for value in values])


@pytest.mark.parametrize("predictions", [PREDICTIONS, 1 - LABELS, LABELS, np.zeros(80, int), np.ones(80, int)])
def test_classification(predictions):
    score = {name: METRICS[name](LABELS, predictions, 1) for name in ("accuracy", "f1", "macro_f1", "matthews")}
    assert score["accuracy"] == pytest.approx(np.mean(predictions == LABELS))
    assert score["f1"] == pytest.approx(f1(LABELS, predictions, 1))
    assert METRICS["f1"](LABELS, predictions, 0) == pytest.approx(f1(LABELS, predictions, 0))
    assert score["macro_f1"] == pytest.approx((f1(LABELS, predictions, 0) + f1(LABELS, predictions, 1)) / 2)
    assert score["matthews"] == pytest.approx(matthews(LABELS, predictions))


def test_a_negative_matthews_stays_negative():
    assert METRICS["matthews"](LABELS, 1 - LABELS, 1) == pytest.approx(-1.0)


def test_correlations():
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 6, 60).astype(float)
    predictions = labels**2 + rng.normal(size=60)
    first, second = pearson(labels, predictions), pearson(ranks(labels), ranks(predictions))
    assert METRICS["pearson"](labels, predictions, 0) == pytest.approx(first)
    assert METRICS["spearman"](labels, predictions, 0) == pytest.approx(second)
    assert METRICS["pearson_spearman"](labels, predictions, 0) == pytest.approx((first + second) / 2)


@pytest.mark.parametrize("name", ["pearson", "spearman", "pearson_spearman"])
def test_a_constant_correlates_with_nothing(name):
    assert METRICS[name](np.arange(5.0), np.ones(5), 0) == 0.0
    assert METRICS[name](np.ones(1), np.ones(1), 0) == 0.0


def test_the_positive_class_is_the_last_or_the_one_named():
    content = {"name": "x", "kind": "single_classification", "segments": ["{t}"], "labels": ["a", "b"]}
    last = TaskSpec.parse(content | {"metrics": ["f1"]}, "a test")
    named = TaskSpec.parse(content | {"metrics": ["f1"], "positive": "a"}, "a test")
    assert compute_metrics(last, ("a", "b"), LABELS, PREDICTIONS)["f1"] == pytest.approx(f1(LABELS, PREDICTIONS, 1))
    assert compute_metrics(named, ("a", "b"), LABELS, PREDICTIONS)["f1"] == pytest.approx(f1(LABELS, PREDICTIONS, 0))
