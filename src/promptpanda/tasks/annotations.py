"""Annotations as tools write them, in the form that tasks read: spans of characters as tags, answers in lists."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from promptpanda.errors import PandaError
from promptpanda.json_input import read_json
from promptpanda.tasks.files.records import Row
from promptpanda.tasks.missing import is_missing
from promptpanda.tasks.words import Word, words_in

_STARTS, _ENDS = ("start", "start_offset"), ("end", "end_offset")
_LABELS = ("label", "labels", "type", "tag", "entity", "entity_group", "category")


class Place(NamedTuple):
    """A span of a text in characters, end exclusive."""

    start: int
    end: int
    label: str


def tagged(row: Row, text: str, label: str, where: str, count: Counter[str]) -> Row:
    """A row of token classification with lists of words and tags, whatever form its text and label have.

    Spans of characters become BIO tags of the words in them. Words and tags between white space become lists.

    Args:
        text, label: the fields.
        where: names the row in errors.
        count: what happened to spans, to be told (`widened`, `overlapping`).

    Raises:
        PandaError: a span is not in its text.
    """
    words, marks = _parsed(row[text]), _parsed(row[label])
    if not isinstance(words, str):
        return row | {text: words, label: marks.split() if isinstance(marks, str) else marks}
    spans = places(marks, words, where)
    if spans is None:
        return row | {text: words.split(), label: marks.split() if isinstance(marks, str) else marks}
    found = words_in(words)
    return row | {text: [word.text for word in found], label: tags_of_places(words, found, spans, count)}


def places(marks: Any, text: str, where: str) -> list[Place] | None:
    """Spans of characters: lists of start, end and label, or objects with them. None if the marks are no spans.

    Raises:
        PandaError: a span is not in its text.
    """
    if is_missing(marks):
        return []
    if not isinstance(marks, (list, tuple)) or not all(isinstance(one, (list, tuple, dict)) for one in marks):
        return None
    found = []
    for one in marks:
        if isinstance(one, dict):
            start, end, label = (_first(one, names) for names in (_STARTS, _ENDS, _LABELS))
        else:
            start, end, label = (*one, None, None, None)[:3]
        label = label[0] if isinstance(label, list) and label else label
        if not _is_place(start, end) or is_missing(label) or isinstance(label, (dict, list)):
            raise PandaError(f"{where} has {str(one)[:60]} for a span; expected its start, its end and its label.")
        if not 0 <= start < end <= len(text):
            raise PandaError(
                f"{where} marks the characters {start} to {end} of a text of {len(text)}; correct the span or leave "
                "the row out."
            )
        found.append(Place(start, end, str(label).strip()))
    return found


def tags_of_places(text: str, words: Sequence[Word], spans: Sequence[Place], count: Counter[str]) -> list[str]:
    """BIO tags of the words. A span that cuts a word gets all of it; of overlapping spans the longest stays.

    Args:
        count: `widened` and `overlapping` are increased.
    """
    tags = ["O"] * len(words)
    for start, end, label in sorted(dict.fromkeys(spans), key=lambda span: (span[0] - span[1], span)):
        inside = [at for at, word in enumerate(words) if word.start < end and word.end > start]
        if not inside:
            continue  # white space alone
        if any(tags[at] != "O" for at in inside):
            count["overlapping"] += 1
            continue
        marked = text[start:end]
        first, last = start + len(marked) - len(marked.lstrip()), end - len(marked) + len(marked.rstrip())
        count["widened"] += words[inside[0]].start < first or words[inside[-1]].end > last
        for at in inside:
            tags[at] = f"{'B' if at == inside[0] else 'I'}-{label}"
    return tags


def span_notes(count: Counter[str], origin: str) -> list[str]:
    """What happened to spans, a sentence each."""
    told = []
    if count["widened"]:
        told.append(f"{origin}: {_spans(count['widened'], 'cuts', 'cut')} a word; the whole word was taken.")
    if count["overlapping"]:
        told.append(
            f"{origin}: {_spans(count['overlapping'], 'overlaps', 'overlap')} a longer one; left out, as a word has "
            "one tag."
        )
    return told


def answered(value: Any) -> Any:
    """Answers in SQuAD's later form, {text: [...], answer_start: [...]}, from a list of objects or one object."""
    value = _parsed(value)
    listed = [value] if isinstance(value, dict) and isinstance(value.get("text"), str) else value
    if isinstance(listed, list) and all(isinstance(one, dict) and "text" in one for one in listed):
        return {"text": [one["text"] for one in listed], "answer_start": [one.get("answer_start") for one in listed]}
    return value


def _parsed(value: Any) -> Any:
    """A list or object that a cell of a table holds as JSON; all else as it is."""
    if isinstance(value, str) and value.strip()[:1] in ("[", "{"):
        try:
            return read_json(value, "The cell")
        except PandaError:
            return value
    return value


def _first(one: Row, names: Sequence[str]) -> Any:
    return next((one[name] for name in names if name in one), None)


def _is_place(start: Any, end: Any) -> bool:
    return all(isinstance(value, int) and not isinstance(value, bool) for value in (start, end))


def _spans(count: int, one: str, more: str) -> str:
    return f"1 span {one}" if count == 1 else f"{count} spans {more}"
