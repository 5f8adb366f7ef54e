"""The data protocols: which examples train, which validate, which test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from promptpanda.errors import PandaError
from promptpanda.tasks.grouping import blocks_of, first_blocks, smallest_block, straddles, whole_blocks
from promptpanda.tasks.inputs import Split
from promptpanda.tasks.spec import Kind
from promptpanda.tasks.task import Task

Protocol = Literal["clean", "paper"]


def check_seeds(seeds: Sequence[int]) -> tuple[int, ...]:
    """The seeds. Raises PandaError if there is none, one is negative, or one comes twice."""
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise PandaError(f"Seeds are numbers from 0, at least one, each once; found {list(seeds)}.")
    return tuple(seeds)


@dataclass(frozen=True)
class Partition:
    """What one seed of a run may see.

    Attributes:
        train, validation: carved from the budget (clean), or all of it and the official validation set (paper).
        protocol: `clean`, or `paper`: best epoch on the official validation set, reported on that same set.
    """

    train: Split
    validation: Split
    protocol: Protocol


def partition(
    task: Task, *, protocol: Protocol = "clean", train_examples: int | None = None, seed: int = 0
) -> Partition:
    """Draw the subset and the carve of one seed; both are stratified. Test data is not touched.

    Rows that belong together (tasks/grouping.py) stay on one side of the carve; the subset holds whole groups, of which
    the last may be cut, where the task names groups.

    Args:
        train_examples: the whole budget N (train and validation together); None takes all of train.
        seed: fixes subset and carve.

    Raises:
        PandaError: the budget is larger than the data, or too small for its classes or the validation part.
    """
    train = task.train()
    total = len(train) if train_examples is None else train_examples
    if total > len(train):
        raise PandaError(
            f"--train-examples {total} is more than task '{task.name}' has ({len(train)}); lower it or leave it out."
        )
    strata = _strata(train, task.kind)
    classes = len(np.unique(strata)) if task.kind.classifies else 1
    rng = np.random.default_rng([seed, 0])
    if protocol == "paper":
        validation = task.split("validation")
        if validation is None:
            raise PandaError(
                f"The paper protocol needs an official validation split, and task '{task.name}' has none; use "
                "--protocol clean."
            )
        if total < classes:
            raise PandaError(_too_few(task, total, classes, classes))
        return Partition(train.take(_subset(train, strata, total, rng)), validation, protocol)
    n_val = validation_size(total)
    if total - n_val < max(classes, 2):
        raise PandaError(_too_few(task, total, classes, minimum_budget(classes)))
    subset = _subset(train, strata, total, rng)
    carved = _carved(task, strata[subset], blocks_of(train)[subset], n_val, rng)
    rest = np.setdiff1d(np.arange(total), carved)
    return Partition(train.take(subset[rest]), train.take(subset[carved]), protocol)


def held_out(task: Task, size: int) -> tuple[Split, Split]:
    """The train split cut once, for a task without test data: what may be trained on, and what scores are taken on.

    The cut is stratified, drawn with a fixed seed, and parts no rows that belong together.

    Args:
        size: of the second part, as near to it as groups of rows allow.

    Raises:
        PandaError: the rows cannot be cut.
    """
    train = task.train()
    rng = np.random.default_rng([0, 8])
    taken = _carved(task, _strata(train, task.kind), blocks_of(train), size, rng)
    return train.take(np.setdiff1d(np.arange(len(train)), taken)), train.take(taken)


def nested_order(split: Split, kind: Kind, seed: int) -> np.ndarray:
    """Positions in an order of which every beginning is a stratified subset; of groups whole ones, but for the last.

    One row of every stratum comes first, so that no beginning that can hold all classes lacks one.
    """
    rng = np.random.default_rng([seed, 9])
    if split.groups is not None:
        return np.concatenate(
            [np.flatnonzero(split.groups == group) for group in rng.permutation(np.unique(split.groups))]
        )
    places = np.empty(len(split))
    strata = _strata(split, kind)
    for stratum in np.unique(strata):
        rows = rng.permutation(np.flatnonzero(strata == stratum))
        places[rows] = (np.arange(len(rows)) + rng.random(len(rows))) / len(rows)
        places[rows[0]] -= 1
    return np.argsort(places, kind="stable")


def _carved(task: Task, strata: np.ndarray, blocks: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Positions of about `size` rows that are cut off, sorted; rows of a block stay together.

    Raises:
        PandaError: every block is too large.
    """
    # Every class keeps an example to train on, and every label where that can be; other strata need not.
    keep = int(task.kind.classifies)
    if task.kind == Kind.MULTI_LABEL:
        keep = int(len(np.unique(strata)) <= len(strata) - size)
    carved = _stratified(strata, size, rng, keep=keep)
    if straddles(blocks, carved):
        carved = whole_blocks(blocks, strata, size, rng, keep)
        if not len(carved):  # every block is larger: few labels, many questions on each passage
            carved = smallest_block(blocks, strata, keep)
        if not len(carved) or len(strata) - len(carved) < 2:
            raise PandaError(
                f"The {len(strata)} training examples of task '{task.name}' cannot be split for validation: rows that "
                "share a text or a passage stay together, and every such group is too large; give more examples."
            )
    return carved


def validation_size(total: int) -> int:
    """n_val = clip(20 % of N, 8, 500)."""
    return int(np.clip(round(0.2 * total), 8, 500))


def minimum_budget(classes: int) -> int:
    """The smallest N whose train part can hold every class."""
    total = max(classes, 2) + 8
    while total - validation_size(total) < max(classes, 2):
        total += 1
    return total


def capped(split: Split, limit: int | None, seed: int = 0) -> Split:
    """At most `limit` examples of a split, drawn with a fixed seed; of a task that names groups whole ones."""
    if limit is None or limit >= len(split):
        return split
    if split.groups is not None:
        rng = np.random.default_rng([seed, 1])
        whole = whole_blocks(split.groups, np.zeros(len(split)), limit, rng)
        return split.take(whole if len(whole) else first_blocks(split.groups, limit, rng))
    return split.take(np.sort(np.random.default_rng([seed, 1]).permutation(len(split))[:limit]))


def _subset(train: Split, strata: np.ndarray, total: int, rng: np.random.Generator) -> np.ndarray:
    """Positions of the budget."""
    if total == len(train):
        return np.arange(total)
    if train.groups is None:
        return _stratified(strata, total, rng)
    return first_blocks(blocks_of(train), total, rng)


def _too_few(task: Task, total: int, classes: int, minimum: int) -> str:
    what = f"its {classes} classes" if task.kind.classifies else "training"
    return (
        f"{total} training examples of task '{task.name}' are too few for {what} and a validation part of "
        f"{validation_size(total)}; at least {minimum} are needed."
    )


def _strata(split: Split, kind: Kind) -> np.ndarray:
    """What a subset should hold in the proportions of the whole. *Shape:* (examples,).

    Classes; the rarest label of a text, or that it has none; quintiles of a regression target; the position of the
    first right choice; whether a sentence has a span; whether a question has an answer.
    """
    if kind.classifies:
        return split.labels
    if kind == Kind.MULTI_LABEL:
        counts = np.where(split.labels > 0, split.labels.sum(0), len(split) + 1)
        return np.where(split.labels.any(1), counts.argmin(1), -1)
    if kind == Kind.REGRESSION:
        cuts = np.quantile(split.labels, [0.2, 0.4, 0.6, 0.8])
        return np.searchsorted(cuts, split.labels, side="right")
    if kind == Kind.MULTIPLE_CHOICE:
        return np.asarray([right[0] for right in split.labels])
    if kind == Kind.TOKEN_CLASSIFICATION:
        return np.asarray([int(any(tags)) for tags in split.labels])
    return np.asarray([int(bool(answers)) for answers in split.labels])


def _stratified(strata: np.ndarray, size: int, rng: np.random.Generator, keep: int = 0) -> np.ndarray:
    """Positions of `size` examples in the proportions of the strata, sorted (largest remainders, ties at random).

    scikit-learn's stratified splits refuse strata of one example and sizes below the number of strata, both ordinary
    with few labels. `keep` examples of every stratum are left behind; if none are, every stratum gets one if it can.
    """
    names, inverse, counts = np.unique(strata, return_inverse=True, return_counts=True)
    room = counts - keep
    ideal = size * counts / counts.sum()
    share = np.minimum(np.floor(ideal).astype(int), room)
    if keep == 0 and size >= len(names):
        share = np.maximum(share, 1)
    order = np.argsort(-(ideal - share) + 1e-9 * rng.random(len(names)))
    while share.sum() < size:
        for stratum in order:
            if share.sum() < size and share[stratum] < room[stratum]:
                share[stratum] += 1
    while share.sum() > size:
        share[np.argmax(np.where(share > 1, share - ideal, -np.inf))] -= 1
    chosen = [rng.permutation(np.flatnonzero(inverse == stratum))[: share[stratum]] for stratum in range(len(names))]
    return np.sort(np.concatenate(chosen))
