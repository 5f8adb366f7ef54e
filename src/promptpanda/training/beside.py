"""Several trainings of one model in one batch, each example under the prompt of its own training.

A batch of few short texts keeps neither a GPU nor the cores of a CPU busy; those of several trainings together do
better. Losses, gradients, clipping and AdamW's steps stay each training's own, and so do random draws, so that the
outcome is that of the training alone, but for the last bits of matrix products over other batches.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from promptpanda.depth import Below
from promptpanda.prompts.prompt import PromptStack
from promptpanda.tasks.encoding import Layout, joined
from promptpanda.training.heads import features
from promptpanda.training.loop import Training
from promptpanda.training.steps import DivergedError, Steps, finite


def advance_beside(trainings: Sequence[Training], width: int, until: int | None = None) -> None:
    """Train each up to a step of its full run, several of them in one batch.

    A training whose steps need a batch of their own (of a head, of a model, with unlabelled text) is trained alone, and
    so is what is left over. One that diverges drops out, and the others go on.

    Args:
        width: at most so many trainings share a batch.
        until: the step; None: to the end.
    """
    alike: dict[Hashable, list[Training]] = {}
    for number, one in enumerate(trainings):
        alike.setdefault(one.steps.joins or number, []).append(one)
    for group in alike.values():
        for start in range(0, len(group), width):
            _advance(group[start : start + width], until)


def _advance(trainings: Sequence[Training], until: int | None) -> None:
    if len(trainings) == 1:
        trainings[0].advance(until)
        return
    first = trainings[0]
    left = [max((one.total if until is None else min(until, one.total)) - one.done, 0) for one in trainings]
    first.progress.begin(f"{first.label} and {len(trainings) - 1} more", sum(left))
    ends = [one.done + steps for one, steps in zip(trainings, left, strict=True)]
    together = Together([one.steps for one in trainings])
    with first.running():
        while True:
            began = time.perf_counter()
            places = [place for place, one in enumerate(trainings) if not one.ended and one.done < ends[place]]
            if not places:
                return
            for place, step in zip(places, together.take(places), strict=True):
                trainings[place].note_step(step)
            first.progress.advance(len(places))
            for place in places:
                trainings[place].note_seconds((time.perf_counter() - began) / len(places))


class Together:
    """Steps of several trainings whose `Steps.joins` are equal."""

    def __init__(self, steps: Sequence[Steps]) -> None:
        self._steps = tuple(steps)
        parts = list({id(one.encoded): one.encoded for one in steps}.values())
        self._encoded = joined(parts)
        begins = np.cumsum([0, *(len(part.input_ids) for part in parts)])
        of_part = {id(part): int(begin) for part, begin in zip(parts, begins, strict=False)}
        self._begins = [of_part[id(one.encoded)] for one in steps]

    def take(self, places: Sequence[int]) -> list[Callable[[], bool]]:
        """Take the next step of the trainings at these places.

        Returns:
            Of each of them a function that does what is left of it; see `Steps.take`.
        """
        every = [self._steps[place] for place in places]
        layouts = [one.encoded.layout(one.drawn()) for one in every]
        losses, values = self._losses(every, [self._begins[place] for place in places], layouts)
        for one in every:
            one.clear()
        sound = [loss for loss, value in zip(losses, values, strict=True) if not isinstance(value, DivergedError)]
        if sound:
            torch.stack(sound).sum().backward()
        return [partial(_finish, one, value) for one, value in zip(every, values, strict=True)]

    def _losses(
        self, every: Sequence[Steps], begins: Sequence[int], layouts: Sequence[Layout]
    ) -> tuple[list[Tensor], list[float | DivergedError]]:
        """What each backward pass starts from, and each loss."""
        first = every[0]
        device = first.learner.backbone.device
        counts = [len(layout.rows) for layout in layouts]
        rows = np.concatenate([layout.rows.numpy() + begin for layout, begin in zip(layouts, begins, strict=True)])
        owners = torch.from_numpy(np.repeat(np.arange(len(every)), counts)).to(device)
        prompts = [prompt for one in every if (prompt := one.learner.prompt) is not None]  # `joins` says: of each
        stack = PromptStack(
            prompts[0].kind,
            torch.stack([one.learning for one in prompts]),
            owners,
            first.learner.dropout,
            tuple(one.learner.generator for one in every),
        )
        with first.autocast():
            read = features(
                first.learner.backbone,
                self._encoded.batch(rows).to(device),
                self._encoded.row_layout(rows).to(device),
                stack,
                first.learner.readout,
                _below(every, layouts, apart=self._encoded.second is not None),
            )
            losses = []
            for one, own, layout in zip(every, read.split(counts), layouts, strict=True):
                seen = own if layout.units is None else own[:, : layout.units.shape[1]]
                losses.append(one.loss(one.learner.answers(seen), layout.to(device)))
        return [one.scaled(loss) for one, loss in zip(every, losses, strict=True)], list(map(_value, losses))


def _value(loss: Tensor) -> float | DivergedError:
    try:
        return finite(loss)
    except DivergedError as error:
        return error


def _finish(steps: Steps, value: float | DivergedError) -> bool:
    if isinstance(value, DivergedError):
        raise value
    return steps.update(value)


def _below(every: Sequence[Steps], layouts: Sequence[Layout], *, apart: bool) -> Below | None:
    """What enters the lowest layer that learns, of the rows of all; of pairs that are read apart first texts first."""
    found = [
        one.below.take(layout.rows.numpy(), one.learner.backbone.device)
        for one, layout in zip(every, layouts, strict=True)
        if one.below is not None
    ]
    if not found:
        return None
    width = max(one.states.shape[1] for one in found)
    padded = [F.pad(one.states, (0, 0, 0, width - one.states.shape[1])) for one in found]
    halves = zip(*(states.chunk(2) if apart else (states,) for states in padded), strict=True)
    return Below(found[0].layer, torch.cat([states for half in halves for states in half]))
