"""Precision, recall and F1 of every class, or of every type of span."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from promptpanda.assessment.bootstrap import Measured, Scorer, divided, interval, share_interval, whole

FIGURES = ("precision", "recall", "f1")


@dataclass(frozen=True)
class ByClass:
    """How often each class is right, should be said, and is said, in every example.

    An example may have one class, several or none, or spans of several types.

    Attributes:
        names: of the classes.
        right, gold, said: *Shape:* (examples, classes), sparse.
    """

    names: tuple[str, ...]
    right: sparse.csr_array
    gold: sparse.csr_array
    said: sparse.csr_array

    @classmethod
    def of_classes(cls, names: Sequence[str], labels: np.ndarray, found: np.ndarray) -> ByClass:
        """Where every example has one class. *Shape:* (examples,) each, indices."""

        def one_hot(rows: np.ndarray, classes: np.ndarray) -> sparse.csr_array:
            entries = (np.ones(len(rows)), (rows, classes))
            return sparse.csr_array(entries, shape=(len(labels), len(names)))

        rows, hits = np.arange(len(labels)), np.flatnonzero(labels == found)
        return cls(tuple(names), one_hot(hits, labels[hits]), one_hot(rows, labels), one_hot(rows, found))

    def scorer(self) -> Scorer:
        """*Shape:* (replicates, examples) -> (replicates, 3, classes): precision, recall, F1; NaN where undefined."""

        def score(counts: np.ndarray) -> np.ndarray:
            right, gold, said = (counts @ matrix for matrix in (self.right, self.gold, self.said))
            return np.stack([divided(right, said), divided(right, gold), divided(2 * right, gold + said)], axis=1)

        return score

    def balanced_accuracy(self) -> Scorer:
        """The mean recall of the classes that examples have."""

        def score(counts: np.ndarray) -> np.ndarray:
            right, gold = counts @ self.right, counts @ self.gold
            recalls = divided(right, gold)
            return divided(np.nansum(recalls, axis=1), (gold > 0).sum(axis=1).astype(np.float64))

        return score

    def table(self, replicates: np.ndarray, units: np.ndarray) -> list[ClassRow]:
        """One row a class, in their order.

        Args:
            replicates: what `scorer` gives for resamples.
            units: which examples belong together. *Shape:* (examples,).
        """
        values = whole(self.scorer(), self.gold.shape[0])
        support = np.asarray(self.gold.sum(axis=0)).ravel()
        rows = []
        for place, name in enumerate(self.names):
            figures = {}
            trials = {"precision": _units_with(self.said, place, units), "recall": _units_with(self.gold, place, units)}
            for number, figure in enumerate(FIGURES):
                value, drawn = values[number, place], replicates[:, number, place] if len(replicates) else replicates
                around = interval(drawn) if figure == "f1" else share_interval(value, drawn, trials[figure])
                figures[figure] = Measured(float(np.nan_to_num(value)), around)
            rows.append(ClassRow(name, figures, int(support[place])))
        return rows


def _units_with(matrix: sparse.csr_array, place: int, units: np.ndarray) -> int:
    """How many independent examples have a class."""
    return len(np.unique(units[matrix[:, [place]].nonzero()[0]]))


@dataclass(frozen=True)
class ClassRow:
    """The figures of a class.

    Attributes:
        figures: precision, recall and f1; 0 where undefined, as scikit-learn has them with zero_division=0.
        support: how often it is right to say it.
    """

    name: str
    figures: dict[str, Measured]
    support: int
