"""Forward passes of trained prompts: outputs, pooled features, scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from promptpanda.backbone import Backbone, TextBatch
from promptpanda.prompts.prompt import Prompt, PromptStack
from promptpanda.tasks.encoding import Encoded, Layout
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
) -> list[np.ndarray]:
    """Run every row once and keep what `read` makes of it, in the order of the rows.

    Args:
        prompts: none, one for all, or several of one shape among which `rows` chooses.
        read: (batch, its layout, its prompts) -> one array a row, such as what a head makes of `Backbone.hidden`.
        rows: which prompt each row uses. *Shape:* (rows,). None lets all use the first.
    """
    tensor = torch.stack([prompt.tensor for prompt in prompts]).to(backbone.device) if prompts else None
    results: list[np.ndarray] = [np.empty(0)] * len(encoded.input_ids)
    with torch.inference_mode():
        for indices in sorted_batches(encoded.row_lengths, _BATCH):
            batch = encoded.batch(indices).to(backbone.device)
            layout = encoded.row_layout(indices).to(backbone.device)
            stack = None
            if tensor is not None:
                chosen = None if rows is None else torch.from_numpy(rows[indices]).to(backbone.device)
                stack = PromptStack(prompts[0].kind, tensor, chosen)
            values = read(batch, layout, stack).float().cpu().numpy()
            for position, index in enumerate(indices):
                results[index] = values[position]
    return results


def predict_outputs(backbone: Backbone, prompt: Prompt | None, head: Head, encoded: Encoded) -> np.ndarray:
    """Outputs of a trained model without dropout.

    *Shape:* (rows, outputs); of a head that reads tokens (rows, units, outputs), with zeros where a row has fewer units
    than another.
    """

    def read(batch: TextBatch, layout: Layout, stack: PromptStack | None) -> Tensor:
        return head(features(backbone, batch, layout, stack, head.readout))

    found = forward(backbone, [] if prompt is None else [prompt], encoded, read)
    if head.readout != "token":
        return np.stack(found)
    width = max(len(values) for values in found)
    return np.stack([np.pad(values, ((0, width - len(values)), (0, 0))) for values in found])


def score(backbone: Backbone, prompt: Prompt | None, head: Head, data: Data, objective: Objective) -> dict[str, float]:
    """The task's metrics, and `loss`, the mean task loss."""
    return scores_of(predict_outputs(backbone, prompt, head, data.encoded), data, objective)


def scores_of(outputs: np.ndarray, data: Data, objective: Objective) -> dict[str, float]:
    """The metrics of outputs that are there already, and `loss`."""
    predictions = objective.predictions(outputs, data.encoded, data.split.texts)
    scores = compute_metrics(data.spec, data.class_names, data.split, predictions, objective.probabilities(outputs))
    targets = objective.targets(data.encoded, data.split.labels)
    layout = data.encoded.layout(np.arange(len(data)))
    with torch.no_grad():
        loss = objective.loss(torch.from_numpy(objective.unfold(outputs)), targets, layout)
    return {**scores, "loss": float(loss)}
