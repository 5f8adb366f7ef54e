"""Label-aware estimators against their formulas, and one forward pass that serves all estimators and prompts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import FAMILIES, sentiment_rows, task_of
from kinds import KINDS, kind_task, word_rows
from scipy.optimize import minimize
from scipy.stats import multivariate_normal
from sklearn.covariance import LedoitWolf
from sklearn.linear_model import Ridge

from promptpanda.bank.bank import Bank
from promptpanda.bank.folder import SourcePrompt
from promptpanda.bank.signature import Signature, observe
from promptpanda.prompts.prompt import Prompt
from promptpanda.tasks.encoding import encode
from promptpanda.tasks.inputs import Split
from promptpanda.tasks.protocol import Partition, partition
from promptpanda.training.defaults import settled
from promptpanda.training.options import TrainingOptions
from promptpanda.transfers.estimators import COSTS, Cosine, IncomparableError, TargetFeatures, estimates, estimators
from promptpanda.transfers.estimators.h_score import h_score
from promptpanda.transfers.estimators.logme import log_evidence
from promptpanda.transfers.estimators.probe import PENALTIES, left_out
from promptpanda.transfers.ranking import rank
from promptpanda.transfers.transfer import train

pytestmark = pytest.mark.usefixtures("one_thread")

OPTIONS = TrainingOptions(epochs=1, max_length=32, prompt_length=4)
LABEL_AWARE = ("logme", "h_score", "probe", "probe_r2", "probe_shrunk")


def features(n=24, d=6, seed=0):
    """Features and two labels, of which the first can be told from them."""
    draws = np.random.default_rng(seed)
    vectors = draws.normal(size=(n, d)) + 0.5
    return vectors, (vectors[:, 0] + 0.3 * draws.normal(size=n) > 0.5).astype(np.int64), draws.integers(0, 3, n)


def source_of(backbone, seed=0, length=4, kind="prefix", **known):
    prompt = Prompt.fresh(kind, backbone.shape, length, 1.0, torch.Generator().manual_seed(seed))
    return SourcePrompt(prompt, f"p{kind}{length}-{seed}", "theirs", f"{kind}{length}-{seed}", "series", **known)


def view_of(backbone, task, budget=None, seed=0, **changes):
    part = partition(task, train_examples=budget, seed=seed)
    return TargetFeatures.of(backbone, task, part, settled(OPTIONS, task.kind, part.train, backbone), **changes)


@pytest.mark.parametrize(("n", "d"), [(24, 6), (12, 20)])
def test_logme_is_the_maximised_evidence(n, d):
    """The marginal likelihood as a Gaussian density, its two precisions found by an optimiser from several starts."""
    vectors, told, _ = features(n, d)
    targets = np.stack([told, 1.0 - told], axis=1)

    def loss(logs, y):
        alpha, beta = np.exp(np.clip(logs, -20, 20))
        return -multivariate_normal(np.zeros(n), vectors @ vectors.T / alpha + np.eye(n) / beta).logpdf(y)

    for y, found in zip(targets.T, log_evidence(vectors, targets), strict=True):
        starts = [(a, b) for a in (-2.0, 1.0, 4.0) for b in (-1.0, 2.0)]
        best = min(minimize(loss, start, args=(y,), method="Nelder-Mead").fun for start in starts)
        assert found == pytest.approx(-best, abs=1e-3)


def test_logme_of_noise_is_that_of_no_features():
    """Where features tell nothing, the best prior switches them off."""
    y = np.asarray([1.0, -1.0] * 8)
    vectors = np.repeat(np.random.default_rng(0).normal(size=(8, 3)), 2, axis=0)
    null = 8 * (-1 - np.log(2 * np.pi) - np.log(np.mean(y**2)))
    assert log_evidence(vectors, y[:, None])[0] == pytest.approx(null, abs=1e-2)


def test_h_score_equals_its_formula():
    vectors, _, classes = features(30, 5)
    fitted = LedoitWolf().fit(vectors)
    means = np.stack([vectors[classes == label].mean(0) for label in classes])
    between = np.cov(means.T, bias=True)
    expected = np.trace(np.linalg.inv(fitted.covariance_) @ ((1 - fitted.shrinkage_) * between))
    assert h_score(vectors, classes) == pytest.approx(expected)
    assert h_score(vectors + 100 * classes[:, None], classes) > expected


@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("d", [6, 40])
def test_the_probe_equals_explicit_refits(d, width):
    """Every owner left out in turn and a ridge fitted to the others; the intercept alone is that of all."""
    vectors, told, classes = features(24, d)
    targets = np.stack([told, classes], axis=1).astype(float)
    owner = np.arange(24) // width
    found = left_out(vectors, targets, owner)
    total = ((vectors - vectors.mean(0)) ** 2).sum() / len(vectors)
    for place in (0, 4, len(PENALTIES) - 1):
        for name in np.unique(owner):
            kept, out = owner != name, owner == name
            ridge = Ridge(alpha=PENALTIES[place] * total).fit(vectors[kept], targets[kept])
            slope = (vectors[out] - vectors[kept].mean(0)) @ ridge.coef_.T
            np.testing.assert_allclose(found[place, out], targets.mean(0) + slope, atol=1e-8)


def test_the_shrunk_probe_equals_explicit_refits_at_strong_penalties(tiny_backbone, sentiment):
    view, source = view_of(tiny_backbone, sentiment(train=24)), source_of(tiny_backbone)
    vectors = np.random.default_rng(0).normal(size=(len(view.readings.labels), 5))
    view.observe([source])
    view._vectors[source.checksum] = vectors
    targets = np.eye(2)[view.readings.labels]
    total = ((vectors - vectors.mean(0)) ** 2).sum() / len(vectors)
    explained = []
    for penalty in (1, 10**0.5, 10, 10**1.5, 100):
        predictions = np.empty_like(targets)
        for row in range(len(targets)):
            kept = np.arange(len(targets)) != row
            ridge = Ridge(alpha=penalty * total).fit(vectors[kept], targets[kept])
            predictions[row] = targets.mean(0) + (vectors[row] - vectors[kept].mean(0)) @ ridge.coef_.T
        explained.append(1 - ((predictions - targets) ** 2).mean() / targets.var(0).mean())
    assert estimators()["probe_shrunk"].score(source, view) == pytest.approx(np.mean(explained))


def test_the_shrunk_probe_prefers_classes_along_the_widest_direction(tiny_backbone, sentiment):
    """Two sources explain the same labels equally well, one along where its features vary most."""
    view = view_of(tiny_backbone, sentiment(train=40))
    along, across = source_of(tiny_backbone, 0), source_of(tiny_backbone, 1)
    view.observe([along, across])
    draws = np.random.default_rng(0)
    classes = 2.0 * view.readings.labels[:, None] - 1
    noise = draws.normal(size=(len(classes), 6))
    view._vectors[along.checksum] = np.concatenate([3 * classes, noise], axis=1)
    view._vectors[across.checksum] = np.concatenate([0.3 * classes, noise], axis=1)
    scores = {
        name: [estimators()[name].score(one, view) for one in (along, across)] for name in ("probe_r2", "probe_shrunk")
    }
    assert scores["probe_r2"] == pytest.approx([1, 1], abs=0.05)
    assert scores["probe_shrunk"][0] > scores["probe_shrunk"][1] + 0.3


def test_the_probe_does_not_see_what_it_leaves_out():
    """With more features than examples and no relation, it is at chance: neither above nor below."""
    right = []
    for seed in range(30):
        draws = np.random.default_rng(seed)
        labels = draws.permutation(np.repeat([0.0, 1.0], 20))
        predictions = left_out(draws.normal(size=(40, 120)), labels[:, None], np.arange(40))
        right.append(((predictions[:, :, 0] > 0.5) == labels).mean(1))
    mean, error = np.mean(right, axis=0), np.std(right, axis=0, ddof=1) / np.sqrt(len(right))
    assert (abs(mean - 0.5) < 4 * error).all()


def test_mixed_batches_equal_single_prompts(load_tiny, sentiment):
    """Features and signatures of several prompts in one series of batches, and of each prompt alone."""
    for family in FAMILIES:
        backbone = load_tiny(family)
        view = view_of(backbone, sentiment(family, train=30))
        sources = [source_of(backbone, seed, length) for seed, length in ((0, 4), (1, 4), (2, 4), (3, 3))]
        view.observe(sources)
        for source in sources:
            alone = view_of(backbone, sentiment(family, train=30))
            np.testing.assert_allclose(view.vectors(source), alone.vectors(source), atol=1e-5, rtol=1e-4)
            one, other = (each.signature_under("source", source) for each in (view, alone))
            torch.testing.assert_close(one.embeddings, other.embeddings, atol=1e-5, rtol=1e-4)
            assert one.examples == other.examples == 22
            assert float((one.activated_neurons == other.activated_neurons).float().mean()) > 0.97
        assert not np.allclose(view.vectors(sources[0]), view.vectors(sources[1]), atol=1e-2)


def test_shallow_prompts_are_looked_at_in_mixed_batches_too(tiny_backbone, sentiment):
    encoded = encode(tiny_backbone, sentiment().train().texts[:9], 24)
    prompts = [source_of(tiny_backbone, seed, kind="shallow").prompt for seed in range(3)]
    observations = observe(tiny_backbone, prompts, encoded, examples=5, readout="mean")
    for prompt, sight in zip(prompts, observations, strict=True):
        alone = Signature.of(tiny_backbone, prompt, encoded, examples=5)
        torch.testing.assert_close(sight.signature.embeddings, alone.embeddings, atol=1e-5, rtol=1e-4)
        assert len(sight.features) == 9
        assert sight.signature.examples == 5


def test_one_pass_serves_all_estimators(tiny_backbone, sentiment):
    """Signatures and features of all prompts: every example goes through the model once under each of them."""
    view = view_of(tiny_backbone, sentiment(train=40))
    sources = [source_of(tiny_backbone, seed, signature=None) for seed in range(3)]
    rows = []
    hook = tiny_backbone.model.register_forward_pre_hook(
        lambda _, __, given: rows.append(given["attention_mask"].shape[0]), with_kwargs=True
    )
    view.observe(sources)
    for source in sources:
        view.signature_under("source", source)
        view.vectors(source)
    hook.remove()
    assert sum(rows) == 3 * 40


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_task_is_scored_by_every_estimator(kind, tiny_backbone, tmp_path):
    """And useful features are told from useless ones: those of a prompt, and the labels themselves."""
    task = kind_task(kind, tmp_path, train=40)
    view = view_of(tiny_backbone, task)
    source = source_of(tiny_backbone)
    known = observe(tiny_backbone, [source.prompt], view.texts.first(10), examples=10)[0].signature
    own = source_of(tiny_backbone, spec=task.spec, signature=known)
    found = estimates(own, view)
    assert set(found) == {"same_format", "cosine", "on", *LABEL_AWARE}
    assert all(np.isfinite(value) for value in found.values())
    assert set(estimates(None, view)) == set(LABEL_AWARE), "no transfer can be compared where labels decide"
    assert view.vectors(own).shape == (len(view.readings.labels), tiny_backbone.hidden_size)
    readings = view.readings
    told = readings.labels.reshape(len(readings.labels), -1).astype(float)
    if readings.classifies and not readings.several:
        told = (told == np.unique(told)).astype(float)
    noise = np.random.default_rng(0).normal(size=(len(told), 8))
    view._vectors[own.checksum] = noise
    useless = estimates(own, view)
    view._vectors[own.checksum] = np.concatenate([noise, 5 * told], axis=1)
    useful = estimates(own, view)
    assert all(useful[name] > useless[name] for name in LABEL_AWARE), (useful, useless)
    assert useful["probe"] > 0.95


def test_what_questions_and_sentences_are_read_at(tiny_backbone, tmp_path):
    words = view_of(tiny_backbone, kind_task("token_classification", tmp_path, train=30))
    assert len(words.readings.labels) == sum(len(tags) for tags in words.readings.encoded.places)
    questions = view_of(tiny_backbone, kind_task("extractive_qa", tmp_path, train=30))
    assert np.mean(questions.readings.labels) == pytest.approx(0.5)
    assert sorted(np.unique(questions.readings.owner)) == list(range(30))
    unanswerable = kind_task("extractive_qa", tmp_path, "none", train=30, no_answer=True)
    assert len(np.unique(view_of(tiny_backbone, unanswerable).readings.owner)) == 18
    choices = view_of(tiny_backbone, kind_task("multiple_choice", tmp_path, train=30))
    vectors = choices.vectors(source_of(tiny_backbone))
    for name in np.unique(choices.readings.owner):
        np.testing.assert_allclose(vectors[choices.readings.owner == name].mean(0), 0, atol=1e-9)


def test_labels_that_do_not_differ_are_no_ground_for_an_estimate(tiny_backbone, tmp_path):
    """All words outside any span: what needs labels says nothing, and the ranking goes by what does."""
    rows = [row | {"tags": ["O"] * len(row["tags"])} for row in word_rows(30)]
    rows[0]["tags"][0] = "B-UP"  # else the labels would not be known
    task = kind_task("token_classification", tmp_path, rows=rows, test=None)
    part = partition(task)
    kept = [place for place, tags in enumerate(part.train.labels) if not any(tags)]
    part = Partition(part.train.take(np.asarray(kept)), part.validation.take(np.arange(0)), "clean")
    view = TargetFeatures.of(tiny_backbone, task, part, settled(OPTIONS, task.kind, part.train, tiny_backbone))
    with pytest.raises(IncomparableError, match="all have the same label"):
        estimators()["probe"].score(None, view)
    assert estimates(None, view) == {}


def test_the_order_of_examples_and_the_names_of_classes_do_not_matter(tiny_backbone, sentiment, tmp_path):
    rows = sentiment_rows(40)
    source = source_of(tiny_backbone)
    first = view_of(tiny_backbone, task_of(rows, tmp_path / "a"))
    turned = view_of(
        tiny_backbone, task_of([rows[place] for place in np.random.default_rng(0).permutation(40)], tmp_path / "b")
    )
    names = {"good": "zeta", "bad": "alpha"}
    renamed = view_of(tiny_backbone, task_of([row | {"label": names[row["label"]]} for row in rows], tmp_path / "c"))
    for name in LABEL_AWARE:
        expected = estimators()[name].score(source, first)
        for view in (turned, renamed):
            assert estimators()[name].score(source, view) == pytest.approx(expected, abs=1e-5), name


def test_labels_of_the_whole_budget_count_and_no_others(tiny_backbone, sentiment, tmp_path):
    task = sentiment(train=60)
    view = view_of(tiny_backbone, task, budget=30)
    assert len(view.readings.labels) == 30
    assert view.signed == 22, "signatures are of the training part alone"
    (tmp_path / "data" / "mood" / "test.jsonl").write_text("this is no JSON")
    view_of(tiny_backbone, task, budget=30)
    part = partition(task, train_examples=30)
    paper = Partition(part.train, part.validation, "paper")
    assert len(TargetFeatures.of(tiny_backbone, task, paper, OPTIONS).readings.labels) == 22


def test_many_examples_are_sampled(tiny_backbone, sentiment):
    task = sentiment(train=400)
    view = view_of(tiny_backbone, task)
    assert len(view.readings.labels) == 256
    assert view.signed == 100
    first = encode(tiny_backbone, partition(task).train.texts[:100], 32)
    assert all(np.array_equal(*pair) for pair in zip(view.texts.input_ids[:100], first.input_ids, strict=True))
    assert len(np.unique(view.readings.owner)) == 256


def test_groups_are_left_out_together(tiny_backbone, sentiment):
    task = sentiment(train=40)
    train_part = partition(task).train
    grouped = Split(train_part.texts, train_part.labels, np.arange(len(train_part)) // 4)
    part = Partition(grouped, Split((), np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)), "clean")
    view = TargetFeatures.of(tiny_backbone, task, part, OPTIONS)
    assert len(np.unique(view.readings.owner)) == len(train_part) // 4


def test_same_format_compares_kind_and_segments(tiny_backbone, sentiment, tmp_path):
    view = view_of(tiny_backbone, sentiment())
    same_format = estimators()["same_format"]
    kinds = ("single_classification", "pair_classification", "regression")
    sources = [source_of(tiny_backbone, spec=kind_task(kind, tmp_path).spec) for kind in kinds]
    assert [same_format.score(source, view) for source in sources] == [1.0, 0.0, 0.0]
    with pytest.raises(IncomparableError):
        same_format.score(source_of(tiny_backbone), view)


def test_another_number_of_cosine_examples_leaves_the_features_alone(tiny_backbone, sentiment):
    task = sentiment(train=40)
    source = source_of(tiny_backbone)
    known = view_of(tiny_backbone, task).signature_under("source", source)
    source = source_of(tiny_backbone, signature=known, spec=task.spec)
    few = estimates(source, view_of(tiny_backbone, task), Cosine(examples=5))
    all_of_them = estimates(source, view_of(tiny_backbone, task))
    assert few["cosine"] != all_of_them["cosine"] == pytest.approx(1.0)
    assert {name: few[name] for name in LABEL_AWARE} == pytest.approx({name: all_of_them[name] for name in LABEL_AWARE})


def test_a_ranking_has_all_estimators_and_looks_at_prompts_of_any_shape(tiny_backbone, sentiment, tmp_path):
    bank = Bank(tmp_path / "bank")
    for name, changes in (("books", {}), ("films", {"prompt_length": 6}), ("foods", {"prompt_kind": "shallow"})):
        options = TrainingOptions(**OPTIONS.model_dump() | changes)
        train(sentiment(name, seed=len(name)), tiny_backbone, bank=bank, options=options)
    task = sentiment()
    ranking = rank(task, tiny_backbone, bank, view_of(tiny_backbone, task, budget=40))
    assert {entry.task for entry in ranking} == {"books", "films", "foods"}
    assert all(set(entry.scores) == {"same_format", "cosine", "on", *LABEL_AWARE} for entry in ranking)


def test_costs_follow_from_needs():
    for name, one in estimators().items():
        assert one.reference, name
        assert (one.needs == "target_prompt") == one.needs_target_prompt == (one.cost.trainings == 1)
    assert COSTS["labels"].relative(21, 100, 80, 40) == pytest.approx(21 * 100 / 3 / (80 * 40))
    assert COSTS["labels"].relative(21, 100, 80, 40) < 0.25
    assert COSTS["bank"].relative(21, 100, 80, 40) == 0.0
