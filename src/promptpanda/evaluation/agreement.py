"""What is compared: orders of sources, and what the sources at the top of an order are worth."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import stats

Correlation = Callable[[np.ndarray, np.ndarray], float | None]

FEWEST = 3  # sources below which a rank correlation says nothing


@dataclass(frozen=True)
class Measured:
    """A mean over targets.

    Attributes:
        mean: None where there is nothing to take a mean of.
        targets_error: standard error over targets; None below two.
        seeds_error: standard error over seeds; None below two.
    """

    mean: float | None
    targets_error: float | None = None
    seeds_error: float | None = None

    @classmethod
    def over(cls, by_target: Sequence[float], seeds_error: float | None = None) -> Measured:
        if not by_target:
            return cls(None)
        return cls(statistics.fmean(by_target), standard_error(by_target), seeds_error)

    def errors(self) -> dict[str, float | None]:
        """As in JSON."""
        return {"targets": self.targets_error, "seeds": self.seeds_error}


def standard_error(values: Sequence[float]) -> float | None:
    """Sample standard deviation over the square root of their number; None below two values."""
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None


def jackknife_error(left_out: Sequence[float]) -> float | None:
    """Standard error of a statistic from its values with one seed left out in turn; None below two."""
    count = len(left_out)
    if count < 2:
        return None
    mean = statistics.fmean(left_out)
    return math.sqrt((count - 1) / count * sum((value - mean) ** 2 for value in left_out))


def spearman(predicted: np.ndarray, measured: np.ndarray) -> float | None:
    """Spearman's rank correlation; None below three sources, or where one side is constant. *Shape:* (sources,)."""
    return _correlation(stats.spearmanr, predicted, measured)


def kendall(predicted: np.ndarray, measured: np.ndarray) -> float | None:
    """Kendall's tau-b; None as `spearman`. *Shape:* (sources,)."""
    return _correlation(stats.kendalltau, predicted, measured)


def tops(predicted: np.ndarray, k: int) -> Iterator[tuple[int, ...]]:
    """The k sources that are predicted best, in all ways to break ties; the first way takes them in their order.

    *Shape:* (sources,).
    """
    if k >= len(predicted):
        yield tuple(range(len(predicted)))
        return
    last = np.sort(predicted)[-k]
    sure = tuple(int(place) for place in np.flatnonzero(predicted > last))
    tied = [int(place) for place in np.flatnonzero(predicted == last)]
    for others in combinations(tied, k - len(sure)):
        yield sure + others


def _correlation(function: Callable[..., object], predicted: np.ndarray, measured: np.ndarray) -> float | None:
    if len(predicted) < FEWEST or np.ptp(predicted) == 0 or np.ptp(measured) == 0:
        return None
    return float(function(predicted, measured).statistic)  # type: ignore[attr-defined]
