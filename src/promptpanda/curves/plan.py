"""What a learning curve takes: sizes, seeds, methods, and the rows that all of it is scored on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from promptpanda.errors import PandaError
from promptpanda.tasks.inputs import Split
from promptpanda.tasks.protocol import capped, check_seeds, held_out, minimum_budget, nested_order, validation_size
from promptpanda.tasks.spec import SplitName
from promptpanda.tasks.task import Task
from promptpanda.training.defaults import resolved
from promptpanda.training.options import TrainingOptions
from promptpanda.transfers.method import Method

SMALLEST = 16
_NEAR = 1.25  # a doubling is left out where all there is holds fewer than so many times its rows
_HELD_OUT = 0.25  # of the training rows, where there is no test data
_FEWEST_HELD_OUT = 20
MOST_HELD_OUT = 1000


@dataclass(frozen=True)
class CurvePlan:
    """All trainings of a curve, and what they share.

    Attributes:
        task: with its labels, whichever rows are drawn.
        pool: the rows that subsets are drawn from.
        scored: the rows that every training is scored on.
        carved: whether these were cut off the training rows, since there is no test data.
        sizes: labelled rows, training and validation part together; ascending.
        left_out: sizes that were asked for, or doublings, too small for the task.
    """

    task: Task
    pool: Split
    scored: Split
    carved: bool
    sizes: tuple[int, ...]
    seeds: tuple[int, ...]
    methods: tuple[Method, ...]
    left_out: tuple[int, ...] = ()

    @classmethod
    def of(
        cls,
        task: Task,
        methods: Sequence[Method],
        *,
        sizes: Sequence[int] | None = None,
        seeds: Sequence[int] = (0, 1, 2),
        test_examples: int = MOST_HELD_OUT,
    ) -> CurvePlan:
        """Read the data, and lay out the trainings.

        Args:
            sizes: None: 16, 32, 64, ... and all there is.
            test_examples: at most so many rows are scored; of test data drawn with a fixed seed.

        Raises:
            PandaError: too few rows, or sizes that do not fit them.
        """
        seeds, train, test = check_seeds(seeds), task.train(), task.test()
        carved = test is None
        if test is None:
            size = int(np.clip(round(_HELD_OUT * len(train)), _FEWEST_HELD_OUT, MOST_HELD_OUT))
            if len(train) < size + SMALLEST:
                raise PandaError(
                    f"Task '{task.name}' has {len(train)} labelled rows and no test data; a learning curve needs "
                    f"{_FEWEST_HELD_OUT + SMALLEST} or more, of which {_FEWEST_HELD_OUT} are kept to score on: give "
                    "more, or --test FILE."
                )
            train, test = held_out(task, size)
        classes = len(np.unique(train.labels)) if task.kind.classifies else 1
        least = minimum_budget(classes)
        requested = _doublings(len(train)) if sizes is None else _checked(sizes, task, len(train))
        kept = tuple(size for size in requested if size >= least)
        if not kept:
            raise PandaError(
                f"{requested[-1]} labelled rows of task '{task.name}' are too few for {classes} classes and a "
                f"validation part; at least {least} are needed."
            )
        left_out = tuple(size for size in requested if size < least)
        return cls(task, train, capped(test, test_examples), carved, kept, seeds, tuple(methods), left_out)

    def drawn(self, size: int, seed: int) -> Task:
        """The task with a seed's first `size` rows for all of its data; smaller draws of that seed are parts of it."""
        rows = np.sort(nested_order(self.pool, self.task.kind, seed)[:size])
        splits: dict[SplitName, Split | None] = {"train": self.pool.take(rows), "validation": None, "test": None}
        return replace(self.task, _splits=splits, _labels=self.task.labels)

    @property
    def points(self) -> list[tuple[Method, int, int]]:
        """Every training as (method, size, seed): small ones first, all methods of a size together."""
        return [(method, size, seed) for size in self.sizes for method in self.methods for seed in self.seeds]

    def steps(self, options: TrainingOptions) -> dict[int, int]:
        """Steps of one training by its size, if epochs are settled by the amount of data (or given)."""
        found = {}
        for size in self.sizes:
            n_train = size - validation_size(size)
            epochs = resolved(options, self.task.kind, n_train).epochs
            found[size] = epochs * -(-n_train // options.batch_size)
        return found


def _doublings(total: int) -> list[int]:
    """16, 32, 64, ... as far as they are clearly below all there is, and that."""
    found, size = [], SMALLEST
    while size * _NEAR <= total:
        found.append(size)
        size *= 2
    return [*found, total]


def _checked(sizes: Sequence[int], task: Task, total: int) -> list[int]:
    requested = sorted(set(sizes))
    if not requested or requested[0] < 1:
        raise PandaError(f"--sizes are numbers of labelled rows, such as 16,32,64; found {list(sizes)}.")
    if requested[-1] > total:
        raise PandaError(
            f"--sizes {requested[-1]} is more than the {total} rows of task '{task.name}' that can be drawn; lower it."
        )
    return requested
