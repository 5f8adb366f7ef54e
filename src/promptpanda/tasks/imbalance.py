"""Own data in which a class is rare: accuracy then says little, and macro F1 decides instead."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from promptpanda.errors import PandaError
from promptpanda.tasks.task import Task

RARE = 0.1  # of the training rows
_METRICS = ("macro_f1", "balanced_accuracy", "average_precision", "roc_auc", "accuracy")


def with_rare_classes(task: Task) -> Task:
    """The task as it is, or, where a class is rare, with macro F1 first among its metrics, and a note that says so.

    Rare is a class with less than a tenth of the training rows, and less than half of the most frequent class's, since
    of many even classes none is rare. Of two classes the rare one becomes the positive one.
    """
    if not task.kind.classifies:
        return task
    try:
        train = task.split("train")
    except PandaError:
        return task  # it is raised again, and told, when the data is asked for
    if train is None or not len(train):
        return task
    counts = np.bincount(train.labels, minlength=len(task.labels))
    rarest = int(counts.argmin())
    if counts[rarest] >= RARE * len(train) or 2 * counts[rarest] >= counts.max():
        return task
    name = task.labels[rarest]
    binary = len(task.labels) == 2
    positive = f" '{name}' is the positive class." if binary else ""
    note = (
        f"{task.name}: the rarest class, '{name}', has {counts[rarest]} of {len(train)} training rows, so that prompts "
        f"are chosen by macro F1, in which all classes count alike (--metric accuracy for accuracy).{positive}"
    )
    changes = {"metrics": _METRICS, "positive": name if binary else None}
    return replace(task, spec=task.spec.model_copy(update=changes), notes=(*task.notes, note))
