"""The optimiser's side of a training: AdamW with a linear decay, clipped gradients, one step at a time."""

from __future__ import annotations

from collections.abc import Hashable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from promptpanda.progress import Progress
from promptpanda.tasks.encoding import Encoded, Layout
from promptpanda.training.batching import Cycle
from promptpanda.training.below import RowsBelow
from promptpanda.training.distillation import Distillation, Unlabeled
from promptpanda.training.inference import Data
from promptpanda.training.learner import Learner, Streams
from promptpanda.training.objectives.objective import Objective
from promptpanda.training.options import TrainingOptions


class DivergedError(ArithmeticError):
    """The loss or a parameter is not finite; the message says which."""


class Steps:
    """AdamW's steps over shuffled batches.

    Attributes:
        learner: what learns.
        encoded: the labelled examples.
        below: what enters the lowest layer that learns, of all their rows; None where all layers learn.
        lr: peak learning rate.
        total: steps of all epochs.
        done: steps taken.
        examples: examples that went forward and backward in them.
    """

    def __init__(
        self,
        learner: Learner,
        train: Data,
        objective: Objective,
        options: TrainingOptions,
        distillation: Distillation | None,
        unlabeled: Unlabeled | None,
        streams: Streams,
        progress: Progress,
    ) -> None:
        """Raises PandaError if what the lower layers make of the data cannot be kept; see `RowsBelow.of`."""
        device = learner.backbone.device
        self.learner, self.encoded, self._objective, self._options = learner, train.encoded, objective, options
        self._accelerator = _accelerator(options.precision)
        if isinstance(options.lr, str):
            raise ValueError(f"lr {options.lr!r} must be settled before a training")
        self.lr = options.model_lr if learner.tunes_model else options.lr
        self._adamw = torch.optim.AdamW(learner.parameters, lr=self.lr, weight_decay=options.weight_decay)
        self._optimizer = self._accelerator.prepare_optimizer(self._adamw, device_placement=False)
        if options.class_weights is not None:  # in the steps alone: validation losses stay those of the examples
            self._objective = objective.balanced(train.split.labels)
        self._targets = objective.targets(train.encoded, train.split.labels).to(device)
        # A coefficient of 0 must change no bit, so the term is then left out.
        self._distillation = None
        if distillation is not None and distillation.coefficient > 0:
            self._distillation = distillation.to(device)
        self._unlabeled = None
        if unlabeled is not None and unlabeled.distillation.coefficient > 0:
            self._unlabeled = Unlabeled(unlabeled.encoded, unlabeled.distillation.to(device))
            self._cycle = Cycle(len(unlabeled.encoded), streams.unlabeled)
        self.below = learner.below(train.encoded, progress)
        self._below_unlabeled = None
        if self._unlabeled is not None:
            self._below_unlabeled = learner.below(self._unlabeled.encoded, progress)
        self._order = streams.order
        self._drawn_from = self._order.bit_generator.state  # before the batches of this epoch were drawn
        self._batches: list[np.ndarray] = []
        self._losses: list[float] = []
        self.total = -(-len(train) // options.batch_size) * options.epochs
        self.done = self.examples = 0

    def take(self) -> bool:
        """Take the next step; returns whether it was the last of an epoch. Raises DivergedError."""
        if self.learner.tunes_model:
            self.learner.backbone.model.train()
        indices = self.drawn()
        with self.autocast():
            loss = self.loss(*self._outputs(self.encoded, indices, self.below))
            if self._unlabeled is not None:
                rows = self._cycle.draw(len(indices))
                drawn = self._outputs(self._unlabeled.encoded, rows, self._below_unlabeled)
                loss = loss + self._distance(self._unlabeled.distillation, *drawn)
        value = finite(loss)
        self.clear()
        self.scaled(loss).backward()
        ended = self.update(value)
        if self.learner.tunes_model:
            self.learner.backbone.model.eval()
        return ended

    @property
    def joins(self) -> Hashable | None:
        """Trainings with an equal value can take their steps in one batch; None where it cannot join others."""
        learner = self.learner
        if learner.prompt is None or self._unlabeled is not None:
            return None
        depth = None if self.below is None else self.below.layer
        shape = learner.prompt.kind, tuple(learner.prompt.learning.shape), depth, learner.readout
        return id(learner.backbone), *shape, learner.dropout, self._options.precision

    def autocast(self) -> AbstractContextManager[None]:
        """Mixed precision, where the options ask for it."""
        return self._accelerator.autocast()  # type: ignore[no-any-return]

    def clear(self) -> None:
        """Set gradients back."""
        self._optimizer.zero_grad()

    def scaled(self, loss: Tensor) -> Tensor:
        """What the backward pass starts from: in half precision small gradients are scaled up."""
        scaler = self._accelerator.scaler
        return loss if scaler is None else scaler.scale(loss)

    def drawn(self) -> np.ndarray:
        """The examples of the next step. *Shape:* (examples,)."""
        if not self._batches:
            self._draw()
        return self._batches[len(self._losses)]

    def loss(self, outputs: Tensor, layout: Layout) -> Tensor:
        """Of labelled examples, what a teacher says of them included."""
        loss = self._objective.loss(outputs, self._targets, layout)
        if self._distillation is not None:
            loss = loss + self._distance(self._distillation, outputs, layout)
        return loss

    def update(self, loss: float) -> bool:
        """Let AdamW take the step whose gradients are there; returns whether it was the last of an epoch.

        Args:
            loss: that they are of.
        """
        learner, optimizer = self.learner, self._optimizer
        for group in optimizer.param_groups:
            group["lr"] = self.lr * (1 - self.done / self.total)
        if self.done == 0 and learner.prompt is not None and self._reads_something():
            _check_gradient(learner.prompt, learner.backbone.family)
        self._accelerator.clip_grad_norm_(learner.parameters, self._options.max_grad_norm)
        optimizer.step()
        count = len(self.drawn())
        self._losses.append(loss)
        self.done += 1
        self.examples += count if self._unlabeled is None else 2 * count
        return len(self._losses) == len(self._batches)

    def end_epoch(self) -> float:
        """Close an epoch whose steps are all taken; returns the mean loss. Raises DivergedError."""
        if not all(bool(parameter.isfinite().all()) for parameter in self.learner.parameters):
            raise DivergedError("the prompt's values were no longer finite")
        loss = float(np.mean(self._losses))
        self._batches, self._losses = [], []
        return loss

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and plain numbers from which `load_state` goes on to the same bits."""
        tensors = {
            f"adamw.{place}.{name}": value.detach().cpu().clone()
            for place, values in self._adamw.state_dict()["state"].items()
            for name, value in values.items()
        }
        numbers = {
            "done": self.done,
            "examples": self.examples,
            "losses": self._losses,
            "order": self._drawn_from if self._batches else self._order.bit_generator.state,
        }
        if self._unlabeled is not None:
            numbers["unlabeled"] = self._cycle.state
        if self._accelerator.scaler is not None:
            numbers["scaler"] = self._accelerator.scaler.state_dict()
        return tensors, numbers

    def load_state(self, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
        """The inverse of `state`, for steps made in the same way."""
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("adamw."):
                _, place, name = key.split(".")
                moments.setdefault(int(place), {})[name] = value.clone()  # AdamW changes them in place
        self._adamw.load_state_dict({"state": moments, "param_groups": self._adamw.state_dict()["param_groups"]})
        self.done, self.examples = int(numbers["done"]), int(numbers["examples"])
        self._order.bit_generator.state = numbers["order"]
        self._batches, self._losses = [], []
        if numbers["losses"]:
            self._draw()
            self._losses = [float(loss) for loss in numbers["losses"]]
        if self._unlabeled is not None:
            self._cycle.state = numbers["unlabeled"]
        if self._accelerator.scaler is not None:
            self._accelerator.scaler.load_state_dict(numbers["scaler"])

    def _draw(self) -> None:
        self._drawn_from = self._order.bit_generator.state
        lengths, size = self.encoded.lengths, self._options.batch_size
        self._batches = self._objective.batches(lengths, self._targets, size, self._order)

    def _reads_something(self) -> bool:
        """Whether a head reads anything of this step's examples: they may be without a word."""
        units = self.encoded.units
        rows = (row for example in self.drawn() for row in self.encoded.rows_of(int(example)))
        return units is None or any(len(units[row]) for row in rows)

    def _outputs(self, encoded: Encoded, examples: np.ndarray, below: RowsBelow | None) -> tuple[Tensor, Layout]:
        layout, device = encoded.layout(examples), self.learner.backbone.device
        rows = layout.rows.numpy()
        batch = encoded.batch(rows).to(device)
        layout = layout.to(device)
        return self.learner.outputs(batch, layout, None if below is None else below.take(rows, device)), layout

    def _distance(self, distillation: Distillation, outputs: Tensor, layout: Layout) -> Tensor:
        return distillation.loss(outputs, distillation.teacher, self._objective, layout)


def finite(loss: Tensor) -> float:
    """Its value. Raises DivergedError."""
    value = float(loss.detach())
    if not np.isfinite(value):
        raise DivergedError(f"the loss became {value}")
    return value


def _accelerator(precision: str) -> Accelerator:
    # accelerate fixes one precision for a process at its first use; trainings of one process may differ in it.
    AcceleratorState._reset_state()
    return Accelerator(mixed_precision=precision)


def _check_gradient(prompt: nn.Module, family: str) -> None:
    """A prompt without gradient would train a head alone, and nobody would notice."""
    if not any(p.grad is not None and bool(p.grad.ne(0).any()) for p in prompt.parameters()):
        raise RuntimeError(f"The prompt received no gradient in the first step on a '{family}' model.")
