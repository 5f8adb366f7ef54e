"""A contrastive training of the prompt on the target's labelled examples, and a linear probe under what it has become.

This is SetFit's recipe (arXiv 2209.11055) with a prompt in place of the model's weights. An ordinary training from
there costs as much again and is no better (docs/log.md).

Defined for classes of whole texts: examples of one class are what is drawn together. Of several labels two texts may
share one and differ in another; the choices of a question and the places of an answer share no class with other texts,
a regression has no classes, and nearly all words of a tagger have the same.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from promptpanda.training.heads import width_of
from promptpanda.training.loop import Fitted, TrainingDivergedError, UntrainableError
from promptpanda.training.objectives.contrastive import Contrastive
from promptpanda.transfers.linear_probe import probed
from promptpanda.transfers.method import Method, MethodContext


def warmed_up(context: MethodContext, method: Method) -> Fitted:
    """Train from the method's source, or from the fresh prompt that prompt tuning starts from, and probe.

    Raises:
        UntrainableError: no class has two training examples.
        TrainingDivergedError: the training diverged.
    """
    if np.bincount(context.train_data.split.labels).max() < 2:
        raise UntrainableError(
            f"The method {method.name} needs two training examples of a class, and each class of task "
            f"'{context.task.name}' has one; give more examples, or leave the method out."
        )
    start = context.fused_source(method) if method.needs_source else None
    warm_up = context.training(
        method,
        start=start,
        epochs=method.warm_up_epochs(len(context.train_data), context.options.batch_size),
        objective=Contrastive(width_of(context.readout, context.backbone.hidden_size)),
    )
    warm_up.advance()
    if warm_up.diverged is not None:
        raise TrainingDivergedError(f"The contrastive warm-up stopped: {warm_up.diverged}; lower --lr.")
    fitted = probed(context, method, warm_up.prompt)
    return replace(
        fitted,
        example_steps=fitted.example_steps + warm_up.example_steps,
        forward_examples=fitted.forward_examples + warm_up.forward_examples,
        seconds=fitted.seconds + warm_up.seconds,
    )
