"""Rows of train for the final figure of a study, so that no test data is read, and the sources a target would race."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from promptpanda import Backbone, Bank, load_task
from promptpanda.progress import Silent
from promptpanda.tasks.inputs import Split
from promptpanda.tasks.protocol import Partition, partition
from promptpanda.tasks.task import Task
from promptpanda.training.options import TrainingOptions
from promptpanda.transfers.estimators import Cosine, TargetFeatures
from promptpanda.transfers.overlap import TargetRows
from promptpanda.transfers.pruning import Pruned, SourceCandidates


def held_out(task: Task, part: Partition, rows: int) -> Split:
    """Rows of train whose texts are not in the budget."""
    train = task.train()
    seen = {*part.train.texts, *part.validation.texts}
    rest = np.asarray([place for place, text in enumerate(train.texts) if text not in seen])
    return train.take(np.sort(np.random.default_rng(5).permutation(rest)[:rows]))


def draws(
    tasks: str, seeds: str, data_dir: Path | str, examples: int, rows: int
) -> Iterator[tuple[Task, int, Partition, Split]]:
    """Each task with each seed: the budget of that draw, and other rows of train; names and seeds between commas."""
    for name in tasks.split(","):
        task = load_task(name, data_dir=data_dir)
        for seed in map(int, seeds.split(",")):
            drawn = partition(task, train_examples=examples, seed=seed)
            yield task, seed, drawn, held_out(task, drawn, rows)


def on_all_labels(part: Partition) -> Partition:
    """Training and validation part together as the training part."""
    return replace(part, train=part.train.joined(part.validation))


def pruned(
    task: Task, part: Partition, seed: int, backbone: Backbone, bank: Bank, options: TrainingOptions, count: int
) -> Pruned:
    """What forward passes leave of a bank; prompts that saw any row of the task are left out."""
    rows = TargetRows.of([partition(task)], task.test())
    candidates = SourceCandidates.of(task, backbone, bank, options, rows, Silent())
    target = TargetFeatures.of(backbone, task, part, options)
    return candidates.pruned([target], [seed], Cosine(), count)[0]
