"""The one training loop: a prompt and a head learn, the backbone never does."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from promptpanda.backbone import Backbone, Readout, TextBatch
from promptpanda.errors import PandaError
from promptpanda.progress import Progress, Silent
from promptpanda.prompts.prompt import Prompt, PromptStack
from promptpanda.prompts.trainable import DirectPrompt, ReparameterizedPrompt
from promptpanda.training.batching import shuffled_batches
from promptpanda.training.distillation import Distillation
from promptpanda.training.heads import Head, folded, fresh_head
from promptpanda.training.inference import Data, score
from promptpanda.training.objectives import Objective
from promptpanda.training.options import TrainingOptions


@dataclass(frozen=True)
class Epoch:
    """One epoch's mean training loss, and the validation scores where they were taken."""

    train_loss: float
    validation: dict[str, float] | None


@dataclass(frozen=True)
class Fitted:
    """What a training gives.

    Attributes:
        prompt, head: of the epoch that counts, on the CPU.
        validation: metrics on the validation part, and `loss`.
        curve: one entry an epoch.
        example_steps: examples that went forward and backward.
        forward_examples: examples that went forward only.
        seconds: wall time.
        diverged: why training stopped early, or None. The prompt is then that of the last epoch that was sound.
        distillation: the teacher that it learnt from, if any.
    """

    prompt: Prompt
    head: Head
    validation: dict[str, float]
    curve: tuple[Epoch, ...]
    example_steps: int
    forward_examples: int
    seconds: float
    diverged: str | None = None
    distillation: Distillation | None = None


class Streams:
    """Independent random streams of one seed: whatever one method draws, the others' draws stay the same."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self.order = np.random.default_rng([seed, 2])
        self.prompt = torch.Generator().manual_seed(_stream_seed(seed, 3))
        self.head = torch.Generator().manual_seed(_stream_seed(seed, 4))
        self.dropout = torch.Generator(device).manual_seed(_stream_seed(seed, 5))


def _stream_seed(seed: int, stream: int) -> int:
    return int(np.random.SeedSequence([seed, stream]).generate_state(1, np.uint32)[0])


@dataclass
class _Learner:
    """The trainable parts and how they are run."""

    backbone: Backbone
    prompt: DirectPrompt | ReparameterizedPrompt
    head: nn.Linear
    readout: Readout
    dropout: float
    generator: torch.Generator

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [*self.prompt.parameters(), *self.head.parameters()]

    def logits(self, batch: TextBatch) -> Tensor:
        """Outputs in training, with dropout. *Shape:* (batch, outputs)."""
        stack = PromptStack(self.prompt.kind, self.prompt()[None], None, self.dropout, self.generator)
        pooled = self.backbone.read(self.backbone.hidden(batch, stack), batch.attention_mask, self.readout)
        if self.dropout > 0:
            keep = torch.empty_like(pooled).bernoulli_(1 - self.dropout, generator=self.generator)
            pooled = pooled * keep / (1 - self.dropout)
        logits: Tensor = self.head(pooled)
        return logits

    def frozen(self, objective: Objective) -> tuple[Prompt, Head]:
        prompt = Prompt(self.prompt.kind, self.prompt().detach().cpu().contiguous().clone())
        return prompt, folded(self.head, scale=objective.scale, shift=objective.shift, readout=self.readout)

    def snapshot(self) -> list[Tensor]:
        return [parameter.detach().clone() for parameter in self.parameters]

    def restore(self, snapshot: list[Tensor]) -> None:
        with torch.no_grad():
            for parameter, value in zip(self.parameters, snapshot, strict=True):
                parameter.copy_(value)


def fit(
    backbone: Backbone,
    train: Data,
    validation: Data,
    objective: Objective,
    options: TrainingOptions,
    *,
    seed: int,
    start: Prompt | None = None,
    distillation: Distillation | None = None,
    best_epoch: bool = False,
    progress: Progress | None = None,
    label: str = "train",
) -> Fitted:
    """Train a prompt and a head.

    Args:
        start: the prompt to start from; None draws a fresh one.
        distillation: a teacher's outputs to learn from beside the labels. A coefficient of 0 is no distillation.
        best_epoch: the epoch with the best validation score counts (also when `options.early_stopping` is set),
            else the last.
        seed: fixes order, head, fresh prompt and dropout, each by a stream of its own.

    Raises:
        PandaError: max length and prompt do not fit the model; or the loss was not finite in the first epoch, so that
            there is nothing to keep.
    """
    began = time.perf_counter()
    progress = progress or Silent()
    streams = Streams(seed, backbone.device)
    backbone.check_length(options.max_length, options.prompt_length if start is None else start.length)
    learner = _learner(backbone, objective, options, streams, start)
    steps = _Steps(learner, train, objective, options, distillation)
    progress.begin(label, steps.total)

    track = best_epoch or options.early_stopping is not None
    curve: list[Epoch] = []
    best: tuple[float, int] | None = None
    # The end of an epoch is known to be sound only when the next step's loss is finite, so the one before is kept too.
    kept: list[list[Tensor]] = []
    diverged: str | None = None
    backbone.set_gradient_checkpointing(options.gradient_checkpointing)
    try:
        for epoch in range(options.epochs):
            loss = steps.epoch(streams.order, progress)
            scores = score(backbone, *learner.frozen(objective), validation, objective) if track else None
            if scores is not None and not np.isfinite(scores["loss"]):
                raise _DivergedError("the outputs were no longer finite")
            curve.append(Epoch(loss, scores))
            if scores is None:
                kept = [learner.snapshot(), *kept[:1]]
            elif best is None or scores[validation.spec.metric] > best[0]:
                kept = [learner.snapshot()]
                best = (scores[validation.spec.metric], epoch)
            if options.early_stopping is not None and best is not None and epoch - best[1] >= options.early_stopping:
                break
    except _DivergedError as error:
        diverged = f"{error} in epoch {len(curve) + 1} of {options.epochs} (step {steps.done + 1})"
    finally:
        backbone.set_gradient_checkpointing(False)
    for snapshot in kept:
        learner.restore(snapshot)
        prompt, head = learner.frozen(objective)
        scores = score(backbone, prompt, head, validation, objective)
        if np.isfinite(scores["loss"]):
            return Fitted(
                prompt,
                head,
                scores,
                tuple(curve),
                example_steps=steps.examples,
                forward_examples=len(validation) * (1 + len(curve) * track),
                seconds=time.perf_counter() - began,
                diverged=diverged,
                distillation=distillation,
            )
        diverged = diverged or f"the outputs were no longer finite after epoch {len(curve)} of {options.epochs}"
    raise PandaError(
        f"Training '{label}' stopped: {diverged}, with no sound epoch before it; lower --lr (it was {options.lr:g})."
    )


class _DivergedError(ArithmeticError):
    """The loss or a parameter is not finite; the message says which."""


class _Steps:
    """The optimiser's side of a training: AdamW with a linear decay, clipped gradients, one epoch at a time.

    Attributes:
        total: steps of all epochs.
        done: steps taken.
        examples: examples that went forward and backward in them.
    """

    def __init__(
        self,
        learner: _Learner,
        train: Data,
        objective: Objective,
        options: TrainingOptions,
        distillation: Distillation | None,
    ) -> None:
        device = learner.backbone.device
        self._learner, self._train, self._objective, self._options = learner, train, objective, options
        self._accelerator = _accelerator(options.precision)
        optimizer = torch.optim.AdamW(learner.parameters, lr=options.lr, weight_decay=options.weight_decay)
        self._optimizer = self._accelerator.prepare_optimizer(optimizer, device_placement=False)
        self._targets = objective.targets(train.labels).to(device)
        # A coefficient of 0 must change no bit, so the term is then left out.
        self._distillation = distillation if distillation is not None and distillation.coefficient > 0 else None
        self._teacher = None if self._distillation is None else self._distillation.teacher.to(device)
        self.total = -(-len(train) // options.batch_size) * options.epochs
        self.done = self.examples = 0

    def epoch(self, order: np.random.Generator, progress: Progress) -> float:
        """Take one epoch's steps; returns the mean loss. Raises _DivergedError."""
        losses = []
        for indices in shuffled_batches(self._train.encoded.lengths, self._options.batch_size, order):
            losses.append(self._step(indices))
            self.done += 1
            self.examples += len(indices)
            progress.advance(1)
        if not all(bool(parameter.isfinite().all()) for parameter in self._learner.parameters):
            raise _DivergedError("the prompt's values were no longer finite")
        return float(np.mean(losses))

    def _step(self, indices: np.ndarray) -> float:
        learner, accelerator, optimizer = self._learner, self._accelerator, self._optimizer
        for group in optimizer.param_groups:
            group["lr"] = self._options.lr * (1 - self.done / self.total)
        batch = self._train.encoded.batch(indices).to(learner.backbone.device)
        positions = torch.from_numpy(indices).to(learner.backbone.device)
        with accelerator.autocast():
            outputs = learner.logits(batch)
            loss = self._objective.loss(outputs, self._targets[positions])
            if self._distillation is not None and self._teacher is not None:
                loss = loss + self._distillation.loss(outputs, self._teacher[positions])
        value = float(loss.detach())
        if not np.isfinite(value):
            raise _DivergedError(f"the loss became {value}")
        optimizer.zero_grad()
        accelerator.backward(loss)
        if self.done == 0:
            _check_gradient(learner)
        accelerator.clip_grad_norm_(learner.parameters, self._options.max_grad_norm)
        optimizer.step()
        return value


def _learner(
    backbone: Backbone, objective: Objective, options: TrainingOptions, streams: Streams, start: Prompt | None
) -> _Learner:
    readout = backbone.resolve_readout(options.readout)
    prompt: DirectPrompt | ReparameterizedPrompt
    if start is not None:
        backbone.check_prompt(start, "The source prompt")
        prompt = DirectPrompt(start)
    else:
        fresh = Prompt.fresh(
            options.prompt_kind, backbone.shape, options.prompt_length, options.init_std, streams.prompt
        )
        if options.reparameterize is None:
            prompt = DirectPrompt(fresh)
        else:
            prompt = ReparameterizedPrompt(fresh, backbone.hidden_size, options.reparameterize, streams.prompt)
    head = fresh_head(backbone.hidden_size, objective.outputs, bias=readout != "last", generator=streams.head)
    return _Learner(
        backbone,
        prompt.to(backbone.device),
        head.to(backbone.device),
        readout,
        options.dropout,
        streams.dropout,
    )


def _accelerator(precision: str) -> Accelerator:
    # accelerate fixes one precision for a process at its first use; trainings of one process may differ in it.
    AcceleratorState._reset_state()
    return Accelerator(mixed_precision=precision)


def _check_gradient(learner: _Learner) -> None:
    """A prompt without gradient would train a head alone, and nobody would notice."""
    if not any(p.grad is not None and bool(p.grad.ne(0).any()) for p in learner.prompt.parameters()):
        raise RuntimeError(f"The prompt received no gradient in the first step on a '{learner.backbone.family}' model.")
