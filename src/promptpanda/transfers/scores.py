"""Test scores over seeds, as every table shows them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any


class OverSeeds:
    """Test scores, one per seed; None if there is no test data."""

    scores: tuple[float, ...] | None

    @property
    def mean(self) -> float | None:
        """Mean test score over seeds, a fraction; None if there is no test data."""
        return None if self.scores is None else statistics.fmean(self.scores)

    @property
    def std(self) -> float | None:
        """Sample standard deviation of the test scores over seeds; None for fewer than two, or without test data."""
        return None if self.scores is None else spread(self.scores)

    def scores_json(self) -> dict[str, Any]:
        return {"mean": self.mean, "std": self.std, "scores": None if self.scores is None else list(self.scores)}


def spread(values: Sequence[float]) -> float | None:
    """Sample standard deviation; None for fewer than two."""
    return statistics.stdev(values) if len(values) > 1 else None
