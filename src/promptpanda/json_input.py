"""JSON from outside: one reader, bounded in depth and in the digits of its numbers."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from promptpanda.errors import PandaError

MAX_DEPTH = 100  # lists and objects within each other
MAX_DIGITS = 300  # of an integer: more than a float can hold are no number that anything here counts with
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"?', re.DOTALL)
_BRACKET = re.compile(r"[\[\]{}]")
_HALF_PAIR = re.compile(r"[\ud800-\udfff]")
_ESCAPED_HALF = re.compile(r"\\u[dD][89a-fA-F]")


def read_json(text: str, what: str, *, nan: bool = False) -> Any:
    """The value of a JSON text.

    Args:
        what: begins the sentence where something is wrong, such as `Line 3 of train.jsonl`.
        nan: take NaN and infinities, which Python and pandas write and JSON does not know.

    Raises:
        PandaError: not JSON, nested deeper than `MAX_DEPTH`, an integer of more than `MAX_DIGITS` digits, half a
            surrogate pair, or (without `nan`) a number that is not finite.
    """
    if _too_deep(text):
        raise PandaError(f"{what} is nested too deeply; expected at most {MAX_DEPTH} levels of lists and objects.")
    try:
        value = json.loads(
            text,
            parse_int=_integer,
            parse_float=None if nan else _finite,
            parse_constant=None if nan else _constant,
        )
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if error.lineno > 1 else ""
        raise PandaError(
            f"{what} is not valid JSON ({error.msg} at {line}column {error.colno}); fix or remove it."
        ) from error
    except _WrongNumberError as error:
        raise PandaError(f"{what} holds {error}; fix or remove it.") from error
    if (_ESCAPED_HALF.search(text) or _HALF_PAIR.search(text)) and _has_half_pair(value):
        raise PandaError(
            f"{what} holds half a surrogate pair (half an emoji), which is not text; fix the line or leave it out."
        )
    return value


class _WrongNumberError(Exception):
    """A number that is not taken; the message says which."""


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise _WrongNumberError(f"an integer of {len(digits.lstrip('-')):,} digits; at most {MAX_DIGITS} are allowed")
    return int(digits)


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise _WrongNumberError(f"the number {digits[:20]}, which is too large")
    return number


def _constant(name: str) -> float:
    raise _WrongNumberError(f"{name}, which is not a JSON number")


def _too_deep(text: str) -> bool:
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return False
    depth = 0
    for bracket in _BRACKET.finditer(_STRING.sub("", text)):
        depth += 1 if bracket.group() in "[{" else -1
        if depth > MAX_DEPTH:
            return True
    return False


def _has_half_pair(value: Any) -> bool:
    return bool(_HALF_PAIR.search(json.dumps(value, ensure_ascii=False)))
