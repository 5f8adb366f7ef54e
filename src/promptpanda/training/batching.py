"""Batches of similar lengths, in an order that a seed fixes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

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


def paired_batches(classes: np.ndarray, size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """One epoch: every example once, examples of one class in twos, so that few of a class still meet.

    Args:
        classes: of each example. *Shape:* (examples,).
        size: examples a batch; an even size keeps all twos together.
    """
    order = rng.permutation(len(classes))
    twos: list[np.ndarray] = []
    alone: list[np.ndarray] = []
    for name in np.unique(classes):
        members = order[classes[order] == name]
        twos.extend(members[cut : cut + 2] for cut in range(0, len(members) - 1, 2))
        alone.extend([members[-1:]] if len(members) % 2 else [])
    drawn = np.concatenate([*(twos[place] for place in rng.permutation(len(twos))), *alone])
    return [drawn[cut : cut + size] for cut in range(0, len(drawn), size)]


class Cycle:
    """Endless draws of examples: all once in random order, then all again in another."""

    def __init__(self, examples: int, rng: np.random.Generator) -> None:
        if examples < 1:
            raise ValueError("there is no example to draw")
        self._examples, self._rng = examples, rng
        self._ahead = np.empty(0, dtype=np.int64)

    @property
    def state(self) -> dict[str, Any]:
        """Plain numbers from which it goes on with the same draws."""
        return {"rng": self._rng.bit_generator.state, "ahead": self._ahead.tolist()}

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        self._rng.bit_generator.state = state["rng"]
        self._ahead = np.asarray(state["ahead"], dtype=np.int64)

    def draw(self, size: int) -> np.ndarray:
        """The next examples. *Shape:* (size,)."""
        while len(self._ahead) < size:
            self._ahead = np.concatenate([self._ahead, self._rng.permutation(self._examples)])
        drawn, self._ahead = self._ahead[:size], self._ahead[size:]
        return drawn


def sorted_batches(lengths: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Every example once, longest first, for forward passes (the first batch shows whether memory suffices)."""
    order = np.argsort(-lengths, kind="stable")
    for start in range(0, len(order), size):
        yield order[start : start + size]
