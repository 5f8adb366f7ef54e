"""Whole texts: a class or a value each."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from sklearn.metrics import confusion_matrix

from promptpanda.assessment.bootstrap import Scorer, shares
from promptpanda.assessment.classes import ByClass
from promptpanda.assessment.forms.form import Confusion, Form, Written
from promptpanda.assessment.judged import Answers, Judged
from promptpanda.transfers.outputs import softmax


class Classes(Form):
    """One class a text."""

    more = ("accuracy", "macro_f1")

    def answers(self, judged: Judged, temperature: float = 1.0) -> Answers:
        confidence = softmax(judged.outputs / temperature).max(axis=1)
        return Answers(np.arange(len(judged)), confidence, self.right(judged))

    def metrics(self, judged: Judged) -> Mapping[str, Scorer]:
        return {"balanced_accuracy": self.by_class(judged).balanced_accuracy()}

    def by_class(self, judged: Judged) -> ByClass:
        return ByClass.of_classes(judged.names, judged.split.labels, judged.predictions)

    def confusion(self, judged: Judged) -> Confusion:
        labels = judged.names
        matrix = confusion_matrix(judged.split.labels, judged.predictions, labels=np.arange(len(labels)))
        return Confusion(labels, matrix)

    def right(self, judged: Judged) -> np.ndarray:
        right: np.ndarray = judged.predictions == judged.split.labels
        return right

    def written(self, judged: Judged, example: int) -> Written:
        labels = judged.names
        return Written(labels[int(judged.split.labels[example])], labels[int(judged.predictions[example])])


class Values(Form):
    """One number a text."""

    def metrics(self, judged: Judged) -> Mapping[str, Scorer]:
        errors = judged.predictions - judged.split.labels
        squares = shares(errors**2)
        return {"mean_absolute_error": shares(np.abs(errors)), "rmse": lambda counts: np.sqrt(squares(counts))}

    def right(self, judged: Judged) -> None:
        return None

    def written(self, judged: Judged, example: int) -> Written:
        return Written(f"{judged.split.labels[example]:.6g}", f"{judged.predictions[example]:.6g}")
