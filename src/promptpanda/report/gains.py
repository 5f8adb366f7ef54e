"""Gains of one contender over another, in points, with paired bootstrap intervals over test rows and seeds."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from promptpanda.files import digest
from promptpanda.report.resample import TestRows, scorer
from promptpanda.report.study import Contender, Group
from promptpanda.sweep.row import Answers, Row

REPLICATES = 2000
LEVEL = 0.95
_CHUNK = 250  # replicates whose drawn rows are in memory at a time
_TOLERANCE = 1e-4  # between a score and what its predictions give; some are stored with few digits

Basis = Literal["test rows and seeds", "seeds", "test rows"]


@dataclass(frozen=True)
class Gain:
    """How much better, in points.

    Attributes:
        by_seed: of each seed the mean over its pairs of runs.
        low, high: of the percentile interval; None where there is nothing to resample (one seed, no predictions).
        basis: what was resampled.
        replicates: the gain in every resample, or None. *Shape:* (REPLICATES,).
    """

    by_seed: tuple[float, ...]
    low: float | None
    high: float | None
    basis: Basis | None
    replicates: np.ndarray | None

    @property
    def mean(self) -> float:
        return statistics.fmean(self.by_seed)

    @property
    def verdict(self) -> Literal["better", "worse", "open"]:
        """Whether the interval lies wholly on one side of zero."""
        if self.low is None or self.high is None:
            return "open"
        return "better" if self.low > 0 else "worse" if self.high < 0 else "open"

    @classmethod
    def of(cls, by_seed: tuple[float, ...], basis: Basis | None, replicates: np.ndarray | None) -> Gain:
        if replicates is None:
            return cls(by_seed, None, None, None, None)
        tail = 100 * (1 - LEVEL) / 2
        low, high = np.percentile(replicates, [tail, 100 - tail])
        return cls(by_seed, float(low), float(high), basis, replicates)


class Bootstrap:
    """Resampled scores of runs; every test set is resampled once, so that all comparisons on it are paired.

    Args:
        answers: by test fingerprint.
    """

    def __init__(self, answers: dict[str, Answers], runs: Iterable[Row]) -> None:
        self._answers = answers
        self._scores: dict[str, np.ndarray] = {}  # points by row key; shape (replicates,)
        by_test: dict[str, list[Row]] = {}
        for row in runs:
            if row.test_fingerprint in answers and row.predictions is not None:
                by_test.setdefault(row.test_fingerprint, []).append(row)
        for fingerprint, rows in by_test.items():
            self._resample(answers[fingerprint], rows)

    def gain(self, group: Group, contender: Contender, base: Contender, target: str) -> Gain | None:
        """Mean over seeds of the mean gain over all pairs of runs; None where no seed has both.

        Two means over sources are paired by source; otherwise each run is compared with the base's run of its seed.
        """
        by_source = contender.choice == base.choice == "mean"
        pairs = _pairs(group, group.chosen(contender, target), group.chosen(base, target), by_source)
        if not pairs:
            return None
        by_seed = [statistics.fmean(_points(group, one) - _points(group, other) for one, other in found)
                   for found in pairs.values()]  # fmt: skip
        return self._interval(pairs, by_seed)

    def mean_gain(self, group: Group, contender: Contender, base: Contender, targets: Iterable[str]) -> Gain | None:
        """The mean over targets, each of which counts alike; the same seeds are drawn on every target."""
        gains = [gain for target in targets if (gain := self.gain(group, contender, base, target)) is not None]
        if not gains:
            return None
        if any(gain.replicates is None for gain in gains):
            return Gain((statistics.fmean(gain.mean for gain in gains),), None, None, None, None)
        replicates = np.mean([gain.replicates for gain in gains if gain.replicates is not None], axis=0)
        bases = {gain.basis for gain in gains}
        basis: Basis | None = gains[0].basis if len(bases) == 1 else "test rows and seeds"
        return Gain.of((statistics.fmean(gain.mean for gain in gains),), basis, replicates)

    def _interval(self, pairs: dict[int, list[tuple[Row, Row]]], by_seed: list[float]) -> Gain:
        seeds = len(by_seed)
        drawn = np.random.default_rng(seeds).integers(0, seeds, (REPLICATES, seeds))
        known = all(row.key in self._scores for found in pairs.values() for pair in found for row in pair)
        if known:
            resampled = np.stack(
                [np.mean([self._scores[one.key] - self._scores[other.key] for one, other in found], axis=0)
                 for found in pairs.values()]
            )  # fmt: skip
            replicates = np.take_along_axis(resampled, drawn.T, axis=0).mean(axis=0)
            return Gain.of(tuple(by_seed), "test rows and seeds" if seeds > 1 else "test rows", replicates)
        if seeds == 1:
            return Gain.of(tuple(by_seed), None, None)
        return Gain.of(tuple(by_seed), "seeds", np.asarray(by_seed)[drawn].mean(axis=1))

    def _resample(self, answers: Answers, rows: list[Row]) -> None:
        known = {}
        for row in rows:
            assert row.predictions is not None
            score = None if row.metric is None else scorer(answers, row.metric, row.predictions)
            stated = (row.test or {}).get(row.metric or "")
            # Predictions that do not give the stated score are not what was scored.
            if score is not None and stated is not None:
                whole = float(score(np.ones((1, len(answers.labels))))[0])
                if abs(whole - stated) <= _TOLERANCE:
                    known[row.key] = score
        test_rows = TestRows.of(answers)
        rng = np.random.default_rng(int(digest(answers.test_fingerprint)[:8], 16))
        parts: dict[str, list[np.ndarray]] = {key: [] for key in known}
        for start in range(0, REPLICATES if known else 0, _CHUNK):
            counts = test_rows.draw(min(_CHUNK, REPLICATES - start), rng)
            for key, score in known.items():
                parts[key].append(100 * score(counts))
        self._scores |= {key: np.concatenate(found) for key, found in parts.items()}


def _pairs(
    group: Group, runs: dict[int, list[Row]], bases: dict[int, list[Row]], by_source: bool
) -> dict[int, list[tuple[Row, Row]]]:
    """By seed, the pairs of runs to compare; runs without a score are left out."""
    pairs: dict[int, list[tuple[Row, Row]]] = {}
    for seed in runs.keys() & bases.keys():
        ones = [row for row in runs[seed] if group.score(row) is not None]
        others = [row for row in bases[seed] if group.score(row) is not None]
        found = [(one, other) for one in ones for other in others if not by_source or one.source == other.source]
        if found:
            pairs[seed] = found
    return dict(sorted(pairs.items()))


def _points(group: Group, row: Row) -> float:
    score = group.score(row)
    assert score is not None
    return score
