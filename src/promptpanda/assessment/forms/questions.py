"""Extractive question answering: a place in a context, or no answer."""

from __future__ import annotations

import numpy as np

from promptpanda.assessment.evaluated import Answers, Evaluated
from promptpanda.assessment.forms.form import Form, Written
from promptpanda.tasks.answers import exact_match
from promptpanda.training.objectives.spans import Spans
from promptpanda.transfers.outputs import softmax

_NONE = "(no answer)"


class Questions(Form):
    """The answer's text; right is what equals a right answer after SQuAD's normalising (exact match)."""

    answers_are = "questions"

    def answers(self, evaluated: Evaluated, temperature: float = 1.0) -> Answers:
        objective = evaluated.objective
        assert isinstance(objective, Spans)
        confidence = []
        for candidates in objective.candidates(evaluated.outputs, evaluated.encoded, evaluated.split.texts):
            # "No answer" is a candidate only where questions may have none.
            listed = candidates if objective.threshold is not None else candidates[:-1] or candidates
            taken = listed.index(objective.answer(candidates))
            confidence.append(softmax(np.asarray([one.score for one in listed]) / temperature)[taken])
        return Answers(np.arange(len(evaluated)), np.asarray(confidence), self.right(evaluated))

    def right(self, evaluated: Evaluated) -> np.ndarray:
        return np.asarray(
            [exact_match(said, gold) == 1 for said, gold in zip(evaluated.predictions, _golds(evaluated), strict=True)]
        )

    def written(self, evaluated: Evaluated, example: int) -> Written:
        gold = " or ".join(dict.fromkeys(_golds(evaluated)[example]))
        return Written(gold or _NONE, evaluated.predictions[example] or _NONE)


def _golds(evaluated: Evaluated) -> list[list[str]]:
    return [[answer.text for answer in answers] for answers in evaluated.split.labels]
