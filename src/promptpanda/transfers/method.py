"""What a method is: where it starts, whom it learns from, what learns, and which options concern it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from promptpanda.backbone import Backbone
from promptpanda.bank.folder import SourcePrompt, TrainedPrompt
from promptpanda.names import HeadReadout
from promptpanda.prompts.prompt import Prompt
from promptpanda.tasks.inputs import Input, Split
from promptpanda.tasks.protocol import Partition
from promptpanda.tasks.spec import Kind
from promptpanda.tasks.task import Task
from promptpanda.training.distillation import Distillation, DistillationOptions, Unlabeled
from promptpanda.training.heads import HeadStart
from promptpanda.training.inference import Data
from promptpanda.training.learner import Trained
from promptpanda.training.loop import Fitted, Training
from promptpanda.training.objectives.objective import Objective
from promptpanda.training.options import TrainingOptions


class MethodContext(Protocol):
    """What a method has to work with: one target and seed, its sources, and trainings on them.

    Attributes:
        options: settled ones, with the shape of the source's prompt.
        distillation: of students.
        unlabeled: texts of the target without labels; None where there are none.
        train_data, validation_data: encoded parts of the budget; test data is not within reach.
        objective: the target's loss and predictions.
        readout: how a head reads hidden states.
        transferability: what estimators say of the best source; empty without one.
    """

    @property
    def backbone(self) -> Backbone: ...
    @property
    def task(self) -> Task: ...
    @property
    def partition(self) -> Partition: ...
    @property
    def options(self) -> TrainingOptions: ...
    @property
    def seed(self) -> int: ...
    @property
    def distillation(self) -> DistillationOptions: ...
    @property
    def unlabeled(self) -> tuple[Input, ...] | None: ...
    @property
    def train_data(self) -> Data: ...
    @property
    def validation_data(self) -> Data: ...
    @property
    def objective(self) -> Objective: ...
    @property
    def readout(self) -> HeadReadout: ...
    @property
    def transferability(self) -> dict[str, float]: ...

    def data(self, split: Split, readout: HeadReadout | None = None) -> Data:
        """A split encoded as a head reads; by default as `readout` says."""

    def sources_of(self, method: Method) -> tuple[SourcePrompt, ...]:
        """The sources that a method starts from."""

    def weights(self, method: Method) -> np.ndarray:
        """How much each of them counts. *Shape:* (sources,)."""

    def fused_source(self, method: Method) -> Prompt:
        """The prompt that they are together; of one source, its prompt."""

    def teachers(self, method: Method) -> tuple[TrainedPrompt, ...]:
        """The trained teachers of a method, one a source; none for a random teacher."""

    def coefficient_of(self, method: Method) -> float:
        """The weight of a method's distillation."""

    def training(
        self,
        method: Method,
        *,
        start: Prompt | None = None,
        head: HeadStart | None = None,
        distillation: Distillation | None = None,
        unlabeled: Unlabeled | None = None,
        restart: int = 0,
        epochs: int | None = None,
        objective: Objective | None = None,
    ) -> Training:
        """A training of the method before its first step; `run()` carries it out.

        Args:
            epochs, objective: others than the options' and the task's.
        """


@dataclass(frozen=True, eq=False)
class Method:
    """A way to a target prompt.

    Attributes:
        name: as in commands and results.
        title: as in tables.
        reference: where it comes from.
        sources: how many source prompts it starts from: none, one, or several (as many as there are).
        teacher: the method whose outcome it is distilled from (with several sources, the outcomes), or None.
        run: trains on a target and seed.
        trained: what learns beside the head.
        unlabeled: whether it learns from unlabelled text too.
        trainings: what it takes, in trainings, without its teachers, its unlabelled text and its contrastive steps.
        warm_up: contrastive steps of the prompt, rounded to whole epochs of the training part.
        kinds: of tasks that it is defined for; None: all.
        version: of a method from elsewhere; runs of another version are other runs. Ours go by the package's.
    """

    name: str
    title: str
    reference: str
    sources: Literal["none", "one", "several"]
    teacher: Method | None
    run: Callable[[MethodContext], Fitted]
    trained: Trained = "prompt"
    unlabeled: bool = False
    trainings: int = 1
    warm_up: int = 0
    kinds: tuple[Kind, ...] | None = None
    version: str = ""

    def supports(self, kind: Kind) -> bool:
        """Whether it is defined for a kind of task."""
        return self.kinds is None or kind in self.kinds

    def warm_up_epochs(self, n_train: int, batch_size: int) -> int:
        """Epochs of contrastive steps; 0 without any."""
        return max(1, round(self.warm_up / -(-n_train // batch_size))) if self.warm_up else 0

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
    if options.class_weights is None:  # came later: runs from before keep their identity
        unused = unused | {"class_weights"}
    return options.model_dump(mode="json", exclude=unused)
