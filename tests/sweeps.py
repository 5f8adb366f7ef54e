"""A study small enough to be swept in seconds, which the sweep tests share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from conftest import sentiment_rows, write_jsonl

from promptpanda.bank.bank import Bank
from promptpanda.bank.card import Card
from promptpanda.sweep.drive import Outcome
from promptpanda.sweep.executors import InProcess, Workers
from promptpanda.sweep.recipe import SweepRecipe
from promptpanda.sweep.row import Row
from promptpanda.sweep.session import Places, sweep
from promptpanda.sweep.store import Store
from promptpanda.sweep.work import tensors_checksum

ALL = 2 + 1 + 2 * 3  # sources, prompt tuning, and from each source PoT, PANDA and estimates
TASKS = {"books": 5, "films": 6, "mood": 0}


@dataclass
class Study:
    """A folder with a model, data, specs and a recipe. Sources: books and films; target: mood."""

    folder: Path
    model: Path

    def __post_init__(self) -> None:
        for name, seed in TASKS.items():
            self.write_task(name, seed)

    def write_task(self, name: str, seed: int, **changes: object) -> None:
        write_jsonl(self.folder / "data" / name / "train.jsonl", sentiment_rows(40, seed))
        write_jsonl(self.folder / "data" / name / "test.jsonl", sentiment_rows(20, seed + 100))
        spec = {
            "name": name,
            "kind": "single_classification",
            "segments": ["{text}"],
            "labels": ["good", "bad"],
            "metrics": ["accuracy"],
        }
        (self.folder / f"{name}.yaml").write_text(yaml.safe_dump(spec | changes))

    def content(self, **changes: Any) -> dict[str, Any]:
        options = {"epochs": 1, "max_length": 24, "prompt_length": 4}
        return {
            "name": "study",
            "models": [str(self.model)],
            "sources": {"tasks": ["books.yaml", "films.yaml"], "examples": 40, "options": options},
            "targets": {"tasks": ["mood.yaml"], "budgets": 24, "options": {"epochs": 1, "max_length": 24}},
            "methods": ["prompt_tuning", "pot", "panda"],
            "seeds": [0],
            "estimators": ["cosine"],
            "data_dir": "data",
        } | changes

    def recipe(self, **changes: Any) -> SweepRecipe:
        return SweepRecipe.parse(self.content(**changes), "a test")

    def write_recipe(self, **changes: Any) -> Path:
        path = self.folder / "study.yaml"
        path.write_text(yaml.safe_dump(self.content(**changes)))
        return path

    def places(self, out: str = "out") -> Places:
        return Places(self.folder / out, base=self.folder)

    def run(self, out: str = "out", recipe: SweepRecipe | None = None, **options: Any) -> Outcome:
        return sweep(recipe or self.recipe(), self.places(out), **options)

    def rows(self, out: str = "out") -> list[Row]:
        with Store.open(self.folder / out) as store:
            return store.rows()

    def bank(self, out: str = "out") -> Bank:
        return Bank(self.folder / out / "bank")


def essence(folder: Path) -> tuple[dict[str, Any], list[Any], dict[str, Any]]:
    """What must be equal in equal stores and banks: everything but times, attempts, environments and paths."""
    with Store.open(folder) as store:
        rows = {
            row.key: row.model_dump(exclude={"seconds", "attempts", "finished", "environment"}) for row in store.rows()
        }
        answers = [one.model_dump() for one in store.answers()]
    bank = Bank(folder / "bank")
    cards = {name: Card.read(bank.folder / name) for name in bank.ids()}
    for name in cards:
        bank.verify(name)
    return rows, answers, {name: (card.run, tensors_checksum(card), card.test) for name, card in cards.items()}


def litter(folder: Path) -> list[str]:
    """Names in a sweep's folder and bank that are not results: staging folders, halves, orphans."""
    with Store.open(folder) as store:
        named = store.prompts()
    of_store = {"store.sqlite", "store.sqlite.lock", "store.sqlite-wal", "store.sqlite-shm", "bank"}
    top = [path.name for path in folder.iterdir() if path.name not in of_store]
    return top + [path.name for path in (folder / "bank").iterdir() if path.name not in named]


class Counting(InProcess):
    """Says which runs it was given."""

    def __init__(self):
        self.seen = []

    def submit(self, function, /, *arguments):
        self.seen.append(arguments[0].spec.label)
        return super().submit(function, *arguments)

    @property
    def workers(self):
        return Workers.around(self, 1)
