"""Models and tasks of a sweep, loaded once a process, and the fingerprints that runs are keyed by."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path

from promptpanda.backbone import Backbone, default_device
from promptpanda.errors import PandaError
from promptpanda.files import digest
from promptpanda.quiet import quiet_libraries
from promptpanda.sweep.plan import ModelAt, Plan
from promptpanda.sweep.spec import RunSpec
from promptpanda.tasks.catalog import load_task
from promptpanda.tasks.inputs import Split
from promptpanda.tasks.protocol import Protocol
from promptpanda.tasks.task import Task, data_root

_TASKS_KEPT = 6  # the large ones take hundreds of megabytes


@dataclass(frozen=True)
class TaskFacts:
    """What identifies a task's data.

    Attributes:
        identity: hash of what the spec and the labels decide.
        train: fingerprint of the train split; under the paper protocol of the validation set too.
        test: fingerprint of the test split, or None where there is none.
        n_train, n_validation, n_test: examples; n_validation of the official set under the paper protocol, else 0.
    """

    identity: str
    train: str
    test: str | None
    n_train: int
    n_validation: int
    n_test: int


@dataclass
class Cache:
    """What is loaded in this process: one model, some tasks, and all fingerprints."""

    _backbone: tuple[ModelAt, Backbone] | None = None
    _tasks: OrderedDict[tuple[str, str | None], Task] = field(default_factory=OrderedDict)
    _facts: dict[tuple[str, str | None, Protocol], TaskFacts] = field(default_factory=dict)

    def backbone(self, model: ModelAt, fingerprint: str | None = None) -> Backbone:
        """A model. Raises PandaError if it cannot be loaded, or if its weights are not the expected ones."""
        if self._backbone is None or self._backbone[0] != model or self._other(self._backbone[1], fingerprint):
            self._backbone = None  # the memory of one serves the next
            quiet_libraries()
            loaded = Backbone.load(model.location, device=default_device(), dtype=model.dtype)
            self._backbone = (model, loaded)
        found = self._backbone[1]
        if fingerprint is not None and self._other(found, fingerprint):
            raise PandaError(
                f"The model {model.location} has the weights {found.fingerprint[:8]} where this run is computed, and "
                f"{fingerprint[:8]} where it was planned; put the same model in both places."
            )
        return found

    def task(self, location: str, data_dir: str | None) -> Task:
        """A task, whose splits stay in memory once they are read."""
        key = (location, data_dir)
        if key not in self._tasks:
            self._tasks[key] = load_task(location, data_dir=data_dir)
        self._tasks.move_to_end(key)
        while len(self._tasks) > _TASKS_KEPT:
            gone, _ = self._tasks.popitem(last=False)
            # Files may be others when the task is read again, so that its facts must be taken again too.
            self._facts = {key: facts for key, facts in self._facts.items() if key[:2] != gone}
        return self._tasks[key]

    def facts(self, location: str, data_dir: str | None, protocol: Protocol) -> TaskFacts:
        """The fingerprints of a task's data. Raises PandaError if it has no data to train on."""
        key = (location, data_dir, protocol)
        if key not in self._facts:
            self._facts[key] = facts_of(self.task(location, data_dir), protocol)
        return self._facts[key]

    def expected(self, location: str, data_dir: str | None, protocol: Protocol, facts: TaskFacts) -> Task:
        """A task whose data is that of the plan; data that changed since it was read is read again."""
        if self.facts(location, data_dir, protocol) != facts:
            self._facts.pop((location, data_dir, protocol))
            self._tasks.pop((location, data_dir), None)
        if self.facts(location, data_dir, protocol) != facts:
            raise PandaError(
                f"The data of task '{self.task(location, data_dir).name}' is not what it was when the sweep was "
                "planned; put the same data where runs are computed, or begin the sweep again."
            )
        return self.task(location, data_dir)

    def forget(self) -> None:
        """Files may have changed: read everything again when it is next needed."""
        self._backbone = None
        self._tasks.clear()
        self._facts.clear()

    @staticmethod
    def _other(backbone: Backbone, fingerprint: str | None) -> bool:
        return fingerprint is not None and backbone.fingerprint != fingerprint


CACHE = Cache()  # of this process


def facts_of(task: Task, protocol: Protocol) -> TaskFacts:
    """The fingerprints of a task's data."""
    train = task.train()
    validation = task.split("validation") if protocol == "paper" else None
    test = validation if protocol == "paper" else task.test()
    return TaskFacts(
        identity=digest([task.spec.content, task.labels]),
        train=digest([_fingerprint(train), _fingerprint(validation)]),
        test=_fingerprint(test),
        n_train=len(train),
        n_validation=0 if validation is None else len(validation),
        n_test=0 if test is None else len(test),
    )


def _fingerprint(split: Split | None) -> str | None:
    return None if split is None else split.fingerprint


@dataclass(frozen=True)
class Keys:
    """The hashes by which a run is known: of its spec, its data and its backbone.

    Attributes:
        key: equal for equal runs, whatever their models, folders and variants are called.
        training: the same without what concerns test data alone: runs that share it train the same.
    """

    key: str
    training: str


@dataclass(frozen=True)
class Planned:
    """A plan with its fingerprints.

    Attributes:
        backbones: fingerprint by model.
        facts: by task.
        keys: of every run.
    """

    plan: Plan
    data_dir: str | None
    backbones: dict[str, str]
    facts: dict[str, TaskFacts]
    keys: dict[RunSpec, Keys]


def identify(plan: Plan, protocol: Protocol, data_dir: Path | str | None, cache: Cache = CACHE) -> Planned:
    """Load what the runs need and key every run. Raises PandaError if a model or a task's data is not there."""
    place = None if data_dir is None or (root := data_root(data_dir)) is None else str(root.resolve())
    facts = {}
    for name, location in plan.tasks.items():
        facts[name] = cache.facts(location, place, protocol)
    for spec in plan.runs:
        _check_budget(spec, facts[spec.task], cache.task(plan.tasks[spec.task], place))
    backbones: dict[str, str] = {}
    for model, place_of_model in plan.models.items():
        backbones[model] = cache.backbone(place_of_model).fingerprint
        twin = next((other for other, known in backbones.items() if known == backbones[model] and other != model), None)
        if twin is not None:
            raise PandaError(f"The models '{twin}' and '{model}' have the same weights; leave one out.")
    keys: dict[RunSpec, Keys] = {}
    for spec in plan.runs:  # in topological order
        rest = {"task": facts[spec.task].identity, "data": facts[spec.task].train, "backbone": backbones[spec.model]}
        test = {"test": facts[spec.task].test if spec.tested else None}
        keys[spec] = Keys(
            digest(spec.content(lambda need: keys[need].key) | rest | test),
            digest(spec.content(lambda need: keys[need].training, training_only=True) | rest),
        )
    return Planned(plan, place, backbones, facts, keys)


def _check_budget(spec: RunSpec, facts: TaskFacts, task: Task) -> None:
    if spec.budget is not None and spec.budget > facts.n_train:
        which = "sources: examples" if spec.kind == "source" else "targets: budgets"
        raise PandaError(
            f"{which} {spec.budget} is more than task '{spec.task}' has ({facts.n_train}); lower it, or leave it out."
        )
    if spec.protocol == "paper" and facts.n_validation == 0:
        raise PandaError(
            f"The paper protocol needs an official validation split, and task '{task.name}' has none; use the protocol "
            "clean."
        )
