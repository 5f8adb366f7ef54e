"""What more labels would give: power laws through the last points of a learning curve, and an interval.

The error falls with the number of labels n as a + b n^-c, the form that measured learning curves follow best (Viering
and Loog, arXiv 2103.10948; Hestness et al., arXiv 1712.00409). Three points cannot tell c, so all of several exponents
are taken, each as often as it fits: for c = 0 the law is a line in log n, which falls on and on; for c = 1 it is nearly
flat soon. A draw of the bootstrap is of rows and seeds: the same rows of the scored data at all sizes, since easy rows
are easy at every size, and the same seeds, since the subsets of a seed lie in one another. Each draw has an exponent of
its own, a line is fitted in n^-c, and is read at the size in question. studies/learning_curves.py tests this and other
models on measured curves (docs/learning-curve.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

LEVEL = 0.95  # of intervals
LAST = 3  # sizes that the law is fitted to: earlier ones are of another phase (a model that has not learnt yet)
EXPONENTS = (0.0, 0.25, 0.5, 0.75, 1.0)
_NEARLY = 0.01  # a gain within this, up or down, hardly changes anything
_FLOOR = 1e-5  # of the variance of a size's mean score

Verdict = Literal["helps", "little", "open", "harms"]


@dataclass(frozen=True, eq=False)
class Measured:
    """What one method scored.

    Attributes:
        sizes: labelled rows, ascending.
        scores: *Shape:* (sizes, seeds).
        resampled: the same on bootstrap samples of the scored rows, which all sizes and seeds share. *Shape:* (sizes,
            seeds, samples).
    """

    sizes: tuple[int, ...]
    scores: np.ndarray
    resampled: np.ndarray

    @property
    def means(self) -> np.ndarray:
        """Over seeds. *Shape:* (sizes,)."""
        found: np.ndarray = self.scores.mean(axis=1)
        return found

    def first(self, count: int) -> Measured:
        """The smallest sizes alone."""
        return Measured(self.sizes[:count], self.scores[:count], self.resampled[:count])

    def draws(self) -> np.ndarray:
        """Bootstrap draws of the mean scores: of rows and of seeds. *Shape:* (samples, sizes).

        A mean over S seeds drawn from S seeds spreads by the factor sqrt((S - 1) / S) too little, and a spread that few
        seeds tell is uncertain itself (Student); both are made up for.
        """
        rng = np.random.default_rng([0, 10])
        seeds, samples = self.scores.shape[1], self.resampled.shape[2]
        by_rows = self.resampled.mean(axis=1)
        if seeds < 2:
            return np.asarray(by_rows.T)
        picks = rng.integers(0, seeds, (samples, seeds))
        # (sizes, samples, seeds): sample b of the rows, seed picks[b, s] of the trainings
        drawn = self.resampled[:, picks, np.arange(samples)[:, None]].mean(axis=2)
        wider = np.sqrt(seeds / (seeds - 1)) * _student((seeds - 1) * min(LAST, len(self.sizes)))
        return np.asarray((by_rows + wider * (drawn - by_rows)).T)

    def interval(self, place: int) -> tuple[float, float]:
        """Of the mean score at a size; no score is above 1, as draws that were made wider for few seeds may be."""
        return _bounds(np.minimum(self.draws()[:, place], 1.0))


@dataclass(frozen=True)
class Forecast:
    """What is expected at a size, in the task's metric as fractions. Intervals are 95 % intervals.

    Attributes:
        size: the size, in labelled rows.
        score: the expected score there.
        low: the lower end of its interval.
        high: the upper end of its interval.
        now: the score at the largest measured size by the fitted law; the measured mean lies near it.
        gain: the expected gain over `now`. It is more certain than the score, since rows that are easy or hard at every
            size cancel out.
        gain_low: the lower end of the gain's interval.
        gain_high: the upper end of the gain's interval.
    """

    size: int
    score: float
    low: float
    high: float
    now: float
    gain: float
    gain_low: float
    gain_high: float

    @property
    def verdict(self) -> Verdict:
        """What the interval of the gain says.

        - `helps`: it lies above 0.
        - `harms`: it lies below 0.
        - `little`: it includes 0 and stays within .01 of it.
        - `open`: it includes both no gain and a notable one.
        """
        if self.gain_low > 0:
            return "helps"
        if self.gain_high < 0:
            return "harms"
        return "little" if max(-self.gain_low, self.gain_high) <= _NEARLY else "open"

    def to_json(self) -> dict[str, float | int | str]:
        return vars(self) | {"verdict": self.verdict}


def forecast(measured: Measured, size: int) -> Forecast | None:
    """What to expect with `size` labelled rows; None where there are too few sizes or seeds to tell."""
    if len(measured.sizes) < LAST or measured.scores.shape[1] < 2:
        return None
    sizes, draws = np.asarray(measured.sizes[-LAST:]), measured.draws()[:, -LAST:]
    there, here = _laws(sizes, 1 - draws, np.asarray([size, sizes[-1]]))
    scores, gains = np.minimum(1 - there, 1.0), here - there
    now, gain = float(np.median(1 - here)), float(np.median(gains))
    return Forecast(size, float(np.median(scores)), *_bounds(scores), now, gain, *_bounds(gains))


def _laws(sizes: np.ndarray, errors: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The errors at wanted sizes by a law through each draw. *Shape:* (wanted, samples).

    Args:
        sizes: *Shape:* (sizes,).
        errors: *Shape:* (samples, sizes).
    """
    covariance = np.cov(errors.T)
    # Half of what sizes have in common: as many draws as there are seeds cannot tell all of it.
    covariance = (covariance + np.diag(np.diag(covariance))) / 2 + _FLOOR * np.eye(len(sizes))
    precision, mean = np.linalg.inv(covariance), errors.mean(axis=0)
    fits, misfits = [], []
    for exponent in EXPONENTS:
        design, at = _design(sizes, exponent), _design(targets, exponent)
        solved = np.linalg.pinv(design)
        fits.append(at @ solved @ errors.T)
        rest = mean - design @ (solved @ mean)
        misfits.append(rest @ precision @ rest)
    weights = np.exp(-(np.asarray(misfits) - min(misfits)) / 2)
    drawn = np.random.default_rng([0, 11]).choice(len(EXPONENTS), len(errors), p=weights / weights.sum())
    found: np.ndarray = np.stack(fits)[drawn, :, np.arange(len(errors))].T
    return found


def _design(sizes: np.ndarray, exponent: float) -> np.ndarray:
    """The columns of a line in n^-c, or in -log n for c = 0, its limit. *Shape:* (sizes, 2)."""
    relative = sizes / 64
    column = -np.log(relative) if exponent == 0 else (relative**-exponent - 1) / exponent
    return np.stack([np.ones(len(sizes)), column], axis=1)


def _bounds(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _student(freedom: int) -> float:
    """How much wider an interval is whose spread so many degrees of freedom tell."""
    from scipy.stats import norm, t

    upper = (1 + LEVEL) / 2
    return float(t.ppf(upper, freedom) / norm.ppf(upper))
