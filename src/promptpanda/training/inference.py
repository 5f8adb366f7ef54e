"""Forward passes of trained prompts: outputs, pooled features, scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from promptpanda.backbone import Backbone, TextBatch
from promptpanda.names import HeadReadout
from promptpanda.parallel import mapped
from promptpanda.prompts.prompt import Prompt, PromptStack
from promptpanda.tasks.encoding import Encoded, Layout, joined
from promptpanda.tasks.inputs import Split
from promptpanda.tasks.metrics import compute_metrics
from promptpanda.tasks.spec import TaskSpec
from promptpanda.training.batching import sorted_batches
from promptpanda.training.heads import Head, features
from promptpanda.training.objectives.objective import Objective

_BATCH = 32


@dataclass(frozen=True)
class Data:
    """Encoded examples, what they were encoded from, and the task they belong to.

    Attributes:
        encoded: the rows that a model reads.
        split: inputs and labels.
        spec, class_names: what scores need to know.
    """

    encoded: Encoded
    split: Split
    spec: TaskSpec
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.split)


@dataclass(frozen=True)
class Predicted:
    """What a model says of examples.

    Attributes:
        predictions: one entry an example, as metrics take them.
        scores: of them; the task's metrics, and `loss`.
    """

    predictions: Any
    scores: dict[str, float]


def forward(
    backbone: Backbone,
    prompts: Sequence[Prompt],
    encoded: Encoded,
    read: Callable[[TextBatch, Layout, PromptStack | None], Tensor],
    rows: np.ndarray | None = None,
    *,
    in_turn: bool = False,
) -> list[np.ndarray]:
    """Run every row once and keep what `read` makes of it, in the order of the rows.

    Args:
        prompts: none, one for all, or several of one shape among which `rows` chooses.
        read: (batch, its layout, its prompts) -> one array a row, such as what a head makes of `Backbone.hidden`.
        rows: which prompt each row uses. *Shape:* (rows,). None lets all use the first.
        in_turn: whether `read` must not be called for several batches at once; by default it may.
    """
    results: list[np.ndarray] = [np.empty(0)] * len(encoded.input_ids)

    def run(indices: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            batch = encoded.batch(indices).to(backbone.device)
            layout = encoded.row_layout(indices).to(backbone.device)
            stack = _stack_of(prompts, None if rows is None else rows[indices], backbone.device)
            found: np.ndarray = read(batch, layout, stack).float().cpu().numpy()
            return found

    batches = list(sorted_batches(encoded.row_lengths, _BATCH))
    found = map(run, batches) if in_turn else mapped(run, batches, backbone.device)
    for indices, values in zip(batches, found, strict=True):
        for position, index in enumerate(indices):
            results[index] = values[position]
    return results


def read_rows(
    backbone: Backbone, encoded: Encoded, readout: HeadReadout, prompt: Prompt | None = None
) -> list[np.ndarray]:
    """What a head reads of every row, under a prompt or without one, in the order of the rows."""

    return forward(backbone, [] if prompt is None else [prompt], encoded, _reader(backbone, readout))


def read_rows_under(
    backbone: Backbone, encoded: Encoded, readout: HeadReadout, prompts: Sequence[Prompt]
) -> list[list[np.ndarray]]:
    """What a head reads of every row under each of several prompts of one shape, in mixed batches."""

    rows = len(encoded.input_ids)
    owners = np.repeat(np.arange(len(prompts)), rows)
    found = forward(backbone, prompts, encoded.times(len(prompts)), _reader(backbone, readout), owners)
    return [found[start : start + rows] for start in range(0, len(found), rows)]


def _reader(backbone: Backbone, readout: HeadReadout) -> Callable[[TextBatch, Layout, PromptStack | None], Tensor]:
    return lambda batch, layout, stack: features(backbone, batch, layout, stack, readout)


def _stack_of(prompts: Sequence[Prompt], rows: np.ndarray | None, device: torch.device) -> PromptStack | None:
    """The prompts that a batch uses, and no others: of a thousand, a batch of 32 rows uses 32."""
    if not prompts:
        return None
    used, places = np.unique(np.zeros(1, np.int64) if rows is None else rows, return_inverse=True)
    tensor = torch.stack([prompts[one].tensor for one in used]).to(device)
    chosen = None if len(used) == 1 else torch.from_numpy(places).to(device)
    return PromptStack(prompts[0].kind, tensor, chosen)


def predict_outputs(backbone: Backbone, prompt: Prompt | None, head: Head, encoded: Encoded) -> np.ndarray:
    """Outputs of a trained model without dropout.

    *Shape:* (rows, outputs); of a head that reads tokens (rows, units, outputs), with zeros where a row has fewer units
    than another.
    """
    return mixed_outputs(backbone, [(prompt, head)], [encoded])[0]


def mixed_outputs(
    backbone: Backbone, models: Sequence[tuple[Prompt | None, Head]], encoded: Sequence[Encoded]
) -> list[np.ndarray]:
    """Outputs of several trained models of one backbone, each on rows of its own, as `predict_outputs` gives them.

    Models whose prompts have one shape and whose heads read the same share their batches; each row has its own prompt
    before it and its own head behind it.
    """
    groups: dict[object, list[int]] = {}
    for number, (prompt, head) in enumerate(models):
        form = None if prompt is None else (prompt.kind, prompt.tensor.shape)
        groups.setdefault((form, head.readout), []).append(number)
    found: list[np.ndarray] = [np.empty(0)] * len(models)
    for members in groups.values():
        outputs = _group_outputs(backbone, [models[at] for at in members], [encoded[at] for at in members])
        for at, values in zip(members, outputs, strict=True):
            found[at] = values
    return found


def _group_outputs(
    backbone: Backbone, models: Sequence[tuple[Prompt | None, Head]], encoded: Sequence[Encoded]
) -> Iterator[np.ndarray]:
    """Outputs of models that can share batches, model after model."""
    heads = [head for _, head in models]
    owners = np.repeat(np.arange(len(models)), [len(one.input_ids) for one in encoded])

    def read(batch: TextBatch, layout: Layout, stack: PromptStack | None) -> Tensor:
        pooled = features(backbone, batch, layout, stack, heads[0].readout)
        return _own_heads(heads, owners[layout.rows.cpu().numpy()], pooled)

    prompts = [prompt for prompt, _ in models if prompt is not None]
    rows = forward(backbone, prompts, joined(encoded), read, owners)
    start = 0
    for one, head in zip(encoded, heads, strict=True):
        own = [values[..., : len(head.weight)] for values in rows[start : start + len(one.input_ids)]]
        start += len(own)
        if head.readout == "token":
            width = max(len(values) for values in own)
            own = [np.pad(values, ((0, width - len(values)), (0, 0))) for values in own]
        yield np.stack(own)


def _own_heads(heads: Sequence[Head], owners: np.ndarray, pooled: Tensor) -> Tensor:
    """What each row's own head gives, with zeros behind where another of them has more outputs.

    *Shape:* (rows, ..., hidden_size) -> (rows, ..., most outputs).
    """
    if len(heads) == 1:
        return heads[0](pooled)
    present = np.unique(owners)
    outputs: Tensor = pooled.new_zeros(*pooled.shape[:-1], max(len(heads[one].weight) for one in present))
    for one in present:
        own = torch.from_numpy(np.flatnonzero(owners == one)).to(pooled.device)
        outputs[own, ..., : len(heads[one].weight)] = heads[one](pooled[own])
    return outputs


def score(backbone: Backbone, prompt: Prompt | None, head: Head, data: Data, objective: Objective) -> dict[str, float]:
    """The task's metrics, and `loss`, the mean task loss."""
    return scores_of(predict_outputs(backbone, prompt, head, data.encoded), data, objective)


def scores_of(outputs: np.ndarray, data: Data, objective: Objective) -> dict[str, float]:
    """The metrics of outputs that are there already, and `loss`, if outputs stand for all classes (no strangers)."""
    predictions = objective.predictions(outputs, data.encoded, data.split.texts)
    scores = compute_metrics(data.spec, data.class_names, data.split, predictions, objective.probabilities(outputs))
    if data.split.unseen_labels:
        return scores
    targets = objective.targets(data.encoded, data.split.labels)
    layout = data.encoded.layout(np.arange(len(data)))
    with torch.no_grad():
        loss = objective.loss(torch.from_numpy(objective.unfold(outputs)), targets, layout)
    return {**scores, "loss": float(loss)}
