"""Kinds of tasks, and the metrics that go with each."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal


class Kind(StrEnum):
    """Task kinds. Each is served by one form (tasks/forms) and one objective (training/objectives)."""

    SINGLE_CLASSIFICATION = "single_classification"
    PAIR_CLASSIFICATION = "pair_classification"
    MULTI_LABEL = "multi_label"
    REGRESSION = "regression"
    MULTIPLE_CHOICE = "multiple_choice"
    TOKEN_CLASSIFICATION = "token_classification"
    EXTRACTIVE_QA = "extractive_qa"

    @property
    def classifies(self) -> bool:
        """Whether whole texts are put into classes, each into one."""
        return self in (Kind.SINGLE_CLASSIFICATION, Kind.PAIR_CLASSIFICATION)

    @property
    def names_labels(self) -> bool:
        """Whether a task has names for what is predicted: of classes, of labels, of entity types."""
        return self.classifies or self in (Kind.MULTI_LABEL, Kind.TOKEN_CLASSIFICATION)

    @property
    def reads_tokens(self) -> bool:
        """Whether a head reads tokens one by one; else one vector a row."""
        return self in (Kind.TOKEN_CLASSIFICATION, Kind.EXTRACTIVE_QA)

    def outputs(self, labels: int) -> int:
        """How many outputs a head has, for so many classes, labels or tags."""
        fixed = {Kind.REGRESSION: 1, Kind.MULTIPLE_CHOICE: 1, Kind.EXTRACTIVE_QA: 2}
        return fixed.get(self, labels)

    @property
    def words(self) -> str:
        """For tables and sentences."""
        return {
            "single_classification": "single sentence",
            "pair_classification": "sentence pair",
            "multi_label": "multi-label",
        }.get(self.value, self.value.replace("_", " ").replace("qa", "QA"))


Metric = Literal[
    "accuracy",
    "f1",
    "macro_f1",
    "balanced_accuracy",
    "average_precision",
    "roc_auc",
    "micro_f1",
    "matthews",
    "f1a",
    "question_em",
    "pearson",
    "spearman",
    "pearson_spearman",
    "record_f1",
    "record_em",
    "span_f1",
    "span_precision",
    "span_recall",
    "squad_f1",
    "squad_em",
]
# These judge how examples are ranked, not what is predicted, so that nothing can be chosen by them.
RANKING_METRICS: set[Metric] = {"average_precision", "roc_auc"}
_CLASS_METRICS: set[Metric] = {
    "accuracy",
    "f1",
    "macro_f1",
    "balanced_accuracy",
    "matthews",
    "f1a",
    "question_em",
    "average_precision",
    "roc_auc",
}
METRICS_OF: dict[Kind, set[Metric]] = {
    Kind.SINGLE_CLASSIFICATION: _CLASS_METRICS,
    Kind.PAIR_CLASSIFICATION: _CLASS_METRICS,
    Kind.MULTI_LABEL: {"micro_f1", "macro_f1", "average_precision", "roc_auc"},
    Kind.REGRESSION: {"pearson", "spearman", "pearson_spearman"},
    Kind.MULTIPLE_CHOICE: {"accuracy", "record_f1", "record_em"},
    Kind.TOKEN_CLASSIFICATION: {"span_f1", "span_precision", "span_recall"},
    Kind.EXTRACTIVE_QA: {"squad_f1", "squad_em"},
}
