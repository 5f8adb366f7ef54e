"""Rows that belong together: equal texts, and texts that share a passage, stay on one side of every cut.

Otherwise a model is validated on what it was trained on: of MultiRC's rows some 25 ask about one paragraph.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from promptpanda.tasks.inputs import Choices, Input, Passage, Split, Words

_PASSAGE = 8  # words from which on a segment that two rows share is taken for a passage, not for a common phrase


def blocks_of(split: Split) -> np.ndarray:
    """Which rows belong together: those with equal texts, an equal context, an equal segment of eight words or more, or
    the same group of the task (the answers to one question).

    *Shape:* (examples,), numbers from 0.
    """
    parent = list(range(len(split)))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    common = _in_most_rows(split)
    first: dict[object, int] = {}
    for row, text in enumerate(split.texts):
        group = [] if split.groups is None else [("group", int(split.groups[row]))]
        for key in (*group, *(key for key in _keys(text) if key not in common)):
            parent[root(row)] = root(first.setdefault(key, row))
    return np.unique([root(row) for row in range(len(split))], return_inverse=True)[1].reshape(-1)


def _in_most_rows(split: Split) -> set[tuple[Any, ...]]:
    """Segments that stand in more than half of the rows: an instruction, say, and no passage."""
    counts = Counter(key for text in split.texts for key in _keys(text) if key != text)
    return {key for key, count in counts.items() if count > len(split) / 2 and key[0] == "segment"}


def _keys(text: Input) -> Iterator[tuple[Any, ...]]:
    yield text
    if isinstance(text, Passage):
        yield ("context", text.context)
    elif isinstance(text, tuple) and not isinstance(text, (Choices, Words)):
        for segment in text:
            if len(segment.split()) >= _PASSAGE:
                yield ("segment", segment)


def straddles(blocks: np.ndarray, taken: np.ndarray) -> bool:
    """Whether a block lies on both sides of a cut.

    Args:
        taken: positions of one side.
    """
    inside = np.zeros(len(blocks), dtype=bool)
    inside[taken] = True
    return bool(np.intersect1d(blocks[inside], blocks[~inside]).size)


def whole_blocks(
    blocks: np.ndarray, strata: np.ndarray, size: int, rng: np.random.Generator, keep: int = 0
) -> np.ndarray:
    """Positions of whole blocks: at most `size` rows, as near to it as they allow, about in the strata's proportions.

    Args:
        blocks, strata: of every row. *Shape:* (rows,).
        keep: rows of every stratum that stay behind, at least.

    Returns:
        Sorted positions; none where every block is too large.
    """
    names, inverse = np.unique(strata, return_inverse=True)
    inverse = inverse.reshape(-1)
    have = np.bincount(inverse, minlength=len(names))
    share = np.ceil(size * have / max(have.sum(), 1)) + 1  # a row more than its share: blocks are no single rows
    members = [np.flatnonzero(blocks == block) for block in rng.permutation(np.unique(blocks))]
    counts = [np.bincount(inverse[rows], minlength=len(names)) for rows in members]
    taken: list[np.ndarray] = []
    total, spent = 0, np.zeros(len(names), dtype=np.int64)
    for bound in (share, have):  # in proportion first, then whatever fits
        for place, rows in enumerate(members):
            after = spent + counts[place]
            if len(rows) and total + len(rows) <= size and (after <= bound).all() and (have - after >= keep).all():
                taken.append(rows)
                total, spent = total + len(rows), after
                members[place] = rows[:0]
    return np.sort(np.concatenate(taken)) if taken else np.empty(0, dtype=np.int64)


def smallest_block(blocks: np.ndarray, strata: np.ndarray, keep: int = 0) -> np.ndarray:
    """Sorted positions of the smallest block without which rows are left, `keep` of every stratum; else none."""
    sizes = sorted((int(np.sum(blocks == block)), int(block)) for block in np.unique(blocks))
    for size, block in sizes:
        rest = strata[blocks != block]
        if size < len(blocks) and all(np.sum(rest == stratum) >= keep for stratum in np.unique(strata)):
            return np.flatnonzero(blocks == block)
    return np.empty(0, dtype=np.int64)


def first_blocks(blocks: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Positions of whole blocks in random order until `size` rows are reached; the last is cut there. Sorted."""
    order = np.concatenate([np.flatnonzero(blocks == block) for block in rng.permutation(np.unique(blocks))])
    return np.sort(order[:size])


def known_texts(train: Split, test: Split | None) -> list[str]:
    """What is to be told of test examples whose text training data has too."""
    if test is None:
        return []
    known = set(train.texts)
    both = sum(text in known for text in test.texts)
    return [f"{both} of {len(test)} test examples have the text of a training or validation example."] if both else []


def contradictions(train: Split) -> list[str]:
    """What is to be told of texts with different labels. Own files are told of as they are read, with their lines."""
    labels: dict[Input, set[str]] = {}
    for text, label in zip(train.texts, train.labels.tolist(), strict=True):
        labels.setdefault(text, set()).add(repr(label))
    count = sum(len(given) > 1 for given in labels.values())
    if not count:
        return []
    return [
        f"{count} text{'s' * (count > 1)} of the training data come{'s' * (count == 1)} with more than one label; no "
        "model can get all of them right."
    ]
