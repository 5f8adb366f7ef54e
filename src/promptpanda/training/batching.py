"""Batches of similar lengths, in an order that a seed fixes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

# Within a pool of this many batches examples are sorted by length; larger pools pad less and mix less.
_POOL = 32


def shuffled_batches(lengths: np.ndarray, size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """One epoch: every example once, batches of `size` with similar lengths, batches in random order.

    Args:
        lengths: tokens of each example. *Shape:* (examples,).
        size: examples a batch; the last batch of the last pool may be smaller.
        rng: fixes the order, also among examples of equal length.
    """
    order = rng.permutation(len(lengths))
    batches: list[np.ndarray] = []
    for start in range(0, len(order), size * _POOL):
        pool = order[start : start + size * _POOL]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        batches.extend(pool[cut : cut + size] for cut in range(0, len(pool), size))
    return [batches[index] for index in rng.permutation(len(batches))]


def sorted_batches(lengths: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Every example once, longest first, for forward passes (the first batch shows whether memory suffices)."""
    order = np.argsort(-lengths, kind="stable")
    for start in range(0, len(order), size):
        yield order[start : start + size]
