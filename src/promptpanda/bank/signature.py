"""What a transferability estimator needs to know of a prompt at work: how the model sees some texts under it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from promptpanda.backbone import Backbone
from promptpanda.prompts.prompt import Prompt
from promptpanda.tasks.encoding import Encoded
from promptpanda.training.inference import forward

EXAMPLES = 100


@dataclass(frozen=True)
class Signature:
    """A prompt's traces on texts of a task.

    Attributes:
        mean_embedding: last hidden states, averaged over tokens, then over texts. *Shape:* (hidden,).
        first_embedding: last hidden state of the first position, averaged over texts. *Shape:* (hidden,).
        activated_neurons: whether each neuron of the feed-forward layers is active (mean output above 0) at the first
            position; ON of Su et al., arXiv 2111.06719. *Shape:* (layers x intermediate,), bool.
        pooled_prompt: the prompt averaged over its virtual tokens; E_avg of SPoT, arXiv 2110.07904. *Shape:* (...,).
        examples: how many texts were used.
    """

    mean_embedding: Tensor
    first_embedding: Tensor
    activated_neurons: Tensor
    pooled_prompt: Tensor
    examples: int

    @classmethod
    def of(cls, backbone: Backbone, prompt: Prompt, encoded: Encoded, *, examples: int = EXAMPLES) -> Signature:
        """Run the first `examples` texts under the prompt: forward only, no labels."""
        count = min(examples, len(encoded))
        types = None if encoded.token_type_ids is None else encoded.token_type_ids[:count]
        texts = Encoded(encoded.input_ids[:count], types, encoded.pad_id)
        # Hooks see the whole sequence, in which a shallow prompt's virtual tokens come first.
        first = prompt.length if prompt.kind == "shallow" else 0
        with _feed_forward_outputs(backbone, first) as active:
            embeddings = forward(
                backbone,
                [prompt],
                texts,
                lambda hidden, mask: torch.cat([backbone.read(hidden, mask, "mean"), hidden[:, 0]], dim=1),
            )
        mean, first_position = np.split(embeddings.mean(axis=0), 2)
        return cls(
            torch.from_numpy(mean.copy()),
            torch.from_numpy(first_position.copy()),
            torch.cat([total > 0 for total in active]).cpu(),
            prompt.tensor.mean(dim=-2).flatten(),
            count,
        )

    def tensors(self) -> dict[str, Tensor]:
        """For a safetensors file."""
        return {
            "mean_embedding": self.mean_embedding,
            "first_embedding": self.first_embedding,
            "activated_neurons": self.activated_neurons,
            "pooled_prompt": self.pooled_prompt.contiguous(),
        }

    def metadata(self) -> dict[str, str]:
        """For the header of a safetensors file."""
        return {"options": json.dumps({"examples": self.examples, "layer": "last"})}

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
