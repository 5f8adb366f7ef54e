"""Classes, labels and types of spans that own test data has and training has not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from promptpanda.tasks.forms import label_sets, tokens
from promptpanda.tasks.labels import LabelSpace, as_name
from promptpanda.tasks.reading import NumberedRows, Row
from promptpanda.tasks.spec import Kind, TaskSpec
from promptpanda.tasks.tags import tag_names

_CALLED = {Kind.MULTI_LABEL: "a label", Kind.TOKEN_CLASSIFICATION: "a type of span"}


@dataclass(frozen=True)
class UnseenLabels:
    """Every such class is an error of any model, and told.

    Attributes:
        names: what follows on the task's own names: of classes or labels, of span types their tags.
        note: the sentence to tell, or empty.
    """

    names: tuple[str, ...] = ()
    note: str = ""


def unseen_labels(spec: TaskSpec, space: LabelSpace, rows: NumberedRows, origin: str) -> UnseenLabels:
    """What the rows have that the label space has not.

    None where no row has a class that is known: that is another column, or another task, and refused with the first
    row by whoever reads it.

    Raises:
        PandaError: labels or tags that cannot be read, by the row.
    """
    found = [_names(spec, row, f"Row {number} of {origin}") for number, row in rows]
    unknown = [[name for name in names if space.index(name) is None] for names in found]
    if not any(len(strange) < len(names) for strange, names in zip(unknown, found, strict=True)):
        return UnseenLabels()
    tags = sorted({as_name(name) for strange in unknown for name in strange})
    if not tags:
        return UnseenLabels()
    names = tags
    if spec.kind == Kind.TOKEN_CLASSIFICATION:
        names = sorted({tag[2:] for tag in tags})
        tags = list(tag_names(names)[1:])
    shown = ", ".join(map(repr, names[:5])) + (", ..." if len(names) > 5 else "")
    count = sum(map(bool, unknown))
    note = (
        f"{count} of {len(rows)} test rows {'has' if count == 1 else 'have'} {_CALLED.get(spec.kind, 'a class')} that "
        f"{space.origin} not: {shown}; {'it counts as an error' if count == 1 else 'they count as errors'}."
    )
    return UnseenLabels(tuple(tags), note)


def _names(spec: TaskSpec, row: Row, where: str) -> list[Any]:
    """The classes of a row, without O, which says nothing of them."""
    if spec.kind == Kind.MULTI_LABEL:
        return list(label_sets.labels_of(spec, row, where))
    if spec.kind == Kind.TOKEN_CLASSIFICATION:
        return [tag for tag in tokens.tags_of(spec, row, where) if tag != "O"]
    value = row[spec.label]
    return [] if isinstance(value, (list, dict)) else [value]
