"""The data protocols hold for every budget, number of classes and seed."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import sentiment_rows, write_jsonl

from promptpanda.errors import PandaError
from promptpanda.tasks.catalog import load_task, own_task
from promptpanda.tasks.inputs import Split
from promptpanda.tasks.protocol import capped, minimum_budget, partition, validation_size
from promptpanda.tasks.spec import TaskSpec
from promptpanda.tasks.task import Task


def made(shares, tmp_path, kind="single_classification", values=None):
    """A task whose classes have these numbers of examples; every text is unique."""
    labels = [str(label) for label, share in enumerate(shares) for _ in range(share)] if values is None else values
    rows = [{"text": f"text {number}", "label": label} for number, label in enumerate(labels)]
    write_jsonl(tmp_path / "made" / "train.jsonl", rows)
    regression = kind == "regression"
    content = {
        "name": "made",
        "kind": kind,
        "segments": ["{text}"],
        "labels": [] if regression else [str(label) for label in range(len(shares))],
        "metrics": ["pearson"] if regression else ["accuracy"],
    }
    return Task(TaskSpec.parse(content, "a test"), tmp_path)


@pytest.mark.parametrize("shares", [(50, 50), (90, 10), (40, 30, 29, 1), (20,) * 10])
@pytest.mark.parametrize("budget", [20, 33, 64, 100, None])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_budget_is_split_as_the_contract_says(shares, budget, seed, tmp_path):
    task = made(shares, tmp_path)
    part = partition(task, train_examples=budget, seed=seed)
    total = budget or sum(shares)
    assert len(part.validation) == np.clip(round(0.2 * total), 8, 500)
    assert len(part.train) + len(part.validation) == total
    texts = [text for split in (part.train, part.validation) for text in split.texts]
    assert len(set(texts)) == total
    for label, share in enumerate(shares):
        count = int((part.train.labels == label).sum() + (part.validation.labels == label).sum())
        assert abs(count - total * share / sum(shares)) <= 1.5, "the subset is stratified"
        in_validation = int((part.validation.labels == label).sum())
        assert abs(in_validation - count * len(part.validation) / total) <= 1.5, "so is the carve"
        assert (part.train.labels == label).any(), "every class stays in the training part"
    again = partition(task, train_examples=budget, seed=seed)
    assert (again.train.fingerprint, again.validation.fingerprint) == (
        part.train.fingerprint,
        part.validation.fingerprint,
    )
    other = partition(task, train_examples=budget, seed=seed + 7)
    assert other.validation.fingerprint != part.validation.fingerprint


def test_shares_are_within_one_of_proportional_wherever_every_class_can_be_kept(tmp_path):
    """Many random tasks, budgets and seeds. Small classes bind: each has one example in the subset and one in train."""
    rng = np.random.default_rng(0)
    proportional = 0
    for seed in range(150):
        shares = np.maximum(2, rng.gamma(0.8, 40, rng.integers(2, 8))).astype(int)
        least = minimum_budget(len(shares))
        if shares.sum() < least:
            continue
        total = int(rng.integers(least, shares.sum() + 1))
        part = partition(made(shares, tmp_path), train_examples=total, seed=seed)
        n_val = len(part.validation)
        assert len(part.train) + n_val == total
        assert n_val == np.clip(round(0.2 * total), 8, 500)
        assert not set(part.train.texts) & set(part.validation.texts)
        kept, carved = (np.bincount(split.labels, minlength=len(shares)) for split in (part.train, part.validation))
        assert kept.min() >= 1
        subset = kept + carved
        if (shares * total / shares.sum()).min() >= 1:
            assert np.abs(subset - shares * total / shares.sum()).max() < 1
            proportional += 1
        if (subset * n_val / total <= subset - 1).all():
            assert np.abs(carved - subset * n_val / total).max() < 1
            proportional += 1
    assert proportional > 150


@pytest.mark.parametrize("budget", [10, 12, 50, 400])
def test_regression_is_stratified_by_quintiles(budget, tmp_path):
    values = np.random.default_rng(0).exponential(size=500).tolist()
    part = partition(made((), tmp_path, "regression", values), train_examples=budget)
    assert len(part.train) + len(part.validation) == budget
    if budget >= 50:
        cuts = np.quantile(values, [0.2, 0.4, 0.6, 0.8])
        counts = np.bincount(np.searchsorted(cuts, part.train.labels), minlength=5)
        assert counts.max() - counts.min() <= 2
        carved = np.bincount(np.searchsorted(cuts, part.validation.labels), minlength=5)
        assert carved.max() - carved.min() <= 2
    other = partition(made((), tmp_path, "regression", values), train_examples=budget, seed=1)
    assert other.train.fingerprint != part.train.fingerprint


def test_regression_with_few_distinct_values_can_be_split(tmp_path):
    for values in ([1.0] * 30, [0.0] * 29 + [5.0], [0.0, 1.0] * 15):
        part = partition(made((), tmp_path, "regression", values), train_examples=20)
        assert (len(part.train), len(part.validation)) == (12, 8)


def test_validation_sizes():
    assert [validation_size(total) for total in (10, 40, 64, 100, 2500, 9999)] == [8, 8, 13, 20, 500, 500]
    for total in range(10, 4000):
        assert 8 <= validation_size(total) <= 500
        assert abs(validation_size(total) - np.clip(0.2 * total, 8, 500)) <= 0.5


def test_the_official_validation_set_is_not_read_by_the_clean_protocol(tmp_path):
    task = made((30, 30), tmp_path)
    (tmp_path / "made" / "validation.jsonl").write_text("broken")
    assert len(partition(task).train) == 48
    with pytest.raises(PandaError, match="validation.jsonl"):
        partition(task, protocol="paper")


def test_a_benchmarks_validation_set_is_its_test_set_and_no_training_reads_it(tmp_path):
    name = tmp_path / "rte"
    pairs = [{"premise": f"p {n}", "hypothesis": f"h {n}", "label": n % 2} for n in range(60)]
    write_jsonl(name / "train.jsonl", pairs[:40])
    (name / "validation.jsonl").write_text("broken")
    (name / "test.jsonl").write_text("broken")
    part = partition(load_task("rte", data_dir=tmp_path))
    trained_on = set(part.train.texts) | set(part.validation.texts)
    assert len(trained_on) == 40
    write_jsonl(name / "validation.jsonl", pairs[40:])
    test = load_task("rte", data_dir=tmp_path).test()
    assert len(test) == 20
    assert not trained_on & set(test.texts)


def test_validation_data_of_ones_own_is_read_by_the_paper_protocol_alone(tmp_path):
    write_jsonl(tmp_path / "train.jsonl", sentiment_rows(40))
    (tmp_path / "validation.jsonl").write_text("broken")
    files = {"train": tmp_path / "train.jsonl", "validation": tmp_path / "validation.jsonl"}
    assert len(partition(own_task(**files, text="text")).validation) == 8
    with pytest.raises(PandaError, match="Line 1 of .*validation.jsonl"):
        partition(own_task(**files, text="text"), protocol="paper")


def test_the_paper_protocol_trains_on_all_and_validates_officially(sentiment, tmp_path):
    task = sentiment(train=40)
    with pytest.raises(PandaError, match="official validation split.*--protocol clean"):
        partition(task, protocol="paper")
    write_jsonl(tmp_path / "data" / "mood" / "validation.jsonl", sentiment_rows(12, 3))
    task = sentiment(train=40)
    part = partition(task, protocol="paper", train_examples=10)
    assert (len(part.train), len(part.validation), part.protocol) == (10, 12, "paper")
    assert np.bincount(part.train.labels).tolist() == [5, 5]
    everything = partition(task, protocol="paper", seed=3)
    assert everything.train.fingerprint == task.train().fingerprint
    assert everything.validation.fingerprint == task.split("validation").fingerprint
    with pytest.raises(PandaError, match="1 training examples.*at least 2 are needed"):
        partition(task, protocol="paper", train_examples=1)


@pytest.mark.parametrize(("classes", "budget"), [(2, 9), (10, 17), (10, 9)])
def test_too_small_a_budget_is_refused_with_the_smallest_that_works(classes, budget, tmp_path):
    task = made((20,) * classes, tmp_path)
    with pytest.raises(PandaError, match=f"{budget} training examples.*at least {minimum_budget(classes)} are needed"):
        partition(task, train_examples=budget)
    assert len(np.unique(partition(task, train_examples=minimum_budget(classes)).train.labels)) == classes


def test_more_than_there_is_is_refused(tmp_path):
    with pytest.raises(PandaError, match="--train-examples 61 is more than task 'made' has \\(60\\)"):
        partition(made((30, 30), tmp_path), train_examples=61)


def test_capped_draws_the_same_rows_each_time():
    split = Split(tuple((str(number),) for number in range(100)), np.arange(100))
    first, second = capped(split, 10), capped(split, 10)
    assert first.fingerprint == second.fingerprint
    assert len(set(first.texts)) == 10
    assert capped(split, None) is split
    assert capped(split, 1000) is split
