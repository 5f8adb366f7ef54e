"""Scores of a trained prompt on a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from promptpanda.backbone import Backbone
from promptpanda.bank.bank import Bank, as_trained
from promptpanda.bank.card import Card
from promptpanda.bank.folder import TrainedPrompt
from promptpanda.errors import PandaError
from promptpanda.tasks.encoding import Encoded, encode
from promptpanda.tasks.inputs import Split
from promptpanda.tasks.metrics import compute_metrics
from promptpanda.tasks.own_rows import OwnRows
from promptpanda.tasks.task import Task
from promptpanda.training.objectives.objective import Objective
from promptpanda.transfers.outputs import finite_outputs, objective_of

if TYPE_CHECKING:
    import pandas


def with_labels_of(card: Card, task: Task) -> Task:
    """A task with the classes of a prompt, in the prompt's order. Raises PandaError if they differ."""
    if task.kind != card.task.kind and not (task.kind.classifies and card.task.kind.classifies):
        mend = (
            f"say --kind {card.task.kind} if it is" if task.spec.files is not None else "evaluate it on one of its kind"
        )
        raise PandaError(f"Prompt {card.id} is for {card.task.kind}, task '{task.name}' is {task.kind}; {mend}.")
    if len(task.spec.segments) != len(card.task.segments):
        forms = {1: "single texts", 2: "pairs of texts (--text and --text2)"}
        raise PandaError(
            f"Prompt {card.id} reads {forms[len(card.task.segments)]}, task '{task.name}' has "
            f"{forms[len(task.spec.segments)]}."
        )
    if task.name == card.task.name and task.spec.metrics == card.task.metrics:
        # The same task is read as in training, also if that was by another template.
        written = {"segments": card.task.segments, "marks": card.task.marks, "values": card.task.values}
        task = task.changed(task.spec.model_copy(update=written), task.classes)
    if not card.labels:
        return task
    if not task.spec.labels and not task.spec.label_columns:
        # Own files name their classes by the rows alone; metrics of the prompt's task apply.
        return task.changed(task.spec, card.labels)
    if set(task.labels) != set(card.labels):
        raise PandaError(
            f"Prompt {card.id} predicts {', '.join(map(repr, card.labels[:8]))}, but task '{task.name}' has "
            f"{', '.join(map(repr, task.labels[:8]))}; evaluate it on a task with the same labels."
        )
    return task


def outputs_on(
    trained: TrainedPrompt, backbone: Backbone, task: Task, split: Split
) -> tuple[Encoded, np.ndarray, Objective]:
    """A prompt's outputs on examples, in the order of the task's classes, and the objective that reads them.

    Outputs have the *Shape:* (rows, outputs) or (rows, units, outputs).

    Args:
        task: one that `with_labels_of` made.

    Raises:
        PandaError: outputs are not finite.
    """
    encoded = encode(backbone, split.texts, trained.card.options.max_length, apart=trained.card.readout == "compare")
    outputs = finite_outputs(trained, backbone, encoded)
    objective = objective_of(trained.card)
    if trained.card.labels:
        order = [trained.card.labels.index(name) for name in task.labels]
        outputs, objective = outputs[..., order], objective.reordered(order)
    return encoded, outputs, objective


def evaluate(
    prompt: TrainedPrompt | Path | str,
    backbone: Backbone,
    task: Task | Sequence[Mapping[str, Any]] | pandas.DataFrame,
    split: Split | None = None,
    *,
    bank: Bank | Path | str | None = None,
) -> dict[str, float]:
    """Score a trained prompt on examples of a task with the same classes, in any order.

    Args:
        prompt: a trained prompt, the path of its folder, or, with a bank, its id or a task's name.
        backbone: the frozen model that it was trained on.
        task: the task whose labels and metrics count. Or labelled rows of the prompt's own task: a pandas frame, or a
            list of dictionaries.
        split: the examples (such as `task.split("validation")`); None, the default, takes the task's test data, or the
            rows.
        bank: the bank, or the path of its folder, in which ids and task names are looked up; None, the default, allows
            paths only.

    Returns:
        The task's metrics by name, as fractions (correlations from -1 to 1).

    Raises:
        PandaError: there is no such prompt; the task is of another kind, has other classes or no test data; or a row
            cannot be read (the message names it by its number).
    """
    trained = as_trained(prompt, backbone, bank)
    if not isinstance(task, Task):
        rows = OwnRows.of(task, "test")
        task = Task(trained.card.task, classes=trained.card.labels, rows={"test": rows}, strict=True)
        split = task.split("test") if split is None else split
    task = with_labels_of(trained.card, task)
    split = task.test() if split is None else split
    if split is None:
        raise PandaError(f"Task '{task.name}' has no labelled test data; give examples, or a task that has.")
    encoded, outputs, objective = outputs_on(trained, backbone, task, split)
    predictions = objective.predictions(outputs, encoded, split.texts)
    return compute_metrics(task.spec, task.labels, split, predictions, objective.probabilities(outputs))
