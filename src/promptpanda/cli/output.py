"""How results and progress look in a terminal. Results go to stdout, progress and notes to stderr."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table

from promptpanda.errors import PandaError

_PAUSE = 30.0  # seconds between lines of progress


def print_json(value: Any) -> None:
    """One JSON object on stdout, at once: whoever reads along need not wait for the next."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n")
    sys.stdout.flush()


def print_table(
    title: str | None,
    columns: list[str],
    rows: list[list[str]],
    numeric: tuple[int, ...] = (),
    optional: tuple[int, ...] = (),
) -> None:
    """A table with headers, on stdout.

    Args:
        numeric: columns that are aligned to the right.
        optional: columns that are left out, the last named first, where the terminal is too narrow for all.
    """
    if title is not None:
        typer.echo(title)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    shown = list(range(len(columns)))
    for position in reversed(optional):
        if _width([columns[at] for at in shown], [[row[at] for at in shown] for row in rows]) > console.width:
            shown.remove(position)
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for position in shown:
        right = position in numeric
        # Names can be copied from the first column; the others may take several lines where the terminal is narrow.
        fixed = right or position == 0
        justify: Literal["left", "right"] = "right" if right else "left"
        table.add_column(columns[position], justify=justify, no_wrap=fixed, overflow="fold", min_width=8)
    for row in rows:
        table.add_row(*(escape(row[position]) for position in shown))
    console.print(table)


def _width(columns: list[str], rows: list[list[str]]) -> int:
    """Characters that a table takes without folding, if the text of its last column may fold to 30."""
    widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    return sum(widths[:-1]) + min(widths[-1], 30) + 3 * len(widths)


def check_place(report: Path | None, force: bool) -> None:
    """Raises PandaError, before anything is computed, if the page cannot stand there."""
    if report is None:
        return
    if report.is_dir():
        raise PandaError(
            f"{report} is a folder, and the page is one file; give a name such as {report / 'report.html'}."
        )
    if report.exists() and not force:
        raise PandaError(f"{report} already exists; say --force to replace it, or give another name.")
    if not report.parent.is_dir():
        raise PandaError(f"There is no folder {report.parent} to write the page in; make it, or choose another place.")


def points(value: float | None) -> str:
    """A score as a fraction with three digits."""
    return "-" if value is None else f"{value:.3f}"


class _Lines:
    """How far a piece of work has come, as a line now and then."""

    def __init__(self, label: str, total: int) -> None:
        self.label, self.total, self.done = label, total, 0
        self._start = self._last = time.monotonic()

    def after(self, units: int) -> str | None:
        """A line if the last one is half a minute old."""
        now = time.monotonic()
        self.done += units
        if now - self._last < _PAUSE or not 0 < self.done < self.total:
            return None
        self._last = now
        left = (now - self._start) * (self.total - self.done) / self.done
        spoken = f"{left / 60:.0f} min" if left >= 90 else f"{left:.0f} s"
        return f"{self.label}: {self.done:,} of {self.total:,}, about {spoken} left"


def counted(number: int, noun: str) -> str:
    """A number of things with their noun in the right number."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def megabytes(size: int) -> str:
    """A number of bytes in millions, with two digits."""
    return f"{size / 1e6:.2f}"


class TerminalProgress:
    """Bars where stderr is a terminal, else a line for each piece of work, and one each half minute that it takes.

    Use as a context manager.
    """

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._bars: Bars | None = None
        self._current: TaskID | None = None
        self._lines: _Lines | None = None

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
            self._console.print(f"{label}: 0 of {total:,}", markup=False)
            self._lines = _Lines(label, total)
            return
        if self._current is not None:
            self._bars.remove_task(self._current)
        self._current = self._bars.add_task(label, total=total)

    def advance(self, units: int) -> None:
        if self._bars is not None and self._current is not None:
            self._bars.advance(self._current, units)
        if self._bars is None and self._lines is not None and (line := self._lines.after(units)) is not None:
            self._console.print(line, markup=False)

    def note(self, message: str) -> None:
        self._console.print(message, markup=False, soft_wrap=True)
