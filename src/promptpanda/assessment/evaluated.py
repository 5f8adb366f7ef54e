"""What a prompt says of labelled examples, before anything is counted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from promptpanda.backbone import Backbone
from promptpanda.bank.folder import TrainedPrompt
from promptpanda.errors import PandaError
from promptpanda.tasks.encoding import Encoded
from promptpanda.tasks.grouping import blocks_of
from promptpanda.tasks.inputs import Split
from promptpanda.tasks.metrics import as_wide
from promptpanda.tasks.spec import Kind
from promptpanda.tasks.task import Task
from promptpanda.training.objectives.objective import Objective
from promptpanda.transfers.evaluate import outputs_on, with_labels_of


@dataclass(frozen=True)
class Evaluated:
    """A prompt's outputs on labelled examples.

    Attributes:
        id: of the prompt.
        task: whose labels and metrics count; its classes are in the order of the outputs.
        split: the examples, at least one.
        outputs: of the head on the rows of `encoded`. *Shape:* (rows, outputs) or (rows, units, outputs).
        predictions: one entry an example, as metrics take them.
        units: what is drawn in a resample: examples that share a text, a passage or a group are one. *Shape:*
            (examples,), numbers from 0.
    """

    id: str
    task: Task
    split: Split
    encoded: Encoded
    outputs: np.ndarray
    objective: Objective
    predictions: Any
    units: np.ndarray

    @classmethod
    def of(cls, trained: TrainedPrompt, backbone: Backbone, task: Task, split: Split | None = None) -> Evaluated:
        """Run a prompt on examples.

        Args:
            split: None takes the task's test data.

        Raises:
            PandaError: the task is of another kind or has other classes, there is no example, or outputs are not
                finite.
        """
        task = with_labels_of(trained.card, task)
        split = task.test() if split is None else split
        if split is None or not len(split):
            raise PandaError(f"Task '{task.name}' has no example to evaluate on; give at least one labelled row.")
        encoded, outputs, objective = outputs_on(trained, backbone, task, split)
        predictions = objective.predictions(outputs, encoded, split.texts)
        if task.kind == Kind.MULTI_LABEL:
            predictions = as_wide(predictions, split)
        return cls(trained.card.id, task, split, encoded, outputs, objective, predictions, blocks_of(split))

    def __len__(self) -> int:
        return len(self.split)

    @property
    def names(self) -> tuple[str, ...]:
        """Of classes, labels or tags, and after them of those that the examples alone have."""
        return (*self.task.labels, *self.split.unseen_labels)


@dataclass(frozen=True)
class Answers:
    """What a model can be more or less sure of: the class of a text, a span, the answer to a question.

    Attributes:
        row: the example that each belongs to. *Shape:* (answers,).
        confidence: probability that the model gives it, 0..1. *Shape:* (answers,).
        right: whether it is. *Shape:* (answers,), bool.
    """

    row: np.ndarray
    confidence: np.ndarray
    right: np.ndarray

    def __len__(self) -> int:
        return len(self.row)
