"""Prompts by what a person has to type for them: one text, two, or the fields of a choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from promptpanda.bank.card import Card
from promptpanda.tasks.spec import Kind


@dataclass(frozen=True)
class Field:
    """One box to type into.

    Attributes:
        name: of the row's field; of texts, whose place alone counts, their number.
        many: one entry a line (the choices).
    """

    name: str
    title: str
    many: bool = False


@dataclass(frozen=True)
class Form:
    """Prompts that read the same.

    Attributes:
        as_rows: whether what is typed is sent as a row with fields, else as a text or a list of texts.
        prompts: ids, with the kinds of their tasks.
    """

    name: str
    title: str
    fields: tuple[Field, ...]
    as_rows: bool
    prompts: dict[str, str]


_TITLES = {
    "text": ("One text", ("Text",)),
    "pair": ("Two texts", ("First text", "Second text")),
    "question": ("Question and context", ("Question", "Context")),
}


def forms_of(cards: Sequence[Card]) -> list[Form]:
    """The forms that these prompts need, those of texts first."""
    found: dict[str, Form] = {}
    for card in cards:
        form = found.setdefault(_name(card), _form(card))
        form.prompts[card.id] = card.task.kind.words
    order = [*_TITLES, *sorted(name for name in found if name not in _TITLES)]
    return [found[name] for name in order if name in found]


def _name(card: Card) -> str:
    if card.task.kind == Kind.EXTRACTIVE_QA:
        return "question"
    if card.task.kind == Kind.MULTIPLE_CHOICE or card.task.predicate is not None:
        return f"fields of {card.task.name}"
    return "text" if len(card.task.segments) == 1 else "pair"


def _form(card: Card) -> Form:
    name = _name(card)
    if name in _TITLES:
        title, boxes = _TITLES[name]
        return Form(name, title, tuple(Field(str(place), box) for place, box in enumerate(boxes)), False, {})
    lists = {card.task.choice_list}
    if card.task.kind == Kind.TOKEN_CLASSIFICATION:
        lists |= set(card.task.segment_fields(card.task.segments[0]))
    fields = [
        Field(field, f"{field}, one a line" if field in lists else field, field in lists) for field in card.task.fields
    ]
    return Form(name, f"Fields of {card.task.name}", tuple(fields), True, {})
