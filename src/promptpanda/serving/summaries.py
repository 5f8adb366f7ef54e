"""What of a prompt is shown to others: no paths, and no texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from promptpanda.bank.accuracy import accuracy_interval
from promptpanda.bank.card import Card
from promptpanda.serving.limits import outward
from promptpanda.serving.registry import Entry
from promptpanda.tasks.spec import Kind


def summary(entry: Entry) -> dict[str, Any]:
    """One line of the bank's table."""
    card = entry.card
    shown: dict[str, Any] = {
        "id": entry.id,
        "bank": entry.bank,
        "served": entry.served,
        "problem": entry.problem,
        "bytes": entry.size,
    }
    if card is None:
        return shown
    return shown | {
        "task": card.task.name,
        "kind": card.task.kind.value,
        "labels": list(card.labels),
        "fields": fields_of(card),
        "method": card.method,
        "sources": [{"id": outward(source.id), "task": source.task} for source in card.sources],
        "score": score_of(card),
        "n_train": card.n_train,
        "n_val": card.n_val,
        "created": card.created,
    }


def fields_of(card: Card) -> list[str]:
    """The fields that a row needs."""
    return card.task.fields


def score_of(card: Card) -> dict[str, Any]:
    """The score that counts: on test data where there is one, else on the validation part.

    `low` and `high` are Wilson's 95 % interval of an accuracy, and None for other metrics, whose error a card does not
    tell.
    """
    if card.test is not None:
        on, value, count = "test", card.test.scores[card.task.metric], card.test.n_test
    else:
        on, value, count = "validation", card.score, card.n_val
    low, high = accuracy_interval(card.task.metric, value, count) or (None, None)
    return {"metric": card.task.metric, "on": on, "value": value, "low": low, "high": high, "n": count}


def card_of(card: Card) -> dict[str, Any]:
    """A card without what tells of the machine that it was made on."""
    shown = card.model_dump(mode="json", exclude={"task": {"files", "package"}})
    return {name: value if name in ("task", "labels") else _outward(value) for name, value in shown.items()}


def _outward(value: Any) -> Any:
    """All strings of a value without paths: models and foreign prompts are named by their folders."""
    if isinstance(value, str):
        return outward(value)
    if isinstance(value, dict):
        return {name: _outward(one) for name, one in value.items()}
    return [_outward(one) for one in value] if isinstance(value, list) else value


def ancestry(entry: Entry, known: Sequence[Entry]) -> list[dict[str, Any]]:
    """The prompts that a prompt started from, each with those that it started from itself.

    One that is in none of the banks any more ends its line; so does one that comes again, as cards of strangers may
    have it.
    """
    cards = {one.id: one.card for one in known if one.card is not None}

    def above(card: Card | None, seen: frozenset[str]) -> list[dict[str, Any]]:
        if card is None:
            return []
        found = []
        for source in card.sources:
            again = source.id in seen
            found.append(
                {
                    "id": outward(source.id),
                    "task": source.task,
                    "weight": source.weight,
                    "here": source.id in cards,
                    "sources": [] if again else above(cards.get(source.id), seen | {source.id}),
                }
            )
        return found

    return above(entry.card, frozenset({entry.id}))


def example_row(card: Card) -> dict[str, Any]:
    """A row as this prompt reads it, with dots where texts belong."""
    lists = {card.task.choice_list} | (
        set(fields_of(card)[:1]) if card.task.kind == Kind.TOKEN_CLASSIFICATION else set()
    )
    numbers = {card.task.predicate}
    return {name: ["...", "..."] if name in lists else 0 if name in numbers else "..." for name in fields_of(card)}
