"""Multiple choice: one of the choices that a row brings along."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from promptpanda.assessment.bootstrap import Scorer, shares
from promptpanda.assessment.evaluated import Answers, Evaluated
from promptpanda.assessment.forms.form import Form, Written
from promptpanda.tasks.answers import record_scores
from promptpanda.tasks.inputs import Choices
from promptpanda.transfers.outputs import softmax


class OneOfChoices(Form):
    """The choice that is taken; right is every one that the row calls right."""

    def answers(self, evaluated: Evaluated, temperature: float = 1.0) -> Answers:
        rows = [list(evaluated.encoded.rows_of(example)) for example in range(len(evaluated))]
        confidence = np.asarray([softmax(evaluated.outputs[own, 0] / temperature).max() for own in rows])
        return Answers(np.arange(len(evaluated)), confidence, self.right(evaluated))

    def metrics(self, evaluated: Evaluated) -> Mapping[str, Scorer]:
        """ReCoRD's, which compare the texts of choices."""
        pairs = [self._names(evaluated, example) for example in range(len(evaluated))]
        each = [record_scores([said], [gold]) for gold, said in pairs]
        names = [name for name in evaluated.task.spec.metrics if name.startswith("record_")]
        return {name: shares(np.asarray([scores[name] for scores in each])) for name in names}

    def right(self, evaluated: Evaluated) -> np.ndarray:
        pairs = zip(evaluated.predictions, evaluated.split.labels, strict=True)
        return np.asarray([int(taken) in right for taken, right in pairs])

    def written(self, evaluated: Evaluated, example: int) -> Written:
        gold, said = self._names(evaluated, example)
        return Written(" or ".join(gold), said)

    @staticmethod
    def _names(evaluated: Evaluated, example: int) -> tuple[list[str], str]:
        """The right choices, and the one that is taken."""
        text = evaluated.split.texts[example]
        assert isinstance(text, Choices)
        right = [text.names[place] for place in evaluated.split.labels[example]]
        return right, text.names[int(evaluated.predictions[example])]
