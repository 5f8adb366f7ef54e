"""Whole texts: several labels each, or none."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy import sparse

from promptpanda.assessment.bootstrap import Scorer, shares
from promptpanda.assessment.classes import ByClass
from promptpanda.assessment.evaluated import Answers, Evaluated
from promptpanda.assessment.forms.form import Form, Written


class LabelSets(Form):
    """Every label of a text is a decision of its own. Labels exclude no others, so that none is taken for another."""

    answers_are = "decisions over labels"
    more = ("micro_f1", "macro_f1")

    def answers(self, evaluated: Evaluated, temperature: float = 1.0) -> Answers:
        """A label that the model does not know is one more wrong decision, as sure as the least sure of its text."""
        probabilities = evaluated.objective.probabilities(evaluated.outputs / temperature)
        assert probabilities is not None
        known = probabilities.shape[1]
        gold, said = evaluated.split.labels, evaluated.predictions[:, :known]
        confidence = np.where(said > 0, probabilities, 1 - probabilities)
        rows = np.repeat(np.arange(len(evaluated)), known)
        strange = np.repeat(np.arange(len(evaluated)), gold[:, known:].sum(axis=1))
        return Answers(
            np.concatenate([rows, strange]),
            np.concatenate([confidence.ravel(), confidence.min(axis=1)[strange]]),
            np.concatenate([(said == gold[:, :known]).ravel(), np.zeros(len(strange), dtype=bool)]),
        )

    def metrics(self, evaluated: Evaluated) -> Mapping[str, Scorer]:
        return {"all_labels_right": shares(self.right(evaluated).astype(np.float64))}

    def by_class(self, evaluated: Evaluated) -> ByClass:
        gold, said = evaluated.split.labels.astype(np.float64), evaluated.predictions.astype(np.float64)
        return ByClass(evaluated.names, *map(sparse.csr_array, (gold * said, gold, said)))

    def right(self, evaluated: Evaluated) -> np.ndarray:
        right: np.ndarray = (evaluated.predictions == evaluated.split.labels).all(axis=1)
        return right

    def written(self, evaluated: Evaluated, example: int) -> Written:
        def named(labels: np.ndarray) -> str:
            return ", ".join(evaluated.names[place] for place in np.flatnonzero(labels)) or "no label"

        return Written(named(evaluated.split.labels[example]), named(evaluated.predictions[example]))
