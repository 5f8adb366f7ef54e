"""Which elements survive dropout, drawn from a stream of our own."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def keep_mask(shape: Sequence[int], dropout: float, device: torch.device, generator: torch.Generator | None) -> Tensor:
    """1 where an element is kept, 0 where it is dropped. *Shape:* `shape`, float.

    One 64-bit draw serves four elements, so the probability is `dropout` rounded to a multiple of 2^-16. On a CPU this
    takes a fifth of the time of torch's `bernoulli_` (docs/log.md).
    """
    count = math.prod(shape)
    draws = torch.empty(-(-count // 4), dtype=torch.int64, device=device)
    draws.random_(-(2**63), None, generator=generator)
    kept = torch.empty(count, device=device)
    torch.ge(draws.view(torch.int16)[:count], round(dropout * 2**16) - 2**15, out=kept)
    return kept.view(*shape)


def keep_mask_of_rows(
    shape: Sequence[int],
    dropout: float,
    device: torch.device,
    generators: Sequence[torch.Generator],
    owners: Tensor | None,
    dim: int,
) -> Tensor:
    """As `keep_mask`, where the slices of one dimension draw from different streams.

    Each stream gives what it would give if its slices were all there is.

    Args:
        generators: none for torch's own.
        owners: which generator each slice draws from; None: all from the first. *Shape:* (shape[dim],).
        dim: the dimension.

    *Shape:* `shape`, float.
    """
    if owners is None or len(generators) < 2:
        return keep_mask(shape, dropout, device, generators[0] if generators else None)
    kept = torch.empty(*shape, device=device)
    for number, generator in enumerate(generators):
        own = (owners == number).nonzero().flatten()
        part = [*shape[:dim], len(own), *shape[dim + 1 :]]
        kept.index_copy_(dim, own, keep_mask(part, dropout, device, generator))
    return kept
