"""Cells that hold nothing, in all the ways in which programs write that."""

from __future__ import annotations

from typing import Any

from promptpanda.tasks.spec import TaskSpec

# pandas takes these for missing when it reads files; "none" is not among them, as stance data has a class of that name.
_SENTINELS = frozenset(
    ["", "#N/A", "#N/A N/A", "#NA", "-NaN", "-nan", "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"]
)


def is_missing(value: object) -> bool:
    """Whether a cell holds nothing: null, NaN, pandas' NA, an empty text, or a text such as N/A, NaN, null, None."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(value, float):
        return value != value
    return isinstance(value, str) and value.strip() in _SENTINELS


def lacks_text(spec: TaskSpec, row: dict[str, Any]) -> bool:
    """Whether all fields of a segment hold nothing."""
    segments = ([name for name in spec.segment_fields(one) if name in row] for one in spec.segments)
    return any(fields and all(is_missing(row[name]) for name in fields) for fields in segments)
