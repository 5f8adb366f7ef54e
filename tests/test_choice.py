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


def contestant_of(labels, wrong, prior=0.0):
    """One who is wrong on these examples."""
    predictions = np.where(np.isin(np.arange(len(labels)), wrong), 1 - labels, labels)
    return Contestant(predictions, float((predictions == labels).mean()), 0.5, prior)


def normal_conditional(scores, expected, prior, noise):
    """Mean and covariance of theta ~ N(expected, prior), given scores = theta + N(0, noise)."""
    gain = prior @ np.linalg.inv(prior + noise)
    return expected + gain @ (scores - expected), prior - gain @ prior


def test_the_posterior_is_the_conditional_of_a_written_out_normal():
    rng = np.random.default_rng(3)
    for count in (1, 2, 4, 7):
        scores, gains, factor = rng.normal(0.7, 0.1, count), rng.normal(0, 0.03, count), rng.normal(0, 0.04, (count, 9))
        noise, spread = factor @ factor.T / 2 + 1e-3 * np.eye(count), 0.03**2 * np.eye(count)
        mean, covariance = choice.conditional(scores, gains, noise, 0.03)
        # In precisions: the flat prior of the centre is none at all along the mean of all.
        known, prior = np.linalg.inv(noise), (np.eye(count) - 1 / count) / 0.03**2
        whole = np.linalg.inv(known + prior)
        np.testing.assert_allclose(covariance, whole, atol=1e-12)
        np.testing.assert_allclose(mean, whole @ (known @ scores + prior @ gains), atol=1e-12)
        # Differences from the first know no centre.
        less = np.eye(count)[1:] - np.eye(count)[0]
        parts = normal_conditional(less @ scores, less @ gains, less @ spread @ less.T, less @ noise @ less.T)
        np.testing.assert_allclose(less @ mean, parts[0], atol=1e-12)
        np.testing.assert_allclose(less @ covariance @ less.T, parts[1], atol=1e-12)


def test_independent_noise_shrinks_every_score_by_itself():
    scores, gains, prior = np.asarray([0.6, 0.8, 0.5]), np.asarray([0.0, 0.06, 0.0]), 0.03**2
    mean, covariance = choice.conditional(scores, gains, 0.01 * np.eye(3), 0.03)
    # Two independent measurements of one value, weighted by their precisions, around the mean of all.
    expected = [
        np.average([s, np.mean(scores - gains) + g], weights=[100, 1 / prior])
        for s, g in zip(scores, gains, strict=True)
    ]
    np.testing.assert_allclose(mean, expected)
    known = 1 / (100 + 1 / prior)  # if the centre were known; it is the mean of three
    moved = 0.01 / (0.01 + prior)
    np.testing.assert_allclose(np.diag(covariance), known + moved**2 * (0.01 + prior) / 3)
    # Who is measured better counts for more in the centre too.
    noise = np.asarray([0.002, 0.01, 0.03])
    centre = np.average(scores - gains, weights=1 / (noise + prior))
    expected = (scores / noise + (centre + gains) / prior) / (1 / noise + 1 / prior)
    np.testing.assert_allclose(choice.conditional(scores, gains, np.diag(noise), 0.03)[0], expected)


def test_contestants_who_err_together_are_told_apart_by_the_rest(tiny_backbone, tmp_path):
    """Prompt tuning is right on all that PoT is right on, and on four more of 50; a lead of .1 does not outweigh it."""
    labels = np.arange(50) % 2
    resamples = Resamples(data_of(labels, tmp_path, tiny_backbone))
    lead = choice.prior_of(METHODS["pot"]).of(0.1)
    ones = {"prompt_tuning": contestant_of(labels, range(8)), "pot": contestant_of(labels, range(12), lead)}
    found = posteriors(ones, resamples)
    assert found["prompt_tuning"].mean > found["pot"].mean
    # As the difference of the two says by itself.
    noise = 0.08 * 0.92 / 50
    gain = np.average([-0.08, lead], weights=[1 / noise, 1 / (2 * choice.SPREAD**2)])
    assert found["pot"].mean - found["prompt_tuning"].mean == pytest.approx(gain)
    # If each had the same errors by chance, on examples of its own, the lead would decide.
    ones["pot"] = contestant_of(labels, range(38, 50), lead)
    apart = posteriors(ones, resamples)
    assert apart["pot"].mean > apart["prompt_tuning"].mean


def test_the_covariance_is_that_of_shared_samples(tiny_backbone, tmp_path):
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 2, 40)
    wrong = [rng.permutation(40)[:count] for count in (8, 12, 15)]
    ones = [contestant_of(labels, one).predictions for one in wrong]
    found = Resamples(data_of(labels, tmp_path, tiny_backbone)).covariance(ones)
    right = np.asarray([one == labels for one in ones], float)
    np.testing.assert_allclose(found, (right @ right.T / 40 - np.outer(right.mean(1), right.mean(1))) / 40, atol=1e-15)
    draws = rng.integers(0, 40, (20000, 40))
    np.testing.assert_allclose(np.cov(right[:, draws].mean(axis=2)), found, atol=3e-4)


def test_the_order_of_contestants_does_not_matter(tiny_backbone, tmp_path):
    labels = np.arange(30) % 2
    resamples = Resamples(data_of(labels, tmp_path, tiny_backbone))
    ones = {str(at): contestant_of(labels, range(at, 3 * at + 2), 0.01 * at) for at in range(4)}
    turned = posteriors(dict(reversed(ones.items())), resamples)
    for name, one in posteriors(ones, resamples).items():
        assert (turned[name].mean, turned[name].se) == pytest.approx((one.mean, one.se))


@pytest.mark.parametrize(
    ("metric", "wrong"), [("accuracy", ()), ("accuracy", (1, 2, 4)), ("accuracy", range(13)), ("matthews", (1, 2, 4))]
)
def test_contestants_who_say_the_same_are_not_taken_for_equal_beyond_doubt(metric, wrong, tiny_backbone, tmp_path):
    labels = np.arange(13) % 2
    resamples = Resamples(data_of(labels, tmp_path, tiny_backbone, metric), count=100)
    ones = {name: contestant_of(labels, wrong) for name in ("prompt_tuning", "pot", "panda")}
    covariance = resamples.covariance([one.predictions for one in ones.values()])
    assert np.linalg.eigvalsh(covariance).min() > 0.49 * resamples.least_variance
    assert covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1] >= 0.99 * resamples.least_variance
    found = posteriors(ones, resamples)
    assert [one.mean for one in found.values()] == pytest.approx([ones["pot"].score] * 3)
    ones["pot"] = contestant_of(labels, wrong, prior=0.02)
    ahead = posteriors(ones, resamples)
    assert 0 < ahead["pot"].mean - ahead["panda"].mean < 0.02, "what is expected of it decides, a little"


def test_what_is_expected_of_a_method_is_a_line_in_the_lead_of_its_source():
    gains = {name: [choice.prior_of(method).of(lead) for lead in (0.0, 0.1, 0.2)] for name, method in METHODS.items()}
    assert gains["prompt_tuning"] == [0.0, 0.0, 0.0], "it is what the others are compared with"
    assert len(set(gains["head_only"])) == 1
    for name in ("pot", "panda"):
        assert gains[name][2] - gains[name][1] == pytest.approx(gains[name][1] - gains[name][0])
        assert gains[name][1] > gains[name][0]
    assert gains["early_fusion"] == gains["contrastive_pot"] == gains["pot"]
    assert gains["linear_probe"] == gains["head_only"]
    assert gains["source_probe"] == pytest.approx([one + gains["linear_probe"][0] for one in gains["pot"]])
    assert gains["late_fusion"] == gains["panda_unlabeled"] == gains["panda"]
    assert choice.prior_of(METHODS["panda"], "source") == choice.prior_of(METHODS["pot"])


def test_what_all_get_right_is_not_without_noise(tiny_backbone, tmp_path):
    labels = np.arange(8) % 2
    sure = Resamples(data_of(labels, tmp_path, tiny_backbone)).covariance([labels]).item()
    assert sure == pytest.approx((9 / 10) * (1 / 10) / 8)
    half = Resamples(data_of(labels, tmp_path, tiny_backbone)).covariance([np.zeros(8, dtype=int)]).item()
    assert half == pytest.approx(0.25 / 8)


def test_other_metrics_are_resampled(tiny_backbone, tmp_path):
    """Against a bootstrap of our own, with more samples and other draws."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 60)
    predictions = np.where(rng.random(60) < 0.75, labels, 1 - labels)
    resamples = Resamples(data_of(labels, tmp_path, tiny_backbone, "matthews"), count=1000)
    found = resamples.covariance([predictions]).item()
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
    assert resamples.covariance([predictions]).item() == pytest.approx(0.25 / 10, rel=0.2)


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


def test_who_was_chosen_among_several_has_to_be_further_ahead(tiny_backbone, tmp_path):
    labels = np.arange(60) % 2
    resamples = Resamples(data_of(labels, tmp_path, tiny_backbone))
    base = contestant_of(labels, range(20))
    rivals = [contestant_of(labels, [*range(place, 20, 2), *range(30 + 5 * place, 34 + 5 * place)]) for place in (0, 1)]
    alone, chosen = resamples.gain(rivals[0], base), resamples.gain(rivals[0], base, rivals)
    assert chosen.mean == alone.mean
    assert chosen.high - chosen.low > alone.high - alone.low
    assert resamples.gain(rivals[0], base, [rivals[0], base]) == alone, "itself and the baseline make no difference"


@pytest.mark.parametrize("count", [2, 4])
def test_of_equal_contestants_the_chosen_one_is_seldom_told_apart(count):
    """In 2.5 % of cases, however many there are; by the interval of the chosen one alone 7 % of four."""
    rng, examples, cases = np.random.default_rng(7), 100, 2000
    draws = np.stack([np.bincount(one, minlength=examples) for one in rng.integers(0, examples, (400, examples))])
    told = 0
    for _ in range(cases):
        shared, own = rng.random(examples) < 0.8, rng.random((count, examples)) < 0.8
        right = np.where(rng.random((count, examples)) < 0.7, shared, own).astype(float)
        differences = right - right[0]
        chosen = int(np.argmax(right.mean(axis=1) + 1e-9 * rng.random(count)))
        told += differences[chosen].mean() > choice.reaches(differences @ draws.T / examples)[chosen] + 1e-12
    assert 0.025 - 0.0105 < told / cases < 0.025 + 0.0105, "three standard errors"


def test_equal_expectations_are_decided_by_the_loss():
    assert best_of({"pot": 0.8, "panda": 0.8 + 1e-15}, {"pot": 0.3, "panda": 0.4}) == "pot"
    assert best_of({"pot": 0.8, "panda": 0.81}, {"pot": 0.3, "panda": 0.4}) == "panda"
