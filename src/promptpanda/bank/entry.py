"""What listings, searches and rankings need to know of a prompt: a small part of its card, quick to keep and read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from promptpanda.bank.layout import SEEN_NAME
from promptpanda.names import NumberFormat, PromptKind

if TYPE_CHECKING:
    from promptpanda.bank.card import Card

_NAMED = 20  # labels that are kept by name


class Entry(NamedTuple):
    """A prompt of a bank, by its card.

    Attributes:
        kind: of the task, as in specs.
        labels: the first 20.
        classes: how many labels there are.
        sources: id and task of each prompt that it started from.
        model, family, fingerprint, weights, precision: its backbone's, as the card tells them.
        validation, test: the metric on the validation part and on test data.
        is_judged: whether the validation score is of examples that had not been trained on.
        record: checksum of the record of seen texts; None where the card names none.
    """

    id: str
    task: str
    title: str
    kind: str
    labels: tuple[str, ...]
    classes: int
    method: str
    sources: tuple[tuple[str, str], ...]
    model: str
    family: str
    fingerprint: str
    weights: str | None
    precision: NumberFormat
    prompt_kind: PromptKind | None
    prompt_length: int
    metric: str
    validation: float
    test: float | None
    is_judged: bool
    diverged: bool
    seed: int
    n_train: int
    series: str
    record: str | None

    @classmethod
    def of(cls, card: Card) -> Entry:
        return cls(
            id=card.id,
            task=card.task.name,
            title=card.task.title,
            kind=card.task.kind.value,
            labels=card.labels[:_NAMED],
            classes=len(card.labels),
            method=card.method,
            sources=tuple((source.id, source.task) for source in card.sources),
            model=card.backbone.name,
            family=card.backbone.family,
            fingerprint=card.backbone.fingerprint,
            weights=card.backbone.weights,
            precision=card.backbone.precision,
            prompt_kind=card.prompt_kind,
            prompt_length=card.prompt_length,
            metric=card.task.metric,
            validation=card.score,
            test=None if card.test is None else card.test.scores[card.task.metric],
            is_judged=card.is_judged,
            diverged=card.diverged is not None,
            seed=card.seed,
            n_train=card.n_train,
            series=card.series,
            record=card.files.get(SEEN_NAME),
        )

    def written(self) -> str:
        """As a JSON list."""
        return json.dumps(self, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def read(cls, values: list[Any]) -> Entry:
        """The inverse of `written`, of the parsed list."""
        values[_LABELS] = tuple(values[_LABELS])
        values[_SOURCES] = tuple(map(tuple, values[_SOURCES]))
        return cls._make(values)


def of_seed(series: Sequence[Entry], seed: int) -> Entry:
    """Of prompts of one series the one with this seed, else with the lowest."""
    return min(series, key=lambda one: (one.seed != seed, one.seed))


_LABELS, _SOURCES = Entry._fields.index("labels"), Entry._fields.index("sources")
