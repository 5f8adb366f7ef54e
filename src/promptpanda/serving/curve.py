"""A prompt's learning curve as the points of two lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from promptpanda.bank.card import Card

_WIDTH, _HEIGHT = 560.0, 180.0  # of the area with the lines, in the units of the drawing


@dataclass(frozen=True)
class Line:
    """One line of the drawing; `points` as SVG's polyline takes them, `low` and `high` the values at its edges."""

    name: str
    points: tuple[str, ...]
    low: float
    high: float


@dataclass(frozen=True)
class Curve:
    """Both lines over the epochs, each on its own scale."""

    epochs: int
    width: float
    height: float
    loss: Line
    score: Line | None


def curve_of(card: Card) -> Curve | None:
    """None where there are fewer than two epochs."""
    if len(card.curve) < 2:
        return None
    loss = _line("training loss", [epoch.train_loss for epoch in card.curve])
    scores = [None if epoch.validation is None else epoch.validation.get(card.task.metric) for epoch in card.curve]
    known = any(value is not None for value in scores)
    score = _line(f"validation {card.task.metric}", scores) if known else None
    return Curve(len(card.curve), _WIDTH, _HEIGHT, loss, score)


def _line(name: str, values: Sequence[float | None]) -> Line:
    there = [value for value in values if value is not None]
    low, high = min(there), max(there)
    room = (high - low) or 1.0
    step = _WIDTH / (len(values) - 1)
    points = [
        f"{place * step:.1f},{_HEIGHT * (1 - (value - low) / room):.1f}"
        for place, value in enumerate(values)
        if value is not None
    ]
    return Line(name, tuple(points), low, high)
