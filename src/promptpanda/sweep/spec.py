"""The spec of a run: frozen and hashable, with the specs of the runs that it starts from inside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

from promptpanda.sweep.recipe import DEFAULT
from promptpanda.sweep.row import RunKind
from promptpanda.tasks.protocol import Protocol
from promptpanda.training.distillation import DistillationOptions
from promptpanda.training.options import TrainingOptions

Settings = tuple[tuple[str, Any], ...]  # pairs of name and value, sorted


@dataclass(frozen=True)
class RunSpec:
    """Everything that is asked of one run. Two runs with equal specs are one run.

    Attributes:
        kind: `source` a prompt of a source task, `target` a method on a target, `estimates` what the estimators say.
        model: as the recipe names it.
        task: name of the task that is trained on; of estimates the target.
        method: None for estimates; `auto` for the full selection among the sources.
        budget: examples, train and validation together; None all.
        options: those fields of TrainingOptions that have an effect, with defaults; epochs and max_length only where
            they were given, since else the data decides.
        distillation: those fields of DistillationOptions that have an effect.
        tested: whether test data is scored.
        test_examples: at most so many.
        estimators: names, for estimates.
        threads: CPU threads.
        unlabeled: at most so many texts of train beyond the budget, without labels, for methods that learn from them.
        source: the run that trains the source prompt.
        teacher: the run that trains the teacher.
        sources, teachers: of a fusion, instead of `source` and `teacher`: one run each a source; of `auto` the sources
            to choose from.
        selection: what decides how `auto` selects.
        own: the run that tunes a prompt on the target, for estimators that need it.
        variant: what the recipe calls these settings; a name changes no result.
    """

    kind: RunKind
    model: str
    task: str
    method: str | None
    seed: int
    budget: int | None
    protocol: Protocol
    options: Settings
    distillation: Settings = ()
    tested: bool = False
    test_examples: int | None = None
    estimators: tuple[str, ...] = ()
    threads: int = 1
    source: RunSpec | None = None
    teacher: RunSpec | None = None
    own: RunSpec | None = None
    unlabeled: int | None = None
    sources: tuple[RunSpec, ...] = ()
    teachers: tuple[RunSpec, ...] = ()
    selection: Settings = ()
    variant: str = field(default=DEFAULT, compare=False)

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        # Specs hold specs, and the driver looks them up all the time.
        return hash(tuple(getattr(self, one.name) for one in fields(self) if one.compare))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_hash"}  # differs by process

    @property
    def needs(self) -> dict[str, RunSpec]:
        """The runs that it starts from, by role."""
        return self._led | {
            f"{role}_{number}": spec
            for role, specs in (("source", self.sources), ("teacher", self.teachers))
            for number, spec in enumerate(specs, 1)
        }

    @property
    def _led(self) -> dict[str, RunSpec]:
        roles = {"source": self.source, "teacher": self.teacher, "own": self.own}
        return {role: spec for role, spec in roles.items() if spec is not None}

    @property
    def words(self) -> tuple[str, ...]:
        """What `--only` compares with."""
        sources = [spec.task for spec in self._sources]
        words = (self.kind, self.model, self.task, self.method or "", self.variant, *sources, f"s{self.seed}")
        return tuple(dict.fromkeys(word for word in words if word))

    @property
    def _sources(self) -> tuple[RunSpec, ...]:
        return self.sources if self.source is None else (self.source,)

    @property
    def label(self) -> str:
        """For a line of progress."""
        source = f" from {' and '.join(spec.task for spec in self._sources)}" if self._sources else ""
        variant = "" if self.variant == DEFAULT else f" ({self.variant})"
        budget = "" if self.budget is None else f", {self.budget} examples"
        what = "estimates" if self.kind == "estimates" else self.method
        if self.kind == "source":
            what = "source prompt"
        return f"{what}{variant} of {self.task}{source}, {self.model}{budget}, seed {self.seed}"

    def training_options(self) -> TrainingOptions:
        return TrainingOptions(**dict(self.options))

    def distillation_options(self) -> DistillationOptions:
        return DistillationOptions(**dict(self.distillation))

    def to_json(self) -> dict[str, Any]:
        """As plain data, for a row."""
        plain = {
            name: getattr(self, name)
            for name in ("kind", "model", "task", "method", "seed", "budget", "protocol", "tested", "test_examples")
        }
        plain |= {"options": dict(self.options), "distillation": dict(self.distillation)}
        plain |= {"estimators": list(self.estimators), "threads": self.threads, "variant": self.variant}
        plain |= {} if self.unlabeled is None else {"unlabeled": self.unlabeled}
        plain |= {"selection": dict(self.selection)} if self.selection else {}
        return plain | {role: spec.to_json() for role, spec in self.needs.items()}

    def closure(self) -> Iterator[RunSpec]:
        """The runs that it starts from, directly or not, each before those that need it, and then itself."""
        seen: set[RunSpec] = set()
        yield from self._closure(seen)

    def _closure(self, seen: set[RunSpec]) -> Iterator[RunSpec]:
        for spec in self.needs.values():
            yield from spec._closure(seen)
        if self not in seen:
            seen.add(self)
            yield self

    def content(self, of_need: Callable[[RunSpec], str], *, training_only: bool = False) -> dict[str, Any]:
        """What decides about the outcome, as plain data: no names of models, tasks and variants.

        Args:
            of_need: the hash of a run that it starts from.
            training_only: leave out what concerns the test data and what the outcome is used for.
        """
        content: dict[str, Any] = {
            "method": self.method,
            "seed": self.seed,
            "budget": self.budget,
            "protocol": self.protocol,
            "options": dict(self.options),
            "distillation": dict(self.distillation),
            "estimators": list(self.estimators),
            "threads": self.threads,
            "needs": {role: of_need(spec) for role, spec in self._led.items()},
        }
        # What came later stands there only where it has an effect, so that older rows keep their keys.
        if self.sources:
            content["fused"] = {
                "sources": sorted(of_need(spec) for spec in self.sources),
                "teachers": sorted(of_need(spec) for spec in self.teachers),
            }
        if self.unlabeled is not None:
            content["unlabeled"] = self.unlabeled
        if self.selection:
            content["selection"] = dict(self.selection)
        if not training_only:
            content |= {"kind": self.kind, "tested": self.tested, "test_examples": self.test_examples}
        return content
