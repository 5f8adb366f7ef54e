"""H-score: how much of the features' spread lies between the classes."""

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
class HScore(Estimator):
    """The shrunken H-score: the plain one of Bao et al. (arXiv 2212.10082) inverts the covariance of more features
    than there are examples. The values of a regression are cut into quintiles; of several labels it is the mean over
    them, having one against not having it."""

    reference: ClassVar[str] = "Ibrahim et al., arXiv 2110.06893"
    needs: ClassVar[Needs] = "labels"

    def score(self, source: SourcePrompt | None, target: TargetFeatures) -> float:
        vectors, readings = labelled(source, target)
        if readings.several:
            return h_score(vectors, *target_columns(readings).T)
        return h_score(vectors, readings.labels if readings.classifies else _quintiles(readings.labels))


def h_score(features: np.ndarray, *classes: np.ndarray) -> float:
    """tr(S^-1 (1 - a) B): S the Ledoit-Wolf covariance of the features, a its shrinkage, B that of the class means.

    Args:
        features: *Shape:* (n, d).
        classes: of one division into classes, or of several, over which the score is the mean. *Shape:* (n,) each.
    """
    from sklearn.covariance import ledoit_wolf

    covariance, shrinkage = ledoit_wolf(features)
    centred = features - features.mean(0)
    between = np.zeros_like(covariance)
    for division in classes:
        for name in np.unique(division):
            mean = centred[division == name].mean(0)
            between += np.mean(division == name) * np.outer(mean, mean) / len(classes)
    return float((1.0 - shrinkage) * np.trace(np.linalg.solve(covariance, between)))


def _quintiles(values: np.ndarray) -> np.ndarray:
    return np.searchsorted(np.quantile(values, [0.2, 0.4, 0.6, 0.8]), values, side="right")
