"""The prefixes of one forward pass: dropout, and their place before the keys and values of every layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from promptpanda.prompts.dropout import keep_mask_of_rows
from promptpanda.prompts.packing import Packing
from promptpanda.prompts.prompt import PromptStack


class Prefixes:
    """A batch's prefixes, taken apart once: keys and values of every layer.

    Indexing the whole per layer would let every layer's backward pass fill a gradient of the whole; and with tokens
    before heads, the order in which most models compute their keys, prefix and keys are joined in whole blocks.

    Args:
        prompts: of kind `prefix`; of fewer layers than the model has, where only its upper ones are run.
        rows: how many rows the batch has.
        layers: of the model.

    Attributes:
        length: V.
    """

    def __init__(self, prompts: PromptStack, rows: int, layers: int) -> None:
        self.length = prompts.length
        self._below = layers - prompts.tensor.shape[1]
        self._rows = prompts.rows
        tensor = prompts.tensor[:1] if prompts.rows is None else prompts.tensor
        if prompts.dropout > 0:
            tensor = tensor / (1.0 - prompts.dropout)
        # (K, layers, 2, heads, V, head_dim) -> layers x 2 of (K, V, heads, head_dim)
        self._parts = tensor.permute(1, 2, 0, 4, 3, 5).contiguous().flatten(0, 1).unbind(0)
        self._kept: tuple[Tensor | None, ...] = (None,) * len(self._parts)
        if prompts.dropout > 0:
            shape = (len(self._parts), rows, *self._parts[0].shape[1:])
            masks = keep_mask_of_rows(shape, prompts.dropout, tensor.device, prompts.generators, prompts.rows, 1)
            self._kept = masks.unbind(0)

    def before(self, layer: int, side: int, tokens: Tensor, packing: Packing | None) -> Tensor:
        """Put the prefixes of a layer before its keys (side 0) or values (side 1).

        *Shape:* (batch, tokens, heads, head_dim), of a packed batch (1, packed tokens, heads, head_dim) ->
        (batch, V + tokens, heads, head_dim).
        """
        place = 2 * (layer - self._below) + side
        joined: Tensor = _Joined.apply(  # type: ignore[no-untyped-call]
            self._parts[place].to(tokens), tokens, self._rows, self._kept[place], packing
        )
        return joined


class _Joined(torch.autograd.Function):
    """Both are written straight into their place; dropout's scale is in the prefixes already."""

    @staticmethod
    def forward(
        ctx: Any, prefixes: Tensor, tokens: Tensor, rows: Tensor | None, kept: Tensor | None, packing: Packing | None
    ) -> Tensor:
        ctx.save_for_backward(rows, kept)
        ctx.packing, ctx.stack = packing, prefixes.shape
        length = prefixes.shape[1]
        if packing is not None:
            tokens = packing.to_padded(tokens[0])
        if rows is not None:
            prefixes = prefixes[rows]
        batch, width = tokens.shape[:2]
        joined = tokens.new_empty(batch, length + width, *tokens.shape[2:])
        if kept is None:
            joined[:, :length] = prefixes
        else:
            torch.mul(prefixes, kept.to(prefixes.dtype), out=joined[:, :length])
        joined[:, length:] = tokens
        return joined

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        (gradient,) = gradients
        rows, kept = ctx.saved_tensors
        length = ctx.stack[1]
        of_prefixes = of_tokens = None
        if ctx.needs_input_grad[0]:
            of_rows = gradient[:, :length]
            if kept is not None:
                of_rows = of_rows * kept
            if rows is None:
                of_prefixes = of_rows.sum(0, keepdim=True)
            else:
                of_prefixes = of_rows.new_zeros(ctx.stack).index_add_(0, rows, of_rows)
        if ctx.needs_input_grad[1]:
            packing = ctx.packing
            of_tokens = gradient[:, length:] if packing is None else packing.collect(gradient, behind=length)[None]
        return of_prefixes, of_tokens, None, None, None
