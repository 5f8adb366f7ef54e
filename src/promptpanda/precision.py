"""In which number format a backbone computes. Prompts and heads are trained in float32 whatever it is."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import nn

from promptpanda.errors import PandaError

Precision = Literal["auto", "float32", "bfloat16", "float16"]
PRECISIONS: tuple[str, ...] = get_args(Precision)


def dtype_of(precision: str, device: torch.device | str = "cpu") -> torch.dtype | Literal["auto"]:
    """What transformers loads a model with; `auto` is what the checkpoint was saved in.

    Raises:
        PandaError: there is no such format, or the device does not compute in it.
    """
    if precision not in PRECISIONS:
        raise PandaError(f"--dtype must be {', '.join(PRECISIONS[:-1])} or {PRECISIONS[-1]}, found {precision!r}.")
    if precision == "auto":
        return "auto"
    dtype: torch.dtype = getattr(torch, precision)
    check_computes(dtype, device)
    return dtype


def check_computes(dtype: torch.dtype, device: torch.device | str) -> None:
    """Raises PandaError if a device lacks what a model needs in a number format."""
    if dtype == torch.float32:
        return
    if not dtype.is_floating_point or dtype.itemsize == 1:
        raise PandaError(f"The model computes in {name_of(dtype)}, which takes no prompts; use --dtype float32.")
    try:
        some = torch.ones(1, 1, 2, 8, dtype=dtype, device=device, requires_grad=True)
        attended = nn.functional.scaled_dot_product_attention(some, some, some, attn_mask=some[..., :2])
        nn.functional.gelu(nn.functional.layer_norm(attended @ some.mT, (2,))).softmax(-1).sum().backward()
    except (NotImplementedError, RuntimeError) as error:
        raise PandaError(
            f"This machine's device '{device}' does not compute in {name_of(dtype)}; use --dtype float32."
        ) from error


def name_of(dtype: torch.dtype) -> str:
    """Such as `bfloat16`."""
    return str(dtype).removeprefix("torch.")
