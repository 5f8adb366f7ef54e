"""LogME: how probable the target's labels are under a linear model of the features, its weights integrated out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from promptpanda.transfers.estimators.base import Estimator, Needs
from promptpanda.transfers.estimators.labels import labelled, target_columns

if TYPE_CHECKING:
    from promptpanda.bank.folder import SourcePrompt
    from promptpanda.transfers.estimators.target import TargetFeatures


@dataclass(frozen=True)
class LogME(Estimator):
    """Maximised log evidence a vector; of classes and of labels the mean of one against the rest, of values that of
    standardised ones.

    Features and labels are centred, which the paper does not do: its model has no intercept, and without one the
    features' offset, which says nothing, decides.
    """

    reference: ClassVar[str] = "You et al., arXiv 2102.11005"
    needs: ClassVar[Needs] = "labels"

    def score(self, source: SourcePrompt | None, target: TargetFeatures) -> float:
        vectors, readings = labelled(source, target)
        columns = target_columns(readings)
        evidence = log_evidence(vectors - vectors.mean(0), columns - columns.mean(0))
        return float(evidence.mean()) / len(vectors)


def log_evidence(features: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """max over a, b of log p(y | F, a, b), where y = F w + noise of precision b and w ~ N(0, 1/a).

    With r = a/b the best b is n / y'(I + FF'/r)^-1 y, which leaves one unknown. It is searched for on a grid and then
    refined: the fixed point iteration of the paper finds the same value where it converges.

    Args:
        features: F. *Shape:* (n, d).
        targets: several y. *Shape:* (n, columns).

    Returns:
        *Shape:* (columns,).
    """
    from scipy.optimize import minimize_scalar

    n = len(features)
    left, singular, _ = np.linalg.svd(features, full_matrices=False)
    squares = singular**2
    scale = max(float(squares.max(initial=0.0)), np.finfo(float).tiny)
    grid = np.linspace(np.log(1e-8), np.log(1e4), 60)
    found = []
    for y in targets.T:
        along = (left.T @ y) ** 2
        rest = max(float(y @ y - along.sum()), 0.0)

        def loss(log_ratio: float, along: np.ndarray = along, rest: float = rest) -> float:
            growth = 1.0 + squares / (np.exp(log_ratio) * scale)
            size = max(float((along / growth).sum()) + rest, np.finfo(float).tiny)
            return float(n * np.log(size) + np.log(growth).sum()) / 2

        best = int(np.argmin([loss(value) for value in grid]))
        bounds = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
        lowest = min(float(minimize_scalar(loss, bounds=bounds, method="bounded").fun), loss(grid[best]))
        found.append(n / 2 * (np.log(n) - 1 - np.log(2 * np.pi)) - lowest)
    return np.asarray(found)
