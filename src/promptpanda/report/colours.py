"""Colours that colour-blind readers can tell apart, light enough for dark text."""

from __future__ import annotations

import math
from functools import cache
from typing import Any, Literal

INK = "#1b1f24"
MUTED = "#667080"
PREFERRED, PREFERRED_INK = "#e08214", "#8f4d00"
BETTER, WORSE, OPEN = "#2166ac", "#b2182b", "#7a828e"
# Okabe and Ito's palette, without its yellow; in the order of the contenders.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")

Scale = Literal["gain", "level"]
# The part of each of matplotlib's colour maps that dark text can be read on, and how much white is mixed in.
_MAPS: dict[Scale, tuple[str, float, float, float]] = {
    "gain": ("RdBu", 0.18, 0.82, 0.18),
    "level": ("viridis", 0.22, 1.0, 0.42),
}


def gain_colour(value: float, limit: float) -> str:
    """Red below zero, blue above; full colour at `limit`."""
    return _at("gain", 0.5 if limit <= 0 else (1 + max(-1.0, min(1.0, value / limit))) / 2)


def level_colour(value: float, low: float, high: float) -> str:
    """From dark to bright between two values."""
    return _at("level", 0.5 if high <= low else (value - low) / (high - low))


def stops(scale: Scale, count: int = 9) -> list[str]:
    """Evenly spaced colours of a scale, for its legend."""
    return [_at(scale, place / (count - 1)) for place in range(count)]


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two #rrggbb colours (WCAG 2.2); 4.5 is enough for text."""
    lights = sorted(map(_luminance, (one, other)))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def _at(scale: Scale, place: float) -> str:
    name, first, last, white = _MAPS[scale]
    place = 0.5 if math.isnan(place) else place
    red, green, blue, _ = _map(name)(first + place * (last - first))
    return "#" + "".join(f"{round(255 * (white + (1 - white) * part)):02x}" for part in (red, green, blue))


@cache
def _map(name: str) -> Any:
    from matplotlib import colormaps

    return colormaps[name]


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
