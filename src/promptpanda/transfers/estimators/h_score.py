"""H-score: how much of the features' spread lies between the classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from sklearn.covariance import ledoit_wolf

from promptpanda.bank.folder import SourcePrompt
from promptpanda.transfers.estimators.base import Estimator, Needs
from promptpanda.transfers.estimators.labels import labelled
from promptpanda.transfers.estimators.target import TargetFeatures


@dataclass(frozen=True)
class HScore(Estimator):
    """The shrunken H-score: the plain one of Bao et al. (arXiv 2212.10082) inverts the covariance of more features
    than there are examples. The values of a regression are cut into quintiles."""

    reference: ClassVar[str] = "Ibrahim et al., arXiv 2110.06893"
    needs: ClassVar[Needs] = "labels"

    def score(self, source: SourcePrompt | None, target: TargetFeatures) -> float:
        vectors, readings = labelled(source, target)
        return h_score(vectors, readings.labels if readings.classifies else _quintiles(readings.labels))


def h_score(features: np.ndarray, classes: np.ndarray) -> float:
    """tr(S^-1 (1 - a) B): S the Ledoit-Wolf covariance of the features, a its shrinkage, B that of the class means.

    Args:
        features: *Shape:* (n, d).
        classes: *Shape:* (n,).
    """
    covariance, shrinkage = ledoit_wolf(features)
    centred = features - features.mean(0)
    between = np.zeros_like(covariance)
    for name in np.unique(classes):
        mean = centred[classes == name].mean(0)
        between += np.mean(classes == name) * np.outer(mean, mean)
    return float((1.0 - shrinkage) * np.trace(np.linalg.solve(covariance, between)))


def _quintiles(values: np.ndarray) -> np.ndarray:
    return np.searchsorted(np.quantile(values, [0.2, 0.4, 0.6, 0.8]), values, side="right")
