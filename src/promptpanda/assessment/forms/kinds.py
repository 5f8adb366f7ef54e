"""The form of every task kind."""

from __future__ import annotations

from promptpanda.assessment.forms.choice import OneOfChoices
from promptpanda.assessment.forms.form import Form
from promptpanda.assessment.forms.label_sets import LabelSets
from promptpanda.assessment.forms.questions import Questions
from promptpanda.assessment.forms.sequence import Classes, Values
from promptpanda.assessment.forms.spans import TypedSpans
from promptpanda.tasks.spec import Kind

_FORMS: dict[str, Form] = {
    Kind.SINGLE_CLASSIFICATION: Classes(),
    Kind.PAIR_CLASSIFICATION: Classes(),
    Kind.REGRESSION: Values(),
    Kind.MULTIPLE_CHOICE: OneOfChoices(),
    Kind.TOKEN_CLASSIFICATION: TypedSpans(),
    Kind.EXTRACTIVE_QA: Questions(),
    "multi_label": LabelSets(),
}


def form_of(kind: Kind) -> Form:
    """What is assessed of a kind."""
    return _FORMS[kind]
