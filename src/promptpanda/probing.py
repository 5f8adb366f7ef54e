"""What a model shows when it is loaded: what prompts must look like, and that all that is done with it later works."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from promptpanda.models import refusal
from promptpanda.neurons import neuron_layers, recorded_activations
from promptpanda.prompts import attention
from promptpanda.prompts.attention import LayerIndex, RecordingCall
from promptpanda.prompts.prompt import PromptShape

_LENGTHS = (5, 3)


class Probed(NamedTuple):
    """What prompts must look like, the layer of every attention module, and that of every activation module.

    `neurons` is None where the model does not show its feed-forward neurons.
    """

    shape: PromptShape
    layers: LayerIndex
    neurons: LayerIndex | None


def _texts(model: PreTrainedModel) -> tuple[Tensor, Tensor]:
    """Two short texts of different words and their attention mask. *Shape:* (2, tokens) each."""
    padding, masking = (getattr(model.config, f"{name}_token_id", None) for name in ("pad", "mask"))
    size = _words(model).shape[0]
    words = [word for word in range(min(size, max(_LENGTHS) + 2)) if word not in (padding, masking)]
    mask = torch.arange(max(_LENGTHS))[None] < torch.tensor(_LENGTHS)[:, None]
    ids = torch.tensor(words)[torch.arange(mask.numel()).view(mask.shape) % len(words)]
    ids = torch.where(mask, ids, 0 if padding is None else int(padding))
    return ids.to(model.device), mask.long().to(model.device)


def _words(model: PreTrainedModel) -> Tensor:
    """*Shape:* (vocabulary, embedding_dim)."""
    return cast(Tensor, model.get_input_embeddings().weight)


def probe(model: PreTrainedModel, inputs_of: Callable[[Tensor, Tensor], dict[str, Any]]) -> Probed:
    """Run two forward passes without a prompt: through the attention that can take one, and through the model's own.

    Args:
        inputs_of: makes the inputs of the model's forward of token ids and attention mask, (batch, tokens) each.

    Raises:
        PandaError: not every layer takes prompts of one shape, the layers' hidden states are not shown, or the model
            with our attention is not the model with its own.
    """
    try:
        with torch.no_grad():
            probed = _probe(model, inputs_of(*_texts(model)))
    except (AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        # What a family does instead of taking the prompt differs; that it cannot take it is all that matters.
        raise refusal(model.config) from error
    if probed is None:
        raise refusal(model.config)
    return probed


def _probe(model: PreTrainedModel, inputs: dict[str, Any]) -> Probed | None:
    record = RecordingCall()
    with recorded_activations(model) as calls:
        output = model(**inputs, prompt=record, output_hidden_states=True)
    probed = attention.probed_shape(record, _words(model).shape[1])
    if probed is None:
        return None
    rows, tokens = inputs["input_ids"].shape
    states = output.hidden_states
    if any(hidden.shape != (rows, tokens, model.config.hidden_size) for hidden in states):
        return None
    last, mask = output.last_hidden_state, inputs["attention_mask"]
    if not (close(states[-1], last, mask) and close(last, _own_attention(model, inputs), mask)):
        return None
    return Probed(*probed, neuron_layers(model, record.modules, calls, (rows, tokens)))


def _own_attention(model: PreTrainedModel, inputs: dict[str, Any]) -> Tensor:
    """Last hidden states as the model computes them by itself, also the positions."""
    texts = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    usual = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        hidden: Tensor = model(**texts).last_hidden_state
    finally:
        model.set_attn_implementation(usual)
    return hidden


def close(ours: Tensor, theirs: Tensor, mask: Tensor) -> bool:
    """Whether hidden states of tokens are equal but for rounding, on the scale of the largest.

    Weights that are not finite show nothing of the family; they are told where they matter.
    """
    ours, theirs = ours[mask.bool()], theirs[mask.bool()]
    if not bool(torch.isfinite(theirs).all()):
        return True
    tolerance = torch.finfo(theirs.dtype).eps ** 0.5  # half of the digits
    return bool((ours - theirs).abs().max() <= tolerance * theirs.abs().max())
