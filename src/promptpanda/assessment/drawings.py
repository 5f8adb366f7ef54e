"""The figures of an assessment: confidence against accuracy, risk and coverage, values, and large confusions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from promptpanda.assessment.assess import Calibration
from promptpanda.assessment.calibration import Bin
from promptpanda.assessment.forms.form import Confusion
from promptpanda.assessment.selective import Selected
from promptpanda.report.colours import BETTER, SERIES, WORSE
from promptpanda.report.figures import Figure, Panel, drawing

_KEY = "assessment"
_LINE = "#8a929d"
_MOST_POINTS = 2000


def reliability(calibration: Calibration) -> Figure:
    """Accuracy by confidence, as given and after scaling."""
    panels = [_reliability("As the model gives it", calibration.ece.value, calibration.bins)]
    if calibration.scaled is not None:
        title = f"With temperature {calibration.temperature:.2f}"
        panels.append(_reliability(title, calibration.scaled.value, calibration.scaled_bins))
    return Figure(
        "reliability",
        "Confidence and accuracy",
        "",
        "Each point is a range of confidence; the larger, the more answers lie in it. On the line the share of right "
        "answers is what the confidence promises; below it the model is too sure of itself.",
        tuple(panels),
    )


def _reliability(title: str, error: float, bins: Sequence[Bin]) -> Panel:
    largest = max(one.count for one in bins)
    with drawing(2.9, 2.5) as panel:
        axes = panel.axes
        axes.plot([0, 1], [0, 1], color=_LINE, linewidth=1, linestyle="--")
        for one in bins:
            hint = (
                f"confidence {one.confidence:.3f}, right {one.accuracy:.3f}, {one.count} answer{'s' * (one.count != 1)}"
            )
            size = 3 + 9 * (one.count / largest) ** 0.5
            panel.mark(one.confidence, one.accuracy, hint, marker="o", markersize=size, color=SERIES[0], alpha=0.75)
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.05, 1.05), xlabel="confidence", ylabel="share that is right")
        label = f"{title}: share of right answers by confidence"
        return Panel(title, f"off by {error:.3f}", panel.svg(f"reliability {_KEY} {title}", label))


def risk_and_coverage(coverage: Sequence[Selected]) -> Figure:
    """Accuracy by the share of answers that are given."""
    x = [100 * one.coverage for one in coverage]
    with drawing(4.4, 2.6) as panel:
        axes = panel.axes
        bounds = [one.interval for one in coverage]
        if all(low is not None for low, _ in bounds):
            low, high = zip(*bounds, strict=True)
            axes.fill_between(x, low, high, color=SERIES[0], alpha=0.14, linewidth=0)
        panel.line(x, [one.accuracy for one in coverage], "accuracy", color=SERIES[0], linewidth=1.8)
        for share, one in zip(x, coverage, strict=True):
            hint = f"{share:.0f} % answered: {one.accuracy:.3f} right, confidence from {one.confidence:.3f}"
            panel.mark(share, one.accuracy, hint, marker="o", markersize=5, color=SERIES[0])
        axes.set(xlabel="% of answers given, the surest first", ylabel="share that is right", xlim=(5, 103))
        drawn = panel.svg(f"coverage {_KEY}", "share of right answers by the share that is given")
    return Figure(
        "risk",
        "Risk and coverage",
        "",
        "What is right if only the surest answers are given and the others are left to a person. The band is the 95 % "
        "bootstrap interval.",
        (Panel("", "", drawn),),
    )


def values(labels: np.ndarray, predictions: np.ndarray) -> Figure:
    """Predicted against right values. *Shape:* (examples,) each."""
    shown = np.arange(len(labels))
    if len(labels) > _MOST_POINTS:
        shown = np.random.default_rng(0).choice(len(labels), _MOST_POINTS, replace=False)
    x, y = labels[shown], predictions[shown]
    limits = [float(min(x.min(), y.min())), float(max(x.max(), y.max()))]
    with drawing(4.0, 3.2) as panel:
        axes = panel.axes
        axes.plot(limits, limits, color=_LINE, linewidth=1, linestyle="--")
        faint = 0.7 if len(shown) < 300 else 0.3
        axes.plot(x, y, linestyle="none", marker="o", markersize=4, color=SERIES[0], alpha=faint, markeredgewidth=0)
        axes.set(xlabel="right value", ylabel="predicted value")
        drawn = panel.svg(f"values {_KEY}", "predicted values against the right ones")
    drawn_of = f" {_MOST_POINTS} of {len(labels)} examples are drawn." if len(shown) < len(labels) else ""
    return Figure(
        "values",
        "Predicted and right values",
        "",
        f"Each point is an example; on the line the prediction is right.{drawn_of}",
        (Panel("", "", drawn),),
    )


def large_matrix(confusion: Confusion) -> Figure:
    """A confusion matrix as a drawing: one square for every pair that occurs, the darker the more of a row."""
    from matplotlib.collections import PatchCollection
    from matplotlib.colors import to_rgba
    from matplotlib.patches import Rectangle
    from matplotlib.ticker import MaxNLocator

    matrix = np.asarray(confusion.matrix)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    rows, columns = np.nonzero(matrix)
    places = list(zip(rows.tolist(), columns.tolist(), strict=True))
    squares = [Rectangle((column, row), 1, 1) for row, column in places]
    colours = [
        to_rgba(BETTER if row == column else WORSE, float(0.2 + 0.8 * shares[row, column])) for row, column in places
    ]
    size = len(confusion.labels)
    with drawing(4.4, 4.4) as panel:
        axes = panel.axes
        axes.add_collection(PatchCollection(squares, facecolors=colours, linewidths=0))
        axes.set(xlim=(0, size), ylim=(size, 0), xlabel="said (number of the class)", ylabel="right", aspect="equal")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(6, integer=True))
        drawn = panel.svg(f"matrix {_KEY}", f"confusion matrix of {size} classes")
    return Figure(
        "drawn-matrix",
        "All confusions",
        "",
        "Blue: right. Red: said in place of the right class; the darker, the larger its share of the class's "
        "examples. Classes are in the order of the table by class, from 0.",
        (Panel("", "", drawn),),
    )
