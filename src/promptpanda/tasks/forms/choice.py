"""Multiple choice: one text for every choice of a row, and which choices are right."""

from __future__ import annotations

from typing import Any

from promptpanda.errors import PandaError
from promptpanda.tasks.inputs import Choices, Split, ragged
from promptpanda.tasks.labels import LabelSpace, as_name, is_given
from promptpanda.tasks.reading import NumberedRows, Row
from promptpanda.tasks.spec import CHOICE, TaskSpec


def examples(spec: TaskSpec, space: LabelSpace, rows: NumberedRows, origin: str) -> Split:
    """The choices of rows and the positions of the right ones. Raises PandaError that names the row."""
    texts, labels = [], []
    for number, row in rows:
        where = f"Row {number} of {origin}"
        read = choices_of(spec, row, where)
        texts.append(read)
        labels.append(_right(spec, read, row, where))
    return Split(tuple(texts), ragged(labels))


def choices_of(spec: TaskSpec, row: Row, where: str) -> Choices:
    """What a model reads of one row. Raises PandaError if choices are missing."""
    texts, names = _listed(spec, row, where)
    if len(set(names)) < len(names):
        kept = dict(zip(names, texts, strict=True))  # ReCoRD lists an entity once for every mention
        names, texts = list(kept), list(kept.values())
    if len(texts) < 2:
        raise PandaError(f"{where} has {len(texts)} choice(s) in {_source(spec)}; at least two are needed.")
    read = []
    for name, text in zip(names, texts, strict=True):
        if not text.strip():
            raise PandaError(f"{where} has an empty choice {name!r}; fill it or leave the row out.")
        segments = spec.render(row | {CHOICE: text}, where)
        if spec.placeholder is not None:
            if not any(spec.placeholder in segment for segment in segments):
                raise PandaError(f"{where} has no {spec.placeholder!r} whose place a choice could take.")
            segments = tuple(segment.replace(spec.placeholder, text) for segment in segments)
        read.append(segments)
    return Choices(tuple(read), tuple(names))


def _listed(spec: TaskSpec, row: Row, where: str) -> tuple[list[str], list[str]]:
    """Texts and names of a row's choices."""
    if spec.choice_list is None:
        absent = [field for field in spec.choices if not is_given(row[field])]
        if absent:
            raise PandaError(f"{where} lacks the choice '{absent[0]}'; fill it or leave the row out.")
        return [str(row[field]) for field in spec.choices], list(spec.labels or spec.choices)
    given: Any = row[spec.choice_list]
    names = None
    if isinstance(given, dict):
        given, names = given.get("text"), given.get("label")
    if not _strings(given) or not (names is None or (_strings(names) and len(names) == len(given))):
        raise PandaError(
            f"{where} has no list of choices in '{spec.choice_list}'; expected texts in a list, or an object with "
            "lists 'text' and 'label' of one length."
        )
    if names is not None and len(set(names)) < len(names):
        raise PandaError(f"{where} gives two choices in '{spec.choice_list}' the same label; make them different.")
    return list(given), list(given if names is None else names)


def _right(spec: TaskSpec, read: Choices, row: Row, where: str) -> tuple[int, ...]:
    value: Any = row[spec.label]
    if isinstance(value, list):
        right = tuple(position for position, name in enumerate(read.names) if name in value)
        if not right:
            raise PandaError(
                f"{where} has none of its answers {value[:3]} among the choices in {_source(spec)}; add it there, or "
                "leave the row out."
            )
        return right
    name = as_name(value)
    name = spec.aliases.get(name, name)
    if name in read.names:
        return (read.names.index(name),)
    _, listed = _listed(spec, row, where)  # a number counts equal choices too
    if name.isdecimal() and int(name) < len(listed):
        return (read.names.index(listed[int(name)]),)
    raise PandaError(
        f"{where} has the label {value!r}, but the choices are {', '.join(map(repr, read.names[:10]))}; give one of "
        f"these names, or a number from 0 to {len(listed) - 1}."
    )


def _strings(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _source(spec: TaskSpec) -> str:
    return f"'{spec.choice_list}'" if spec.choice_list is not None else ", ".join(map(repr, spec.choices))
