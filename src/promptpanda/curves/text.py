"""A learning curve in plain text, for a terminal: a line a size, with the interval as a bar."""

from __future__ import annotations

from promptpanda.curves.curve import LearningCurve
from promptpanda.transfers.methods import METHODS

_WIDTH = 44  # characters of the drawing


def drawn(curve: LearningCurve) -> list[str]:
    """Lines of every method: rows, mean score over seeds, its interval, and both drawn to one scale."""
    bounds = [
        measured.interval(place) for measured in curve.measured.values() for place in range(len(curve.plan.sizes))
    ]
    forecasts = [one for name in curve.measured if (one := curve.forecast(name)) is not None]
    bounds += [(one.low, one.high) for one in forecasts]
    low, high = min(bound for bound, _ in bounds), max(bound for _, bound in bounds)
    lines = []
    for name, measured in curve.measured.items():
        lines.append(f"{METHODS[name].title}")
        lines.append(f"{'rows':>8}  {curve.metric:<25}  {low:<.2f}{' ' * (_WIDTH - 8)}{high:>.2f}")
        for place, size in enumerate(curve.plan.sizes):
            mean = float(measured.means[place])
            lines.append(_line(f"{size}", mean, measured.interval(place), (low, high), "o-"))
        found = curve.forecast(name)
        if found is not None:
            lines.append(_line(f"{found.size}?", found.score, (found.low, found.high), (low, high), "?."))
        lines.append("")
    return lines


def _line(size: str, mean: float, interval: tuple[float, float], scale: tuple[float, float], signs: str) -> str:
    """One size; `signs` are those of the mean and of the interval."""
    room = max(scale[1] - scale[0], 1e-9)

    def column(value: float) -> int:
        return min(max(round((value - scale[0]) / room * (_WIDTH - 1)), 0), _WIDTH - 1)

    cells = [" "] * _WIDTH
    for place in range(column(interval[0]), column(interval[1]) + 1):
        cells[place] = signs[1]
    cells[column(mean)] = signs[0]
    text = f"{mean:.3f} ({interval[0]:.3f} to {interval[1]:.3f})"
    return f"{size:>8}  {text:<25}  {''.join(cells)}".rstrip()
