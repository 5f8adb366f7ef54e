"""Rows that each have a prompt of their own: in one batch where prompts can share one, and equal to each alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kinds import KINDS, ROWS, kind_task

from promptpanda import Bank, PandaError, TrainingOptions, evaluate, predict, train
from promptpanda.backbone import Backbone
from promptpanda.bank.folder import TrainedPrompt
from promptpanda.training import inference

FAST: dict[str, Any] = {"epochs": 1, "max_length": 24, "prompt_length": 4, "lr": 0.01}


@pytest.fixture(scope="module")
def prompts(load_tiny, tmp_path_factory) -> list[TrainedPrompt]:
    """One of every kind; beside them one of another length, one that reads otherwise, a shallow one, a head alone."""
    root = tmp_path_factory.mktemp("prompts")
    bank, backbone = Bank(root / "bank"), load_tiny("bert")

    def made(kind: str, name: str, **options: Any) -> TrainedPrompt:
        task = kind_task(kind, root, name, train=16, test=None)
        return train(task, backbone, bank=bank, options=TrainingOptions(**FAST | options))

    single = "single_classification"
    return [
        *(made(kind, kind.replace("_", "-")) for kind in KINDS),
        made(single, "longer", prompt_length=6),
        made(single, "mean", readout="mean"),
        made(single, "shallow", prompt_kind="shallow"),
        made(single, "other", max_length=8),
    ]


@pytest.fixture(scope="module")
def pairs(prompts, tmp_path_factory):
    """Three inputs for every prompt."""
    root = tmp_path_factory.mktemp("inputs")
    inputs = {kind: kind_task(kind, root, train=3, test=None, seed=9).train().texts for kind in KINDS}
    return [(prompt, one) for prompt in prompts for one in inputs[prompt.card.task.kind]]


def assert_close(found: Any, expected: Any) -> None:
    """Equal but for rounding of numbers, however deep."""
    assert type(found) is type(expected)
    if isinstance(found, float):
        assert found == pytest.approx(expected, abs=1e-5)
    elif isinstance(found, dict):
        assert list(found) == list(expected)
        for key in found:
            assert_close(found[key], expected[key])
    elif isinstance(found, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_close(one, other)
    else:
        assert found == expected


@pytest.fixture(scope="module")
def alone(pairs, load_tiny):
    return [predict(prompt, load_tiny("bert"), [one])[0] for prompt, one in pairs]


@pytest.mark.usefixtures("one_thread")
@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_whatever_company_and_order_a_row_is_answered_as_alone(pairs, alone, load_tiny, data):
    order = data.draw(st.lists(st.integers(0, len(pairs) - 1), min_size=1, max_size=len(pairs)))
    chosen = [pairs[place] for place in order]
    found = predict([prompt for prompt, _ in chosen], load_tiny("bert"), [one for _, one in chosen])
    for place, one in zip(order, found, strict=True):
        assert_close(one, alone[place])


def test_prompts_that_can_share_a_batch_do(prompts, load_tiny, monkeypatch):
    backbone = load_tiny("bert")
    (single, *_), other = prompts, prompts[-1]
    sizes: list[int] = []
    hidden = Backbone.hidden
    monkeypatch.setattr(
        Backbone, "hidden", lambda self, batch, *rest, **named: (
            sizes.append(len(batch.input_ids)) or hidden(self, batch, *rest, **named)
        ),
    )  # fmt: skip
    predict([single, other] * 8, backbone, ["good w1"] * 16)
    assert sizes == [16]


def test_only_the_prompts_of_a_batch_are_gathered(prompts):
    several = [prompts[0].prompt] * 100
    stack = inference._stack_of(several, np.asarray([7, 90, 7]), several[0].tensor.device)
    assert stack.tensor.shape[0] == 2
    assert stack.rows.tolist() == [0, 1, 0]


def test_prompts_are_named_as_for_one(prompts, load_tiny):
    first, other = prompts[0], prompts[7]
    assert first.path is not None
    texts = ["good w1", "bad w2", "w3 w4"]
    expected = predict([first, other, first], load_tiny("bert"), texts)
    named = predict([first.card.id, other, first.path], load_tiny("bert"), texts, bank=first.path.parent)
    assert_close(named, expected)


@pytest.mark.parametrize(
    ("count", "inputs", "message"),
    [
        (2, ["good"], "2 prompts for 1 inputs"),
        (2, ["good", None], "Text 2 is not a text: found NoneType"),
        (2, ["good", float("nan")], "Text 2 is not a text: found float"),
    ],
)
def test_bad_rows_are_told_by_their_number(prompts, load_tiny, count, inputs, message):
    with pytest.raises(PandaError, match=message):
        predict([prompts[0]] * count, load_tiny("bert"), inputs)


def test_rows_come_as_dictionaries_frames_and_series(prompts, load_tiny):
    backbone = load_tiny("bert")
    single, pairs = prompts[0], prompts[1]
    texts = ["good w1", "bad w2"]
    frame = pandas.DataFrame({"text": texts, "first": ["w3", "w4"], "second": ["bad", "w5"], "n": [1, 2]})
    expected = predict(single, backbone, texts)
    assert predict(single, backbone, frame) == expected
    assert predict(single, backbone, frame["text"]) == expected
    assert predict(single, backbone, [{"text": text} for text in texts]) == expected
    both = predict([single, pairs], backbone, frame)
    assert_close(both[0], expected[0])
    assert_close(both[1], predict(pairs, backbone, [("w4", "w5")])[0])


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (pandas.DataFrame({"text": ["good", None]}), "Row 2 has an empty text in 'text'"),
        (pandas.DataFrame({"text": ["good", float("nan")]}), "Row 2 has an empty text in 'text'"),
        (pandas.DataFrame({"tekst": ["good"]}), "Row 1 has no field 'text'"),
        (pandas.Series(["good", None]), "Text 2 is not a text: found NoneType"),
        (pandas.Series([1.5]), "Text 1 is not a text: found float"),
        ([{"text": ["a", "b"]}], "Row 1 holds a list in 'text'"),
    ],
)
def test_bad_rows_of_frames_are_told_by_their_number(prompts, load_tiny, inputs, message):
    with pytest.raises(PandaError, match=message):
        predict(prompts[0], load_tiny("bert"), inputs)


def test_rows_are_evaluated_as_frames_and_dictionaries(prompts, load_tiny, tmp_path):
    backbone = load_tiny("bert")
    for prompt in prompts[: len(KINDS)]:
        kind = str(prompt.card.task.kind)
        task = kind_task(kind, tmp_path, kind, train=4, test=12)
        rows = ROWS[kind](12, 1000)
        expected = evaluate(prompt, backbone, task)
        assert evaluate(prompt, backbone, rows) == pytest.approx(expected)
        assert evaluate(prompt, backbone, pandas.DataFrame(rows)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": None}, "Row 2 of .* has an empty text in 'text'"),
        ({"text": float("nan")}, "Row 2 of .* has an empty text in 'text'"),
        ({"label": "odd"}, "Row 2 of .* has the label 'odd'"),
        ({"label": None}, "Row 2 of .* has no label"),
    ],
)
def test_bad_rows_to_evaluate_on_are_told_by_their_number(prompts, load_tiny, change, message):
    rows = ROWS["single_classification"](3, 1)
    rows[1] |= change
    with pytest.raises(PandaError, match=message):
        evaluate(prompts[0], load_tiny("bert"), rows)
