"""The request for a transfer, checked before anything is loaded or trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from promptpanda.bank.folder import SourcePrompt, TrainedPrompt
from promptpanda.errors import PandaError
from promptpanda.tasks.protocol import Protocol, check_seeds
from promptpanda.tasks.reading import Row
from promptpanda.tasks.task import Task
from promptpanda.training.distillation import DistillationOptions
from promptpanda.training.options import TrainingOptions
from promptpanda.transfers import quick
from promptpanda.transfers.estimators import Cosine
from promptpanda.transfers.method import Method
from promptpanda.transfers.methods import PANDA_UNLABELED, PROMPT_TUNING, check_methods
from promptpanda.transfers.names import AUTO
from promptpanda.transfers.selection import SelectionOptions, contestants_of

DEFAULT_METHODS = ("prompt_tuning", "pot", "panda")


@dataclass(frozen=True, kw_only=True)
class TransferRequest:
    """The request for one transfer; `promptpanda.transfer` explains the values.

    Attributes:
        task: the target.
        source: a prompt, a path, an id, a task's name, `best` or `auto`.
        methods: names in the registry; None takes those that go with the source.
        options: of training; what is left open is settled by kind and amount of data.
        distillation: of PANDA's student.
        cosine: of PANDA's metric.
        selection: of `auto`; None takes the default, and is all that other sources allow.
        protocol: `clean` or `paper`.
        train_examples: the whole budget, training and validation part together; None takes all.
        test_examples: test examples at most; None takes all.
        seeds: each once, from 0.
        unlabeled: rows of the target without labels.
        ablation: whether the controls are trained too.

    Raises:
        PandaError: values that contradict each other.
    """

    task: Task
    source: str | Path | SourcePrompt | TrainedPrompt = AUTO
    methods: Sequence[str] | None = None
    options: TrainingOptions = field(default_factory=TrainingOptions)
    distillation: DistillationOptions = field(default_factory=DistillationOptions)
    cosine: Cosine = field(default_factory=Cosine)
    selection: SelectionOptions | None = None
    protocol: Protocol = "clean"
    train_examples: int | None = None
    test_examples: int | None = None
    seeds: Sequence[int] = (0,)
    unlabeled: Sequence[Row] | None = None
    ablation: bool = False

    def __post_init__(self) -> None:
        if self.selection is not None and self.source != AUTO:
            raise PandaError(
                "--effort, --survivors, --finalists and --refit are for --source auto; leave them out, or use it."
            )
        if self.selection_options.effort == "quick" and (self.methods is not None or self.unlabeled is not None):
            raise PandaError("--effort quick decides by itself what to train; leave --methods and --unlabeled out.")
        _ = self.contestants
        if self.selection is not None and not self.takes_source:
            raise PandaError(
                "--effort, --survivors, --finalists and --refit are for choosing a source, and no method starts from "
                "one; leave them out, or add pot or panda to --methods."
            )
        object.__setattr__(self, "seeds", check_seeds(self.seeds))
        self.distillation.check(self.task.kind)
        self.options.check(self.task.kind)
        self.selection_options.check(self.options, self.protocol)

    @cached_property
    def _requested(self) -> tuple[Method, ...]:
        requested = self._by_default if self.methods is None else check_methods(tuple(self.methods))
        if self.unlabeled is not None and not any(method.unlabeled for method in requested):
            requested = (*requested, PANDA_UNLABELED)
        return requested

    @property
    def _by_default(self) -> tuple[Method, ...]:
        if self.selection_options.effort == "quick":
            return tuple(method for method in quick.METHODS if method.supports(self.task.kind))
        return contestants_of(self.task.kind) if self.source == AUTO else check_methods(DEFAULT_METHODS)

    @property
    def takes_source(self) -> bool:
        """Whether any method starts from a source prompt."""
        return self.ablation or any(method.needs_source for method in self._requested)

    @property
    def selects(self) -> bool:
        """Whether `auto` chooses the source."""
        return self.source == AUTO and self.takes_source

    @cached_property
    def contestants(self) -> tuple[Method, ...]:
        """The methods that are tried; those of `auto` always include prompt tuning."""
        if not self.selects:
            return self._requested
        return check_methods((PROMPT_TUNING.name, *(method.name for method in self._requested)))

    @property
    def selection_options(self) -> SelectionOptions:
        """Those of `auto`, the default where none were given."""
        return self.selection or SelectionOptions()
