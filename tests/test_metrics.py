"""Metrics equal their definitions written out, degenerate cases included."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from promptpanda.tasks.inputs import Split
from promptpanda.tasks.metrics import METRICS, baseline, compute_metrics
from promptpanda.tasks.spec import TaskSpec

LABELS = np.random.default_rng(0).integers(0, 2, 80)
PREDICTIONS = np.where(np.random.default_rng(1).random(80) < 0.7, LABELS, 1 - LABELS)
SPLIT = Split((("x",),) * len(LABELS), LABELS)


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
    assert compute_metrics(last, ("a", "b"), SPLIT, PREDICTIONS)["f1"] == pytest.approx(f1(LABELS, PREDICTIONS, 1))
    assert compute_metrics(named, ("a", "b"), SPLIT, PREDICTIONS)["f1"] == pytest.approx(f1(LABELS, PREDICTIONS, 0))


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_equal_to_scikit_learn_called_directly(classes):
    rng = np.random.default_rng(classes)
    labels = rng.integers(0, classes, 90)
    predictions = np.where(rng.random(90) < 0.6, labels, rng.integers(0, classes, 90))
    assert METRICS["accuracy"](labels, predictions, 0) == sk.accuracy_score(labels, predictions)
    assert METRICS["matthews"](labels, predictions, 0) == pytest.approx(sk.matthews_corrcoef(labels, predictions))
    assert METRICS["macro_f1"](labels, predictions, 0) == pytest.approx(
        sk.f1_score(labels, predictions, average="macro")
    )
    by_hand = np.mean([f1(labels, predictions, label) for label in range(classes)])
    assert METRICS["macro_f1"](labels, predictions, 0) == pytest.approx(by_hand)
    for positive in range(classes):
        one = sk.f1_score(labels, predictions, labels=[positive], average=None)[0]
        assert METRICS["f1"](labels, predictions, positive) == pytest.approx(one)


def test_equal_to_scipy_called_directly():
    rng = np.random.default_rng(3)
    for _ in range(5):
        labels, predictions = rng.normal(size=40), rng.normal(size=40)
        one, two = stats.pearsonr(labels, predictions).statistic, stats.spearmanr(labels, predictions).statistic
        assert METRICS["pearson"](labels, predictions, 0) == pytest.approx(one)
        assert METRICS["spearman"](labels, predictions, 0) == pytest.approx(two)
        assert METRICS["pearson_spearman"](labels, predictions, 0) == pytest.approx((one + two) / 2)
        assert METRICS["pearson"](labels, -predictions, 0) == pytest.approx(-one)


def test_degenerate_predictions_give_numbers_without_warnings():
    """A class that is never predicted, or never there, counts 0; nothing is nan."""
    nowhere, everywhere, far = np.zeros(6, int), np.ones(6, int), np.full(6, 1e9)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert METRICS["f1"](nowhere, nowhere, 1) == 0.0
        assert METRICS["f1"](everywhere, nowhere, 1) == 0.0
        assert METRICS["macro_f1"](everywhere, nowhere, 1) == 0.0
        assert METRICS["matthews"](everywhere, nowhere, 1) == 0.0
        assert METRICS["matthews"](np.array([0, 1] * 3), nowhere, 1) == 0.0
        assert METRICS["pearson"](np.arange(6.0), far, 0) == 0.0
        assert abs(METRICS["pearson"](np.arange(6.0), far + 1e-7 * np.arange(6), 0)) <= 1.0


def test_all_metrics_of_a_task_come_in_its_order():
    spec = TaskSpec.parse(
        {
            "name": "x",
            "kind": "single_classification",
            "segments": ["{t}"],
            "labels": ["a", "b"],
            "metrics": ["macro_f1", "accuracy"],
        },
        "a test",
    )
    assert spec.metric == "macro_f1"
    assert list(compute_metrics(spec, ("a", "b"), SPLIT, PREDICTIONS)) == ["macro_f1", "accuracy"]


def test_the_constant_prediction_is_the_best_one_by_the_metric():
    """Right answers are rare, and still always saying "right" has the best F1."""
    labels = np.asarray([0] * 7 + [1] * 3)
    split = Split((("x",),) * 10, labels)
    content = {"name": "x", "kind": "single_classification", "segments": ["{t}"], "labels": ["a", "b"]}
    by_f1 = TaskSpec.parse(content | {"metrics": ["f1", "accuracy"]}, "a test")
    by_accuracy = TaskSpec.parse(content | {"metrics": ["accuracy", "f1"]}, "a test")
    assert baseline(by_f1, ("a", "b"), split, split) == {"f1": pytest.approx(6 / 13), "accuracy": 0.3}
    assert baseline(by_accuracy, ("a", "b"), split, split) == {"accuracy": 0.7, "f1": 0.0}
