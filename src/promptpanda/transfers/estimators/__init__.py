"""Transferability estimators: scores of (source prompt, target) before the transfer is trained."""

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
