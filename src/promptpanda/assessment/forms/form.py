"""What a kind of task lets one say about a model: which answers it gives, and what is right."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from promptpanda.assessment.bootstrap import Scorer
from promptpanda.assessment.classes import ByClass
from promptpanda.assessment.evaluated import Answers, Evaluated
from promptpanda.tasks.kinds import Metric


class Written(NamedTuple):
    """What is right for an example, and what the model says, in words."""

    expected: str
    predicted: str


@dataclass(frozen=True)
class Confusion:
    """How often what is one thing is taken for another.

    Attributes:
        labels: of the rows (what is right) and of the columns (what is said).
        matrix: *Shape:* (labels, labels), integers.
        note: how it is to be read, where there is more to it than counts of examples.
    """

    labels: tuple[str, ...]
    matrix: np.ndarray
    note: str = ""

    def commonest(self, most: int) -> list[tuple[str, str, int]]:
        """(expected, predicted, times) off the diagonal, the most frequent first; equal ones in the labels' order."""
        wrong = self.matrix - np.diag(np.diag(self.matrix))
        order = np.argsort(-wrong, axis=None, kind="stable")[:most]
        places = [np.unravel_index(place, wrong.shape) for place in order]
        return [
            (self.labels[row], self.labels[column], int(wrong[row, column]))
            for row, column in places
            if wrong[row, column]
        ]


class Form(ABC):
    """One kind of task.

    Attributes:
        answers_are: what the model can be sure of, in the plural.
        more: metrics of the project that are told beside those of the task.
    """

    answers_are: ClassVar[str] = "examples"
    more: ClassVar[tuple[Metric, ...]] = ()

    def answers(self, evaluated: Evaluated, temperature: float = 1.0) -> Answers | None:
        """What the model is how sure of, if outputs are divided by a temperature; None where it is not sure at all."""
        return None

    def metrics(self, evaluated: Evaluated) -> Mapping[str, Scorer]:
        """Metrics that the project has no name for, or that only the form can resample."""
        return {}

    def by_class(self, evaluated: Evaluated) -> ByClass | None:
        """What each class is right how often, where there are classes."""
        return None

    def confusion(self, evaluated: Evaluated) -> Confusion | None:
        """What is taken for what, where there are classes."""
        return None

    @abstractmethod
    def right(self, evaluated: Evaluated) -> np.ndarray | None:
        """Whether the model is wholly right about each example; None where right and wrong are matters of degree.

        *Shape:* (examples,), bool.
        """

    @abstractmethod
    def written(self, evaluated: Evaluated, example: int) -> Written:
        """An example's right answer and the model's."""
