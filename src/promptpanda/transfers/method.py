"""What a method is: where it starts, which teacher it learns from, what is trained, and which options concern it."""

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
    """What a method can use when it runs: one target and seed, its sources, and trainings on them.

    Attributes:
        backbone: the frozen model.
        task: the target.
        partition: the training and validation part of the budget.
        options: the training options, with nothing left open and the shape of the source's prompt.
        seed: the target's seed.
        distillation: the settings of students.
        unlabeled: texts of the target without labels; None if there are none.
        train_data: the training part, encoded. Test data cannot be reached.
        validation_data: the validation part, encoded.
        objective: the target's loss and predictions.
        readout: how a head reads hidden states.
        transferability: the estimates for the best source, by estimator; empty without a source.
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
        """A split, encoded for a readout; by default for `readout`."""

    def sources_of(self, method: Method) -> tuple[SourcePrompt, ...]:
        """The sources that a method starts from; none for a method without a source."""

    def weights(self, method: Method) -> np.ndarray:
        """The weight of each of a method's sources, adding up to 1. *Shape:* (sources,)."""

    def fused_source(self, method: Method) -> Prompt:
        """The weighted mean of the sources' prompts; for a single source, its prompt."""

    def teachers(self, method: Method) -> tuple[TrainedPrompt, ...]:
        """The trained teachers of a method, one per source; none for a random teacher."""

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
        read: int = 0,
    ) -> Training:
        """Prepare a training of the method; `run()` carries it out.

        Args:
            method: the method, whose name goes into messages and results.
            start: the prompt to start from; None, the default, starts from the seed's fresh prompt.
            head: a head to continue with; None, the default, starts from the seed's fresh head.
            distillation: the teacher's outputs and their weight; None, the default, for none.
            unlabeled: unlabelled texts with the teacher's outputs; None, the default, for none.
            restart: 0, the default, uses the seed's own random numbers; other numbers give others for everything but
                the data.
            epochs: instead of those of the options.
            objective: instead of the task's.
            read: examples that a forward pass read for it beforehand (what teachers say), which count as its work.
        """


@dataclass(frozen=True, eq=False)
class Method:
    """A way to train a prompt for a target.

    Attributes:
        name: its name in commands and results: lower-case letters, digits and `_`.
        title: its name in tables.
        reference: where it was published.
        sources: how many source prompts it starts from: `none`, `one`, or `several` (as many as there are).
        teacher: the method whose outcome it is distilled from (with several sources, one outcome per source), or None.
        run: the function that trains on a target and seed, `run(context: MethodContext) -> Fitted`.
        trained: what is trained besides the head: `prompt` (the default), `head` (nothing else), or `model`.
        unlabeled: whether it also learns from unlabelled text; False by default.
        trainings: its cost in trainings, 1 by default, without its teachers, its unlabelled text and its contrastive
            steps.
        warm_up: contrastive steps of the prompt, rounded to whole epochs of the training part; 0 by default.
        kinds: the kinds of tasks that it is defined for; None, the default, for all.
        version: of a method from another package: change it when the method changes, so that earlier runs are not
            reused. By default, the package's own version counts.
        begin: of a method that is one training, the function that prepares it, `begin(context) -> Training`, so that it
            can share its batches with others (`--beside`). None, the default, lets `run` train alone.
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
    begin: Callable[[MethodContext], Training] | None = None

    def supports(self, kind: Kind) -> bool:
        """Whether the method is defined for a kind of task."""
        return self.kinds is None or kind in self.kinds

    def warm_up_epochs(self, n_train: int, batch_size: int) -> int:
        """The number of epochs that the contrastive steps take; 0 without any.

        Args:
            n_train: examples of the training part.
            batch_size: examples per step.
        """
        return max(1, round(self.warm_up / -(-n_train // batch_size))) if self.warm_up else 0

    @property
    def needs_source(self) -> bool:
        """Whether the method starts from one or several source prompts."""
        return self.sources != "none"


def options_used(options: TrainingOptions, method: Method) -> dict[str, Any]:
    """The options that have an effect on a method: others must not make two runs differ."""
    unused = {"prompt": {"model_lr"}, "model": {"lr"}, "head": {"model_lr"}}[method.trained]
    if method.trained != "prompt":
        unused = unused | {"prompt_kind", "prompt_length", "init_std", "reparameterize", "train_layers", "beside"}
    if method.teacher is None:
        unused = unused | {"student_lr"}
    # What came later: runs from before keep their identity.
    later: dict[str, Any] = {"class_weights": None, "train_layers": None, "beside": 1}
    unused = unused | {name for name, default in later.items() if getattr(options, name) == default}
    return options.model_dump(mode="json", exclude=unused)
