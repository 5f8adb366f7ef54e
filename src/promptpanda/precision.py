"""In which number format a backbone computes. Prompts and heads are trained in float32 whatever it is."""

from __future__ import annotations

import importlib.util
from typing import Any, Literal

import torch
from torch import nn
from transformers import PreTrainedModel

from promptpanda.errors import PandaError
from promptpanda.names import NumberFormat

FORMATS: dict[NumberFormat, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def loading_options(precision: str, device: torch.device | str = "cpu") -> dict[str, Any]:
    """What transformers loads a model with; `auto` is what the checkpoint was saved in.

    Raises:
        PandaError: there is no such format, or the device does not compute in it.
    """
    if precision == "auto":
        return {"dtype": "auto"}
    if precision == "int8":
        return {"dtype": torch.float32, "quantization_config": _int8()}
    if precision == "nf4":
        return {"dtype": torch.float32, "quantization_config": _nf4()}
    dtype: torch.dtype | Literal[False] = next((found for name, found in FORMATS.items() if name == precision), False)
    if dtype is False:
        raise PandaError(f"--dtype must be auto, {', '.join(FORMATS)}, int8 or nf4; found {precision!r}.")
    check_computes(dtype, device)
    return {"dtype": dtype}


def _int8() -> Any:
    if importlib.util.find_spec("torchao") is None:
        raise PandaError("--dtype int8 needs torchao, which is not installed; run `pip install promptpanda[int8]`.")
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import TorchAoConfig

    return TorchAoConfig(Int8WeightOnlyConfig())


def _nf4() -> Any:
    if importlib.util.find_spec("bitsandbytes") is None:
        raise PandaError("--dtype nf4 needs bitsandbytes, which is not installed; run `pip install promptpanda[nf4]`.")
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)


def kept_differentiable(model: PreTrainedModel) -> PreTrainedModel:
    """A loaded model that gives gradients also after a pass without.

    On CPUs with AVX512-BF16, bitsandbytes repacks its weights in the first pass without a gradient, for a kernel that
    has none.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]
    return model


def check_computes(dtype: torch.dtype, device: torch.device | str) -> None:
    """Raises PandaError if a device lacks what a model needs in a number format."""
    if dtype == torch.float32:
        return
    if dtype not in FORMATS.values():
        raise PandaError(f"The model computes in {_name(dtype)}, which takes no prompts; use --dtype float32.")
    try:
        some = torch.ones(1, 1, 2, 8, dtype=dtype, device=device, requires_grad=True)
        attended = nn.functional.scaled_dot_product_attention(some, some, some, attn_mask=some[..., :2])
        nn.functional.gelu(nn.functional.layer_norm(attended @ some.mT, (2,))).softmax(-1).sum().backward()
    except (NotImplementedError, RuntimeError) as error:
        raise PandaError(
            f"The device '{device}' does not compute in {_name(dtype)} on this machine; use --dtype float32."
        ) from error


def has_fast_bfloat16() -> bool:
    """Whether this machine's CPU multiplies matrices in bfloat16 itself, which takes less time than in float32."""
    found: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(found.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def precision_of(model: PreTrainedModel) -> NumberFormat:
    """The number format of a loaded model. One that was quantised by other means counts as int8, of 4 bits as nf4."""
    if is_quantised(model):
        return "nf4" if getattr(model, "is_loaded_in_4bit", False) else "int8"
    dtype = model.dtype
    return next(name for name, one in FORMATS.items() if one == dtype)


def is_quantised(model: PreTrainedModel) -> bool:
    """Whether a model's weights are stored in fewer bits than it computes in."""
    return bool(getattr(model, "is_quantized", False))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
