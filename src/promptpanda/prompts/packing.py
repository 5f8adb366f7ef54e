"""A batch without padding: all tokens in one long row, and the grid of rows that attention alone needs.

Linear layers, norms and activations look at one token at a time, so padding is work for nothing there. Where every
token sees every other of its row (BERT and its kin), a batch goes through the model as one row of all its tokens, and
the attention function lays it out row by row for the time of its call.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Packing:
    """Where the tokens of a packed batch stand.

    The first token of every row comes first, then the other tokens row after row, then the virtual tokens of shallow
    prompts. What a head reads of first positions is then a slice.

    Args:
        attention_mask: 1 for tokens, 0 for the padding on the right. *Shape:* (rows, tokens).
        virtual: tokens of a shallow prompt in front of every row.

    Attributes:
        rows, width: of the grid, virtual tokens included.
        texts: where every packed text token stands in `attention_mask`, flattened. *Shape:* (text tokens,).
        slots: where every packed token stands in the grid, flattened. *Shape:* (packed tokens,).
        occupied: which places of the grid hold a token. *Shape:* (rows, width), bool.
    """

    def __init__(self, attention_mask: Tensor, virtual: int = 0) -> None:
        self.rows, tokens = attention_mask.shape
        self.width = virtual + tokens
        there = attention_mask.bool()
        there[:, 0] = True  # a row without a token gets one that nobody reads
        row, column = there.nonzero(as_tuple=True)
        order = torch.argsort((column > 0).to(torch.int8), stable=True)
        row, column = row[order], column[order]
        self.texts = row * tokens + column
        self.slots = row * self.width + virtual + column
        self.occupied = there
        if virtual:
            front = torch.arange(self.rows * virtual, device=row.device)
            self.slots = torch.cat([self.slots, front // virtual * self.width + front % virtual])
            self.occupied = torch.cat([there.new_ones(self.rows, virtual), there], dim=1)
        # An empty place repeats its row's first token: any finite value does, since no query sees it.
        self._source = torch.arange(self.rows, device=row.device).repeat_interleave(self.width)
        self._source[self.slots] = torch.arange(len(self.slots), device=row.device)
        self._empty = None if bool(there.all()) else (~self.occupied).flatten().nonzero()[:, 0]
        self._masks: dict[tuple[int, torch.dtype], Tensor] = {}
        self._behind: dict[int, Tensor] = {}

    def pick(self, values: Tensor) -> Tensor:
        """The text tokens of a padded batch in packed order. *Shape:* (rows, tokens, ...) -> (1, text tokens, ...)."""
        return values.flatten(0, 1)[self.texts][None]

    def mask(self, length: int, dtype: torch.dtype) -> Tensor | None:
        """What attention adds to its weights: 0 for a prefix of `length` and tokens, -inf for empty places.

        *Shape:* (rows, 1, 1, length + width), or None where no place is empty.
        """
        if self._empty is None:
            return None
        if (length, dtype) not in self._masks:
            seen = torch.nn.functional.pad(self.occupied, (length, 0), value=True)
            self._masks[length, dtype] = torch.zeros_like(seen, dtype=dtype).masked_fill_(~seen, -torch.inf)[
                :, None, None
            ]
        return self._masks[length, dtype]

    def to_grid(self, tokens: Tensor) -> Tensor:
        """*Shape:* (packed tokens, ...) -> (rows, width, ...)."""
        grid: Tensor = _ToGrid.apply(tokens, self)  # type: ignore[no-untyped-call]
        return grid

    def from_grid(self, grid: Tensor) -> Tensor:
        """*Shape:* (rows, width, ...) -> (packed tokens, ...)."""
        tokens: Tensor = _FromGrid.apply(grid, self)  # type: ignore[no-untyped-call]
        return tokens

    def unpacked(self, hidden: Tensor, tokens: int) -> Tensor:
        """The text tokens of a packed output in a padded batch. *Shape:* (1, packed, size) -> (rows, tokens, size)."""
        return self.to_grid(hidden[0])[:, self.width - tokens :]

    def to_padded(self, tokens: Tensor) -> Tensor:
        """`to_grid` without a gradient."""
        return tokens.index_select(0, self._source).view(self.rows, self.width, *tokens.shape[1:])

    def to_padded_gradient(self, tokens: Tensor) -> Tensor:
        """As `to_padded`, with zeros in empty places: what nobody reads has no gradient."""
        grid = tokens.index_select(0, self._source)
        if self._empty is not None:
            grid.index_fill_(0, self._empty, 0.0)
        return grid.view(self.rows, self.width, *tokens.shape[1:])

    def collect(self, grid: Tensor, behind: int = 0) -> Tensor:
        """`from_grid` without a gradient, of a grid with a prefix of length `behind` in front of every row."""
        slots = self.slots if behind == 0 else self._slots_behind(behind)
        return grid.flatten(0, 1).index_select(0, slots)

    def _slots_behind(self, length: int) -> Tensor:
        if length not in self._behind:
            self._behind[length] = self.slots + (self.slots // self.width + 1) * length
        return self._behind[length]


# Written out, since torch's own gradients of index_select add rows one by one.
class _ToGrid(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tokens: Tensor, packing: Packing) -> Tensor:
        ctx.packing = packing
        return packing.to_padded(tokens)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.packing.collect(gradients[0]), None


class _FromGrid(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, grid: Tensor, packing: Packing) -> Tensor:
        ctx.packing = packing
        return packing.collect(grid)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.packing.to_padded_gradient(gradients[0]), None
