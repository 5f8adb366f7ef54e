"""JSON from outside is read whole or refused with one sentence."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptpanda.errors import PandaError
from promptpanda.json_input import MAX_DEPTH, MAX_DIGITS, read_json

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000, "card.json is nested too deeply"),
        ('{"a":' * 100_000, "card.json is nested too deeply"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "at most 100 levels"),
        ('{"n": ' + "9" * 5_000 + "}", "an integer of 5,000 digits"),
        ("-" + "9" * 400, "an integer of 400 digits"),
        ('{"loss": NaN}', "holds NaN"),
        ("[-Infinity]", "holds -Infinity"),
        ("[1e999]", "holds the number 1e999, which is too large"),
        (r'["\ud83d"]', "half a surrogate pair"),
        ('{"a": 1,\n "b"}', "delimiter at line 2, column"),
        ("", "not valid JSON"),
        ("\0", "not valid JSON"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(text: str, said: str) -> None:
    with pytest.raises(PandaError, match=r"^card\.json ") as caught:
        read_json(text, "card.json")
    assert said in str(caught.value)
    assert len(str(caught.value)) < 200


def test_brackets_in_strings_and_beside_each_other_are_no_depth() -> None:
    text = json.dumps(["[" * 1_000, '"' + "{" * 1_000, *([] for _ in range(1_000))])
    assert read_json(text, "it") == json.loads(text)
    deepest = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert read_json(deepest, "it") == json.loads(deepest)


def test_the_longest_integer_fits_a_float() -> None:
    assert math.isfinite(float(read_json("9" * MAX_DIGITS, "it")))


def test_nan_is_taken_where_it_is_asked_for() -> None:
    assert math.isnan(read_json("[NaN]", "it", nan=True)[0])
    assert read_json("[1e999, -Infinity]", "it", nan=True) == [math.inf, -math.inf]


def test_whole_pairs_are_text() -> None:
    assert read_json(r'["\ud83d\ude00"]', "it") == ["\U0001f600"]


@settings(derandomize=True, deadline=None, max_examples=150)
@given(_VALUES, st.integers(0, 40), st.text(alphabet='[]{}",:\\0123456789eENau-', max_size=4))
def test_generated_values_come_back_and_mutated_ones_are_read_or_refused(value: object, at: int, put: str) -> None:
    text = json.dumps(value)
    assert read_json(text, "it") == value
    try:
        read_json(text[:at] + put + text[at + 1 :], "it")
    except PandaError as error:
        told = str(error)
    else:
        told = "it is read"
    assert told.startswith("it ")
