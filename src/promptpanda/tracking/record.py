"""What a tracker is told of one training, whatever the tracker."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from promptpanda.bank.card import Card
from promptpanda.sweep.row import Row

Value = str | int | float | bool


@dataclass(frozen=True)
class Record:
    """One training that has ended.

    Attributes:
        name: the prompt's id, or what the run of a sweep was.
        parameters: all that was asked for, by name.
        curve: by epoch from the first, numbers by name, such as `train/loss` and `validation/accuracy`.
        scores: final numbers by name, such as `final/validation/accuracy` and `final/test/accuracy`.
        failure: why it failed, or None.
    """

    name: str
    parameters: dict[str, Value]
    curve: tuple[dict[str, float], ...]
    scores: dict[str, float]
    failure: str | None = None

    @classmethod
    def of_card(cls, card: Card) -> Record:
        """Of a prompt."""
        asked = {
            "task": card.task.name,
            "kind": card.task.kind.value,
            "metric": card.task.metric,
            "method": card.method,
            "sources": ", ".join(source.id for source in card.sources) or None,
            "model": card.backbone.name,
            "protocol": card.protocol,
            "seed": card.seed,
            "n_train": card.n_train,
            "n_val": card.n_val,
            "prompt_kind": card.prompt_kind,
            "prompt_length": card.prompt_length,
        }
        curve = [(epoch.train_loss, epoch.validation) for epoch in card.curve]
        test = {} if card.test is None else card.test.scores
        scores = {"validation": card.validation, "test": test}
        work = {"seconds": card.seconds, "example_steps": float(card.example_steps)}
        return cls(
            card.id,
            _plain(asked | _options(card.options.model_dump(mode="json"))),
            _epochs(curve),
            _finals(scores, work),
        )

    @classmethod
    def of_row(cls, row: Row) -> Record:
        """Of a run of a sweep."""
        names = ("kind", "model", "task", "method", "source", "seed", "budget", "variant", "protocol", "metric")
        asked = {name: getattr(row, name) for name in (*names, "n_train", "n_val", "n_test", "prompt")}
        curve = [(epoch.train_loss, epoch.validation) for epoch in row.curve]
        scores = {"validation": row.validation or {}, "test": row.test or {}, "estimate": row.estimates or {}}
        work = {"seconds": row.seconds, "example_steps": float(row.example_steps)}
        parts = (row.method or row.kind, row.task, row.source and f"from {row.source}", f"s{row.seed}")
        name = " ".join(part for part in parts if part) if row.kind != "source" else f"source {row.task} s{row.seed}"
        options = _options(row.spec.get("options") or {})
        return cls(name, _plain(asked | options), _epochs(curve), _finals(scores, work), row.reason)


def _options(options: Mapping[str, Any]) -> dict[str, Any]:
    return {f"options/{name}": value for name, value in options.items()}


def _plain(values: Mapping[str, Any]) -> dict[str, Value]:
    """Without what is not set; lists and objects as text."""
    found = {name: value for name, value in values.items() if value is not None}
    return {name: value if isinstance(value, Value) else str(value) for name, value in found.items()}


def _epochs(curve: Iterable[tuple[float, Mapping[str, float] | None]]) -> tuple[dict[str, float], ...]:
    return tuple(
        _finite({"train/loss": loss} | {f"validation/{name}": value for name, value in (validation or {}).items()})
        for loss, validation in curve
    )


def _finals(scores: Mapping[str, Mapping[str, float]], work: Mapping[str, float]) -> dict[str, float]:
    named = {f"{part}/{name}": value for part, found in scores.items() for name, value in found.items()}
    return _finite({f"final/{name}": value for name, value in (named | dict(work)).items()})


def _finite(values: Mapping[str, float]) -> dict[str, float]:
    """Trackers differ in what they make of NaN; all of them take a number that is not there."""
    return {name: float(value) for name, value in values.items() if math.isfinite(value)}
