"""The choice among contestants: shrunken scores, their noise, and whether a gain is more than that."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import sentiment_rows, task_of
from sklearn.metrics import matthews_corrcoef

from promptpanda.tasks.encoding import encode
from promptpanda.tasks.inputs import Split
from promptpanda.training.inference import Data
from promptpanda.transfers import choice
from promptpanda.transfers.choice import Contestant, Resamples, best_of, posteriors
from promptpanda.transfers.methods import METHODS

pytestmark = pytest.mark.usefixtures("one_thread")


def split_of(labels, groups=None):
    return Split(tuple((f"text {place}",) for place in range(len(labels))), np.asarray(labels), groups)


def data_of(labels, tmp_path, backbone, metric="accuracy", groups=None):
    task = task_of(sentiment_rows(4), tmp_path, metrics=[metric])
    split = split_of(labels, groups)
    return Data(encode(backbone, split.texts, 24), split, task.spec, task.labels)


def test_the_expected_score_is_the_formulas(tiny_backbone, tmp_path):
    labels = np.arange(20) % 2
    data = data_of(labels, tmp_path, tiny_backbone)
    right = {"prompt_tuning": 12, "pot": 16, "head_only": 10}
    contestants = {}
    for name, count in right.items():
        predictions = np.where(np.arange(20) < count, labels, 1 - labels)
        contestants[name] = Contestant(predictions, count / 20, 0.5, prior=0.06 if name == "pot" else 0.0)
    found = posteriors(contestants, Resamples(data))
    for name, count in right.items():
        score = count / 20
        noise, prior = score * (1 - score) / 20, choice.SPREAD**2
        centre = np.mean([12 / 20, 16 / 20 - 0.06, 10 / 20]) + (0.06 if name == "pot" else 0.0)
        # Two independent measurements of one value, weighted by their precisions.
        assert found[name].mean == pytest.approx(np.average([score, centre], weights=[1 / noise, 1 / prior]))
        assert found[name].se == pytest.approx((1 / (1 / noise + 1 / prior)) ** 0.5)
    assert found["pot"].se < choice.SPREAD


def test_what_is_expected_of_a_method_is_a_line_in_the_lead_of_its_source():
    gains = {name: [choice.prior_of(method).of(lead) for lead in (0.0, 0.1, 0.2)] for name, method in METHODS.items()}
    assert gains["prompt_tuning"] == [0.0, 0.0, 0.0], "it is what the others are compared with"
    assert len(set(gains["head_only"])) == 1
    for name in ("pot", "panda"):
        assert gains[name][2] - gains[name][1] == pytest.approx(gains[name][1] - gains[name][0])
        assert gains[name][1] > gains[name][0]
    assert gains["early_fusion"] == gains["pot"]
    assert gains["late_fusion"] == gains["panda_unlabeled"] == gains["panda"]
    assert choice.prior_of(METHODS["panda"], "source") == choice.prior_of(METHODS["pot"])


def test_what_all_get_right_is_not_without_noise(tiny_backbone, tmp_path):
    labels = np.arange(8) % 2
    sure = Resamples(data_of(labels, tmp_path, tiny_backbone)).variance(labels)
    assert sure == pytest.approx((9 / 10) * (1 / 10) / 8)
    half = Resamples(data_of(labels, tmp_path, tiny_backbone)).variance(np.zeros(8, dtype=int))
    assert half == pytest.approx(0.25 / 8)


def test_other_metrics_are_resampled(tiny_backbone, tmp_path):
    """Against a bootstrap of our own, with more samples and other draws."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 60)
    predictions = np.where(rng.random(60) < 0.75, labels, 1 - labels)
    found = Resamples(data_of(labels, tmp_path, tiny_backbone, "matthews"), count=1000).variance(predictions)
    draws = rng.integers(0, 60, (3000, 60))
    expected = np.var([matthews_corrcoef(labels[rows], predictions[rows]) for rows in draws])
    assert found == pytest.approx(expected, rel=0.15)


def test_examples_that_belong_together_are_drawn_together(tiny_backbone, tmp_path):
    groups = np.repeat(np.arange(10), 3)
    labels = np.arange(30) % 2
    resamples = Resamples(data_of(labels, tmp_path, tiny_backbone, groups=groups))
    assert resamples.units == 10
    for rows in resamples.draws:
        counts = np.bincount(rows, minlength=30).reshape(10, 3)
        assert (counts == counts[:, :1]).all()
        assert counts.sum() == 30
    # Whole groups are right or wrong: the variance is that of 10 values and not of 30.
    predictions = np.where(np.repeat(np.arange(10) < 5, 3), labels, 1 - labels)
    assert resamples.variance(predictions) == pytest.approx(0.25 / 10, rel=0.2)


def test_a_gain_is_distinguishable_where_the_paired_interval_leaves_out_zero(tiny_backbone, tmp_path):
    labels = np.arange(40) % 2
    resamples = Resamples(data_of(labels, tmp_path, tiny_backbone))

    def contestant(wrong):
        predictions = np.where(np.isin(np.arange(40), wrong), 1 - labels, labels)
        return Contestant(predictions, float((predictions == labels).mean()), 0.0)

    same = resamples.gain(contestant([1, 2]), contestant([1, 2]))
    assert (same.mean, same.low, same.high, same.distinguishable) == (0.0, 0.0, 0.0, False)
    clear = resamples.gain(contestant([]), contestant(range(12)))
    assert clear.mean == pytest.approx(0.3)
    assert 0.1 < clear.low < 0.3 < clear.high < 0.5
    assert clear.distinguishable
    assert resamples.gain(contestant(range(12)), contestant([])).distinguishable
    assert not resamples.gain(contestant([0]), contestant([1, 2])).distinguishable
    # Paired: both are wrong on the same half, so that only the others make a difference.
    base, shared = list(range(20)), list(range(24))
    assert resamples.gain(contestant(base), contestant(shared)).low > 0


def test_equal_expectations_are_decided_by_the_loss():
    assert best_of({"pot": 0.8, "panda": 0.8 + 1e-15}, {"pot": 0.3, "panda": 0.4}) == "pot"
    assert best_of({"pot": 0.8, "panda": 0.81}, {"pot": 0.3, "panda": 0.4}) == "panda"
