"""What a transferability estimator needs to know of a prompt at work: how the model sees some texts under it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from promptpanda.backbone import Backbone, TextBatch
from promptpanda.errors import PandaError
from promptpanda.prompts.prompt import Prompt, PromptStack
from promptpanda.tasks.encoding import Encoded, Layout
from promptpanda.training.inference import forward

EXAMPLES = 100
POOLINGS = ("mean", "first")


@dataclass(frozen=True)
class Signature:
    """A prompt's traces on texts of a task.

    Attributes:
        embeddings: hidden states of the embedding layer and of every layer, pooled over tokens in the ways of
            `POOLINGS` (mean of all, first position), averaged over texts. *Shape:* (layers + 1, 2, hidden).
        activated_neurons: whether each neuron of the feed-forward layers is active (mean output above 0) at the first
            position; ON of Su et al., arXiv 2111.06719. *Shape:* (layers x intermediate,), bool.
        pooled_prompt: the prompt averaged over its virtual tokens; E_avg of SPoT, arXiv 2110.07904. *Shape:* (...,).
        examples: how many texts were used.
    """

    embeddings: Tensor
    activated_neurons: Tensor
    pooled_prompt: Tensor
    examples: int

    @classmethod
    def of(cls, backbone: Backbone, prompt: Prompt, encoded: Encoded, *, examples: int = EXAMPLES) -> Signature:
        """Run the first `examples` rows of text under the prompt: forward only, no labels."""
        texts = encoded.first(examples)

        def pooled(batch: TextBatch, layout: Layout, stack: PromptStack | None) -> Tensor:
            layers = backbone.all_hidden(batch, stack)
            kept = [(backbone.read(hidden, batch.attention_mask, "mean"), hidden[:, 0]) for hidden in layers]
            return torch.stack([torch.stack(pair, dim=1) for pair in kept], dim=1)

        # Hooks see the whole sequence, in which a shallow prompt's virtual tokens come first.
        first = prompt.length if prompt.kind == "shallow" else 0
        with _feed_forward_outputs(backbone, first) as active:
            embeddings = forward(backbone, [prompt], texts, pooled)
        return cls(
            torch.from_numpy(np.mean(embeddings, axis=0)),
            torch.cat([total > 0 for total in active]).cpu(),
            prompt.tensor.mean(dim=-2).flatten(),
            len(texts),
        )

    def task_embedding(self, layer: int, pooling: str) -> Tensor:
        """The texts' place in the model's space. *Shape:* (hidden,). Raises PandaError if there is no such layer."""
        count = len(self.embeddings)
        if not -count <= layer < count:
            raise PandaError(f"--cosine-layer {layer} is out of range; layers are 0 (embeddings) to {count - 1}.")
        return self.embeddings[layer, POOLINGS.index(pooling)]

    def tensors(self) -> dict[str, Tensor]:
        """For a safetensors file."""
        return {
            "embeddings": self.embeddings.contiguous(),
            "activated_neurons": self.activated_neurons,
            "pooled_prompt": self.pooled_prompt.contiguous(),
        }

    def metadata(self) -> dict[str, str]:
        """For the header of a safetensors file."""
        return {"options": json.dumps({"examples": self.examples, "poolings": POOLINGS})}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], metadata: dict[str, str]) -> Signature:
        """The inverse of `tensors` and `metadata`."""
        return cls(**tensors, examples=int(json.loads(metadata["options"])["examples"]))


@contextmanager
def _feed_forward_outputs(backbone: Backbone, position: int) -> Iterator[list[Tensor]]:
    """Sum, over all rows that pass, every feed-forward activation at one position.

    Yields:
        One tensor a layer, in the order of calls. *Shape:* (intermediate,) each.
    """
    totals: list[Tensor] = []
    call = 0

    def note(module: nn.Module, inputs: object, output: Tensor) -> None:
        nonlocal call
        layer = call % backbone.shape.layers
        call += 1
        here = output.reshape(-1, output.shape[-1]) if output.ndim == 2 else output[:, position]
        if layer == len(totals):
            totals.append(here.sum(0))
        else:
            totals[layer] += here.sum(0)

    modules = [module for name, module in backbone.model.named_modules() if _is_activation(name, module)]
    handles = [module.register_forward_hook(note) for module in modules]
    try:
        yield totals
    finally:
        for handle in handles:
            handle.remove()


def _is_activation(name: str, module: nn.Module) -> bool:
    origin = type(module).__module__
    return "pooler" not in name and origin in ("transformers.activations", "torch.nn.modules.activation")
