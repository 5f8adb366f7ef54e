"""Linear probes as methods: scikit-learn's own predictions, kept as a head."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import sentiment_rows, task_of
from kinds import equal_pairs, kind_task
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression, Ridge

from promptpanda.bank.bank import Bank
from promptpanda.errors import PandaError
from promptpanda.prompts.prompt import PromptStack
from promptpanda.tasks.encoding import encode
from promptpanda.tasks.protocol import partition
from promptpanda.training.inference import predict_outputs
from promptpanda.training.options import TrainingOptions
from promptpanda.transfers.linear import STRENGTHS, fitted
from promptpanda.transfers.linear_probe import best_probe
from promptpanda.transfers.transfer import train, transfer
from promptpanda.transfers.trial import Trial

pytestmark = pytest.mark.usefixtures("one_thread")

OPTIONS = TrainingOptions(epochs=1, prompt_length=3, max_length=24, readout="mean")


def probe(task, backbone, method="linear_probe", source=None, **settings):
    result = transfer(task, source, backbone, methods=[method], options=OPTIONS, seeds=(0,), **settings)
    return result, result.methods[method].outcomes[0]


def read_alone(backbone, texts, prompt):
    """Each text alone through the model, the mean of its tokens."""
    encoded = encode(backbone, texts, 24)
    stack = None if prompt is None else PromptStack.of([prompt])
    with torch.inference_mode():
        rows = [backbone.hidden(encoded.batch([row]), stack)[0].mean(0).double().numpy() for row in range(len(texts))]
    return np.stack(rows)


@pytest.fixture
def source(tiny_backbone, tmp_path):
    task = task_of(sentiment_rows(40, 7), tmp_path / "sources", "source", labels=["good", "bad"])
    return train(task, tiny_backbone, bank=Bank(tmp_path / "bank"), options=OPTIONS)


@pytest.mark.parametrize("kind", ["single_classification", "regression"])
@pytest.mark.parametrize("transferred", [False, True])
def test_it_predicts_as_scikit_learn_does(kind, transferred, source, tiny_backbone, tmp_path):
    task = kind_task(kind, tmp_path / "data", "own")
    method, given = ("source_probe", source) if transferred else ("linear_probe", None)
    _, outcome = probe(task, tiny_backbone, method, given)
    prompt = source.prompt if transferred else None
    if transferred:
        assert torch.equal(outcome.prompt.tensor, source.prompt.tensor)
    else:
        assert outcome.prompt is None
    part, test = partition(task, seed=0), task.test()
    vectors = read_alone(tiny_backbone, part.train.texts, prompt)
    size = np.linalg.norm(vectors, axis=1).mean()
    unseen = read_alone(tiny_backbone, test.texts, prompt) / size
    outputs = predict_outputs(tiny_backbone, outcome.prompt, outcome.head, encode(tiny_backbone, test.texts, 24))
    if kind == "regression":
        models = [Ridge(1 / strength) for strength in STRENGTHS]
        expected = [model.fit(vectors / size, part.train.labels).predict(unseen) for model in models]
        found = outputs[:, 0]
    else:
        models = [LogisticRegression(C=strength, max_iter=1000) for strength in STRENGTHS]
        expected = [model.fit(vectors / size, part.train.labels).predict_proba(unseen) for model in models]
        found = softmax(outputs, axis=1)
    assert min(np.abs(found - one).max() for one in expected) < 1e-3


def test_pairs_are_read_apart_where_that_predicts_better(tiny_backbone, tmp_path):
    task = kind_task("pair_classification", tmp_path / "data", "equal", rows=equal_pairs(120), test=None)
    result, outcome = probe(task, tiny_backbone)
    assert outcome.head.readout == "compare"
    assert outcome.card.score == 1.0
    assert result.prompt.card.readout == "compare"


def test_what_reading_apart_gains_is_told_by_cross_validation(tiny_backbone, tmp_path):
    task = kind_task("pair_classification", tmp_path / "data", "equal", rows=equal_pairs(120), test=None)
    part = partition(task, train_examples=60, seed=0)
    found = best_probe(Trial(tiny_backbone, task, part, OPTIONS, 0, ()), None)
    vectors = read_alone(tiny_backbone, part.train.texts, None)
    labels, size = part.train.labels, np.linalg.norm(vectors, axis=1).mean()
    groups = np.arange(len(labels))
    together = fitted(vectors / size, labels, groups, lambda predicted: float((predicted == labels).mean()))
    assert found.head.readout == "compare"
    assert found.apart == pytest.approx(found.cross_validation - together.cross_validation)
    assert found.apart > 0.2


def test_a_class_without_an_example_is_never_predicted(tiny_backbone, tmp_path):
    task = kind_task("single_classification", tmp_path / "data", "own", labels=["good", "odd", "bad"])
    _, outcome = probe(task, tiny_backbone)
    outputs = predict_outputs(tiny_backbone, None, outcome.head, encode(tiny_backbone, task.test().texts, 24))
    assert (outputs.argmax(1) != 1).all()
    assert outcome.card.score > 0.5


def test_it_costs_no_training_and_is_kept(tiny_backbone, tmp_path):
    task, bank = kind_task("single_classification", tmp_path / "data", "own"), Bank(tmp_path / "bank")
    result, outcome = probe(task, tiny_backbone, bank=bank)
    assert outcome.card.example_steps == 0
    assert result.cost < 2
    assert bank.load(outcome.card.id, tiny_backbone).head.weight.equal(outcome.head.weight)


def test_too_little_to_cross_validate(tiny_backbone, tmp_path):
    rows = [{"text": "good", "label": "good"}, {"text": "bad", "label": "bad"}, {"text": "fine", "label": "good"}]
    task = kind_task("single_classification", tmp_path / "data", "own", rows=rows)
    with pytest.raises(PandaError, match="too little|at least"):
        probe(task, tiny_backbone)


def test_it_is_not_defined_for_tokens(tiny_backbone, tmp_path):
    with pytest.raises(PandaError, match="not defined for"):
        probe(kind_task("token_classification", tmp_path / "data"), tiny_backbone)
