"""Several labels a text, or none: as a list, as text with a sign between them, or as columns of 0 and 1."""

from __future__ import annotations

from typing import Any

import numpy as np

from promptpanda.errors import PandaError
from promptpanda.json_input import read_json
from promptpanda.tasks.inputs import Split
from promptpanda.tasks.labels import LabelSpace, as_name, as_number
from promptpanda.tasks.reading import NumberedRows, Row
from promptpanda.tasks.spec import TaskSpec

_SAID = {"true": True, "false": False}


def examples(spec: TaskSpec, space: LabelSpace, rows: NumberedRows, origin: str) -> Split:
    """The texts of rows, and 0 or 1 for every label. Raises PandaError that names the row."""
    texts = []
    labels = np.zeros((len(rows), len(space)), dtype=np.int64)
    for place, (number, row) in enumerate(rows):
        where = f"Row {number} of {origin}"
        texts.append(spec.render(row, where))
        for name in labels_of(spec, row, where):
            found = space.index(name)
            if found is None:
                raise PandaError(
                    f"{where} has the label {name!r}, but {space.origin} only {space.known()}; correct the label, or "
                    "add it there."
                )
            labels[place, found] = 1
    return Split(tuple(texts), labels)


def labels_of(spec: TaskSpec, row: Row, where: str) -> tuple[str, ...]:
    """The names of a row's labels, each once. Raises PandaError that names `where`."""
    if spec.label_columns:
        return tuple(name for name in spec.label_columns if _is_set(row[name], name, where))
    value = _listed(spec, row[spec.label])
    if value is None:
        raise PandaError(
            f"{where} has no labels in '{spec.label}', found {str(row[spec.label])[:40]!r}; expected a list, or text "
            f"with {spec.label_separator!r} between labels ([] or an empty cell for none)."
        )
    strange = [one for one in value if one is None or isinstance(one, (list, dict, float))]
    if strange:
        raise PandaError(f"{where} has {repr(strange[0])[:40]} among its labels in '{spec.label}'; expected names.")
    return tuple(dict.fromkeys(name for one in value if (name := as_name(one).strip())))


def _listed(spec: TaskSpec, value: Any) -> list[Any] | None:
    """A list, also as JSON in a cell or as Label Studio writes it, or as text with separators; else None."""
    if isinstance(value, str):
        if value.lstrip().startswith(("[", '{"choices"')):
            try:
                value = read_json(value, "The cell")
            except PandaError:
                return None
        else:
            return value.split(spec.label_separator)
    if isinstance(value, dict) and set(value) == {"choices"}:  # its smaller exports, of several choices
        value = value["choices"]
    if isinstance(value, int) and not isinstance(value, bool):
        return [value]
    return list(value) if isinstance(value, (list, tuple)) else None


def _is_set(value: object, name: str, where: str) -> bool:
    said = _SAID.get(value.strip().lower()) if isinstance(value, str) else None
    number = as_number(value) if said is None else float(said)
    if number not in (0.0, 1.0):
        raise PandaError(f"{where} has {value!r} in the label's column '{name}'; expected 0 or 1.")
    return number == 1.0
