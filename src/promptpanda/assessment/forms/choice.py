"""Multiple choice: one of the choices that a row brings along."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from promptpanda.assessment.bootstrap import Scorer, shares
from promptpanda.assessment.forms.form import Form, Written
from promptpanda.assessment.judged import Answers, Judged
from promptpanda.tasks.answers import record_scores
from promptpanda.tasks.inputs import Choices
from promptpanda.transfers.outputs import softmax


class OneOfChoices(Form):
    """The choice that is taken; right is every one that the row calls right."""

    def answers(self, judged: Judged, temperature: float = 1.0) -> Answers:
        rows = [list(judged.encoded.rows_of(example)) for example in range(len(judged))]
        confidence = np.asarray([softmax(judged.outputs[own, 0] / temperature).max() for own in rows])
        return Answers(np.arange(len(judged)), confidence, self.right(judged))

    def metrics(self, judged: Judged) -> Mapping[str, Scorer]:
        """ReCoRD's, which compare the texts of choices."""
        pairs = [self._names(judged, example) for example in range(len(judged))]
        each = [record_scores([said], [gold]) for gold, said in pairs]
        names = [name for name in judged.task.spec.metrics if name.startswith("record_")]
        return {name: shares(np.asarray([scores[name] for scores in each])) for name in names}

    def right(self, judged: Judged) -> np.ndarray:
        pairs = zip(judged.predictions, judged.split.labels, strict=True)
        return np.asarray([int(taken) in right for taken, right in pairs])

    def written(self, judged: Judged, example: int) -> Written:
        gold, said = self._names(judged, example)
        return Written(" or ".join(gold), said)

    @staticmethod
    def _names(judged: Judged, example: int) -> tuple[list[str], str]:
        """The right choices, and the one that is taken."""
        text = judged.split.texts[example]
        assert isinstance(text, Choices)
        right = [text.names[place] for place in judged.split.labels[example]]
        return right, text.names[int(judged.predictions[example])]
