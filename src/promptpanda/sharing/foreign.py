"""Prompts that other programs trained, as PEFT folders that a transfer can start from.

What is read, by the names of the tensors:
- P-tuning v2 (THUDM/P-tuning-v2): `prefix_encoder.embedding.weight`, (V, layers x 2 x hidden), keys and values of the
  layers in a row; with `prefix_projection` (V, hidden) and the MLP `prefix_encoder.trans`: linear, tanh, linear.
- Prompt-Transferability (thunlp) 1.0: a file `task_prompt` with one tensor, (V, hidden), also with ones in front; 2.0:
  a checkpoint with `prompt_model.template.soft_embeds`.
- SPoT and Lester et al. (google-research/prompt-tuning): an array of (V, hidden), .npy.
"""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from promptpanda.backbone import Backbone
from promptpanda.bank import peft_format
from promptpanda.bank.layout import CONFIG_NAME
from promptpanda.bank.outside import check_ordinary
from promptpanda.bank.tensors import read_tensors
from promptpanda.errors import PandaError
from promptpanda.files import check_name, remove_folder, whole_folder
from promptpanda.prompts.prompt import Prompt

_MOST_BYTES = 20_000_000_000  # a checkpoint of P-tuning v2 holds the whole model
_PREFIX = "prefix_encoder."
_SOFT = "prompt_model.template.soft_embeds"
_IN_FOLDERS = ("model.safetensors", "pytorch_model.bin", "task_prompt")


def import_foreign(
    path: Path, backbone: Backbone, bank: Path, name: str | None = None, *, force: bool = False
) -> tuple[Path, Prompt]:
    """Write a foreign prompt as a PEFT folder below the bank.

    Args:
        name: of the folder; by default from the file's name.

    Returns:
        The folder, which is a source, and the prompt.

    Raises:
        PandaError: it holds no known prompt, or none of this backbone's shape.
    """
    file = _file(path)
    prompt = read_foreign(file, backbone)
    called = name or re.sub(r"[^A-Za-z0-9._-]+", "-", (path if path.is_dir() else file).stem).strip("-.") or "prompt"
    target = bank / check_name(called, "Name of the prompt")
    if target.exists() and not force:
        raise PandaError(f"{target} already exists; replace it with --force, or give another --name.")
    config = peft_format.adapter_config(backbone, prompt, "FEATURE_EXTRACTION")
    with whole_folder(target) as staging:
        tensors = save(peft_format.prompt_tensors(prompt), {"format": "pt"})
        (staging / peft_format.WEIGHTS_NAME).write_bytes(tensors)
        (staging / CONFIG_NAME).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        if target.exists():
            remove_folder(target)
    return target, prompt


def read_foreign(path: Path, backbone: Backbone) -> Prompt:
    """The prompt of a foreign file. Raises PandaError if it holds none, or none of this backbone's shape."""
    found = _content(path)
    if isinstance(found, dict):
        prompt = _of_checkpoint(found, path, backbone)
    else:
        prompt = Prompt("shallow", _flat(found, path))
    if not bool(torch.isfinite(prompt.tensor).all()):
        raise PandaError(f"The prompt in {path} holds values that are not finite.")
    backbone.check_prompt(prompt, f"The prompt in {path}")
    return prompt


def _file(path: Path) -> Path:
    if not path.is_dir():
        return path
    found = next((path / name for name in _IN_FOLDERS if (path / name).is_file()), None)
    if found is None:
        raise PandaError(f"{path} holds none of {', '.join(_IN_FOLDERS)}; name the file with the prompt.")
    return found


def _content(path: Path) -> Any:
    """Tensors by name, or one tensor. Pickle is read by torch's reader of weights alone, which runs no code."""
    if not path.exists():
        raise PandaError(f"There is no file {path}.")
    check_ordinary(path)
    if path.stat().st_size > _MOST_BYTES:
        raise PandaError(f"{path} has more than {_MOST_BYTES // 1_000_000_000} GB, the most that is read.")
    if path.suffix == ".safetensors":
        return read_tensors(path)[0]
    try:
        if path.suffix == ".npy":
            return torch.from_numpy(np.array(np.load(path, allow_pickle=False, mmap_mode="r"), dtype=np.float32))
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, OSError, RuntimeError, ValueError, TypeError, KeyError) as error:
        raise PandaError(
            f"{path} cannot be read as tensors ({' '.join(str(error).split())[:160]}); expected a file of torch.save "
            "with tensors alone, .safetensors or .npy."
        ) from error


def _of_checkpoint(found: dict[Any, Any], path: Path, backbone: Backbone) -> Prompt:
    tensors = {str(name): value for name, value in found.items() if isinstance(value, Tensor)}
    if _SOFT in tensors:
        return Prompt("shallow", _flat(tensors[_SOFT], path))
    parts = {name.split(_PREFIX, 1)[1]: value for name, value in tensors.items() if _PREFIX in name}
    if "embedding.weight" not in parts:
        shown = ", ".join(sorted(tensors)[:5])[:200] or "no tensors"
        raise PandaError(
            f"{path} holds no known prompt (found {shown}); expected {_PREFIX}embedding.weight of P-tuning v2, "
            f"or {_SOFT} of Prompt-Transferability."
        )
    flat = _projected(parts, path)
    shape = backbone.shape
    width = shape.layers * 2 * shape.heads * shape.head_dim
    if flat.shape[1] != width:
        raise PandaError(
            f"The prefix in {path} has {flat.shape[1]} numbers a token, and {backbone.name} takes {width}; give the "
            "model that it was trained on (--model)."
        )
    return peft_format.unfolded(flat, shape)


def _projected(parts: dict[str, Tensor], path: Path) -> Tensor:
    """The embedding, through the MLP where there is one. *Shape:* (V, layers x 2 x hidden)."""
    flat = _flat(parts["embedding.weight"], path)
    if not any(name.startswith("trans.") for name in parts):
        return flat
    try:
        first, second = ((parts[f"trans.{at}.weight"].float(), parts[f"trans.{at}.bias"].float()) for at in (0, 2))
        hidden = torch.tanh(torch.nn.functional.linear(flat, *first))
        projected: Tensor = torch.nn.functional.linear(hidden, *second)
        return projected
    except (KeyError, RuntimeError) as error:
        raise PandaError(f"The MLP of the prefix in {path} is not whole ({error}).") from error


def _flat(tensor: Any, path: Path) -> Tensor:
    """In two dimensions and single precision; ones in front go."""
    if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
        raise PandaError(f"{path} holds no tensor of numbers.")
    while tensor.ndim > 2 and tensor.shape[0] == 1:
        tensor = tensor[0]
    if tensor.ndim != 2 or 0 in tensor.shape:
        raise PandaError(f"The prompt in {path} is of shape {tuple(tensor.shape)}; expected (virtual tokens, size).")
    flat: Tensor = tensor.detach().to(torch.float32).contiguous()
    return flat
