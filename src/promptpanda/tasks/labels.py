"""From the values that data hold to the classes of a task."""

from __future__ import annotations

import math
from functools import cached_property

from promptpanda.tasks.spec import TaskSpec


class LabelSpace:
    """The names of a task's classes, and what a value in the data means among them.

    Args:
        names: by index.
        origin: who names them, for sentences: `the spec names`, `train has`, `the prompt knows`.
    """

    def __init__(self, spec: TaskSpec, names: tuple[str, ...], origin: str) -> None:
        self.spec = spec
        self.names = names
        self.origin = origin

    def __len__(self) -> int:
        return len(self.names)

    def index(self, value: object) -> int | None:
        """The class of a value, or None if it is none of them."""
        name = as_name(value)
        name = self.spec.aliases.get(name, name)
        if name in self._index:
            return self._index[name]
        # The hub's integers count the classes of the spec in order; labels taken from own files have no such order.
        if self.spec.labels and name.isdecimal() and len(name) < 10 and int(name) < len(self.names):
            return int(name)
        return None

    def known(self) -> str:
        """The names, for a sentence."""
        return ", ".join(map(repr, self.names[:10])) + (", ..." if len(self.names) > 10 else "")

    @cached_property
    def _index(self) -> dict[str, int]:
        return {name: position for position, name in enumerate(self.names)}


def as_name(value: object) -> str:
    """A label as a class name."""
    return str(value)


def is_given(value: object) -> bool:
    """Whether a label is there: not null, not empty, not the NaN that pandas writes for a gap."""
    return value is not None and value == value and bool(as_name(value).strip())


def as_number(value: object) -> float | None:
    """A finite number, or None."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
