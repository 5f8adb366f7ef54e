"""Weights of classes in the loss, so that rare ones count as much as frequent ones."""

from __future__ import annotations

import numpy as np


def balanced_weights(labels: np.ndarray, classes: int) -> tuple[float, ...]:
    """scikit-learn's `balanced`: examples / (classes that occur x examples of the class); 1 where there are none.

    Args:
        labels: class indices. *Shape:* (examples,).
        classes: how many there are.
    """
    counts = np.bincount(labels, minlength=classes)
    weights = np.ones(classes)
    there = counts > 0
    weights[there] = len(labels) / (there.sum() * counts[there])
    return tuple(map(float, weights))
