"""Whole texts: a class or a value each."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from sklearn.metrics import confusion_matrix

from promptpanda.assessment.bootstrap import Scorer, shares
from promptpanda.assessment.classes import ByClass
from promptpanda.assessment.evaluated import Answers, Evaluated
from promptpanda.assessment.forms.form import Confusion, Form, Written
from promptpanda.transfers.outputs import softmax


class Classes(Form):
    """One class a text."""

    more = ("accuracy", "macro_f1")

    def answers(self, evaluated: Evaluated, temperature: float = 1.0) -> Answers:
        confidence = softmax(evaluated.outputs / temperature).max(axis=1)
        return Answers(np.arange(len(evaluated)), confidence, self.right(evaluated))

    def metrics(self, evaluated: Evaluated) -> Mapping[str, Scorer]:
        return {"balanced_accuracy": self.by_class(evaluated).balanced_accuracy()}

    def by_class(self, evaluated: Evaluated) -> ByClass:
        return ByClass.of_classes(evaluated.names, evaluated.split.labels, evaluated.predictions)

    def confusion(self, evaluated: Evaluated) -> Confusion:
        labels = evaluated.names
        matrix = confusion_matrix(evaluated.split.labels, evaluated.predictions, labels=np.arange(len(labels)))
        return Confusion(labels, matrix)

    def right(self, evaluated: Evaluated) -> np.ndarray:
        right: np.ndarray = evaluated.predictions == evaluated.split.labels
        return right

    def written(self, evaluated: Evaluated, example: int) -> Written:
        labels = evaluated.names
        return Written(labels[int(evaluated.split.labels[example])], labels[int(evaluated.predictions[example])])


class Values(Form):
    """One number a text."""

    def metrics(self, evaluated: Evaluated) -> Mapping[str, Scorer]:
        errors = evaluated.predictions - evaluated.split.labels
        squares = shares(errors**2)
        return {"mean_absolute_error": shares(np.abs(errors)), "rmse": lambda counts: np.sqrt(squares(counts))}

    def right(self, evaluated: Evaluated) -> None:
        return None

    def written(self, evaluated: Evaluated, example: int) -> Written:
        return Written(f"{evaluated.split.labels[example]:.6g}", f"{evaluated.predictions[example]:.6g}")
