"""What label-aware estimators share: features of the target's examples, and their labels as numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from promptpanda.transfers.estimators.base import IncomparableError

if TYPE_CHECKING:
    from promptpanda.bank.folder import SourcePrompt
    from promptpanda.transfers.estimators.readings import Readings
    from promptpanda.transfers.estimators.target import TargetFeatures


def labelled(source: SourcePrompt | None, target: TargetFeatures) -> tuple[np.ndarray, Readings]:
    """The feature vectors of the target under a source prompt, and what is true of them.

    Raises:
        IncomparableError: the target's labels are not known, or all the same, or the features are not finite.
    """
    if target.readings is None:
        raise IncomparableError("This estimator needs the target's labels, and has only its texts.")
    if not target.readings.varied:
        raise IncomparableError("The target's examples all have the same label, so that no features can separate them.")
    vectors = target.vectors(source)
    if not np.isfinite(vectors).all():
        raise IncomparableError("Under this prompt the model's features are not finite.")
    return vectors, target.readings


def varying_labels(readings: Readings) -> np.ndarray:
    """Which of several labels some vectors have and others have not. *Shape:* (labels,), bool."""
    labels = readings.labels
    return np.asarray(labels.any(0) & ~labels.all(0))


def target_columns(readings: Readings) -> np.ndarray:
    """Labels as a linear model takes them: 0 and 1 for every class that occurs, or for every label that some have and
    others have not; or the standardised value.

    *Shape:* (vectors, columns), float64.
    """
    labels = readings.labels
    if readings.several:
        return labels[:, varying_labels(readings)].astype(np.float64)
    classes = np.unique(labels) if readings.classifies else None
    columns: np.ndarray = (
        ((labels - labels.mean()) / labels.std())[:, None] if classes is None else labels[:, None] == classes
    )
    return columns.astype(np.float64)
