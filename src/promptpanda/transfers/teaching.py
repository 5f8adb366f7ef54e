"""Distillation on a trial: teachers give their outputs once, on the training part and on unlabelled text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from promptpanda.prompts.prompt import Prompt
from promptpanda.tasks.encoding import Encoded, encode
from promptpanda.training.distillation import Distillation, Unlabeled, confidences
from promptpanda.training.heads import Head
from promptpanda.training.inference import predict_outputs
from promptpanda.training.learner import Learner, Streams
from promptpanda.training.loop import Training
from promptpanda.transfers.fusion import fused_outputs
from promptpanda.transfers.method import Method, MethodContext

_TEACHERS_DRAW = 2  # the restart whose streams a random teacher is drawn from: no student starts there


def student(context: MethodContext, method: Method) -> Training:
    """The training of a method's student; its teachers are trained before, or taken from where they are.

    What the teachers read counts as forward passes of the student.
    """
    options, objective = context.distillation, context.objective
    models, weights = _teachers(context, method)
    labelled = _outputs(context, models, weights, context.train_data.encoded)
    distillation = Distillation(labelled, context.coefficient_of(method), options.distance, options.temperature)
    read = len(context.train_data)
    unlabeled = None
    if method.unlabeled:
        apart = context.readout == "compare"
        encoded = encode(context.backbone, context.unlabeled or (), context.options.max_length, apart=apart)
        soft = _outputs(context, models, weights, encoded)
        sure = None
        if options.confidence:
            sure = confidences(objective.logits(soft, encoded.layout(np.arange(len(encoded)))))
        term = Distillation(soft, options.unlabeled_weight, options.distance, options.temperature, sure)
        unlabeled = Unlabeled(encoded, term)
        read += len(encoded)
    start = context.fused_source(method) if options.student == "source" else None
    read *= len(models)
    return context.training(method, start=start, distillation=distillation, unlabeled=unlabeled, read=read)


def _teachers(context: MethodContext, method: Method) -> tuple[list[tuple[Prompt | None, Head]], np.ndarray]:
    """The models that teach, and how much each of them counts."""
    trained = context.teachers(method)
    if trained:
        return [(one.prompt, one.head) for one in trained], context.weights(method)
    streams = Streams(context.seed, context.backbone.device, _TEACHERS_DRAW)
    learner = Learner.of(context.backbone, context.objective, context.options, streams, None, "prompt")
    return [learner.frozen(context.objective)], np.ones(1)


def _outputs(
    context: MethodContext, models: Sequence[tuple[Prompt | None, Head]], weights: np.ndarray, encoded: Encoded
) -> Tensor:
    """What the teachers together make of rows, in the units of the task loss.

    *Shape:* (rows, outputs) or (rows, units, outputs).
    """
    found = [predict_outputs(context.backbone, prompt, head, encoded) for prompt, head in models]
    return torch.from_numpy(context.objective.unfold(fused_outputs(found, weights))).float()
