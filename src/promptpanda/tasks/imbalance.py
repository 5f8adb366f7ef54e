"""Own data in which a class is rare: accuracy then says little, and macro F1 decides instead."""

from __future__ import annotations

import numpy as np

from promptpanda.tasks.spec import TaskSpec

RARE = 0.1  # of the training rows
_METRICS = ("macro_f1", "balanced_accuracy", "average_precision", "roc_auc", "accuracy")


def with_rare_classes(spec: TaskSpec, names: tuple[str, ...], labels: np.ndarray) -> tuple[TaskSpec, str] | None:
    """The spec with macro F1 first among its metrics, and a sentence that says so; None where no class is rare.

    Rare is a class with less than a tenth of the training rows, and less than half of the most frequent class's, since
    of many even classes none is rare. Of two classes the rare one becomes the positive one.

    Args:
        names: of the classes.
        labels: of the training rows. *Shape:* (rows,), indices.
    """
    counts = np.bincount(labels, minlength=len(names))
    rarest = int(counts.argmin())
    if counts[rarest] >= RARE * len(labels) or 2 * counts[rarest] >= counts.max():
        return None
    binary = len(names) == 2
    positive = f" '{names[rarest]}' is the positive class." if binary else ""
    sentence = (
        f"{spec.name}: the rarest class, '{names[rarest]}', has {counts[rarest]} of {len(labels)} training rows, so "
        "that prompts are chosen by macro F1, in which all classes count alike (--metric accuracy for accuracy)."
        f"{positive}"
    )
    changes = {"metrics": _METRICS, "positive": names[rarest] if binary else None}
    return spec.model_copy(update=changes), sentence
