"""The request for a learning curve, checked before anything is loaded or trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from promptpanda.bank.bank import Bank
from promptpanda.bank.folder import SourcePrompt, TrainedPrompt
from promptpanda.curves.plan import MOST_HELD_OUT
from promptpanda.errors import PandaError
from promptpanda.tasks.protocol import check_seeds
from promptpanda.tasks.task import Task
from promptpanda.training.options import TrainingOptions
from promptpanda.transfers.method import Method
from promptpanda.transfers.methods import check_methods


@dataclass(frozen=True, kw_only=True)
class CurveRequest:
    """The request for one learning curve; `promptpanda.learning_curve` explains the values.

    Attributes:
        task: whose training rows are drawn from.
        source: a prompt to start from; None starts from none.
        methods: names in the registry; None: `pot` with a source, else `prompt_tuning`.
        sizes: labelled rows; None doubles from 16 to all.
        seeds: each once.
        test_examples: at most so many rows are scored.
        options: of training; what is left open is determined for every size separately.
        bank: where a source is looked up.

    Raises:
        PandaError: values that contradict each other.
    """

    task: Task
    source: str | Path | SourcePrompt | TrainedPrompt | None = None
    methods: Sequence[str] | None = None
    sizes: Sequence[int] | None = None
    seeds: Sequence[int] = (0, 1, 2)
    test_examples: int = MOST_HELD_OUT
    options: TrainingOptions = field(default_factory=TrainingOptions)
    bank: Bank | Path | str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "seeds", check_seeds(self.seeds))
        if self.options.lr == "auto":
            raise PandaError("--lr auto tries three trainings at every point of the curve; give a number.")
        _check_methods(self.task, self.chosen)
        takers = [method.name for method in self.chosen if method.needs_source]
        if takers and self.source is None:
            raise PandaError(f"The method {takers[0]} starts from a source prompt, and there is none; give --source.")
        if self.source is not None and not takers:
            raise PandaError("--source is for methods that start from one, such as pot; add it to --methods.")

    @cached_property
    def chosen(self) -> tuple[Method, ...]:
        """The methods that are trained."""
        return check_methods(self.methods or (("pot",) if self.source is not None else ("prompt_tuning",)))


def _check_methods(task: Task, methods: Sequence[Method]) -> None:
    for method in methods:
        if method.unlabeled or method.sources == "several":
            raise PandaError(
                f"A learning curve is drawn for methods that start from one source or none, and {method.name} takes "
                "more; leave it out."
            )
        if not method.supports(task.kind):
            raise PandaError(f"The method {method.name} is not defined for {task.kind.words}; leave it out.")
