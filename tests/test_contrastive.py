"""The contrastive warm-up: its loss against the formula, its batches, and the method around it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import sentiment_rows, write_jsonl

from promptpanda import Backbone, Bank, PandaError, TrainingOptions, own_task, train, transfer
from promptpanda.tasks.protocol import partition
from promptpanda.training.batching import paired_batches
from promptpanda.training.objectives.contrastive import Contrastive, supervised_contrastive
from promptpanda.transfers.methods import CONTRASTIVE
from promptpanda.transfers.trial import Trial

FAST = TrainingOptions(epochs=2, max_length=24, prompt_length=4, batch_size=8)


def by_the_formula(vectors, classes, temperature):
    """Khosla et al. 2020, equation 2, as it is written: sums over anchors i, positives p and all others a."""
    z = [vector / np.linalg.norm(vector) for vector in vectors]
    terms = []
    for i in range(len(z)):
        positives = [p for p in range(len(z)) if p != i and classes[p] == classes[i]]
        if positives:
            below = sum(np.exp(z[i] @ z[a] / temperature) for a in range(len(z)) if a != i)
            terms.append(-np.mean([np.log(np.exp(z[i] @ z[p] / temperature) / below) for p in positives]))
    return np.mean(terms) if terms else 0.0


@pytest.mark.parametrize("classes", [[0, 0, 1, 1, 1, 2], [0, 1, 2, 3, 4, 5], [1, 1, 1, 1, 1, 1]])
def test_the_loss_is_the_paper_s(classes):
    vectors = torch.randn(6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = supervised_contrastive(vectors, torch.tensor(classes), 0.1)
    assert float(found) == pytest.approx(by_the_formula(vectors.numpy(), classes, 0.1), abs=1e-9)


def test_an_example_alone_in_its_batch_gives_no_gradient_and_no_nan():
    vectors = torch.randn(1, 5, requires_grad=True)
    supervised_contrastive(vectors, torch.tensor([0]), 0.1).backward()
    assert torch.equal(vectors.grad, torch.zeros(1, 5))


def test_every_example_comes_once_an_epoch_and_classes_come_in_twos():
    classes = np.random.default_rng(0).integers(0, 30, 101)
    batches = paired_batches(classes, 8, np.random.default_rng(1))
    assert sorted(np.concatenate(batches)) == list(range(101))
    assert [len(batch) for batch in batches] == [8] * 12 + [5]
    whole = sum(count // 2 for count in np.bincount(classes)) * 2 // 8
    for batch in batches[:whole]:
        assert all((classes[batch] == name).sum() % 2 == 0 for name in classes[batch])
    again = paired_batches(classes, 8, np.random.default_rng(1))
    assert all(np.array_equal(one, other) for one, other in zip(batches, again, strict=True))


@pytest.fixture
def tasks(tmp_path):
    def make(name, seed, **more):
        path = write_jsonl(tmp_path / f"{name}.jsonl", sentiment_rows(40, seed))
        return own_task(train=path, text="text", label="label", name=name, **more)

    return make


def test_warm_up_is_a_method_with_and_without_a_source(tiny_backbone, tasks, tmp_path):
    bank = Bank(tmp_path / "bank")
    source = train(tasks("books", 5), tiny_backbone, bank=bank, options=FAST)
    methods = ("prompt_tuning", "pot", "contrastive", "contrastive_pot")
    result = transfer(tasks("mood", 0), source, tiny_backbone, bank=bank, options=FAST, methods=methods)
    cards = {name: one.outcomes[0].card for name, one in result.methods.items()}
    prompts = {name: one.outcomes[0].prompt.tensor for name, one in result.methods.items()}
    assert not torch.equal(prompts["contrastive"], prompts["prompt_tuning"])
    assert not torch.equal(prompts["contrastive_pot"], prompts["pot"])
    assert [one.id for one in cards["contrastive_pot"].sources] == [source.card.id]
    # 32 examples make 4 steps an epoch: 150 steps are 38 epochs.
    assert cards["contrastive"].example_steps == 38 * 32
    again = transfer(tasks("mood", 0), source, tiny_backbone, options=FAST, methods=("contrastive",))
    assert torch.equal(again.methods["contrastive"].outcomes[0].prompt.tensor, prompts["contrastive"])


def test_warm_up_draws_the_classes_apart(tasks):
    backbone, task = Backbone.load(), tasks("mood", 0)  # a random model's vectors hardly differ
    trial = Trial(backbone, task, partition(task), FAST, 0)
    warm_up = trial.training(CONTRASTIVE, epochs=15, objective=Contrastive(backbone.hidden_size))

    warm_up.advance()
    first, *_, last = [epoch.train_loss for epoch in warm_up._curve]
    # Of seven others in a batch three are of the class: log 7 is no order at all, log 3 a perfect one.
    assert first > 1.9
    assert last < 1.5


def test_what_has_no_classes_is_refused_before_training(tiny_backbone, tmp_path):
    rows = [{"text": row["text"], "label": str(number % 7)} for number, row in enumerate(sentiment_rows(40, 0))]
    path = write_jsonl(tmp_path / "ratings.jsonl", rows)
    task = own_task(train=path, text="text", label="label", kind="regression")
    with pytest.raises(PandaError, match="contrastive is not defined for regression"):
        transfer(task, "auto", tiny_backbone, options=FAST, methods=("contrastive",))


def test_one_example_a_class_is_refused(tiny_backbone, tmp_path):
    rows = [{"text": row["text"], "label": str(number % 20)} for number, row in enumerate(sentiment_rows(28, 0))]
    path = write_jsonl(tmp_path / "all-different.jsonl", rows)
    task = own_task(train=path, text="text", label="label")
    with pytest.raises(PandaError, match="needs two training examples of a class"):
        transfer(task, "auto", tiny_backbone, options=FAST, methods=("contrastive",))
