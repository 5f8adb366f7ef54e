"""Whole texts: classification and regression."""

from __future__ import annotations

import numpy as np

from promptpanda.errors import PandaError
from promptpanda.tasks.inputs import Split
from promptpanda.tasks.labels import LabelSpace, as_number
from promptpanda.tasks.reading import NumberedRows
from promptpanda.tasks.spec import Kind, TaskSpec


def examples(spec: TaskSpec, space: LabelSpace, rows: NumberedRows, origin: str) -> Split:
    """The texts of rows and their classes or values. Raises PandaError that names the row."""
    if spec.drop_other_labels:
        rows = [(number, row) for number, row in rows if space.index(row[spec.label]) is not None]
        if not rows:
            raise PandaError(f"No row of {origin} has one of the labels {space.known()}.")
    texts = tuple(spec.render(row, f"Row {number} of {origin}") for number, row in rows)
    if spec.kind == Kind.REGRESSION:
        return Split(texts, _values(spec, rows, origin))
    return Split(texts, _classes(spec, space, rows, origin))


def _values(spec: TaskSpec, rows: NumberedRows, origin: str) -> np.ndarray:
    values = []
    for number, row in rows:
        value = as_number(row[spec.label])
        if value is None:
            raise PandaError(
                f"Row {number} of {origin} has the target {row[spec.label]!r} in '{spec.label}', which is not a "
                "finite number; a regression needs one in each row."
            )
        values.append(value)
    return np.asarray(values, dtype=np.float64)


def _classes(spec: TaskSpec, space: LabelSpace, rows: NumberedRows, origin: str) -> np.ndarray:
    indices = []
    for number, row in rows:
        if isinstance(row[spec.label], (list, dict)):
            raise PandaError(
                f"Row {number} of {origin} holds a list in '{spec.label}', where one class is expected; say --kind "
                "multi_label for several labels per text, --kind token_classification for tags, or name another field."
            )
        found = space.index(row[spec.label])
        if found is None:
            raise PandaError(
                f"Row {number} of {origin} has the label {row[spec.label]!r}, but {space.origin} only {space.known()}; "
                "correct the label, or add it there."
            )
        indices.append(found)
    return np.asarray(indices, dtype=np.int64)
