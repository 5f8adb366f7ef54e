"""The one training loop: a prompt and a head learn; for baselines the head alone, or the whole model."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from promptpanda.backbone import Backbone, TextBatch
from promptpanda.errors import PandaError
from promptpanda.progress import Progress, Silent
from promptpanda.prompts.dropout import keep_mask
from promptpanda.prompts.prompt import Prompt, PromptStack
from promptpanda.prompts.trainable import DirectPrompt, ReparameterizedPrompt
from promptpanda.tasks.encoding import Layout
from promptpanda.tasks.metrics import baseline
from promptpanda.training.batching import shuffled_batches
from promptpanda.training.distillation import Distillation
from promptpanda.training.heads import Head, HeadReadout, features, folded, fresh_head
from promptpanda.training.inference import Data, forward, predict_outputs, scores_of
from promptpanda.training.objectives.objective import Objective
from promptpanda.training.options import TrainingOptions

Trained = Literal["prompt", "head", "model"]


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
    """The trainable parts and how they are run.

    Attributes:
        seen: what the head reads of every training row, where nothing in front of it learns. *Shape:* (rows, hidden).
    """

    backbone: Backbone
    prompt: DirectPrompt | ReparameterizedPrompt | None
    head: nn.Linear
    readout: HeadReadout
    dropout: float
    generator: torch.Generator
    seen: Tensor | None = None

    @property
    def parameters(self) -> list[nn.Parameter]:
        trained = [p for p in self.backbone.model.parameters() if p.requires_grad]
        return [*trained, *(() if self.prompt is None else self.prompt.parameters()), *self.head.parameters()]

    @property
    def tunes_model(self) -> bool:
        """Whether the whole model learns: it alone has dropout of its own, and another learning rate."""
        return any(p.requires_grad for p in self.backbone.model.parameters())

    def outputs(self, batch: TextBatch, layout: Layout) -> Tensor:
        """Outputs in training, with dropout. *Shape:* (rows, outputs) or (rows, units, outputs)."""
        read = self._read(batch, layout)
        if self.dropout > 0:
            read = read * keep_mask(read.shape, self.dropout, read.device, self.generator) / (1 - self.dropout)
        outputs: Tensor = self.head(read)
        return outputs

    def _read(self, batch: TextBatch, layout: Layout) -> Tensor:
        if self.seen is not None:
            return self.seen[layout.rows]
        stack = None
        if self.prompt is not None:
            stack = PromptStack(self.prompt.kind, self.prompt()[None], None, self.dropout, self.generator)
        return features(self.backbone, batch, layout, stack, self.readout)

    def frozen(self, objective: Objective) -> tuple[Prompt | None, Head]:
        head = folded(self.head, scale=objective.scale, shift=objective.shift, readout=self.readout)
        if self.prompt is None:
            return None, head
        return Prompt(self.prompt.kind, self.prompt().detach().cpu().contiguous().clone()), head

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
    trained: Trained = "prompt",
    distillation: Distillation | None = None,
    best_epoch: bool = False,
    progress: Progress | None = None,
    label: str = "train",
) -> Fitted:
    """Train a prompt and a head; or, as baselines, the head alone, or the head and a copy of the whole model.

    Args:
        trained: what learns beside the head. A model learns at `options.model_lr`, with its own dropout.
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
    if trained == "prompt":
        backbone.check_length(options.max_length, options.prompt_length if start is None else start.length)
    else:
        backbone.check_length(options.max_length, 0)
    learner = _learner(backbone, objective, options, streams, start, trained)
    backbone = learner.backbone
    if trained == "head" and not objective.reads_tokens:
        learner.seen = _seen(learner, train)
    steps = _Steps(learner, train, objective, options, distillation)
    progress.begin(label, steps.total)

    track = best_epoch or options.early_stopping is not None
    curve: list[Epoch] = []
    best: tuple[float, int] | None = None
    # The end of an epoch is known to be sound only when the next step's loss is finite, so the one before is kept too.
    kept: list[list[Tensor]] = []
    diverged: str | None = None
    backbone.set_gradient_checkpointing(options.gradient_checkpointing)
    model_dropout = contextlib.ExitStack()
    if trained == "model":
        # Its layers draw from torch's own stream, which is put back afterwards.
        model_dropout.enter_context(torch.random.fork_rng())
        torch.manual_seed(_stream_seed(seed, 6))
    try:
        for epoch in range(options.epochs):
            loss = steps.epoch(streams.order, progress)
            scores = None
            if track:
                scores = scores_of(
                    predict_outputs(backbone, *learner.frozen(objective), validation.encoded), validation, objective
                )
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
        model_dropout.close()
        backbone.set_gradient_checkpointing(False)
    for snapshot in kept:
        learner.restore(snapshot)
        prompt, head = learner.frozen(objective)
        outputs = predict_outputs(backbone, prompt, head, validation.encoded)
        if np.isfinite(outputs).all():
            chosen = objective.calibrated(outputs, validation.encoded, validation.split.texts, validation.split.labels)
            scores = scores_of(outputs, validation, chosen)
            return Fitted(
                prompt,
                head,
                backbone if trained == "model" else None,
                chosen,
                scores,
                tuple(curve),
                example_steps=steps.examples if learner.seen is None else 0,
                forward_examples=len(validation) * (1 + len(curve) * track) + (learner.seen is not None) * len(train),
                seconds=time.perf_counter() - began,
                diverged=diverged,
                warnings=_warnings(train, validation, scores, curve),
                distillation=distillation,
            )
        diverged = diverged or f"the outputs were no longer finite after epoch {len(curve)} of {options.epochs}"
    raise TrainingDivergedError(
        f"Training '{label}' stopped: {diverged}, with no sound epoch before it; lower --lr (it was {steps.lr:g})."
    )


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
    if len(curve) > 2 and curve[-1].train_loss > 0.97 * curve[0].train_loss:
        found.append(
            f"The training loss hardly fell ({curve[0].train_loss:.3f} to {curve[-1].train_loss:.3f}); more --epochs "
            "or another --lr may help."
        )
    return tuple(found)


class TrainingDivergedError(PandaError):
    """A training was given up; the message says at which step, and what to change."""


class _DivergedError(ArithmeticError):
    """The loss or a parameter is not finite; the message says which."""


class _Steps:
    """The optimiser's side of a training: AdamW with a linear decay, clipped gradients, one epoch at a time.

    Attributes:
        lr: peak learning rate.
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
        if isinstance(options.lr, str):
            raise ValueError(f"lr {options.lr!r} must be settled before a training")
        self.lr = options.model_lr if learner.tunes_model else options.lr
        optimizer = torch.optim.AdamW(learner.parameters, lr=self.lr, weight_decay=options.weight_decay)
        self._optimizer = self._accelerator.prepare_optimizer(optimizer, device_placement=False)
        self._targets = objective.targets(train.encoded, train.split.labels).to(device)
        # A coefficient of 0 must change no bit, so the term is then left out.
        self._distillation = distillation if distillation is not None and distillation.coefficient > 0 else None
        self._teacher = None if self._distillation is None else self._distillation.teacher.to(device)
        self.total = -(-len(train) // options.batch_size) * options.epochs
        self.done = self.examples = 0

    def epoch(self, order: np.random.Generator, progress: Progress) -> float:
        """Take one epoch's steps; returns the mean loss. Raises _DivergedError."""
        losses = []
        if self._learner.tunes_model:
            self._learner.backbone.model.train()
        for indices in shuffled_batches(self._train.encoded.lengths, self._options.batch_size, order):
            losses.append(self._step(indices))
            self.done += 1
            self.examples += len(indices)
            progress.advance(1)
        if self._learner.tunes_model:
            self._learner.backbone.model.eval()
        if not all(bool(parameter.isfinite().all()) for parameter in self._learner.parameters):
            raise _DivergedError("the prompt's values were no longer finite")
        return float(np.mean(losses))

    def _step(self, indices: np.ndarray) -> float:
        learner, accelerator, optimizer = self._learner, self._accelerator, self._optimizer
        for group in optimizer.param_groups:
            group["lr"] = self.lr * (1 - self.done / self.total)
        layout = self._train.encoded.layout(indices)
        batch = self._train.encoded.batch(layout.rows.numpy()).to(learner.backbone.device)
        layout = layout.to(learner.backbone.device)
        with accelerator.autocast():
            outputs = learner.outputs(batch, layout)
            loss = self._objective.loss(outputs, self._targets, layout)
            if self._distillation is not None and self._teacher is not None:
                loss = loss + self._distillation.loss(outputs, self._teacher, self._objective, layout)
        value = float(loss.detach())
        if not np.isfinite(value):
            raise _DivergedError(f"the loss became {value}")
        optimizer.zero_grad()
        accelerator.backward(loss)
        if self.done == 0 and learner.prompt is not None and (layout.real is None or bool(layout.real.any())):
            _check_gradient(learner.prompt, learner.backbone.family)
        accelerator.clip_grad_norm_(learner.parameters, self._options.max_grad_norm)
        optimizer.step()
        return value


def _seen(learner: _Learner, train: Data) -> Tensor:
    def read(batch: TextBatch, layout: Layout, stack: PromptStack | None) -> Tensor:
        return features(learner.backbone, batch, layout, stack, learner.readout)

    rows = forward(learner.backbone, [], train.encoded, read)
    return torch.from_numpy(np.stack(rows)).to(learner.backbone.device)


def _learner(
    backbone: Backbone,
    objective: Objective,
    options: TrainingOptions,
    streams: Streams,
    start: Prompt | None,
    trained: Trained,
) -> _Learner:
    readout = objective.readout(backbone, options.readout)
    prompt = None
    if trained == "prompt":
        prompt = _prompt(backbone, options, streams, start).to(backbone.device)
    if trained == "model":
        backbone = backbone.trainable_copy()
    head = fresh_head(backbone.hidden_size, objective.outputs, bias=readout != "last", generator=streams.head)
    return _Learner(backbone, prompt, head.to(backbone.device), readout, options.dropout, streams.dropout)


def _prompt(
    backbone: Backbone, options: TrainingOptions, streams: Streams, start: Prompt | None
) -> DirectPrompt | ReparameterizedPrompt:
    if start is not None:
        backbone.check_prompt(start, "The source prompt")
        return DirectPrompt(start)
    fresh = Prompt.fresh(options.prompt_kind, backbone.shape, options.prompt_length, options.init_std, streams.prompt)
    if options.reparameterize is None:
        return DirectPrompt(fresh)
    return ReparameterizedPrompt(fresh, backbone.hidden_size, options.reparameterize, streams.prompt)


def _accelerator(precision: str) -> Accelerator:
    # accelerate fixes one precision for a process at its first use; trainings of one process may differ in it.
    AcceleratorState._reset_state()
    return Accelerator(mixed_precision=precision)


def _check_gradient(prompt: nn.Module, family: str) -> None:
    """A prompt without gradient would train a head alone, and nobody would notice."""
    if not any(p.grad is not None and bool(p.grad.ne(0).any()) for p in prompt.parameters()):
        raise RuntimeError(f"The prompt received no gradient in the first step on a '{family}' model.")
