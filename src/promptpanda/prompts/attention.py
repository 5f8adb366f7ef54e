"""How a prefix reaches the attention layers: one attention function, registered on transformers' public seam.

The function prepends each row's prefix keys and values, widens the mask, and calls the stock sdpa function; a packed
batch it lays out row by row for the time of the call. What it needs travels as an ordinary keyword argument of the
model's forward, so modules hold no state. Input positions are shifted by the prompt length elsewhere
(`Backbone.hidden`); with that the result equals PEFT's prefix tuning, up to the length of a sliding window.

Where layers see a window of their neighbours alone (Mistral, Gemma 3, ModernBERT), the prefix stands outside of all
windows: every token sees it whole, in every layer, however long the text. PEFT keeps it in a cache of past tokens, so
that there it slides out of sight of tokens further back than the window; a readout at the end of a long text would then
not be steered by those layers' prompts. Shallow prompts are tokens of the text, here as there: windows slide past them.
Reference: https://huggingface.co/docs/transformers/attention_interface
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.models.gemma2.modeling_gemma2 import eager_attention_forward as capped_attention_forward

from promptpanda.prompts.packing import Packing
from promptpanda.prompts.prefixes import Prefixes
from promptpanda.prompts.prompt import PromptShape, PromptStack

NAME = "promptpanda"


class LayerIndex:
    """Which layer a module is of: by identity, or, where layers share a module (ALBERT), by counting calls."""

    def __init__(self, calls: list[nn.Module]) -> None:
        """`calls` lists the modules in the order in which one forward pass called them."""
        self.layers = len(calls)
        self.shared = len(set(map(id, calls))) < len(calls)
        self.modules = list({id(module): module for module in calls}.values())
        self._by_module = {id(module): layer for layer, module in enumerate(calls)}

    def __call__(self, module: nn.Module, calls_before: int) -> int:
        return calls_before if self.shared else self._by_module[id(module)]

    def is_last(self, module: nn.Module) -> bool:
        """Whether this module, which no other layer shares, is the last layer's."""
        return self._by_module.get(id(module)) == self.layers - 1


class PromptCall:
    """What one forward pass brings to the attention layers: a prefix for every row, and how the batch is packed.

    Args:
        index: tells the layer of a module.
        rows: how many rows the batch has.
        prompts: the rows' prefixes, or None.
        packing: of a packed batch.
        first_only: whether the last layer answers for the first token of every row alone (of a packed batch, and of a
            model that `cut_last_layer` has prepared).
    """

    def __init__(
        self,
        index: LayerIndex,
        rows: int,
        prompts: PromptStack | None = None,
        packing: Packing | None = None,
        *,
        first_only: bool = False,
    ) -> None:
        self.rows, self.packing, self.first_only = rows, packing, first_only
        self.calls = 0
        self._index = index
        self._prefixes = None if prompts is None else Prefixes(prompts, rows, index.layers)
        self._masks: dict[int, tuple[Tensor, Tensor]] = {}

    @property
    def length(self) -> int:
        """V, or 0 without a prefix."""
        return 0 if self._prefixes is None else self._prefixes.length

    def next_layer(self, module: nn.Module) -> int:
        """The layer of the module that is calling."""
        layer = self._index(module, self.calls)
        self.calls += 1
        return layer

    def answers_first(self, module: nn.Module) -> bool:
        """Whether this module is to answer for first tokens alone."""
        return self.first_only and self._index.is_last(module)

    def lengthen(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Put this layer's prefixes before keys and values.

        *Shape:* (batch, heads, tokens, head_dim), of a packed batch (1, heads, packed tokens, head_dim) ->
        (batch, heads, V + tokens, head_dim).
        """
        sides = [states.transpose(1, 2) for states in (key, value)]
        if self._prefixes is not None:
            sides = [self._prefixes.before(layer, side, tokens, self.packing) for side, tokens in enumerate(sides)]
        elif self.packing is not None:
            sides = [self.packing.to_grid(tokens[0]) for tokens in sides]
        return sides[0].transpose(1, 2), sides[1].transpose(1, 2)

    def widen(self, mask: Tensor) -> Tensor:
        """Let every query see the prefix. *Shape:* (batch, 1, queries, keys) -> (batch, 1, queries, V + keys)."""
        # Layers share their mask objects, so each is widened once; the original is kept alive with its id.
        if id(mask) not in self._masks:
            visible = 1.0 if mask.dtype == torch.bool else 0.0
            self._masks[id(mask)] = (mask, F.pad(mask, (self.length, 0), value=visible))
        return self._masks[id(mask)][1]


class RecordingCall:
    """Stands in for a prefix while a backbone is probed: notes who called, and with what.

    Attributes:
        modules: the attention modules in the order of their calls.
        shapes: heads and width of their keys and values.
        drops_weights: whether some call brought weights that our attention would leave out (attention sinks, say).
    """

    def __init__(self) -> None:
        self.modules: list[nn.Module] = []
        self.shapes: set[tuple[int, int]] = set()
        self.drops_weights = False

    def note(self, module: nn.Module, key: Tensor, value: Tensor, others: dict[str, Any]) -> None:
        self.modules.append(module)
        used = inspect.signature(sdpa_attention_forward).parameters
        self.drops_weights |= any(isinstance(given, nn.Parameter) for name, given in others.items() if name not in used)
        self.shapes |= {(int(states.shape[1]), int(states.shape[3])) for states in (key, value)}


def probed_shape(record: RecordingCall, embedding_dim: int) -> tuple[PromptShape, LayerIndex] | None:
    """The prompt shape that a recorded forward pass shows, or None if its layers cannot take one prefix."""
    if len(record.shapes) != 1 or record.drops_weights:
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
    prompt: PromptCall | RecordingCall | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    if isinstance(prompt, RecordingCall):
        prompt.note(module, key, value, kwargs)
    elif prompt is not None and prompt.packing is not None:
        return _packed(module, query, key, value, prompt, prompt.packing, **kwargs), None
    elif prompt is not None:
        causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
        if attention_mask is not None:
            attention_mask = prompt.widen(attention_mask)
        elif causal and query.shape[2] > 1:
            # sdpa's own causal flag is aligned to the upper left, which would hide the text and show the prefix only.
            queries, keys = query.shape[2], key.shape[2]
            tokens = torch.ones(queries, keys, dtype=torch.bool, device=key.device).tril(keys - queries)
            attention_mask = F.pad(tokens, (prompt.length, 0), value=1.0)[None, None]
        key, value = prompt.lengthen(prompt.next_layer(module), key, value)
        if kwargs.get("position_bias") is not None:  # virtual tokens have no relative position
            kwargs["position_bias"] = F.pad(kwargs["position_bias"], (prompt.length, 0))
    if kwargs.get("softcap") is not None:
        return _capped(module, query, key, value, attention_mask, **kwargs), None
    return sdpa_attention_forward(module, query, key, value, attention_mask, is_causal=is_causal, **kwargs)


def _capped(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> Tensor:
    """Attention that caps its scores (Gemma 2), which torch's sdpa cannot: transformers' own, step by step."""
    if attention_mask is None and getattr(module, "is_causal", True):
        attention_mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=key.device).tril()
    if attention_mask is not None and attention_mask.dtype == torch.bool:
        hidden = torch.finfo(query.dtype).min
        attention_mask = torch.zeros_like(attention_mask, dtype=query.dtype).masked_fill(~attention_mask, hidden)
    answers: Tensor = capped_attention_forward(module, query, key, value, attention_mask, **kwargs)[0]
    return answers


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    prompt: PromptCall | RecordingCall,
    scaling: float,
    *,
    before: Tensor | None = None,
) -> Tensor:
    """Attention of a family that does not go through transformers' interface, under a prompt.

    Args:
        query, key, value: of the text. *Shape:* (batch, heads, tokens, head_dim).
        bias: what the family adds to its scores. *Shape:* of (batch, heads, tokens, tokens), or broadcast to it.
        mask: which tokens are seen (bool), or what is added to the scores; None if every token sees every other.
            *Shape:* (batch, 1, tokens, tokens).
        scaling: of the products of queries and keys.
        before: what the family adds to the scores of virtual tokens, by default nothing. *Shape:* (heads, 1, V).

    Returns:
        *Shape:* (batch, tokens, heads, head_dim).
    """
    if mask is not None and mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill(~mask, torch.finfo(query.dtype).min)
    if bias is not None:
        mask = bias if mask is None else bias + mask
    if mask is not None:
        mask = mask.expand(query.shape[0], -1, query.shape[2], key.shape[2])
    if isinstance(prompt, RecordingCall):
        prompt.note(module, key, value, {})
    else:
        if before is not None and mask is not None:
            mask = torch.cat([before.expand(*query.shape[:3], -1), mask.expand(-1, query.shape[1], -1, -1)], dim=-1)
        elif mask is not None:
            mask = F.pad(mask, (prompt.length, 0))
        key, value = prompt.lengthen(prompt.next_layer(module), key, value)
    answers: Tensor = sdpa_attention_forward(module, query, key, value, mask, scaling=scaling, is_causal=False)[0]
    return answers


def _packed(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, prompt: PromptCall, packing: Packing, **kwargs: Any
) -> Tensor:
    """Attention of a packed batch.

    *Shape:* (1, heads, packed tokens, head_dim) -> (1, packed tokens, heads, head_dim).
    """
    layer = prompt.next_layer(module)
    key, value = prompt.lengthen(layer, key, value)
    mask = packing.mask(prompt.length, query.dtype)
    queries = query[0].transpose(0, 1)
    if prompt.answers_first(module):
        first = queries[: prompt.rows, None].transpose(1, 2)
        answers, _ = sdpa_attention_forward(module, first, key, value, mask, is_causal=False, **kwargs)
        # The module that called expects an answer for every token; `cut_last_layer` takes the first rows alone.
        return F.pad(answers[:, 0], (0, 0, 0, 0, 0, len(queries) - prompt.rows))[None]
    grid = packing.to_grid(queries).transpose(1, 2)
    answers, _ = sdpa_attention_forward(module, grid, key, value, mask, is_causal=False, **kwargs)
    return packing.from_grid(answers)[None]


def cut_last_layer(model: nn.Module, index: LayerIndex) -> bool:
    """Let the last layer of a BERT-like model work for the first tokens alone where a `PromptCall` asks for it.

    Behind the last layer's attention nothing looks at other tokens, so where a head reads the first position everything
    else there is work for nothing. The hooks hold no state: they follow the call, and the shape.

    Returns:
        Whether the model's layers are built that way: attention, then a module that adds the layer's input.
    """
    if index.shared:
        return False
    for parent in model.modules():
        after = getattr(parent, "output", None)
        attending = getattr(parent, "self", None)
        if isinstance(attending, nn.Module) and isinstance(after, nn.Module) and index.is_last(attending):
            if list(inspect.signature(after.forward).parameters) != ["hidden_states", "input_tensor"]:
                return False
            attending.register_forward_hook(_first_answers, with_kwargs=True)
            after.register_forward_pre_hook(_first_inputs)
            return True
    return False


def _first_answers(module: nn.Module, inputs: Any, kwargs: dict[str, Any], output: tuple[Any, ...]) -> Any:
    prompt = kwargs.get("prompt")
    if isinstance(prompt, PromptCall) and prompt.first_only:
        return (output[0][:, : prompt.rows], *output[1:])
    return output


def _first_inputs(module: nn.Module, inputs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    answers, before = inputs
    return answers, before[:, : answers.shape[1]]


def register() -> None:
    """Make the attention function and its mask function known to transformers. Calling it again changes nothing."""
    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
