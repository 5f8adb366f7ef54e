"""How an assessment looks in a terminal."""

from __future__ import annotations

import typer

from promptpanda.assessment.assess import Assessment
from promptpanda.assessment.bootstrap import Interval, Measured
from promptpanda.assessment.calibration import BINS
from promptpanda.assessment.words import compared, judged_calibration, one_line
from promptpanda.cli.output import points, print_table

_CLASSES, _MATRIX, _CONFUSIONS, _MISTAKES = 30, 10, 10, 5  # that are shown; the page and --json have all


def print_assessment(found: Assessment) -> None:
    """Figures, classes, confusions, calibration, coverage and mistakes on stdout; notes on stderr."""
    figures = ", ".join(f"{name} {_measured(one)}" for name, one in found.metrics.items())
    typer.echo(f"{figures} on {found.examples} test examples of {found.task} (in brackets: 95 % intervals)")
    if found.comparison is not None:
        typer.echo(compared(found))
    _print_classes(found)
    _print_confusion(found)
    if found.calibration is not None:
        typer.echo(f"\n{judged_calibration(found.calibration)} ({BINS} bins)")
        _print_coverage(found)
    _print_mistakes(found)
    for note in found.notes:
        typer.echo(f"Note: {note}", err=True)


def _print_classes(found: Assessment) -> None:
    if not found.by_class:
        return
    shown, title = list(found.by_class), "\nBy class"
    if len(shown) > _CLASSES:
        title += f": the {_CLASSES} of {len(shown)} with the lowest F1"
        shown = sorted(shown, key=lambda row: row.figures["f1"].value)[:_CLASSES]
    rows = [
        [one_line(row.name, 40), *(_measured(one) for one in row.figures.values()), str(row.support)] for row in shown
    ]
    print_table(title, ["class", "precision", "recall", "F1", "examples"], rows, numeric=(1, 2, 3, 4))


def _print_confusion(found: Assessment) -> None:
    confusion = found.confusion
    if confusion is None:
        return
    if len(confusion.labels) <= _MATRIX:
        names = [one_line(name, 16) for name in confusion.labels]
        rows = [[name, *map(str, counts)] for name, counts in zip(names, confusion.matrix.tolist(), strict=True)]
        title = "\nConfusions: rows are the right labels, columns the predicted ones"
        print_table(title, ["", *names], rows, numeric=tuple(range(1, len(names) + 1)))
    elif found.confusions:
        pairs = [
            [one_line(expected, 40), one_line(predicted, 40), str(count)]
            for expected, predicted, count in found.confusions[:_CONFUSIONS]
        ]
        print_table("\nCommonest confusions", ["right", "said", "times"], pairs, numeric=(2,))


def _print_coverage(found: Assessment) -> None:
    rows = [
        [f"{one.coverage:.0%}", f"{one.confidence:.3f}", f"{one.accuracy:.3f}{_around(one.interval)}"]
        for one in found.coverage
        if one.coverage in (0.5, 0.7, 0.8, 0.9, 1.0)
    ]
    columns = ["answered", "confidence from", "of them right"]
    print_table("\nIf only the most confident are answered", columns, rows, numeric=(0, 1, 2))


def _print_mistakes(found: Assessment) -> None:
    if not found.mistakes:
        return
    rows = [
        [
            str(one.place),
            one_line(one.expected, 30),
            one_line(one.predicted, 30),
            points(one.confidence),
            one_line(one.text, 70),
        ]
        for one in found.mistakes[:_MISTAKES]
    ]
    columns = [found.mistakes[0].unit, "right", "said", "confidence", "text"]
    if found.values is None:
        print_table("\nWrong and most confident", columns, rows, numeric=(0, 3))
        return
    del columns[3]
    print_table("\nFarthest off", columns, [[*row[:3], row[4]] for row in rows], numeric=(0,))


def _measured(one: Measured) -> str:
    return f"{one.value:.3f}{_around(one.interval)}"


def _around(interval: Interval) -> str:
    low, high = interval
    return "" if low is None or high is None else f" ({low:.3f}, {high:.3f})"
