"""Figures as inline SVG: small panels that the page lays out side by side, or below each other on a phone."""

from __future__ import annotations

import html
import io
import math
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from promptpanda.files import digest
from promptpanda.report.colours import BETTER, INK, MUTED, OPEN, PREFERRED, PREFERRED_INK, WORSE
from promptpanda.report.gains import Gain

_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: it can be selected and searched
    "text.parse_math": False,  # a task may have a dollar sign in its name
    "axes.unicode_minus": True,
    "font.size": 9,
    "axes.edgecolor": "#c3c9d1",
    "axes.linewidth": 0.8,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": "#c3c9d1",
    "ytick.color": "#c3c9d1",
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "text.color": INK,
    "grid.color": "#e6e9ee",
    "grid.linewidth": 0.7,
    "axes.grid": True,
    "axes.axisbelow": True,
}


@dataclass(frozen=True)
class Panel:
    """One drawing; its title and note are the page's, which can break lines."""

    title: str
    note: str
    svg: str


@dataclass(frozen=True)
class Figure:
    """Panels under one caption; `legend` names colours as (text, #rrggbb, dashed), `of` the runs that are shown."""

    id: str
    title: str
    of: str
    caption: str
    panels: tuple[Panel, ...]
    legend: tuple[tuple[str, str, bool], ...] = field(default=())


@dataclass(frozen=True)
class Forest:
    """Gains with their intervals, by name; `mean` stands below them."""

    title: str
    gains: Sequence[tuple[str, Gain]]
    mean: Gain | None = None

    @property
    def rows(self) -> list[tuple[str, Gain]]:
        return [*self.gains, *([] if self.mean is None else [("mean", self.mean)])]


@dataclass(frozen=True)
class Point:
    """A point of a scatter panel: a source."""

    x: float
    y: float
    name: str


@dataclass(frozen=True)
class Line:
    """A line of a panel, and the lower and upper bounds of a band around it."""

    name: str
    colour: str
    x: Sequence[float]
    y: Sequence[float]
    band: Sequence[tuple[float, float]] | None = None
    dashed: bool = False


def forests(drawn: Sequence[Forest], key: str) -> tuple[Panel, ...]:
    """Panels that stand side by side: one scale, and one width of names, so that a point is as long in all of them.

    Args:
        key: makes the panels' ids their own on the page, together with their titles; so in all panels.
    """
    limits = span([gain for one in drawn for _, gain in one.rows])
    names = {name: _wrapped(name, 28) for one in drawn for name, _ in one.rows}
    left = 0.12 + max(map(_text_width, names.values()), default=0.0)
    lines_most = max((name.count("\n") + 1 for name in names.values()), default=1)
    row = max(0.27, 0.04 + 0.13 * lines_most)
    return tuple(_forest(one, limits, names, (left, row), key) for one in drawn)


def _forest(
    drawn: Forest, limits: tuple[float, float], names: Mapping[str, str], room: tuple[float, float], key: str
) -> Panel:
    """A row for each gain with its interval, and a last one for their mean.

    Args:
        names: as they are written, with line breaks.
        room: inches that they take in width, and a row in height.
    """
    from matplotlib.ticker import MaxNLocator

    rows, title = drawn.rows, drawn.title
    left, row = room
    width, above, below = 3.6, 0.06, 0.46
    height = above + below + row * len(rows)
    with drawing(width, height, layout=None) as panel:
        panel.canvas.subplots_adjust(left / width, below / height, 1 - 0.06 / width, 1 - above / height)
        axes = panel.axes
        axes.axvline(0, color="#8a929d", linewidth=1)
        for place, (name, gain) in enumerate(rows):
            y = len(rows) - 1 - place
            colour = {"better": BETTER, "worse": WORSE, "open": OPEN}[gain.verdict]
            text = f"{name}: {gain.mean:+.1f} points"
            if gain.low is not None and gain.high is not None:
                axes.plot([gain.low, gain.high], [y, y], color=colour, linewidth=2, solid_capstyle="butt")
                text += f", 95 % interval {gain.low:+.1f} to {gain.high:+.1f}"
            is_mean = drawn.mean is not None and place == len(rows) - 1
            panel.mark(gain.mean, y, text, color=colour, marker="D" if is_mean else "o", markersize=6)
        if drawn.mean is not None:
            axes.axhline(0.5, color="#c3c9d1", linewidth=0.8)
        axes.set_yticks(range(len(rows)), [names[name] for name, _ in reversed(rows)], linespacing=1.0)
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.grid(visible=False, axis="y")
        axes.set(ylim=(-0.6, len(rows) - 0.4), xlim=limits, xlabel="points")
        label = f"{title}: " + "; ".join(f"{name} {gain.mean:+.1f}" for name, gain in rows)
        return Panel(title, "", panel.svg(f"forest {key} {title}", label))


def scatter(title: str, note: str, points: Sequence[Point], x_label: str, y_label: str, key: str) -> Panel:
    """Predicted against measured; set off are the source that the prediction prefers and the one that is best."""
    from matplotlib.ticker import MaxNLocator

    preferred, best = max(points, key=lambda one: one.x), max(points, key=lambda one: one.y)
    with drawing(2.9, 2.3) as panel:
        axes = panel.axes
        axes.axhline(0, color="#8a929d", linewidth=1)
        for point in points:
            style = {"marker": "o", "markersize": 6, "color": "#98a2ae"}
            if point is best:
                style |= {"color": BETTER, "markersize": 7}
            if point is preferred:
                style |= {"markeredgecolor": PREFERRED, "markeredgewidth": 2, "markersize": 8}
            panel.mark(point.x, point.y, f"{point.name}: {x_label} {point.x:.3f}, gain {point.y:+.1f}", **style)
        middle = (min(point.x for point in points) + preferred.x) / 2
        for point, colour in {preferred: PREFERRED_INK, best: BETTER}.items():
            left = point.x > middle
            axes.annotate(_short(point.name), (point.x, point.y), xytext=(-7 if left else 7, 4), color=colour,
                          textcoords="offset points", ha="right" if left else "left", fontsize=8.5)  # fmt: skip
        axes.margins(0.14)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.set(xlabel=x_label, ylabel=y_label)
        label = (
            f"{title}: {x_label} of every source against its gain; {note}; preferred {preferred.name}, best {best.name}"
        )
        return Panel(title, note, panel.svg(f"scatter {key} {title}", label))


def lines(
    title: str,
    drawn: Sequence[Line],
    x_label: str,
    y_label: str,
    key: str,
    *,
    names: Sequence[str] | None = None,
    size: tuple[float, float] = (2.9, 2.3),
) -> Panel:
    """Lines over numbers, or over `names` at 0, 1, ..."""
    from matplotlib.ticker import MaxNLocator

    with drawing(*size) as panel:
        axes = panel.axes
        for line in drawn:
            if line.band is not None:
                axes.fill_between(line.x, *zip(*line.band, strict=True), color=line.colour, alpha=0.12, linewidth=0)
            marker = "o" if names is not None or len(line.x) == 1 else None
            panel.line(line.x, line.y, f"{line.name}: {line.y[-1]:.3g} at the end", color=line.colour, linewidth=1.8,
                       marker=marker, markersize=5, linestyle="--" if line.dashed else "-")  # fmt: skip
        if names is not None:
            # At this size about 50 characters stand side by side.
            axes.set_xticks(range(len(names)), [_wrapped(name, max(8, 50 // len(names))) for name in names])
            axes.margins(x=0.08)
        else:
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set(xlabel=x_label, ylabel=y_label)
        label = f"{title}: {y_label} by {x_label}; " + "; ".join(f"{one.name} {one.y[-1]:.3g}" for one in drawn)
        return Panel(title, "", panel.svg(f"lines {key} {title} {y_label}", label))


class _Drawing:
    """One pair of axes that becomes SVG; marks can have hints that a browser shows when pointed at."""

    def __init__(self, width: float, height: float, layout: Literal["constrained"] | None) -> None:
        from matplotlib.figure import Figure as Canvas

        self.canvas = Canvas(figsize=(width, height), layout=layout)
        self._hints: list[str] = []
        self.axes: Any = self.canvas.add_subplot()

    def mark(self, x: float, y: float, hint: str, **style: Any) -> None:
        self.line([x], [y], hint, linestyle="none", **style)

    def line(self, x: Sequence[float], y: Sequence[float], hint: str, **style: Any) -> None:
        self.axes.plot(x, y, gid=f"hint-{len(self._hints)}", **style)
        self._hints.append(hint)

    def svg(self, name: str, label: str) -> str:
        """The SVG element, with ids that are its own on a page if `name` is."""
        import matplotlib

        buffer = io.StringIO()
        with matplotlib.rc_context({"svg.hashsalt": name}):
            self.canvas.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        text = buffer.getvalue()
        text = text[text.index("<svg") :]
        # Its style sheet would hold for the whole page; ours says the same of figures.
        text = re.sub(r"<metadata>.*?</metadata>\s*|<style.*?</style>\s*", "", text, flags=re.DOTALL)
        for number, hint in enumerate(self._hints):
            group = f'<g id="hint-{number}">'
            text = text.replace(group, f"{group}<title>{html.escape(hint)}</title>", 1)
        prefix = f"f{digest(name)[:8]}-"
        text = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}\1"', text)
        text = re.sub(r'(href="|url\()#', rf"\1#{prefix}", text)
        # The page gives the size, so that panels fit any screen.
        opening, rest = text.split(">", 1)
        opening = re.sub(r' (?:width|height)="[^"]*"', "", opening)
        text = f"{opening}>{rest}"
        return text.replace("<svg", f'<svg role="img" aria-label="{html.escape(label)}"', 1).strip()


@contextmanager
def drawing(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> Iterator[_Drawing]:
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # a user's own settings would make another report of the same rows
        matplotlib.rcParams.update(_SETTINGS)
        yield _Drawing(width, height, layout)


def _wrapped(name: str, width: int) -> str:
    """A name in lines of at most so many characters; nothing of it is left out."""
    return "\n".join(textwrap.wrap(name, width)) or name


def _text_width(text: str) -> float:
    """Inches that the longest line of a text takes in a figure."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    font = FontProperties(size=_SETTINGS["font.size"])
    return max(float(TextPath((0, 0), line, prop=font).get_extents().x1) for line in text.split("\n")) / 72


def _short(name: str, limit: int = 22) -> str:
    return name if len(name) <= limit else f"{name[: limit - 1]}\u2026"


def span(gains: Sequence[Gain]) -> tuple[float, float]:
    """Limits that hold all gains, their intervals and zero, with some room."""
    values = [0.0]
    for gain in gains:
        values += [value for value in (gain.mean, gain.low, gain.high) if value is not None and math.isfinite(value)]
    room = 0.06 * (max(values) - min(values)) or 1.0
    return min(values) - room, max(values) + room
