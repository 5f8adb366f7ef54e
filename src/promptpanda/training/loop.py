"""The one training loop, taken step by step: `run` goes through it, a race stops in between and goes on."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from promptpanda.backbone import Backbone
from promptpanda.errors import PandaError
from promptpanda.progress import Progress, Silent
from promptpanda.prompts.prompt import Prompt
from promptpanda.tasks.metrics import baseline
from promptpanda.training.calibration import fit_temperature
from promptpanda.training.distillation import Distillation, Unlabeled
from promptpanda.training.heads import Head, HeadStart
from promptpanda.training.inference import Data, predict_outputs, scores_of
from promptpanda.training.learner import Learner, Streams, TorchStream, Trained, is_read_once, stream_seed
from promptpanda.training.objectives.kinds import objective_for
from promptpanda.training.objectives.objective import Objective, Threshold
from promptpanda.training.options import TrainingOptions
from promptpanda.training.steps import DivergedError, Steps

ALL_SEEN = "All validation examples are among those that were trained on: their score says little."


@dataclass(frozen=True)
class Epoch:
    """One epoch's mean training loss, and the validation scores where they were taken."""

    train_loss: float
    validation: dict[str, float] | None


@dataclass(frozen=True)
class Fitted:
    """What a training gives.

    Attributes:
        prompt, head: of the epoch that counts, on the CPU. There is no prompt where the head or the model was trained.
        backbone: the model that was trained, or None where it stayed as it was.
        objective: with what was chosen on the validation part.
        validation: metrics on the validation part, and `loss`.
        curve: one entry an epoch.
        example_steps: examples that went forward and backward.
        forward_examples: examples that went forward only.
        seconds: wall time.
        diverged: why training stopped early, or None. The prompt is then that of the last epoch that was sound.
        warnings: signs that little was learnt, one sentence each.
        distillation: the teacher that it learnt from, if any.
        before: metrics on the validation part before the first step, where it went on from a trained head; else None.
        temperature: fitted on the validation part; None where that was trained on too, or outputs are no logits.
    """

    prompt: Prompt | None
    head: Head
    backbone: Backbone | None
    objective: Objective
    validation: dict[str, float]
    curve: tuple[Epoch, ...]
    example_steps: int
    forward_examples: int
    seconds: float
    diverged: str | None = None
    warnings: tuple[str, ...] = ()
    distillation: Distillation | None = None
    before: dict[str, float] | None = None
    temperature: float | None = None


@dataclass(frozen=True)
class TrainingState:
    """All that a training needs to go on to the same bits.

    Attributes:
        tensors: parameters, moments of AdamW, torch's random streams, the epochs that are kept; on the CPU.
        numbers: the rest, as JSON takes it.
    """

    tensors: dict[str, Tensor]
    numbers: dict[str, Any]


class UntrainableError(PandaError):
    """A method cannot be trained on the data at hand; other methods may."""


class TrainingDivergedError(UntrainableError):
    """A training was given up; the message says at which step, and what to change."""


class Training:
    """A training that can be stopped after any step, looked at, put down and taken up again.

    Learning rate and batch order are those of the full run from step 1. However it is cut into pieces, the outcome is
    that of `run`, bit for bit.

    Attributes:
        steps: the optimiser's side of it.
        progress, label: what is told of its steps, and under which name.
    """

    def __init__(
        self,
        backbone: Backbone,
        train: Data,
        validation: Data,
        objective: Objective,
        options: TrainingOptions,
        *,
        seed: int,
        start: Prompt | None = None,
        head: HeadStart | None = None,
        trained: Trained = "prompt",
        distillation: Distillation | None = None,
        unlabeled: Unlabeled | None = None,
        restart: int = 0,
        threshold: Threshold | None = None,
        best_epoch: bool = False,
        read: int = 0,
        progress: Progress | None = None,
        label: str = "train",
    ) -> None:
        """A training before its first step; see `run`.

        Args:
            trained: what learns beside the head. A model learns at `options.model_lr`, with its own dropout.
            start: the prompt to start from; None draws a fresh one.
            head: the trained head to go on from; None draws a fresh one.
            distillation: a teacher's outputs to learn from beside the labels. A coefficient of 0 is no distillation.
            unlabeled: texts without labels, and a teacher's outputs for them; a weight of 0 leaves them out.
            restart: 0, or another number for other draws of the same seed.
            threshold: instead of what is chosen on the validation part.
            read: examples that went forward for it before: what a teacher said of them.
            best_epoch: the epoch with the best validation score counts (also when `options.early_stopping` is set),
                else the last.
            seed: fixes order, head, fresh prompt and dropout, each by a stream of its own.

        Raises:
            PandaError: max length and prompt do not fit the model.
        """
        self._seconds, self._read = 0.0, read
        with self._timed():
            if trained == "prompt":
                backbone.check_length(options.max_length, options.prompt_length if start is None else start.length)
            else:
                backbone.check_length(options.max_length, 0)
            self._streams = Streams(seed, backbone.device, restart)
            self._learner = Learner.of(backbone, objective, options, self._streams, start, trained, head)
            if trained == "head":
                vectors = sum(map(len, train.encoded.units or ()))
                if is_read_once(self._learner.readout, vectors, backbone.hidden_size):
                    self._learner.read_once(train)
            self.progress, self.label = progress or Silent(), label
            self.steps = Steps(
                self._learner, train, objective, options, distillation, unlabeled, self._streams, self.progress
            )
        self._train, self._validation, self._objective, self._options = train, validation, objective, options
        self._distillation, self._trained, self._threshold = distillation, trained, threshold
        # A model's layers draw their dropout from torch's own stream.
        self._own_stream = None if trained != "model" else TorchStream(stream_seed(seed, 6, restart))
        self._track = best_epoch or options.early_stopping is not None
        self._curve: list[Epoch] = []
        self._best: tuple[float, int] | None = None
        # An epoch's end is known to be sound only when the next step's loss is finite, so the one before is kept too.
        self._kept: list[list[Tensor]] = []
        self._stopped = False
        self._diverged: str | None = None

    @property
    def total(self) -> int:
        """Steps of the full run."""
        return self.steps.total

    @property
    def done(self) -> int:
        """Steps taken."""
        return self.steps.done

    @property
    def example_steps(self) -> int:
        """Examples that went forward and backward so far; none where what the head reads was read once."""
        return self.steps.examples if self._learner.seen is None else 0

    @property
    def forward_examples(self) -> int:
        """Examples that went forward only so far: before it, in its validations, and to be kept where a head learns."""
        kept = 0 if self._learner.seen is None else len(self._train)
        return self._read + len(self._validation) * len(self._curve) * self._track + kept

    @property
    def ended(self) -> bool:
        """Whether no step is left to take: all are taken, it was stopped early, or it diverged."""
        return self._stopped or self._diverged is not None or self.done >= self.total

    @property
    def seconds(self) -> float:
        """Wall time so far."""
        return self._seconds

    @property
    def prompt(self) -> Prompt | None:
        """The prompt as it stands, on the CPU; None where none is trained."""
        return self._learner.frozen(self._objective)[0]

    @property
    def diverged(self) -> str | None:
        """Why it cannot go on, or None."""
        return self._diverged

    def run(self) -> Fitted:
        """Train to the end.

        Raises:
            TrainingDivergedError: see `finish`.
        """
        self.advance()
        return self.finish()

    def advance(self, until: int | None = None) -> None:
        """Train up to a step of the full run; None: to the end. A divergence ends it, and is told by `finish`."""
        last = self.total if until is None else min(until, self.total)
        with self._timed(), self.running():
            self.progress.begin(self.label, max(last - self.done, 0))
            while not self.ended and self.done < last:
                self.note_step(self.steps.take)
                self.progress.advance(1)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Within, the backbone is set to what steps of this training need."""
        backbone = self._learner.backbone
        with contextlib.ExitStack() as scope:
            backbone.set_gradient_checkpointing(self._options.gradient_checkpointing)
            scope.callback(backbone.set_gradient_checkpointing, False)
            if self._own_stream is not None:
                scope.enter_context(self._own_stream.used())
            yield

    def note_step(self, step: Callable[[], bool]) -> None:
        """Take account of a step, which says whether it was the last of an epoch, or raises DivergedError."""
        try:
            if step():
                self._end_epoch()
        except DivergedError as error:
            epoch = f"epoch {len(self._curve) + 1} of {self._options.epochs}"
            self._diverged = f"{error} in {epoch} (step {self.done + 1})"

    def note_seconds(self, seconds: float) -> None:
        """Add wall time that was spent on this training elsewhere."""
        self._seconds += seconds

    def validate(self) -> tuple[Any, dict[str, float]] | None:
        """What it predicts of the validation part as it stands, as metrics take it, and its scores, `loss` among them.

        None where it diverged. Changes nothing.
        """
        with self._timed():
            outputs = self._outputs()
            if self._diverged is not None or not np.isfinite(outputs).all():
                return None
            objective, scores = self._evaluated(outputs)
            validation = self._validation
            return objective.predictions(outputs, validation.encoded, validation.split.texts), scores

    def finish(self) -> Fitted:
        """What it gives, once it has ended.

        Raises:
            TrainingDivergedError: there was no sound epoch, so that there is nothing to keep.
        """
        if not self.ended:
            raise ValueError(f"{self.done} of {self.total} steps are taken: a training is finished after all of them")
        diverged, curve = self._diverged, self._curve
        with self._timed():
            for snapshot in self._kept:
                self._learner.restore(snapshot)
                outputs = self._outputs()
                if np.isfinite(outputs).all():
                    break
                diverged = (
                    diverged or f"the outputs were no longer finite after epoch {len(curve)} of {self._options.epochs}"
                )
            else:
                raise TrainingDivergedError(
                    f"Training '{self.label}' stopped: {diverged}, with no valid epoch before it; lower --lr (it was "
                    f"{self.steps.lr:g})."
                )
            prompt, head = self._learner.frozen(self._objective)
            chosen, scores = self._evaluated(outputs)
            temperature = held_out_temperature(outputs, self._train, self._validation)
        return Fitted(
            prompt,
            head,
            self._learner.backbone if self._trained == "model" else None,
            chosen,
            scores,
            tuple(curve),
            example_steps=self.example_steps,
            forward_examples=self.forward_examples + len(self._validation),
            seconds=self._seconds,
            diverged=diverged,
            warnings=_warnings(self._train, self._validation, scores, curve),
            distillation=self._distillation,
            temperature=temperature,
        )

    def state(self) -> TrainingState:
        """What `load_state` needs to go on from here. A model's training is not put down."""
        if self._own_stream is not None:
            raise ValueError("the training of a whole model cannot be put down")
        tensors, numbers = self.steps.state()
        for name, snapshot in (("now", self._learner.snapshot()), *zip("01", self._kept, strict=False)):
            tensors |= {f"parameters.{name}.{place}": value.cpu() for place, value in enumerate(snapshot)}
        tensors |= {f"stream.{name}": stream.get_state() for name, stream in self._torch_streams().items()}
        curve = [[epoch.train_loss, epoch.validation] for epoch in self._curve]
        return TrainingState(
            tensors,
            {
                "steps": numbers,
                "kept": len(self._kept),
                "curve": curve,
                "best": self._best,
                "stopped": self._stopped,
                "diverged": self._diverged,
                "seconds": self._seconds,
            },
        )

    def load_state(self, state: TrainingState) -> None:
        """Go on from where a training made in the same way was put down."""
        tensors, numbers = state.tensors, state.numbers
        count = len(self._learner.parameters)

        def snapshot(name: str) -> list[Tensor]:
            device = self._learner.backbone.device
            return [tensors[f"parameters.{name}.{place}"].to(device) for place in range(count)]

        self.steps.load_state(tensors, numbers["steps"])
        self._learner.restore(snapshot("now"))
        self._kept = [snapshot(str(place)) for place in range(int(numbers["kept"]))]
        for name, stream in self._torch_streams().items():
            stream.set_state(tensors[f"stream.{name}"])
        self._curve = [Epoch(loss, scores) for loss, scores in numbers["curve"]]
        self._best = None if numbers["best"] is None else (numbers["best"][0], numbers["best"][1])
        self._stopped, self._diverged = bool(numbers["stopped"]), numbers["diverged"]
        self._seconds = float(numbers["seconds"])

    def _torch_streams(self) -> dict[str, torch.Generator]:
        return {name: value for name, value in vars(self._streams).items() if isinstance(value, torch.Generator)}

    def _end_epoch(self) -> None:
        loss, scores = self.steps.end_epoch(), None
        metric = self._validation.spec.metric
        if self._track:
            outputs = self._outputs()
            if not np.isfinite(outputs).all():
                raise DivergedError("the outputs were no longer finite")
            _, scores = self._evaluated(outputs)  # at the thresholds that it would be kept with
            if not np.isfinite(scores["loss"]):
                raise DivergedError("the validation loss was no longer finite")
        epoch = len(self._curve)
        self._curve.append(Epoch(loss, scores))
        if scores is None:
            self._kept = [self._learner.snapshot(), *self._kept[:1]]
        elif self._best is None or scores[metric] > self._best[0]:
            self._kept = [self._learner.snapshot()]
            self._best = (scores[metric], epoch)
        patience = self._options.early_stopping
        self._stopped = patience is not None and self._best is not None and epoch - self._best[1] >= patience

    def _outputs(self) -> np.ndarray:
        prompt, head = self._learner.frozen(self._objective)
        return predict_outputs(self._learner.backbone, prompt, head, self._validation.encoded)

    def _evaluated(self, outputs: np.ndarray) -> tuple[Objective, dict[str, float]]:
        split = self._validation.split
        if self._threshold is None:
            chosen = self._objective.calibrated(outputs, self._validation.encoded, split.texts, split.labels)
        else:
            chosen = replace(self._objective, threshold=self._threshold)
        return chosen, scores_of(outputs, self._validation, chosen)

    @contextlib.contextmanager
    def _timed(self) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self._seconds += time.perf_counter() - began


def held_out_temperature(outputs: np.ndarray, train: Data, validation: Data) -> float | None:
    """The temperature of a kept head's outputs; None where validation examples were trained on, or there are no logits.

    Args:
        outputs: on the validation part.
    """
    if set(validation.split.texts) <= set(train.split.texts):
        return None
    # Weights of classes, which an objective may have in training, do not hold for new texts.
    objective = objective_for(validation.spec, len(validation.class_names), train.split.labels)
    return fit_temperature(outputs, validation, objective)


def _warnings(train: Data, validation: Data, scores: dict[str, float], curve: list[Epoch]) -> tuple[str, ...]:
    """What users take for a trained prompt and is none."""
    metric = train.spec.metric
    floor = baseline(train.spec, train.class_names, train.split, validation.split)[metric]
    found = []
    if scores[metric] <= floor:
        found.append(
            f"{metric} {scores[metric]:.3f} on {len(validation)} validation examples is no better than a constant "
            f"prediction ({floor:.3f}); more --epochs or another --lr may help."
        )
    if set(validation.split.texts) <= set(train.split.texts):
        found.append(ALL_SEEN)
    if len(curve) > 2 and curve[-1].train_loss > 0.97 * curve[0].train_loss:
        found.append(
            f"The training loss hardly fell ({curve[0].train_loss:.3f} to {curve[-1].train_loss:.3f}); more --epochs "
            "or another --lr may help."
        )
    return tuple(found)
