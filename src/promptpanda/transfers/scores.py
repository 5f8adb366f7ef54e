"""Test scores over seeds, as every table tells them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any


class OverSeeds:
    """What has test scores, one a seed, or None where there is no test data."""

    scores: tuple[float, ...] | None

    @property
    def mean(self) -> float | None:
        return None if self.scores is None else statistics.fmean(self.scores)

    @property
    def std(self) -> float | None:
        """Sample standard deviation over seeds; None for fewer than two."""
        return None if self.scores is None else spread(self.scores)

    def scores_json(self) -> dict[str, Any]:
        return {"mean": self.mean, "std": self.std, "scores": None if self.scores is None else list(self.scores)}


def spread(values: Sequence[float]) -> float | None:
    """Sample standard deviation; None for fewer than two."""
    return statistics.stdev(values) if len(values) > 1 else None
