"""Prompt transfer for frozen language models: train prompts, keep them in a bank, predict which helps, transfer it.

The names below are imported when they are first used, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from promptpanda.version import __version__

if TYPE_CHECKING:
    from promptpanda.backbone import Backbone
    from promptpanda.bank.bank import Bank
    from promptpanda.bank.folder import TrainedPrompt
    from promptpanda.curves.measure import learning_curve
    from promptpanda.errors import PandaError
    from promptpanda.prompts.prompt import Prompt
    from promptpanda.tasks.catalog import load_task, own_task
    from promptpanda.training.options import TrainingOptions
    from promptpanda.transfers.estimators import Estimator
    from promptpanda.transfers.evaluate import evaluate
    from promptpanda.transfers.method import Method
    from promptpanda.transfers.predict import predict
    from promptpanda.transfers.ranking import rank
    from promptpanda.transfers.registration import register
    from promptpanda.transfers.transfer import train, transfer

_HOMES = {
    "Backbone": "backbone",
    "Bank": "bank.bank",
    "Estimator": "transfers.estimators",
    "Method": "transfers.method",
    "PandaError": "errors",
    "Prompt": "prompts.prompt",
    "TrainedPrompt": "bank.folder",
    "TrainingOptions": "training.options",
    "evaluate": "transfers.evaluate",
    "learning_curve": "curves.measure",
    "load_task": "tasks.catalog",
    "own_task": "tasks.catalog",
    "predict": "transfers.predict",
    "rank": "transfers.ranking",
    "register": "transfers.registration",
    "train": "transfers.transfer",
    "transfer": "transfers.transfer",
}

__all__ = [
    "Backbone",
    "Bank",
    "Estimator",
    "Method",
    "PandaError",
    "Prompt",
    "TrainedPrompt",
    "TrainingOptions",
    "__version__",
    "evaluate",
    "learning_curve",
    "load_task",
    "own_task",
    "predict",
    "rank",
    "register",
    "train",
    "transfer",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'promptpanda' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"promptpanda.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
