"""The probe: what a ridge readout of the features scores on examples that it was not fitted to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from promptpanda.transfers.estimators.base import Estimator, Needs
from promptpanda.transfers.estimators.labels import labelled, target_columns, varying_labels

if TYPE_CHECKING:
    from promptpanda.bank.folder import SourcePrompt
    from promptpanda.transfers.estimators.target import TargetFeatures

# Relative to the features' total variance, so that their scale does not matter.
PENALTIES = tuple(float(value) for value in 10.0 ** np.arange(-2.0, 3.5, 0.5))
_STRONG = np.asarray([1.0 <= value <= 100.0 for value in PENALTIES])


@dataclass(frozen=True)
class Probe(Estimator):
    """Exact leave-one-out predictions of a ridge readout, scored in one of three ways.

    What is left out is an example with all its vectors: a question with its choices, a sentence with its words.

    Attributes:
        measure: `metric`: the task's own, as a validation score, at the penalty with the smallest left-out squared
            error. `explained`: how much of the variance of the labels (0 and 1 for every class, or the value) is
            explained at that penalty; below 0 where the mean would be nearer. Few examples make accuracies coarse, and
            this is not. `shrunk`: the mean of what is explained at strong penalties, from once to a hundred times the
            features' variance. A strong penalty leaves the directions in which the features vary most. Where a source
            orders a target's classes along those, it does so on examples to come; along others a few dozen labels are
            explained by chance.
    """

    measure: Literal["metric", "explained", "shrunk"] = "metric"
    reference: ClassVar[str] = "ridge, exact leave-one-out (Allen 1974, PRESS)"
    needs: ClassVar[Needs] = "labels"

    def score(self, source: SourcePrompt | None, target: TargetFeatures) -> float:
        vectors, readings = labelled(source, target)
        targets = target_columns(readings)
        predictions = left_out(vectors, targets, readings.owner)
        errors = ((predictions - targets) ** 2).mean((1, 2))
        if self.measure == "explained":
            return float(1.0 - errors.min() / targets.var(0).mean())
        if self.measure == "shrunk":
            return float(1.0 - errors[_STRONG].mean() / targets.var(0).mean())
        best = predictions[int(np.argmin(errors))]
        if not readings.classifies:
            return readings.score(best[:, 0])
        if readings.several:
            estimated = readings.labels.astype(np.float64)
            estimated[:, varying_labels(readings)] = best
            return readings.score(estimated)
        if readings.relative:
            return readings.score(best[:, 1])
        return readings.score(np.unique(readings.labels)[best.argmax(1)])


def left_out(features: np.ndarray, targets: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """What a ridge fitted without an owner's vectors predicts for them, for every penalty.

    With S the hat matrix of the fit to all (an unpenalised intercept included) and B an owner's vectors, the left-out
    residuals are (I - S_BB)^-1 e_B, exactly. The intercept alone is then taken from all vectors, the same for all:
    without an example of a class the mean leans to the others, so that useless features would look worse than chance.

    Args:
        features: *Shape:* (n, d).
        targets: *Shape:* (n, columns).
        owner: vectors with the same value are left out together. *Shape:* (n,).

    Returns:
        *Shape:* (penalties, n, columns).
    """
    n, mean = len(targets), targets.mean(0)
    left, singular, _ = np.linalg.svd(features - features.mean(0), full_matrices=False)
    squares = singular**2
    unit = max(float(squares.sum()) / n, np.finfo(float).tiny)
    along = left.T @ targets
    blocks = [np.flatnonzero(owner == name) for name in np.unique(owner)]
    alike = [np.stack([one for one in blocks if len(one) == size]) for size in {len(one) for one in blocks}]
    found = np.empty((len(PENALTIES), *targets.shape))
    for place, penalty in enumerate(PENALTIES):
        weights = squares / (squares + penalty * unit)
        residuals = targets - mean - left @ (weights[:, None] * along)
        for block in alike:  # *Shape:* (owners, vectors of each)
            rows, size = left[block], block.shape[1]
            kept = np.eye(size) - 1 / n - (rows * weights) @ rows.swapaxes(1, 2)
            predicted = targets[block] - np.linalg.solve(kept, residuals[block])
            mean_of_others = (n * mean - targets[block].sum(1, keepdims=True)) / (n - size)
            found[place, block] = predicted - mean_of_others + mean
    return found
