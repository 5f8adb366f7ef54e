"""What a method is: where it starts, whom it hears, what learns, and which options concern it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from promptpanda.training.learner import Trained
from promptpanda.training.loop import Fitted
from promptpanda.training.options import TrainingOptions

if TYPE_CHECKING:
    from promptpanda.transfers.trial import Trial


@dataclass(frozen=True, eq=False)
class Method:
    """A way to a target prompt.

    Attributes:
        name: as in commands and results.
        title: as in tables.
        reference: where it comes from.
        sources: how many source prompts it starts from: none, one, or several (as many as there are).
        teacher: the method whose outcome it is distilled from (with several sources, the outcomes), or None.
        run: trains on a trial.
        trained: what learns beside the head.
        unlabeled: whether it learns from unlabelled text too.
        trainings: what it takes, in trainings, without its teachers and its unlabelled text.
    """

    name: str
    title: str
    reference: str
    sources: Literal["none", "one", "several"]
    teacher: Method | None
    run: Callable[[Trial], Fitted]
    trained: Trained = "prompt"
    unlabeled: bool = False
    trainings: int = 1

    @property
    def needs_source(self) -> bool:
        """Whether it starts from a source prompt, or from several."""
        return self.sources != "none"


def options_used(options: TrainingOptions, method: Method) -> dict[str, Any]:
    """The options that have an effect on a method: others must not make two runs differ."""
    unused = {"prompt": {"model_lr"}, "model": {"lr"}, "head": {"model_lr"}}[method.trained]
    if method.trained != "prompt":
        unused = unused | {"prompt_kind", "prompt_length", "init_std", "reparameterize"}
    if method.teacher is None:
        unused = unused | {"student_lr"}
    return options.model_dump(mode="json", exclude=unused)
