"""Trainings of several trials side by side (`--beside`): seeds, methods and learning rates of one target."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from promptpanda.training.beside import advance_beside
from promptpanda.training.loop import UntrainableError
from promptpanda.transfers.method import Method
from promptpanda.transfers.trial import Trial


def train_beside(trials: Sequence[Trial], methods: Sequence[Method]) -> None:
    """Train what methods give on trials, several in a batch, so that their outcomes are known afterwards.

    Teachers are first; after them comes what is a single training and not known yet. Other methods, and trials that do
    not ask for it, are left to be trained when they are asked for, and so is what diverges, which is told then.
    """
    width = trials[0].options.beside
    if width == 1:
        return
    _train([(trial, teacher) for trial, teacher in _teachers(trials, methods)], width)
    _train([(trial, method) for trial in trials for method in methods], width)


def _teachers(trials: Sequence[Trial], methods: Sequence[Method]) -> list[tuple[Trial, Method]]:
    return [
        (trial.with_source(source), method.teacher)
        for trial in trials
        for method in methods
        if method.teacher is not None and trial.distillation.teacher == "trained"
        for source in trial.sources_of(method)
    ]


def _train(asked: Sequence[tuple[Trial, Method]], width: int) -> None:
    waiting = {(id(trial), method.name): (trial, method) for trial, method in asked if not trial.is_known(method)}
    begun = []
    for trial, method in waiting.values():
        if method.begin is not None:
            with suppress(UntrainableError):  # a teacher that diverged
                begun.append((trial, method, method.begin(trial)))
    advance_beside([training for _, _, training in begun], width)
    for trial, method, training in begun:
        with suppress(UntrainableError):
            trial.finished(method, training)
