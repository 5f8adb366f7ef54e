"""How a prefix reaches the attention layers: one attention function, registered on transformers' public seam.

The function prepends each row's prefix keys and values, widens the mask, and calls the stock sdpa function. The prefix
travels as an ordinary keyword argument of the model's forward, so modules hold no state. Input positions are shifted by
the prompt length elsewhere (`Backbone.hidden`); with that the result equals PEFT's prefix tuning.
Reference: https://huggingface.co/docs/transformers/attention_interface
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from promptpanda.prompts.prompt import PromptShape

NAME = "promptpanda"


class LayerIndex:
    """Which layer an attention module is: by identity, or, where layers share a module (ALBERT), by counting calls."""

    def __init__(self, calls: list[nn.Module]) -> None:
        """`calls` lists the attention modules in the order in which one forward pass called them."""
        self.layers = len(calls)
        self.shared = len(set(map(id, calls))) < len(calls)
        self._by_module = {id(module): layer for layer, module in enumerate(calls)}

    def __call__(self, module: nn.Module, calls_before: int) -> int:
        return calls_before if self.shared else self._by_module[id(module)]


class PrefixCall:
    """The prefixes of one forward pass, one a row.

    Args:
        tensor: *Shape:* (batch, layers, 2, heads, V, head_dim).
        index: tells the layer of a module.
    """

    def __init__(self, tensor: Tensor, index: LayerIndex) -> None:
        self._length = int(tensor.shape[-2])
        # Taken apart once, (batch, V, heads, head_dim) each: indexing it per layer would let every layer's backward
        # pass fill a gradient of the whole, and in this order it joins most models' keys in whole blocks.
        parts = tensor.permute(1, 2, 0, 4, 3, 5).contiguous().flatten(0, 1).unbind(0)
        self._keys, self._values = parts[0::2], parts[1::2]
        self._index = index
        self._masks: dict[int, tuple[Tensor, Tensor]] = {}
        self.calls = 0

    @property
    def length(self) -> int:
        return self._length

    def lengthen(self, module: nn.Module, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Put this layer's prefix before keys and values. *Shape:* (batch, heads, tokens, head_dim) -> V + tokens."""
        layer = self._index(module, self.calls)
        self.calls += 1
        return _joined(self._keys[layer], key), _joined(self._values[layer], value)

    def widen(self, mask: Tensor) -> Tensor:
        """Let every query see the prefix. *Shape:* (batch, 1, queries, keys) -> (batch, 1, queries, V + keys)."""
        # Layers share their mask objects, so each is widened once; the original is kept alive with its id.
        if id(mask) not in self._masks:
            visible = 1.0 if mask.dtype == torch.bool else 0.0
            self._masks[id(mask)] = (mask, F.pad(mask, (self.length, 0), value=visible))
        return self._masks[id(mask)][1]


def _joined(prefix: Tensor, states: Tensor) -> Tensor:
    """*Shape:* (batch, V, heads, size), (batch, heads, tokens, size) -> (batch, heads, V + tokens, size)."""
    prefix = prefix.to(states.dtype)
    by_token = states.transpose(1, 2)
    if by_token.is_contiguous():
        return torch.cat([prefix, by_token], dim=1).transpose(1, 2)
    return torch.cat([prefix.transpose(1, 2), states], dim=2)


class RecordingCall:
    """Stands in for a prefix while a backbone is probed: notes who called, and with keys of which shape."""

    def __init__(self) -> None:
        self.modules: list[nn.Module] = []
        self.shapes: set[tuple[int, int]] = set()

    def note(self, module: nn.Module, key: Tensor) -> None:
        self.modules.append(module)
        self.shapes.add((int(key.shape[1]), int(key.shape[3])))


def probed_shape(record: RecordingCall, embedding_dim: int) -> tuple[PromptShape, LayerIndex] | None:
    """The prompt shape that a recorded forward pass shows, or None if its layers cannot take one prefix."""
    if len(record.shapes) != 1:
        return None
    heads, head_dim = next(iter(record.shapes))
    return PromptShape(len(record.modules), heads, head_dim, embedding_dim), LayerIndex(record.modules)


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    prompt: PrefixCall | RecordingCall | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    if isinstance(prompt, RecordingCall):
        prompt.note(module, key)
    elif prompt is not None:
        causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
        if attention_mask is not None:
            attention_mask = prompt.widen(attention_mask)
        elif causal and query.shape[2] > 1:
            # sdpa's own causal flag is aligned to the upper left, which would hide the text and show the prefix only.
            queries, keys = query.shape[2], key.shape[2]
            tokens = torch.ones(queries, keys, dtype=torch.bool, device=key.device).tril(keys - queries)
            attention_mask = F.pad(tokens, (prompt.length, 0), value=1.0)[None, None]
        key, value = prompt.lengthen(module, key, value)
    return sdpa_attention_forward(module, query, key, value, attention_mask, is_causal=is_causal, **kwargs)


def register() -> None:
    """Make the attention function and its mask function known to transformers. Calling it again changes nothing."""
    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
