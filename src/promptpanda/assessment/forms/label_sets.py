"""Whole texts: several labels each, or none."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy import sparse

from promptpanda.assessment.bootstrap import Scorer, shares
from promptpanda.assessment.classes import ByClass
from promptpanda.assessment.forms.form import Form, Written
from promptpanda.assessment.judged import Answers, Judged


class LabelSets(Form):
    """Every label of a text is a decision of its own. Labels exclude no others, so that none is taken for another."""

    answers_are = "decisions over labels"
    more = ("micro_f1", "macro_f1")

    def answers(self, judged: Judged, temperature: float = 1.0) -> Answers:
        """A label that the model does not know is one more wrong decision, as sure as the least sure of its text."""
        probabilities = judged.objective.probabilities(judged.outputs / temperature)
        assert probabilities is not None
        known = probabilities.shape[1]
        gold, said = judged.split.labels, judged.predictions[:, :known]
        confidence = np.where(said > 0, probabilities, 1 - probabilities)
        rows = np.repeat(np.arange(len(judged)), known)
        strange = np.repeat(np.arange(len(judged)), gold[:, known:].sum(axis=1))
        return Answers(
            np.concatenate([rows, strange]),
            np.concatenate([confidence.ravel(), confidence.min(axis=1)[strange]]),
            np.concatenate([(said == gold[:, :known]).ravel(), np.zeros(len(strange), dtype=bool)]),
        )

    def metrics(self, judged: Judged) -> Mapping[str, Scorer]:
        return {"all_labels_right": shares(self.right(judged).astype(np.float64))}

    def by_class(self, judged: Judged) -> ByClass:
        gold, said = judged.split.labels.astype(np.float64), judged.predictions.astype(np.float64)
        return ByClass(judged.names, *map(sparse.csr_array, (gold * said, gold, said)))

    def right(self, judged: Judged) -> np.ndarray:
        right: np.ndarray = (judged.predictions == judged.split.labels).all(axis=1)
        return right

    def written(self, judged: Judged, example: int) -> Written:
        def named(labels: np.ndarray) -> str:
            return ", ".join(judged.names[place] for place in np.flatnonzero(labels)) or "no label"

        return Written(named(judged.split.labels[example]), named(judged.predictions[example]))
