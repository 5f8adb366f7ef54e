"""What a model reads of one example, by kind of task, and splits of examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np

from promptpanda.errors import PandaError
from promptpanda.files import digest

Text = tuple[str, ...]  # whole texts: one or two segments


class Choices(NamedTuple):
    """Multiple choice: the segments for every choice, and what the choices are called."""

    texts: tuple[Text, ...]
    names: tuple[str, ...]


class Words(NamedTuple):
    """Token classification: the words of a sentence; `predicate` is the position of the one that roles refer to."""

    words: tuple[str, ...]
    predicate: int | None = None


class Passage(NamedTuple):
    """Extractive question answering."""

    question: str
    context: str


Input = Text | Choices | Words | Passage


class Answer(NamedTuple):
    """An answer of extractive question answering: where it begins in the context, in characters, and its text."""

    start: int
    text: str


@dataclass(frozen=True)
class Split:
    """Examples of one task.

    Attributes:
        texts: one input an example, as the spec's template made it.
        labels: *Shape:* (examples,). Class indices (int64); values (float64) for regression; of several labels 0 or 1
            for each (int64), *shape:* (examples, labels); else an object array with a tuple an example: positions of
            the right choices, tag indices of the words, or `Answer`s.
        groups: which examples belong together (the answers to one question of MultiRC), or None. *Shape:* (examples,).
        unseen_labels: of own test data, the classes that the task has not: their indices follow on its own, and no
            model is right there.
        lines: where each example begins in its file: a line, or where `unit` is "row" (workbooks, Parquet, JSON, rows
            in memory) a row. *Shape:* (examples,). None where there is no file.
        unit: what `lines` counts, from 1.
    """

    texts: tuple[Input, ...]
    labels: np.ndarray
    groups: np.ndarray | None = None
    unseen_labels: tuple[str, ...] = ()
    lines: np.ndarray | None = None
    unit: Literal["line", "row"] = "row"

    def __post_init__(self) -> None:
        if len(self.texts) != len(self.labels):
            raise PandaError(
                f"A split needs one label per text, found {len(self.texts)} texts, {len(self.labels)} labels."
            )

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, indices: np.ndarray) -> Split:
        """The examples at these positions, in this order."""
        groups, lines = (None if one is None else one[indices] for one in (self.groups, self.lines))
        texts = tuple(self.texts[int(index)] for index in indices)
        return replace(self, texts=texts, labels=self.labels[indices], groups=groups, lines=lines)

    def place(self, example: int) -> int:
        """Where an example begins in its file; without one its number among the examples, from 1."""
        return example + 1 if self.lines is None else int(self.lines[example])

    def joined(self, other: Split) -> Split:
        """The examples of both, these first."""
        groups = None
        if self.groups is not None and other.groups is not None:
            groups = np.concatenate([self.groups, other.groups])
        return Split(self.texts + other.texts, np.concatenate([self.labels, other.labels]), groups)

    @property
    def fingerprint(self) -> str:
        """Hex digest of the texts and labels, in order."""
        return digest([self.texts, self.labels.tolist()])


def ragged(values: Sequence[tuple[Any, ...]]) -> np.ndarray:
    """Tuples of any lengths as an object array. *Shape:* (examples,)."""
    array = np.empty(len(values), dtype=object)
    for position, value in enumerate(values):
        array[position] = value
    return array
