"""Forward passes of trained prompts: outputs, pooled features, scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from promptpanda.backbone import Backbone, TextBatch
from promptpanda.prompts.prompt import Prompt, PromptStack
from promptpanda.tasks.encoding import Encoded
from promptpanda.tasks.metrics import compute_metrics
from promptpanda.tasks.spec import TaskSpec
from promptpanda.training.batching import sorted_batches
from promptpanda.training.heads import Head
from promptpanda.training.objectives import Objective

_BATCH = 32


@dataclass(frozen=True)
class Data:
    """Encoded examples with labels, and the task they belong to.

    Attributes:
        encoded: the texts.
        labels: class indices or values. *Shape:* (examples,).
        spec, class_names: what scores need to know.
    """

    encoded: Encoded
    labels: np.ndarray
    spec: TaskSpec
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)


def forward(
    backbone: Backbone,
    prompts: Sequence[Prompt],
    encoded: Encoded,
    read: Callable[[TextBatch, PromptStack | None], Tensor],
    rows: np.ndarray | None = None,
) -> np.ndarray:
    """Run every example once and keep what `read` makes of it, in the order of the examples.

    Args:
        prompts: none, one for all, or several of one shape among which `rows` chooses.
        read: (batch, its prompts) -> one array a row, such as what a head makes of `Backbone.hidden`.
        rows: which prompt each example uses. *Shape:* (examples,). None lets all use the first.
    """
    tensor = torch.stack([prompt.tensor for prompt in prompts]).to(backbone.device) if prompts else None
    results: list[np.ndarray] = [np.empty(0)] * len(encoded)
    with torch.inference_mode():
        for indices in sorted_batches(encoded.lengths, _BATCH):
            batch = encoded.batch(indices).to(backbone.device)
            stack = None
            if tensor is not None:
                chosen = None if rows is None else torch.from_numpy(rows[indices]).to(backbone.device)
                stack = PromptStack(prompts[0].kind, tensor, chosen)
            values = read(batch, stack).float().cpu().numpy()
            for position, index in enumerate(indices):
                results[index] = values[position]
    return np.stack(results)


def predict_outputs(backbone: Backbone, prompt: Prompt, head: Head, encoded: Encoded) -> np.ndarray:
    """Outputs of a trained model without dropout. *Shape:* (examples, outputs)."""

    def read(batch: TextBatch, stack: PromptStack | None) -> Tensor:
        return head(backbone.read(backbone.hidden(batch, stack), batch.attention_mask, head.readout))

    return forward(backbone, [prompt], encoded, read)


def score(backbone: Backbone, prompt: Prompt, head: Head, data: Data, objective: Objective) -> dict[str, float]:
    """The task's metrics, and `loss`, the mean task loss."""
    outputs = predict_outputs(backbone, prompt, head, data.encoded)
    scores = compute_metrics(data.spec, data.class_names, data.labels, objective.predictions(outputs))
    with torch.no_grad():
        loss = objective.loss(torch.from_numpy(objective.unfold(outputs)), objective.targets(data.labels))
    return {**scores, "loss": float(loss)}
