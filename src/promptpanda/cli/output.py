"""How results and progress look in a terminal. Results go to stdout, progress and notes to stderr."""

from __future__ import annotations

import json
import sys
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table


def print_json(value: Any) -> None:
    """One JSON object on stdout."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")


def console() -> Console:
    """For results."""
    return Console(highlight=False, soft_wrap=True)


def table(title: str | None, columns: list[str], rows: list[list[str]], numeric: tuple[int, ...] = ()) -> Table:
    """A table with headers; the columns at `numeric` are aligned to the right."""
    result = Table(title=title, title_justify="left", header_style="bold")
    for position, name in enumerate(columns):
        right = position in numeric
        result.add_column(name, justify="right" if right else "left", no_wrap=right)
    for row in rows:
        result.add_row(*row)
    return result


def points(value: float | None) -> str:
    """A score as a fraction with three digits."""
    return "-" if value is None else f"{value:.3f}"


class TerminalProgress:
    """Bars where stderr is a terminal, else one line for each piece of work. Use as a context manager."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._bars: Bars | None = None
        self._current: TaskID | None = None

    def __enter__(self) -> TerminalProgress:
        if self._console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bars = Bars(*columns, console=self._console, transient=True)
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def begin(self, label: str, total: int) -> None:
        if self._bars is None:
            self._console.print(f"{label} ({total} steps)", markup=False)
            return
        if self._current is not None:
            self._bars.remove_task(self._current)
        self._current = self._bars.add_task(label, total=total)

    def advance(self, units: int) -> None:
        if self._bars is not None and self._current is not None:
            self._bars.advance(self._current, units)

    def note(self, message: str) -> None:
        self._console.print(message, markup=False)
