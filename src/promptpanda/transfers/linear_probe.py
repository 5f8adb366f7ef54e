"""Linear probes: a logistic or ridge regression on what the frozen model gives, bare or under a source's prompt.

No prompt is trained, so that a probe costs a forward pass. Under a source's prompt it is a transfer too: the prompt
stays as it is, and the head alone is the target's.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch

from promptpanda.names import HeadReadout
from promptpanda.prompts.prompt import Prompt
from promptpanda.tasks.grouping import blocks_of
from promptpanda.tasks.metrics import scorer
from promptpanda.training.heads import Head
from promptpanda.training.inference import predict_outputs, read_rows, scores_of
from promptpanda.training.loop import Fitted, UntrainableError, held_out_temperature
from promptpanda.transfers.linear import Linear, fitted
from promptpanda.transfers.method import Method, MethodContext

_NEVER = -30.0  # the logit of a class without a training example, where other classes have logits of some units


def probed(context: MethodContext, method: Method, prompt: Prompt | None) -> Fitted:
    """A head fitted to the training part under a prompt, or to the bare model without one.

    Raises:
        UntrainableError: there is too little to cross-validate, or what the model gives is not finite.
    """
    began = time.perf_counter()
    probe = best_probe(context, prompt)
    if probe is None:
        raise UntrainableError(
            f"The method {method.name} chooses its strength by cross-validation, and task '{context.task.name}' has "
            f"too little for that ({len(context.train_data)} training examples), or the model's output is not finite; "
            "give more examples, or leave the method out."
        )
    validation = context.data(context.partition.validation, probe.head.readout)
    outputs = predict_outputs(context.backbone, prompt, probe.head, validation.encoded)
    return Fitted(
        prompt,
        probe.head,
        None,
        context.objective,
        scores_of(outputs, validation, context.objective),
        curve=(),
        example_steps=0,
        forward_examples=probe.forward_examples + len(validation),
        seconds=time.perf_counter() - began,
        temperature=held_out_temperature(outputs, context.train_data, validation),
    )


@dataclass(frozen=True)
class Probe:
    """A linear model as a head.

    Attributes:
        head: what it has become.
        cross_validation: the task's metric on the training part, each example predicted without having been seen.
        apart: by how much that is better than reading the texts of a pair together; 0 where that is what is done.
        forward_examples: that went through the model for it.
    """

    head: Head
    cross_validation: float
    apart: float
    forward_examples: int


def best_probe(context: MethodContext, prompt: Prompt | None) -> Probe | None:
    """The texts of a pair are read together and apart (readout `compare`), and the better cross-validation decides.

    None where there is too little to cross-validate, or what the model gives is not finite.
    """
    readouts = list(dict.fromkeys((context.readout, *(("compare",) if len(context.task.spec.segments) == 2 else ()))))
    task, train = context.task, context.partition.train
    score, groups = scorer(task.spec, task.labels, train), blocks_of(train)
    tried: list[tuple[float, Head]] = []
    for readout in readouts:
        data = context.train_data if readout == context.readout else context.data(train, readout)
        vectors = np.stack(read_rows(context.backbone, data.encoded, readout, prompt)).astype(np.float64)
        size = max(float(np.linalg.norm(vectors, axis=1).mean()), 1e-12)
        linear = fitted(vectors / size, train.labels, groups, score, seed=context.seed)
        if linear is not None:
            tried.append((linear.cross_validation, _head(linear, len(task.labels), size, readout)))
    if not tried:
        return None
    cross_validation, head = max(tried, key=lambda one: one[0])
    return Probe(head, cross_validation, cross_validation - tried[0][0], len(readouts) * len(context.train_data))


def _head(linear: Linear, classes: int, size: float, readout: HeadReadout) -> Head:
    """The model as a head; classes that it has never seen get a logit that never wins."""
    weight, bias = np.atleast_2d(linear.weight) / size, np.atleast_1d(linear.bias)
    if linear.classes is None:
        return Head(torch.from_numpy(weight).float(), torch.from_numpy(bias).float(), readout)
    if len(linear.classes) == 2:  # scikit-learn keeps the second class's alone
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    found = torch.zeros(classes, weight.shape[1]), torch.full((classes,), _NEVER)
    found[0][linear.classes] = torch.from_numpy(weight).float()
    found[1][linear.classes] = torch.from_numpy(bias).float()
    return Head(*found, readout)
