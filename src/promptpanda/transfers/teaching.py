"""Distillation on a trial: teachers give their outputs once, on the training part and on unlabelled text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from promptpanda.prompts.prompt import Prompt
from promptpanda.tasks.encoding import Encoded, encode
from promptpanda.training.distillation import Distillation, Unlabeled, confidences
from promptpanda.training.heads import Head
from promptpanda.training.inference import predict_outputs
from promptpanda.training.learner import Learner, Streams
from promptpanda.training.loop import Fitted
from promptpanda.transfers.fusion import fused_outputs
from promptpanda.transfers.method import Method
from promptpanda.transfers.trial import Trial

_TEACHERS_DRAW = 2  # the restart whose streams a random teacher is drawn from: no student starts there


def distil(trial: Trial, method: Method) -> Fitted:
    """Train the student of a method; its teachers are trained first, or taken from where they are.

    What the teachers read counts as forward passes of the student (contract: cost).
    """
    options, objective = trial.distillation, trial.objective
    models, weights = _teachers(trial, method)
    labelled = _outputs(trial, models, weights, trial.train_data.encoded)
    distillation = Distillation(labelled, trial.coefficient_of(method), options.distance, options.temperature)
    read = len(trial.train_data)
    unlabeled = None
    if method.unlabeled:
        encoded = encode(trial.backbone, trial.unlabeled or (), trial.options.max_length)
        soft = _outputs(trial, models, weights, encoded)
        sure = None
        if options.confidence:
            sure = confidences(objective.logits(soft, encoded.layout(np.arange(len(encoded)))))
        term = Distillation(soft, options.unlabeled_weight, options.distance, options.temperature, sure)
        unlabeled = Unlabeled(encoded, term)
        read += len(encoded)
    start = trial.fused_source(method) if options.student == "source" else None
    fitted = trial.training(method, start=start, distillation=distillation, unlabeled=unlabeled).run()
    return replace(fitted, forward_examples=fitted.forward_examples + len(models) * read)


def _teachers(trial: Trial, method: Method) -> tuple[list[tuple[Prompt | None, Head]], np.ndarray]:
    """The models that teach, and how much each of them counts."""
    trained = trial.teachers(method)
    if trained:
        return [(one.prompt, one.head) for one in trained], trial.weights(method)
    streams = Streams(trial.seed, trial.backbone.device, _TEACHERS_DRAW)
    learner = Learner.of(trial.backbone, trial.objective, trial.options, streams, None, "prompt")
    return [learner.frozen(trial.objective)], np.ones(1)


def _outputs(
    trial: Trial, models: Sequence[tuple[Prompt | None, Head]], weights: np.ndarray, encoded: Encoded
) -> Tensor:
    """What the teachers together make of rows, in the units of the task loss.

    *Shape:* (rows, outputs) or (rows, units, outputs).
    """
    found = [predict_outputs(trial.backbone, prompt, head, encoded) for prompt, head in models]
    return torch.from_numpy(trial.objective.unfold(fused_outputs(found, weights))).float()
