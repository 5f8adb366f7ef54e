"""Whether confidence is what it says: expected calibration error, and the bins that it is made of.

Reference: Guo et al. 2017 (arXiv 1706.04599), equations 2, 3 and 5, with their 15 bins of equal width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from promptpanda.assessment.bootstrap import Scorer, divided
from promptpanda.assessment.evaluated import Answers

BINS = 15
_SIMULATED = 500


@dataclass(frozen=True)
class Bin:
    """Answers whose confidence lies in (low, high]: how many, how sure on average, and the share that is right."""

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


def bins_of(answers: Answers) -> list[Bin]:
    """The bins that hold an answer."""
    place = _places(answers.confidence)
    found = []
    for number in np.unique(place):
        inside = place == number
        found.append(
            Bin(
                float(number / BINS),
                float((number + 1) / BINS),
                int(inside.sum()),
                float(answers.confidence[inside].mean()),
                float(answers.right[inside].mean()),
            )
        )
    return found


def expected_calibration_error(answers: Answers, examples: int) -> Scorer:
    """Mean over answers of how far confidence and accuracy of their bin are apart; NaN without an answer.

    Args:
        examples: how many there are, with answers and without.
    """
    shape, index = (examples, BINS), (answers.row, _places(answers.confidence))
    gaps = sparse.csr_array((answers.right - answers.confidence, index), shape=shape)
    number = np.bincount(answers.row, minlength=examples).astype(np.float64)

    def score(counts: np.ndarray) -> np.ndarray:
        return divided(np.abs(counts @ gaps).sum(axis=1), counts @ number)

    return score


def chance_error(confidence: np.ndarray, seed: int = 0) -> float:
    """The error that a perfectly calibrated model would show on so few answers, on average of 500 simulations.

    *Shape:* (answers,).
    """
    rng = np.random.default_rng(seed)
    place = _places(confidence)
    errors = []
    for _ in range(_SIMULATED):
        gaps = (rng.random(len(confidence)) < confidence) - confidence
        errors.append(np.abs(np.bincount(place, gaps, minlength=BINS)).sum() / len(confidence))
    return float(np.mean(errors))


def _places(confidence: np.ndarray) -> np.ndarray:
    places: np.ndarray = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    return places
