"""Predictions as the cells of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from promptpanda.bank.card import Card
from promptpanda.errors import PandaError
from promptpanda.tasks.spec import Kind

_SEPARATOR = "|"  # between several labels of one row

Cell = str | float | list[dict[str, Any]] | None


@dataclass(frozen=True)
class Cells:
    """Which columns predictions become.

    Attributes:
        probabilities: one column for the probability of every class.
        top: how many of the likeliest answers, each with its confidence.
        threshold: a prediction of a lower confidence is left empty; None leaves none empty.
    """

    probabilities: bool = False
    top: int = 1
    threshold: float | None = None

    def check(self, card: Card) -> None:
        """Raises PandaError if a setting does not go with the kind of a prompt's task."""
        kind = card.task.kind
        if self.probabilities and not _classes(card):
            raise PandaError(
                f"--probabilities gives a column for every class, and {card.id} ({kind.words}) has no fixed classes; "
                "leave it out."
            )
        if self.top > 1 and not (kind.classifies or kind in (Kind.MULTIPLE_CHOICE, Kind.EXTRACTIVE_QA)):
            raise PandaError(f"--top is for classes, choices and answers, and {card.id} is for {kind.words}.")
        if self.top > 1 and _classes(card) and self.top > len(_classes(card)):
            raise PandaError(f"--top {self.top} is more than the {len(_classes(card))} classes of {card.id}.")
        if self.threshold is not None and kind == Kind.REGRESSION:
            raise PandaError(f"--threshold needs a confidence, and {card.id} predicts values, which have none.")

    def columns(self, card: Card) -> dict[str, type]:
        """Names of the columns, and the type of their cells (list: JSON)."""
        kind = card.task.kind
        first = {Kind.REGRESSION: float, Kind.TOKEN_CLASSIFICATION: list}.get(kind, str)
        named: dict[str, type] = {"prediction": first, "confidence": float}
        for place in range(2, self.top + 1):
            named |= {f"prediction_{place}": str, f"confidence_{place}": float}
        return named | {f"p_{name}": float for name in self._listed(card)}

    def of(self, card: Card, prediction: Mapping[str, Any]) -> list[Cell]:
        """The cells of one prediction, as `predict` gives it, in the order of the columns."""
        ranked = _ranked(prediction)[: self.top]
        ranked += [(None, None)] * (self.top - len(ranked))
        confidence = ranked[0][1]
        if self.threshold is not None and confidence is not None and confidence < self.threshold:
            ranked[0] = (None, confidence)
        cells: list[Cell] = [cell for pair in ranked for cell in pair]
        return [*cells, *(_short(prediction["probabilities"][name]) for name in self._listed(card))]

    def settings(self) -> dict[str, Any]:
        """As JSON takes them."""
        return asdict(self)

    def _listed(self, card: Card) -> Sequence[str]:
        return _classes(card) if self.probabilities else ()


def confidence_of(prediction: Mapping[str, Any]) -> float | None:
    """How sure a model is of a prediction: its probability; of tags that of the least sure word; None for values."""
    return _ranked(prediction)[0][1]


def _classes(card: Card) -> Sequence[str]:
    """The classes or labels that every row has; choices that a row lists differ from row to row."""
    kind = card.task.kind
    if kind == Kind.MULTIPLE_CHOICE:
        return (card.task.labels or card.task.choices) if card.task.choice_list is None else ()
    return () if kind == Kind.TOKEN_CLASSIFICATION else card.labels


def _ranked(prediction: Mapping[str, Any]) -> list[tuple[Cell, float | None]]:
    """Answers and their confidences, the one that counts first."""
    if "value" in prediction:
        return [(_short(prediction["value"]), None)]
    if "spans" in prediction:
        spans = [
            {"text": span["text"], "start": span["start"], "end": span["end"], "type": span["label"]}
            for span in prediction["spans"]
        ]
        return [(spans, _short(prediction["confidence"]))]
    if "answer" in prediction:
        shares = {(one["answer"], one["start"]): one["probability"] for one in prediction["nbest"]}
        chosen = prediction["answer"], prediction["start"]
        order = [chosen, *(one for one in shares if one != chosen)]
        return [(one[0], _short(shares.get(one, 0.0))) for one in order]
    shares = prediction["probabilities"]
    if "labels" in prediction:  # several, each given or not: as sure as the least sure of these decisions
        given = prediction["labels"]
        sure = min(share if name in given else 1 - share for name, share in shares.items())
        return [(_SEPARATOR.join(given), _short(sure))]
    return [(name, _short(shares[name])) for name in sorted(shares, key=lambda name: -shares[name])]


def _short(number: float) -> float:
    """The digits that single precision has."""
    return float(f"{number:.7g}")
