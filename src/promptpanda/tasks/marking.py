"""Signs around the spans that a question is about: a template's alternative to naming them."""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from promptpanda.errors import PandaError


class Mark(BaseModel):
    """One span of a field, to be put between two signs.

    Attributes:
        field: the field whose text holds the span.
        sign: what is put before and behind it, such as `*`.
        start, end: fields with the span's place in characters, end exclusive (WiC).
        word, text: fields with the number of its first word, counted from 0 between white space, and its text (WSC).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    field: str
    sign: str
    start: str | None = None
    end: str | None = None
    word: str | None = None
    text: str | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Mark:
        by_place, by_word = (self.start, self.end), (self.word, self.text)
        if not (all(by_place) and not any(by_word)) and not (all(by_word) and not any(by_place)):
            raise ValueError("a mark needs start and end, or word and text")
        return self

    @property
    def fields(self) -> list[str]:
        """The fields of a row that it needs."""
        return [name for name in (self.field, self.start, self.end, self.word, self.text) if name is not None]

    def place(self, row: dict[str, Any], where: str) -> tuple[int, int]:
        """Start and end of the span in characters. Raises PandaError if it is not in the field."""
        whole = str(row[self.field])
        if self.start is not None and self.end is not None:
            start, end = _number(row, self.start, where), _number(row, self.end, where)
        else:
            assert self.word is not None and self.text is not None
            words = whole.split()
            number = _number(row, self.word, where)
            start = _offset(whole, number) if 0 <= number < len(words) else -1
            # The text may stand a few signs further on ("(Ann" for the span "Ann"), with other case and white space.
            pattern = r"\s+".join(map(re.escape, str(row[self.text]).split()))
            found = re.compile(pattern, re.IGNORECASE).search(whole, start) if start >= 0 and pattern else None
            start, end = (-1, -1) if found is None else found.span()
        if not 0 <= start < end <= len(whole):
            raise PandaError(
                f"{where} marks a span that is not in its '{self.field}' ({', '.join(self.fields[1:])}: "
                f"{', '.join(repr(row[name]) for name in self.fields[1:])}); correct it or leave the row out."
            )
        return start, end


def marked(marks: tuple[Mark, ...], row: dict[str, Any], where: str) -> dict[str, Any]:
    """The row with every span between its signs. A span may lie inside another ("their" in "their mother")."""
    row = dict(row)
    signs: dict[str, list[tuple[int, int, int, str]]] = {}  # by field: position, and what comes first at one position
    for mark in marks:
        start, end = mark.place(row, where)
        signs.setdefault(mark.field, []).extend([(start, 1, -end, f"{mark.sign} "), (end, 0, -start, f" {mark.sign}")])
    for field, found in signs.items():
        whole, position = str(row[field]), 0
        parts = []
        for at, _, _, sign in sorted(found):
            parts += [whole[position:at], sign]
            position = at
        row[field] = "".join([*parts, whole[position:]])
    return row


def _number(row: dict[str, Any], field: str, where: str) -> int:
    try:
        return int(row[field])
    except (TypeError, ValueError) as error:
        raise PandaError(f"{where} has {row[field]!r} in '{field}'; expected a whole number.") from error


def _offset(whole: str, number: int) -> int:
    position = 0
    for word in whole.split()[:number]:
        position = whole.index(word, position) + len(word)
    return position
