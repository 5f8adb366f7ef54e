"""What a sweep takes: counts, work, and time and disk from a short measurement or from runs that are done."""

from __future__ import annotations

import contextlib
import statistics
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from promptpanda import footprint
from promptpanda.errors import PandaError
from promptpanda.models import config_of
from promptpanda.names import SIGNATURE_EXAMPLES
from promptpanda.parallel import torch_threads
from promptpanda.sweep.cache import CACHE, Cache, Planned
from promptpanda.sweep.plan import Plan
from promptpanda.sweep.row import Row
from promptpanda.sweep.spec import RunSpec
from promptpanda.tasks.encoding import encode
from promptpanda.tasks.protocol import Partition, partition, validation_size
from promptpanda.training.defaults import resolved, settled
from promptpanda.transfers.methods import CONTRASTIVE_POT, METHODS, PROMPT_TUNING
from promptpanda.transfers.names import AUTO
from promptpanda.transfers.race import planned_cost
from promptpanda.transfers.selection import SURVIVORS
from promptpanda.transfers.trial import Trial

_SAMPLE = 200  # texts whose length is taken
_STEPS = 3  # of the measurement
_MODEL_TUNING = 1.6  # a step of all weights, in steps of a prompt
_CARD = 8_000  # bytes of a card and a configuration
_ROW = 6_000  # bytes of a row, without predictions
_PREDICTION = 4  # bytes of one


@dataclass
class Work:
    """How much every run does, in tokens that are trained on; a token that is only read counts a third."""

    planned: Planned
    cache: Cache = field(default_factory=lambda: CACHE)
    _tokens: dict[tuple[str, str], float] = field(default_factory=dict)
    _known: dict[RunSpec, float] = field(default_factory=dict)

    def of(self, spec: RunSpec) -> float:
        """The work of a run."""
        if spec not in self._known:
            self._known[spec] = self._of(spec)
        return self._known[spec]

    def _of(self, spec: RunSpec) -> float:
        facts = self.planned.facts[spec.task]
        total = facts.n_train if spec.budget is None else spec.budget
        n_val = facts.n_validation if spec.protocol == "paper" else validation_size(total)
        n_train = total if spec.protocol == "paper" else total - n_val
        n_test = min(facts.n_test, spec.test_examples or facts.n_test) if spec.tested else 0
        options = resolved(spec.training_options(), self._task(spec).kind, n_train)
        if spec.method is None:
            return self.tokens(spec) * min(SIGNATURE_EXAMPLES, n_train) / 3
        if spec.method == AUTO:
            racing = min(len(spec.sources), SURVIVORS)
            tracked = spec.protocol == "paper"
            trained = options.epochs * n_train * planned_cost(racing, options, n_train, n_val, tracked=tracked)
            if CONTRASTIVE_POT.supports(self._task(spec).kind):
                trained += CONTRASTIVE_POT.warm_up_epochs(n_train, options.batch_size) * n_train
            read = (len(spec.sources) + 1) * total + n_test
            return self.tokens(spec) * (trained + read / 3)
        method = METHODS[spec.method]
        trained = 0.0 if method.trained == "head" else float(options.epochs * n_train)
        if method.trained == "model":
            trained *= _MODEL_TUNING
        trained *= method.trainings * (2 if method.unlabeled else 1)
        trained += method.warm_up_epochs(n_train, options.batch_size) * n_train
        passes = options.epochs if spec.protocol == "paper" or options.early_stopping is not None else 1
        read = n_val * passes + n_test + min(SIGNATURE_EXAMPLES, n_train)
        if method.trained == "head" or method.trainings == 0 or spec.teacher is not None:
            read += n_train
        read += len(spec.teachers) * n_train + max(1, len(spec.teachers)) * (spec.unlabeled or 0)
        return self.tokens(spec) * (trained + read / 3)

    def tokens(self, spec: RunSpec) -> float:
        """Mean tokens of an example of the run's task, all its rows together, after cutting."""
        key = (spec.model, spec.task)
        if key not in self._tokens:
            texts = self._task(spec).train().texts
            chosen = np.random.default_rng(0).permutation(len(texts))[:_SAMPLE]
            sample = tuple(texts[int(index)] for index in chosen)
            backbone = self.cache.backbone(self.planned.plan.models[spec.model])
            longest = dict(spec.options).get("max_length", 384)
            self._tokens[key] = float(encode(backbone, sample, longest).row_lengths.sum()) / len(sample)
        return self._tokens[key]

    def _task(self, spec: RunSpec) -> Any:
        return self.cache.task(self.planned.plan.tasks[spec.task], self.planned.data_dir)


@dataclass
class Clock:
    """Seconds of runs: what finished runs took tells best, a short measurement serves until then."""

    work: Work
    _measured: dict[str, float] = field(default_factory=dict)
    _done: dict[tuple[str, str | None], tuple[float, float]] = field(default_factory=dict)  # seconds and work, in all

    def learn(self, spec: RunSpec, seconds: float) -> None:
        """A run has taken so long."""
        before, done = self._done.get((spec.model, spec.method), (0.0, 0.0))
        self._done[spec.model, spec.method] = before + seconds, done + self.work.of(spec)

    def observe_all(self, specs: Iterable[RunSpec], rows: dict[str, Row]) -> None:
        """What the rows that are there already tell."""
        for spec in specs:
            row = rows.get(self.work.planned.keys[spec].key)
            if row is not None and row.status == "finished" and row.seconds > 0:
                self.learn(spec, row.seconds)

    def seconds(self, spec: RunSpec) -> float | None:
        """What a run will take, or None while nothing is known of its model."""
        alike = self._done.get((spec.model, spec.method))
        if alike is None and spec.model in self._measured:
            return self._measured[spec.model] * self.work.of(spec)
        found = [one for (model, _), one in self._done.items() if model == spec.model] if alike is None else [alike]
        if not found:
            return None
        taken, done = (sum(column) for column in zip(*found, strict=True))
        return float(taken / max(done, 1e-9) * self.work.of(spec))

    def total(self, specs: Iterable[RunSpec], workers: int) -> float | None:
        """What runs will take together, or None if one of them cannot be told."""
        found = [self.seconds(spec) for spec in specs]
        known = [seconds for seconds in found if seconds is not None]
        return sum(known) / max(workers, 1) if len(known) == len(found) else None

    def measure(self, specs: Iterable[RunSpec]) -> None:
        """Take a few training steps with every model of which nothing is known, on a target of middling length."""
        by_model: dict[str, list[RunSpec]] = {}
        for spec in specs:
            if spec.method == PROMPT_TUNING.name and spec.model not in self._measured:
                by_model.setdefault(spec.model, []).append(spec)
        for model, found in by_model.items():
            if all((model, spec.method) not in self._done for spec in found):
                targets = [spec for spec in found if spec.kind == "target"] or found
                mean = statistics.fmean(self.work.tokens(spec) for spec in targets)
                middling = min(targets, key=lambda spec: abs(self.work.tokens(spec) - mean))
                # What goes wrong in a run is told when the run fails; here the time is just not known.
                with contextlib.suppress(Exception):
                    self._measured[model] = _rate(middling, self.work)


def _rate(spec: RunSpec, work: Work) -> float:
    """Seconds per trained token, from a few real steps."""
    plan = work.planned.plan
    backbone = work.cache.backbone(plan.models[spec.model])
    task = work.cache.task(plan.tasks[spec.task], work.planned.data_dir)
    whole = partition(task, protocol=spec.protocol, train_examples=spec.budget, seed=spec.seed)
    options = settled(spec.training_options(), task.kind, whole.train, backbone)
    count = min(len(whole.train), _STEPS * options.batch_size)
    few = Partition(whole.train.take(np.arange(count)), whole.validation.take(np.arange(1)), "clean")
    trial = Trial(backbone, task, few, options.model_copy(update={"epochs": 1, "early_stopping": None}), spec.seed)
    with torch_threads(spec.threads):
        trial.training(PROMPT_TUNING).run()  # the first also sets things up
        seconds = min(trial.training(PROMPT_TUNING).run().seconds for _ in range(2))
    return seconds / float(encode(backbone, few.train.texts, options.max_length).row_lengths.sum())


@dataclass(frozen=True)
class Group:
    """Runs of one kind and method.

    Attributes:
        seconds: what those that are left will take in one process, or None where it cannot be told.
    """

    kind: str
    method: str | None
    runs: int
    finished: int
    failed: int
    left: int
    seconds: float | None


@dataclass(frozen=True)
class Forecast:
    """What a sweep holds and takes.

    Attributes:
        seconds: of what is left, on all workers; None where it cannot be told.
        bytes: of the prompts and rows that are left to write.
        why_not: why time cannot be told.
    """

    groups: tuple[Group, ...]
    seconds: float | None
    bytes: int
    why_unknown: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The object that `panda sweep --dry-run --json` prints."""
        total = {name: sum(getattr(group, name) for group in self.groups) for name in ("runs", "finished", "failed")}
        return {
            **total,
            "left": sum(group.left for group in self.groups),
            "seconds": self.seconds,
            "bytes": self.bytes,
            "why_not": self.why_unknown,
            "groups": [dict(vars(group)) for group in self.groups],
        }


def forecast(
    plan: Plan,
    left: list[RunSpec],
    *,
    status: dict[RunSpec, str] | None = None,
    clock: Clock | None = None,
    workers: int = 1,
    why_unknown: str | None = None,
) -> Forecast:
    """Count the runs of a plan and tell what those that are left take.

    Args:
        status: `finished` or `failed`, of the runs that the store knows.
        clock: None where models or data are not at hand.
    """
    known = status or {}
    groups = []
    for kind, method in dict.fromkeys((spec.kind, spec.method) for spec in plan.runs):
        mine = [spec for spec in plan.runs if (spec.kind, spec.method) == (kind, method)]
        counted = Counter(known.get(spec, "") for spec in mine)
        todo = [spec for spec in left if (spec.kind, spec.method) == (kind, method)]
        seconds = None if clock is None else clock.total(todo, 1)
        groups.append(Group(kind, method, len(mine), counted["finished"], counted["failed"], len(todo), seconds))
    total = None if clock is None else clock.total(left, workers)
    return Forecast(tuple(groups), total, _bytes(left, clock), why_unknown)


def _bytes(left: list[RunSpec], clock: Clock | None) -> int:
    sizes: dict[tuple[str, str, int], int] = {}
    total = 0
    for spec in left:
        total += _ROW
        if clock is not None and spec.tested:
            facts = clock.work.planned.facts[spec.task]
            total += _PREDICTION * min(facts.n_test, spec.test_examples or facts.n_test)
        if spec.method is None:
            continue
        total += _CARD
        if spec.method == AUTO or METHODS[spec.method].trained == "prompt":
            options = spec.training_options()
            key = (spec.model, options.prompt_kind, options.prompt_length)
            if key not in sizes:
                with contextlib.suppress(PandaError):
                    sizes[key] = _prompt_bytes(spec, clock)
            total += sizes.get(key, 0)
    return total


def _prompt_bytes(spec: RunSpec, clock: Clock | None) -> int:
    """Of a prompt and its signature: pooled hidden states, a byte a neuron, a token's share of the prompt."""
    options = spec.training_options()
    if clock is not None:
        backbone = clock.work.cache.backbone(clock.work.planned.plan.models[spec.model])
        config = backbone.config
        prompt = 4 * int(np.prod(backbone.shape.of(options.prompt_kind, options.prompt_length)))
    else:
        config = config_of(spec.model)
        prompt = footprint.estimate(config, prompt_length=options.prompt_length, batch_size=1, length=4).prompt
    traces = int(config.hidden_size) * (8 * (int(config.num_hidden_layers) + 1) + 4 * int(config.num_hidden_layers))
    return prompt + prompt // options.prompt_length + traces
