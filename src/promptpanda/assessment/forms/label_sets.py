"""Several labels a text, or none: each is a decision of its own."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.special import expit

from promptpanda.assessment.classes import ByClass
from promptpanda.assessment.forms.form import Form, Written
from promptpanda.assessment.judged import Answers, Judged

_NONE = "(no label)"


class LabelSets(Form):
    """Labels and predictions are 0 or 1. *Shape:* (examples, labels)."""

    answers_are = "decisions on single labels"

    def answers(self, judged: Judged, temperature: float = 1.0) -> Answers:
        """Every label of every text: given or not, which is what the confidence is of."""
        given = np.asarray(judged.predictions) == 1
        probabilities = expit(judged.outputs.astype(np.float64) / temperature)
        confidence = np.where(given, probabilities, 1 - probabilities)
        rows = np.repeat(np.arange(len(judged)), given.shape[1])
        return Answers(rows, confidence.ravel(), (given == (judged.split.labels == 1)).ravel())

    def by_class(self, judged: Judged) -> ByClass:
        gold, said = (np.asarray(side, dtype=np.float64) for side in (judged.split.labels, judged.predictions))
        return ByClass(judged.task.labels, *(sparse.csr_array(one) for one in (gold * said, gold, said)))

    def right(self, judged: Judged) -> np.ndarray:
        right: np.ndarray = (judged.predictions == judged.split.labels).all(axis=1)
        return right

    def written(self, judged: Judged, example: int) -> Written:
        names = np.asarray(judged.task.labels, dtype=object)
        sides = (judged.split.labels[example], judged.predictions[example])
        return Written(*("; ".join(names[side == 1]) or _NONE for side in sides))
