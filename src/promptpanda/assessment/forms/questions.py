"""Extractive question answering: a place in a context, or no answer."""

from __future__ import annotations

import numpy as np

from promptpanda.assessment.forms.form import Form, Written
from promptpanda.assessment.judged import Answers, Judged
from promptpanda.tasks.answers import exact_match
from promptpanda.training.objectives.spans import Spans
from promptpanda.transfers.outputs import softmax

_NONE = "(no answer)"


class Questions(Form):
    """The answer's text; right is what equals a right answer after SQuAD's normalising (exact match)."""

    answers_are = "questions"

    def answers(self, judged: Judged, temperature: float = 1.0) -> Answers:
        objective = judged.objective
        assert isinstance(objective, Spans)
        confidence = []
        for candidates in objective.candidates(judged.outputs, judged.encoded, judged.split.texts):
            # "No answer" is a candidate only where questions may have none.
            listed = candidates if objective.threshold is not None else candidates[:-1] or candidates
            taken = listed.index(objective.answer(candidates))
            confidence.append(softmax(np.asarray([one.score for one in listed]) / temperature)[taken])
        return Answers(np.arange(len(judged)), np.asarray(confidence), self.right(judged))

    def right(self, judged: Judged) -> np.ndarray:
        return np.asarray(
            [exact_match(said, gold) == 1 for said, gold in zip(judged.predictions, _golds(judged), strict=True)]
        )

    def written(self, judged: Judged, example: int) -> Written:
        gold = " or ".join(dict.fromkeys(_golds(judged)[example]))
        return Written(gold or _NONE, judged.predictions[example] or _NONE)


def _golds(judged: Judged) -> list[list[str]]:
    return [[answer.text for answer in answers] for answers in judged.split.labels]
