"""Names of classes, labels and entity types, where they come from the training rows themselves."""

from __future__ import annotations

from promptpanda.errors import PandaError
from promptpanda.tasks.forms import label_sets, tokens
from promptpanda.tasks.labels import as_name, as_number, is_given
from promptpanda.tasks.reading import NumberedRows
from promptpanda.tasks.spec import TaskSpec


def names_of_classes(spec: TaskSpec, rows: NumberedRows) -> tuple[str, ...]:
    """The classes, sorted. Raises PandaError if labels are lists, or numbers that look like a regression's."""
    values = [row[spec.label] for _, row in rows]
    if any(isinstance(value, (list, dict)) for value in values):
        raise PandaError(
            f"The label '{spec.label}' of task '{spec.name}' holds lists, where one class is expected; say --kind "
            "multi_label for several labels per text, or --kind token_classification for tags."
        )
    found = {as_name(value) for value in values if is_given(value)}
    if len(found) > 50 and len(found) > len(rows) / 2 and all(as_number(value) is not None for value in found):
        raise PandaError(
            f"The label '{spec.label}' of task '{spec.name}' has {len(found)} different numbers in {len(rows)} rows, "
            "which looks like a regression; say --kind regression."
        )
    return tuple(sorted(found))


def names_of_labels(spec: TaskSpec, rows: NumberedRows) -> tuple[str, ...]:
    """The labels, sorted, where a text may have several. Raises PandaError if no row has one."""
    found = {
        spec.aliases.get(name, name)
        for number, row in rows
        for name in label_sets.labels_of(spec, row, f"Row {number} of train of task '{spec.name}'")
    }
    if not found:
        raise PandaError(
            f"No row of train of task '{spec.name}' has a label in '{spec.label}'; name the column that has them."
        )
    return tuple(sorted(found))


def names_of_types(spec: TaskSpec, rows: NumberedRows) -> tuple[str, ...]:
    """The types of spans, sorted."""
    found = {
        tag[2:]
        for number, row in rows
        for tag in tokens.tags_of(spec, row, f"Row {number} of train of task '{spec.name}'")
        if tag != "O"
    }
    return tuple(sorted(found))
