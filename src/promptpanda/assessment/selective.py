"""Risk and coverage: how many of the answers are right if only the surest are given, and the others left to a person.

Reference: El-Yaniv and Wiener 2010 (JMLR 11).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from promptpanda.assessment.bootstrap import Interval, Scorer, divided, share_interval, whole
from promptpanda.assessment.evaluated import Answers

COVERAGES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)


@dataclass(frozen=True)
class Selected:
    """What is right among the surest answers.

    Attributes:
        coverage: the share of answers that are given.
        confidence: the lowest among them, which is the threshold to give them by.
        accuracy: the share of them that is right.
    """

    coverage: float
    confidence: float
    accuracy: float
    interval: Interval


def accuracy_at(answers: Answers, coverages: Sequence[float] = COVERAGES) -> Scorer:
    """Accuracy of the surest answers. *Shape:* (replicates, examples) -> (replicates, coverages)."""
    order = np.argsort(-answers.confidence, kind="stable")
    rows, right = answers.row[order], answers.right[order].astype(np.float64)

    def score(counts: np.ndarray) -> np.ndarray:
        drawn = counts[:, rows]
        given, hits = drawn.cumsum(axis=1), (drawn * right).cumsum(axis=1)
        found = []
        for coverage in coverages:
            # The fewest that make up the share; rounding must not ask for one more.
            last = (given >= coverage * given[:, -1:] - 1e-9).argmax(axis=1)[:, None]
            found.append(divided(np.take_along_axis(hits, last, 1), np.take_along_axis(given, last, 1))[:, 0])
        return np.stack(found, axis=1)

    return score


def selected(answers: Answers, units: np.ndarray, replicates: np.ndarray) -> list[Selected]:
    """The table of risk and coverage.

    Args:
        units: which examples belong together. *Shape:* (examples,).
        replicates: what `accuracy_at` gives for resamples.
    """
    accuracies = whole(accuracy_at(answers), len(units))
    order = np.argsort(-answers.confidence, kind="stable")
    found = []
    for place, coverage in enumerate(COVERAGES):
        count = max(1, int(np.ceil(coverage * len(answers) - 1e-9)))
        drawn = replicates[:, place] if len(replicates) else replicates
        trials = len(np.unique(units[answers.row[order[:count]]]))
        around = share_interval(accuracies[place], drawn, trials)
        found.append(Selected(coverage, float(answers.confidence[order[count - 1]]), float(accuracies[place]), around))
    return found
