"""The optimiser's side of a training: AdamW with a linear decay, clipped gradients, one step at a time."""

from __future__ import annotations

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
        self._learner, self._train, self._objective, self._options = learner, train, objective, options
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
        read = [train.encoded, *(() if self._unlabeled is None else (self._unlabeled.encoded,))]
        self._below = [learner.below(encoded, progress) for encoded in read]
        self._order = streams.order
        self._drawn_from = self._order.bit_generator.state  # before the batches of this epoch were drawn
        self._batches: list[np.ndarray] = []
        self._losses: list[float] = []
        self.total = -(-len(train) // options.batch_size) * options.epochs
        self.done = self.examples = 0

    def take(self) -> bool:
        """Take the next step; returns whether it was the last of an epoch. Raises DivergedError."""
        if not self._batches:
            self._draw()
        if self._learner.tunes_model:
            self._learner.backbone.model.train()
        indices = self._batches[len(self._losses)]
        self._losses.append(self._step(indices))
        if self._learner.tunes_model:
            self._learner.backbone.model.eval()
        self.done += 1
        self.examples += len(indices) if self._unlabeled is None else 2 * len(indices)
        return len(self._losses) == len(self._batches)

    def end_epoch(self) -> float:
        """Close an epoch whose steps are all taken; returns the mean loss. Raises DivergedError."""
        if not all(bool(parameter.isfinite().all()) for parameter in self._learner.parameters):
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
        lengths, size = self._train.encoded.lengths, self._options.batch_size
        self._batches = self._objective.batches(lengths, self._targets, size, self._order)

    def _step(self, indices: np.ndarray) -> float:
        learner, accelerator, optimizer = self._learner, self._accelerator, self._optimizer
        for group in optimizer.param_groups:
            group["lr"] = self.lr * (1 - self.done / self.total)
        with accelerator.autocast():
            outputs, layout = self._outputs(self._train.encoded, indices, self._below[0])
            loss = self._objective.loss(outputs, self._targets, layout)
            if self._distillation is not None:
                loss = loss + self._distance(self._distillation, outputs, layout)
            if self._unlabeled is not None:
                drawn = self._outputs(self._unlabeled.encoded, self._cycle.draw(len(indices)), self._below[1])
                loss = loss + self._distance(self._unlabeled.distillation, *drawn)
        value = float(loss.detach())
        if not np.isfinite(value):
            raise DivergedError(f"the loss became {value}")
        optimizer.zero_grad()
        accelerator.backward(loss)
        if self.done == 0 and learner.prompt is not None and (layout.real is None or bool(layout.real.any())):
            _check_gradient(learner.prompt, learner.backbone.family)
        accelerator.clip_grad_norm_(learner.parameters, self._options.max_grad_norm)
        optimizer.step()
        return value

    def _outputs(self, encoded: Encoded, examples: np.ndarray, below: RowsBelow | None) -> tuple[Tensor, Layout]:
        layout, device = encoded.layout(examples), self._learner.backbone.device
        rows = layout.rows.numpy()
        batch = encoded.batch(rows).to(device)
        layout = layout.to(device)
        return self._learner.outputs(batch, layout, None if below is None else below.take(rows, device)), layout

    def _distance(self, distillation: Distillation, outputs: Tensor, layout: Layout) -> Tensor:
        return distillation.loss(outputs, distillation.teacher, self._objective, layout)


def _accelerator(precision: str) -> Accelerator:
    # accelerate fixes one precision for a process at its first use; trainings of one process may differ in it.
    AcceleratorState._reset_state()
    return Accelerator(mixed_precision=precision)


def _check_gradient(prompt: nn.Module, family: str) -> None:
    """A prompt without gradient would train a head alone, and nobody would notice."""
    if not any(p.grad is not None and bool(p.grad.ne(0).any()) for p in prompt.parameters()):
        raise RuntimeError(f"The prompt received no gradient in the first step on a '{family}' model.")
