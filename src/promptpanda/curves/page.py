"""A learning curve as one HTML page."""

from __future__ import annotations

import datetime
from pathlib import Path

from promptpanda.curves.curve import LearningCurve
from promptpanda.errors import PandaError
from promptpanda.files import write_whole
from promptpanda.report.answers import Answer
from promptpanda.report.colours import SERIES
from promptpanda.report.figures import Figure, Line, lines
from promptpanda.report.page import Report, Section, part
from promptpanda.report.tables import Cell, Table, points
from promptpanda.transfers.methods import METHODS
from promptpanda.version import __version__


def report_of(curve: LearningCurve, command: str | None = None) -> Report:
    """The page of a curve.

    Args:
        command: that made it, to be shown.
    """
    plan, task = curve.plan, curve.plan.task
    scored = "rows cut off the training data" if plan.carved else "rows of the test data"
    answers = []
    for name in curve.measured:
        first, *rest = curve.sentences(name)
        of, _, headline = first.partition(": ")
        answers.append(Answer(of, headline[:1].upper() + headline[1:], tuple(rest)))
    sections = [
        Section(
            "curve",
            "Learning curve",
            (
                f"Every score is taken on the same {len(plan.scored)} {scored}. The subsets of a seed lie in one "
                "another; labelled rows are those of training and validation part together.",
            ),
            (*part("Scores by size", [_table(curve)]),),
            answers=tuple(answers),
            figure=_figure(curve),
        ),
        Section(
            "made",
            "How it was made",
            (
                f"Seeds {', '.join(map(str, plan.seeds))}; trainings took {curve.seconds:.0f} seconds together.",
                "Intervals hold 95 % of bootstrap draws of scored rows and of seeds. What twice as many labels give is "
                "read from power laws through the last three sizes, with several exponents, each as often as it fits.",
                *([f"Methods with a source start from {', '.join(curve.sources)}."] if curve.sources else []),
            ),
            quoted={} if command is None else {"Command": command},
        ),
    ]
    made = f"Made on {datetime.date.today().isoformat()} by promptpanda {__version__}."
    cards = (
        (str(plan.sizes[-1]), "labelled rows"),
        (str(len(plan.scored)), "rows scored"),
        (str(len(plan.seeds)), "seeds"),
        (f"{curve.floor:.3f}", f"{curve.metric} of a constant prediction"),
    )
    return Report(task.name, made, cards, (), tuple(sections), kind="Learning curve")


def write_page(curve: LearningCurve, path: Path, command: str | None = None) -> Path:
    """Write the page; it appears whole or not at all.

    Raises:
        PandaError: it cannot be written there.
    """
    text = report_of(curve, command).html()
    try:
        write_whole(path, text)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise PandaError(f"The page cannot be written at {path} ({reason}); choose another place.") from error
    return path


def _figure(curve: LearningCurve) -> Figure:
    """Means with their intervals, and the forecast behind them, dashed."""
    sizes = curve.plan.sizes
    names = [*map(str, sizes)]
    drawn, legend = [], []
    foretold = any(curve.forecast(name) is not None for name in curve.measured)
    for place, (name, measured) in enumerate(curve.measured.items()):
        colour, title = SERIES[place % len(SERIES)], METHODS[name].title
        means = [100 * float(mean) for mean in measured.means]
        band = [(100 * low, 100 * high) for low, high in map(measured.interval, range(len(sizes)))]
        drawn.append(Line(title, colour, range(len(sizes)), means, band))
        legend.append((title, colour, False))
        found = curve.forecast(name)
        if found is not None:
            ends = [means[-1], 100 * found.score]
            expected = [band[-1], (100 * found.low, 100 * found.high)]
            at = [len(sizes) - 1, len(sizes)]
            drawn.append(Line(f"{title}, expected", colour, at, ends, expected, dashed=True))
            legend.append((f"{title}, expected", colour, True))
    if foretold:
        names.append(f"{curve.twice}?")
    panel = lines("", drawn, "labelled rows", f"{curve.metric}, in points", "curve", names=names, size=(6.2, 3.0))
    return Figure(
        "learning-curve",
        "Score by labelled rows",
        curve.plan.task.name,
        "Mean over seeds; the band is the 95 % interval. Sizes stand side by side, whatever lies between them.",
        (panel,),
        tuple(legend),
    )


def _table(curve: LearningCurve) -> Table:
    rows = []
    for place, size in enumerate(curve.plan.sizes):
        cells = [_cell(float(one.means[place]), one.interval(place)) for one in curve.measured.values()]
        rows.append((Cell(str(size), value=size), *cells))
    expected = [curve.forecast(name) for name in curve.measured]
    foot = []
    if any(one is not None for one in expected):
        cells = [Cell("\u2013") if one is None else _cell(one.score, (one.low, one.high)) for one in expected]
        foot.append((Cell(f"{curve.twice}, expected", value=curve.twice), *cells))
    return Table(
        "scores",
        "Scores by size",
        "",
        f"Mean {curve.metric} in points over the seeds, with its 95 % interval.",
        ("labelled rows", *(METHODS[name].title for name in curve.measured)),
        tuple(rows),
        tuple(foot),
    )


def _cell(score: float, interval: tuple[float, float]) -> Cell:
    low, high = (100 * bound for bound in interval)
    return Cell(points(100 * score), f"{points(low)} to {points(high)}", 100 * score)
