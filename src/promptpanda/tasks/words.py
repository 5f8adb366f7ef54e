"""The words of a text and their places: for texts that nobody has cut into words yet."""

from __future__ import annotations

import unicodedata
from functools import cache
from typing import NamedTuple


class Word(NamedTuple):
    """A word of a text; `start` and `end` in characters, end exclusive."""

    start: int
    end: int
    text: str


def words_in(text: str) -> list[Word]:
    """The words of a text, in order: what stands between white space, punctuation and symbols each a word of its own.

    That is where BERT's tokenizer cuts, too. Marks that belong to a letter, as in Hindi, stay with it.
    """
    words: list[Word] = []
    start: int | None = None
    for at, sign in enumerate(text):
        kind = _kind(sign)
        if kind != "letter" and start is not None:
            words.append(Word(start, at, text[start:at]))
            start = None
        if kind == "sign":
            words.append(Word(at, at + 1, sign))
        elif kind == "letter" and start is None:
            start = at
    if start is not None:
        words.append(Word(start, len(text), text[start:]))
    return words


@cache
def _kind(sign: str) -> str:
    if sign.isspace():
        return "space"
    return "sign" if unicodedata.category(sign)[0] in "PS" else "letter"
