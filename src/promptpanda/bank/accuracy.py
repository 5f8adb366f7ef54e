"""How sure an accuracy is that is known by its value and the number of examples alone, as cards tell it."""

from __future__ import annotations

_LEVEL = 0.95


def accuracy_interval(metric: str, value: float, examples: int) -> tuple[float, float] | None:
    """Wilson's 95 % interval of a share of right answers; None for other metrics, which need more than their value.

    Reference: Wilson 1927, Probable inference, the law of succession, and statistical inference.
    """
    if metric != "accuracy" or examples < 1 or not 0 <= value <= 1:
        return None
    from scipy.stats import binomtest

    low, high = binomtest(round(value * examples), examples).proportion_ci(_LEVEL, method="wilson")
    return float(low), float(high)
