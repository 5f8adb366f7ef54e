"""Logistic and ridge regression whose strength is chosen by cross-validation."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

STRENGTHS = (1e-2, 1e-1, 1.0, 1e1, 1e2)  # C of the logistic regression; a ridge regression has alpha 1 / C
FOLDS = 5


@dataclass(frozen=True)
class Linear:
    """A linear model, and how its strength was chosen.

    Attributes:
        predict: vectors -> classes or values.
        weight, bias: of every class seen, of two classes those of the second, or of the value. *Shape:* (classes,
            width) and (classes,), or (width,) and ().
        classes: those seen in training; None where values are predicted.
        strength: C.
        cross_validation: the score that it was chosen by.
    """

    predict: Callable[[np.ndarray], np.ndarray]
    weight: np.ndarray
    bias: np.ndarray
    classes: np.ndarray | None
    strength: float
    cross_validation: float


def fitted(
    vectors: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    score: Callable[[np.ndarray], float],
    *,
    seed: int = 0,
) -> Linear | None:
    """A logistic regression, or a ridge regression of float labels, with the strength of the best cross-validation.

    Args:
        vectors: *Shape:* (vectors, width).
        labels: class indices, or values (float64). *Shape:* (vectors,).
        groups: which vectors are held out together. *Shape:* (vectors,).
        score: what predictions for all of them are worth.
        seed: fixes the folds.

    Returns:
        The model, of equally good ones the most regularised; None where there is nothing to hold out, or where not all
        is finite.
    """
    splits = _folds(labels, groups, seed)
    if len(splits) < 2 or not np.isfinite(vectors).all():
        return None
    scores = {}
    for strength in STRENGTHS:
        predictions = np.empty_like(labels)
        for train, held in splits:
            predictions[held] = linear_model(vectors[train], labels[train], strength).predict(vectors[held])
        scores[strength] = score(predictions)
    best = max(scores, key=lambda strength: scores[strength])
    model = linear_model(vectors, labels, best)
    if isinstance(model, DummyClassifier):
        weight, bias = np.zeros((1, vectors.shape[1])), np.zeros(1)
    else:
        weight, bias = model.coef_, np.asarray(model.intercept_)
    return Linear(model.predict, weight, bias, getattr(model, "classes_", None), best, scores[best])


def _folds(labels: np.ndarray, groups: np.ndarray, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Positions to train on and to hold out; none where there are no two folds."""
    classes = labels.dtype != np.float64
    count = min(FOLDS, len(np.unique(groups)))
    if classes:
        count = min(count, int(np.bincount(labels).max()))
    if count < 2:
        return []
    folds = (StratifiedGroupKFold if classes else GroupKFold)(count, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class of fewer examples than folds is ordinary here
        found = list(folds.split(labels, labels, groups))
    return [(train, held) for train, held in found if len(train) and len(held)]


def linear_model(vectors: np.ndarray, labels: np.ndarray, strength: float) -> Any:
    """scikit-learn's logistic regression, or ridge regression of float labels, fitted."""
    if labels.dtype == np.float64:
        return Ridge(alpha=1 / strength).fit(vectors, labels)
    if len(np.unique(labels)) < 2:  # all others of a rare class are held out
        return DummyClassifier().fit(vectors, labels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(C=strength, max_iter=1000).fit(vectors, labels)
