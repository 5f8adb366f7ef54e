"""What a transferability estimator needs to know of a prompt at work: how the model sees some texts under it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from promptpanda.backbone import Backbone, TextBatch
from promptpanda.errors import PandaError
from promptpanda.names import SIGNATURE_EXAMPLES, HeadReadout
from promptpanda.prompts.attention import LayerIndex
from promptpanda.prompts.prompt import Prompt, PromptStack
from promptpanda.tasks.encoding import Encoded, Layout
from promptpanda.training.heads import features, read_hidden, separated
from promptpanda.training.inference import forward

POOLINGS = ("mean", "first")


@dataclass(frozen=True)
class Signature:
    """A prompt's traces on texts of a task.

    Attributes:
        embeddings: hidden states of the embedding layer and of every layer, pooled over tokens in the ways of
            `POOLINGS` (mean of all, first position), averaged over texts. *Shape:* (layers + 1, 2, hidden).
        activated_neurons: whether each neuron of the feed-forward layers is active (mean output above 0) at the first
            position; ON of Su et al., arXiv 2111.06719. None where the model does not show the neurons of every layer.
            *Shape:* (layers x intermediate,), bool.
        pooled_prompt: the prompt averaged over its virtual tokens; E_avg of SPoT, arXiv 2110.07904. *Shape:* (...,).
        examples: how many texts were used.
    """

    embeddings: Tensor
    activated_neurons: Tensor | None
    pooled_prompt: Tensor
    examples: int

    @classmethod
    def of(
        cls, backbone: Backbone, prompt: Prompt, encoded: Encoded, *, examples: int = SIGNATURE_EXAMPLES
    ) -> Signature:
        """Run the first `examples` rows of text under the prompt: forward only, no labels."""
        return observe(backbone, [prompt], encoded.first(examples), examples=examples)[0].signature

    def task_embedding(self, layer: int, pooling: str) -> Tensor:
        """The texts' place in the model's space. *Shape:* (hidden,). Raises PandaError if there is no such layer."""
        count = len(self.embeddings)
        if not -count <= layer < count:
            raise PandaError(f"--cosine-layer {layer} is out of range; layers are 0 (embeddings) to {count - 1}.")
        return self.embeddings[layer, POOLINGS.index(pooling)]

    def tensors(self) -> dict[str, Tensor]:
        """For a safetensors file."""
        neurons = {} if self.activated_neurons is None else {"activated_neurons": self.activated_neurons}
        return {
            "embeddings": self.embeddings.contiguous(),
            **neurons,
            "pooled_prompt": self.pooled_prompt.contiguous(),
        }

    def metadata(self) -> dict[str, str]:
        """For the header of a safetensors file."""
        return {"options": json.dumps({"examples": self.examples, "poolings": POOLINGS})}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], metadata: dict[str, str]) -> Signature:
        """The inverse of `tensors` and `metadata`."""
        examples = int(json.loads(metadata["options"])["examples"])
        return cls(tensors["embeddings"], tensors.get("activated_neurons"), tensors["pooled_prompt"], examples)


@dataclass(frozen=True)
class Observation:
    """What one forward pass of texts under a prompt shows.

    Attributes:
        signature: of the rows that signatures are of.
        features: what a head would read, one array a row. *Shape:* (hidden,), or (units, hidden). Empty where nothing
            was to be read.
    """

    signature: Signature
    features: list[np.ndarray]


def observe(
    backbone: Backbone,
    prompts: Sequence[Prompt],
    encoded: Encoded,
    *,
    examples: int = SIGNATURE_EXAMPLES,
    readout: HeadReadout | None = None,
) -> list[Observation]:
    """Run every row once under each of several prompts of one shape, in mixed batches.

    Args:
        examples: signatures are of the first so many rows.
        readout: how features are read; None reads none.
    """
    rows = len(encoded.input_ids)
    count = min(examples, rows)
    texts = 1 if encoded.second is None else 2  # of a row that are read apart, and that traces are the mean of
    owners = None if len(prompts) == 1 else np.repeat(np.arange(len(prompts)), rows)
    traces = _Traces(backbone, len(prompts), prompts[0].length if prompts[0].kind == "shallow" else 0)

    def read(batch: TextBatch, layout: Layout, stack: PromptStack | None) -> Tensor:
        counted = layout.rows % rows < count
        traces.expect(layout.rows // rows, counted, texts)
        if readout is not None and not bool(counted.any()):
            return features(backbone, batch, layout, stack, readout)
        batch, stack = separated(batch, stack)
        layers = backbone.all_hidden(batch, stack)
        kept = [(backbone.read(hidden, batch.attention_mask, "mean"), hidden[:, 0]) for hidden in layers]
        traces.add_embeddings(torch.stack([torch.stack(pair, dim=1) for pair in kept], dim=1))
        if readout is None:
            return batch.input_ids[:, :0]
        return read_hidden(backbone, layers[-1], batch, layout, readout)

    with traces.of_activations():
        found = forward(backbone, prompts, encoded.times(len(prompts)), read, owners, in_turn=True)
    observations = []
    for number, prompt in enumerate(prompts):
        signature = Signature(
            traces.embeddings[number].cpu() / (texts * count),
            traces.activated(number),
            prompt.tensor.mean(dim=-2).flatten(),
            count,
        )
        observations.append(
            Observation(signature, [] if readout is None else found[number * rows : (number + 1) * rows])
        )
    return observations


def word_embedding(backbone: Backbone, prompt: Prompt, encoded: Encoded) -> np.ndarray:
    """The mean embedding of the texts' words, before the first layer. Of the prompt it matters how long it is alone.

    *Shape:* (hidden,); the same as `Signature.task_embedding(0, "mean")`.
    """

    def read(batch: TextBatch, layout: Layout, stack: PromptStack | None) -> Tensor:
        return backbone.read(backbone.all_hidden(batch, stack)[0], batch.attention_mask, "mean")

    found: np.ndarray = np.mean(forward(backbone, [prompt], encoded, read, in_turn=True), axis=0)
    return found


class _Traces:
    """Sums over rows, for each of several prompts.

    Attributes:
        embeddings: *Shape:* (prompts, layers + 1, 2, hidden).
        activations: of every feed-forward layer, by its number. *Shape:* (prompts, intermediate) each.
    """

    def __init__(self, backbone: Backbone, prompts: int, position: int) -> None:
        """`position` is the text's first: the hooks see the whole sequence, also a shallow prompt's tokens."""
        self._backbone = backbone
        self._prompts = prompts
        self._position = position
        self.embeddings = torch.zeros(())
        self.activations: dict[int, Tensor] = {}

    def expect(self, owner: Tensor, counted: Tensor, texts: int) -> None:
        """Tell whose the rows of the next batch are, and which of them count, of which the model sees so many texts.

        *Shape:* (rows,) each.
        """
        self._owner, self._counted, self._calls = owner[counted].repeat(texts), counted.repeat(texts), 0

    def add_embeddings(self, pooled: Tensor) -> None:
        """*Shape:* (rows, layers + 1, 2, hidden)."""
        if self.embeddings.ndim == 0:
            self.embeddings = pooled.new_zeros((self._prompts, *pooled.shape[1:]))
        self.embeddings.index_add_(0, self._owner, pooled[self._counted])

    @contextmanager
    def of_activations(self) -> Iterator[None]:
        """Add up every feed-forward activation at the first position of the text, while models run."""
        index = self._backbone.neurons
        handles = [] if index is None else [module.register_forward_hook(self._hook(index)) for module in index.modules]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, index: LayerIndex) -> Callable[[nn.Module, object, Tensor], None]:
        def note(module: nn.Module, inputs: object, output: Tensor) -> None:
            layer = index(module, self._calls)
            self._calls += 1
            if len(self._owner) == 0:
                return
            here = output.reshape(len(self._counted), -1, output.shape[-1])[:, self._position]
            if layer not in self.activations:
                self.activations[layer] = here.new_zeros((self._prompts, here.shape[1]))
            self.activations[layer].index_add_(0, self._owner, here[self._counted])

        return note

    def activated(self, prompt: int) -> Tensor | None:
        """Which neurons are active under a prompt. *Shape:* (layers x intermediate,), bool."""
        if self._backbone.neurons is None:
            return None
        return torch.cat([total[prompt] > 0 for _, total in sorted(self.activations.items())]).cpu()
