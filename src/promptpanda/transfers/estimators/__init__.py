"""Transferability estimators: scores of (source prompt, target) before the transfer is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from promptpanda.transfers.estimators.base import COSTS, Cost, Estimator, IncomparableError, Needs
from promptpanda.transfers.estimators.registry import (
    DEFAULT_ESTIMATOR,
    ESTIMATORS,
    PANDA_METRIC,
    estimates,
    estimators,
    preferred,
)
from promptpanda.transfers.estimators.signatures import Cosine

if TYPE_CHECKING:
    from promptpanda.transfers.estimators.target import TargetFeatures

__all__ = [
    "COSTS",
    "DEFAULT_ESTIMATOR",
    "ESTIMATORS",
    "PANDA_METRIC",
    "Cosine",
    "Cost",
    "Estimator",
    "IncomparableError",
    "Needs",
    "TargetFeatures",
    "estimates",
    "estimators",
    "preferred",
]


def __getattr__(name: str) -> Any:
    # Imported when it is first used, since it needs torch, and estimators are listed without.
    if name != "TargetFeatures":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from promptpanda.transfers.estimators.target import TargetFeatures

    return TargetFeatures
