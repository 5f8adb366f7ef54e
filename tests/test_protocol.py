"""The data protocols hold for every budget, number of classes and seed."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import sentiment_rows, write_jsonl

from promptpanda.errors import PandaError
from promptpanda.tasks.protocol import capped, minimum_budget, partition, validation_size
from promptpanda.tasks.spec import TaskSpec
from promptpanda.tasks.task import Split, Task


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


@pytest.mark.parametrize("budget", [10, 12, 50, 400])
def test_regression_is_stratified_by_quintiles(budget, tmp_path):
    values = np.random.default_rng(0).exponential(size=500).tolist()
    part = partition(made((), tmp_path, "regression", values), train_examples=budget)
    assert len(part.train) + len(part.validation) == budget
    if budget >= 50:
        cuts = np.quantile(values, [0.2, 0.4, 0.6, 0.8])
        counts = np.bincount(np.searchsorted(cuts, part.train.labels), minlength=5)
        assert counts.max() - counts.min() <= 2


def test_validation_sizes():
    assert [validation_size(total) for total in (10, 40, 64, 100, 2500, 9999)] == [8, 8, 13, 20, 500, 500]


def test_the_official_validation_set_is_not_read_by_the_clean_protocol(tmp_path):
    task = made((30, 30), tmp_path)
    (tmp_path / "made" / "validation.jsonl").write_text("broken")
    assert len(partition(task).train) == 48
    with pytest.raises(PandaError, match="validation.jsonl"):
        partition(task, protocol="paper")


def test_the_paper_protocol_trains_on_all_and_validates_officially(sentiment, tmp_path):
    task = sentiment(train=40)
    with pytest.raises(PandaError, match="official validation split.*--protocol clean"):
        partition(task, protocol="paper")
    write_jsonl(tmp_path / "data" / "mood" / "validation.jsonl", sentiment_rows(12, 3))
    task = sentiment(train=40)
    part = partition(task, protocol="paper", train_examples=10)
    assert (len(part.train), len(part.validation), part.protocol) == (10, 12, "paper")


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
