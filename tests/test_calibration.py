"""The temperature: what it is fitted to, where it is kept, and what never touches it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import sentiment_rows, write_jsonl
from kinds import data_of, kind_task

from promptpanda import Bank, PandaError, TrainingOptions, predict, train
from promptpanda.assessment.evaluated import Evaluated
from promptpanda.assessment.temperature import fitted_again
from promptpanda.bank.card import Card
from promptpanda.tasks.inputs import Split
from promptpanda.tasks.task import Task
from promptpanda.training.calibration import MOST, fit_temperature
from promptpanda.training.inference import Data
from promptpanda.training.objectives.kinds import objective_for
from promptpanda.transfers.calibrated import calibrated

FAST = TrainingOptions(epochs=2, max_length=24, prompt_length=4)

pytestmark = pytest.mark.usefixtures("one_thread")


def data(sentiment, backbone, labels: np.ndarray) -> Data:
    task = sentiment(train=len(labels), test=None)
    return data_of(backbone, task, Split(task.train().texts, labels))


def test_it_has_the_lowest_loss_of_all(sentiment, tiny_backbone):
    """Against a grid over the written-out loss: cross-entropy over n examples, and the pull of log T to 0."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 60)
    outputs = (4 * rng.normal(size=(60, 2)) + 2 * np.eye(2)[labels]).astype(np.float32)
    found = fit_temperature(outputs, data(sentiment, tiny_backbone, labels), objective_for(sentiment().spec, 2))
    grid = np.exp(np.linspace(-math.log(MOST), math.log(MOST), 4001))
    scaled = torch.from_numpy(outputs).double()[None] / torch.from_numpy(grid)[:, None, None]
    loss = F.cross_entropy(scaled.flatten(0, 1), torch.from_numpy(np.tile(labels, len(grid))), reduction="none")
    whole = loss.reshape(len(grid), 60).sum(dim=1).numpy() + np.log(grid) ** 2 / (2 * 0.5**2)
    assert found == pytest.approx(grid[whole.argmin()], rel=2e-3)
    assert found > 1.2, "these outputs are too sure"


def test_a_dozen_examples_that_are_all_right_do_not_ask_for_certainty(sentiment, tiny_backbone):
    labels = np.arange(12) % 2
    outputs = 2.2 * np.eye(2, dtype=np.float32)[labels]
    found = fit_temperature(outputs, data(sentiment, tiny_backbone, labels), objective_for(sentiment().spec, 2))
    assert 0.5 < found < 1


def test_many_examples_find_the_temperature_that_was_used(sentiment, tiny_backbone):
    rng = np.random.default_rng(1)
    logits = 2 * rng.normal(size=(2000, 2))
    labels = (rng.random(2000) < 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))).astype(np.int64)
    outputs = (3 * logits).astype(np.float32)
    found = fit_temperature(outputs, data(sentiment, tiny_backbone, labels), objective_for(sentiment().spec, 2))
    assert found == pytest.approx(3, rel=0.15)


@pytest.mark.parametrize("kind", ["multiple_choice", "token_classification", "extractive_qa"])
def test_every_kind_with_probabilities_gets_one_and_is_judged_with_it(kind, tiny_backbone, tmp_path):
    task = kind_task(kind, tmp_path / "data")
    trained = train(task, tiny_backbone, bank=str(tmp_path / "bank"), options=FAST.model_copy(update={"epochs": 4}))
    assert 1 / MOST <= trained.card.temperature <= MOST
    from promptpanda.assessment.assess import assess, to_json

    found = assess(Evaluated.of(trained, tiny_backbone, task, task.test()), temperature=trained.card.temperature)
    whole = to_json(found)
    json.dumps(whole, allow_nan=False)
    assert whole["n_test"] == 24
    assert whole["intervals"]["metrics"][whole["metric"]][0] is not None
    assert whole["calibration"]["ece_scaled"] is not None
    assert all(0 < one["confidence"] <= 1 for one in whole["reliability"]["bins"])


def test_a_regression_has_none(tiny_backbone, tmp_path):
    task = kind_task("regression", tmp_path / "data")
    trained = train(task, tiny_backbone, options=FAST)
    assert trained.card.temperature is None
    assert fitted_again(trained, tiny_backbone, tmp_path / "data") is None


def test_it_is_kept_in_the_card_and_fitted_again_alike(sentiment, tiny_backbone, tmp_path):
    trained = train(sentiment(), tiny_backbone, bank=str(tmp_path / "bank"), options=FAST)
    kept = trained.card.temperature
    assert Card.read(trained.path).temperature == kept
    assert fitted_again(trained, tiny_backbone, tmp_path / "data") == pytest.approx(kept, abs=2e-4)
    assert fitted_again(trained, tiny_backbone, None) is None, "the training data is not there"
    rows = sentiment_rows(60)
    write_jsonl(tmp_path / "data" / "mood" / "train.jsonl", [rows[0] | {"text": "the phone good other"}, *rows[1:]])
    assert fitted_again(trained, tiny_backbone, tmp_path / "data") is None, "the training data has changed"


def test_no_test_label_touches_it(sentiment, tiny_backbone, tmp_path):
    """Other test labels, or no test file at all, and the temperature is the same to the last digit."""
    options = {"options": FAST}
    first = train(sentiment(), tiny_backbone, **options).card.temperature
    turned = [row | {"label": {"good": "bad", "bad": "good"}[str(row["label"])]} for row in sentiment_rows(40, 1000)]
    task = sentiment()
    write_jsonl(tmp_path / "data" / "mood" / "test.jsonl", turned)
    again = train(task, tiny_backbone, **options)
    assert again.card.temperature == first
    (tmp_path / "data" / "mood" / "test.jsonl").unlink()
    without = train(sentiment(test=None), tiny_backbone, **options)
    assert without.card.temperature == first
    assert fitted_again(without, tiny_backbone, tmp_path / "data") == pytest.approx(first, abs=2e-4)


def test_where_the_validation_set_is_what_is_reported_on_there_is_none(sentiment, tiny_backbone, tmp_path):
    task = sentiment()
    write_jsonl(tmp_path / "data" / "mood" / "validation.jsonl", sentiment_rows(20, 7))
    trained = train(Task(task.spec, task.data_dir), tiny_backbone, options=FAST, protocol="paper")
    assert trained.card.temperature is None
    assert fitted_again(trained, tiny_backbone, tmp_path / "data") is None


def test_cards_without_one_are_read_and_strange_ones_are_refused(sentiment, tiny_backbone, tmp_path):
    trained = train(sentiment(), tiny_backbone, bank=str(tmp_path / "bank"), options=FAST)
    path = trained.path / "card.json"
    content = json.loads(path.read_text())
    del content["temperature"]
    path.write_text(json.dumps(content))
    assert Card.read(trained.path).temperature is None
    for strange in (0, -1.0, 1e-300, 1e300, "Infinity", "hot"):
        path.write_text(json.dumps(content | {"temperature": strange}))
        with pytest.raises(PandaError, match="temperature"):
            Card.read(trained.path)
    path.write_text(json.dumps(content))
    bank = Bank(str(tmp_path / "bank"))
    kept = bank.record_temperature(bank.load(trained.card.id, tiny_backbone), 1.25)
    assert Card.read(trained.path).temperature == kept.card.temperature == 1.25


@pytest.mark.parametrize("kind", ["single_classification", "multiple_choice", "token_classification", "extractive_qa"])
def test_calibrated_predictions_are_the_same_with_other_probabilities(kind, tiny_backbone, tmp_path):
    more = {"no_answer": True} if kind == "extractive_qa" else {}
    task = kind_task(kind, tmp_path / "data", **more)
    trained = train(task, tiny_backbone, options=FAST.model_copy(update={"epochs": 4}))
    texts = task.test().texts
    threshold = _middle_margin(predict(trained, tiny_backbone, texts)) if more else None
    trained = replace(trained, card=trained.card.model_copy(update={"temperature": 2.5, "threshold": threshold}))
    plain, scaled = (predict(one, tiny_backbone, texts) for one in (trained, calibrated(trained)))
    for one, other in zip(plain, scaled, strict=True):
        for what in ("label", "spans", "answer"):
            assert one.get(what) == other.get(what)
    if kind == "single_classification":
        for one, other in zip(plain, scaled, strict=True):
            logit, tempered = (
                math.log(row["probabilities"]["good"] / row["probabilities"]["bad"]) for row in (one, other)
            )
            assert tempered == pytest.approx(logit / 2.5, rel=1e-3, abs=1e-5)
    if kind == "extractive_qa":
        assert {one["answer"] for one in plain} > {""}, "some have an answer, others none"


def _middle_margin(predictions: list[dict[str, Any]]) -> float:
    """By how much the best answer beats "no answer" in the middle of all questions, between two of them."""
    margins = []
    for one in predictions:
        shares = {answer["start"]: answer["probability"] for answer in one["nbest"]}
        none = shares.pop(-1)
        margins.append(math.log(max(shares.values()) / none))
    return float(np.median(margins))


def test_a_prompt_without_a_temperature_cannot_be_calibrated(tiny_backbone, tmp_path):
    trained = train(kind_task("regression", tmp_path / "data"), tiny_backbone, options=FAST)
    with pytest.raises(PandaError, match="no temperature to calibrate by"):
        calibrated(trained)
