"""PEFT's layout of a prompt: adapter_config.json and adapter_model.safetensors, written and read without PEFT.

Checked against peft 0.21. The tensor `prompt_embeddings` of prefix tuning has, for each virtual token, keys and values
of all layers in a row: (V, layers x 2 x heads x head_dim).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from promptpanda.backbone import Backbone
from promptpanda.bank.card import CONFIG_NAME, PeftForm
from promptpanda.errors import PandaError
from promptpanda.models import EMBEDDED
from promptpanda.prompts.prompt import Prompt
from promptpanda.tasks.spec import Kind
from promptpanda.training.heads import Head

WEIGHTS_NAME = "adapter_model.safetensors"

_NO_PREFIX_TUNING = {"distilbert", "albert", "modernbert"}
_DECODERS = {"gpt2", "llama", "qwen3"}
_EMBEDDED_ALIASES = {EMBEDDED, "all-minilm-l6-v2"}


def peft_form(backbone: Backbone, prompt: Prompt | None, head: Head, kind: Kind) -> PeftForm:
    """Which of PEFT's model classes expresses this prompt and head exactly."""
    if prompt is None or (prompt.kind == "prefix" and backbone.family in _NO_PREFIX_TUNING):
        return "unsupported"
    if prompt.kind == "prefix" and (kind.classifies or kind == Kind.REGRESSION):
        if backbone.family == "bert" and head.readout == "pooler":
            return "SEQ_CLS"
        if backbone.family in _DECODERS and head.readout == "last" and head.bias is None:
            return "SEQ_CLS"
    return "FEATURE_EXTRACTION"


def adapter_config(backbone: Backbone, prompt: Prompt, form: PeftForm) -> dict[str, Any]:
    """The content of adapter_config.json."""
    prefix = prompt.kind == "prefix"
    shape = backbone.shape
    width = shape.heads * shape.head_dim if prefix else shape.embedding_dim
    config: dict[str, Any] = {
        "base_model_name_or_path": backbone.name,
        "revision": backbone.revision,
        "inference_mode": True,
        "modules_to_save": ["classifier", "score"] if form == "SEQ_CLS" else None,
        "num_attention_heads": shape.heads,
        "num_layers": shape.layers,
        "num_transformer_submodules": 1,
        "num_virtual_tokens": prompt.length,
        "peft_type": "PREFIX_TUNING" if prefix else "PROMPT_TUNING",
        "task_type": "SEQ_CLS" if form == "SEQ_CLS" else "FEATURE_EXTRACTION",
        "token_dim": width,
    }
    if prefix:
        config |= {"encoder_hidden_size": width, "prefix_projection": False}
    return config


def adapter_tensors(backbone: Backbone, prompt: Prompt, head: Head, form: PeftForm) -> dict[str, Tensor]:
    """The content of adapter_model.safetensors."""
    tensor = prompt.tensor
    if prompt.kind == "prefix":
        tensor = tensor.permute(3, 0, 1, 2, 4).reshape(prompt.length, -1)
    tensors = {"prompt_embeddings": tensor.contiguous()}
    if form == "SEQ_CLS":
        layer = "score" if backbone.family in _DECODERS else "classifier"
        tensors[f"base_model.{layer}.weight"] = head.weight.contiguous()
        if head.bias is not None:
            tensors[f"base_model.{layer}.bias"] = head.bias.contiguous()
    return tensors


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file. Raises PandaError if it is not one."""
    try:
        with safe_open(path, framework="pt") as file:
            # Clones start where torch aligns them; in the file they do not, and a product's last bits follow that.
            return {key: file.get_tensor(key).clone() for key in file.keys()}, file.metadata() or {}
    except FileNotFoundError as error:
        raise PandaError(f"{path} is missing; only safetensors files are read.") from error
    except (SafetensorError, OSError) as error:
        raise PandaError(f"{path} is not a whole safetensors file ({error}); it was cut or changed.") from error


def read_adapter(folder: Path, backbone: Backbone) -> tuple[Prompt, dict[str, Tensor]]:
    """The prompt of a PEFT folder, ours or foreign, and the remaining tensors.

    Raises:
        PandaError: not a prefix or prompt tuning adapter, damaged, or of another backbone.
    """
    config = _config(folder)
    kind = config.get("peft_type")
    if kind not in ("PREFIX_TUNING", "PROMPT_TUNING"):
        raise PandaError(f"{folder} holds a PEFT adapter of type {kind}; expected PREFIX_TUNING or PROMPT_TUNING.")
    tensors, _ = read_tensors(folder / WEIGHTS_NAME)
    flat = tensors.pop("prompt_embeddings", None)
    if flat is None or flat.ndim != 2:
        raise PandaError(f"{folder / WEIGHTS_NAME} has no tensor 'prompt_embeddings' of two dimensions.")
    if not bool(torch.isfinite(flat).all()):
        raise PandaError(f"The prompt in {folder} holds values that are not finite; train it again.")
    length = flat.shape[0]
    shape = backbone.shape
    expected = (length, shape.embedding_dim)
    if kind == "PREFIX_TUNING":
        expected = (length, shape.layers * 2 * shape.heads * shape.head_dim)
    if tuple(flat.shape) != expected or config.get("num_virtual_tokens", length) != length:
        raise PandaError(
            f"The prompt in {folder} is of shape {tuple(flat.shape)}, but {backbone.name} takes {expected}; use the "
            f"backbone it was trained on ({config.get('base_model_name_or_path') or 'not named'})."
        )
    flat = flat.float()
    if kind == "PROMPT_TUNING":
        return Prompt("shallow", flat), tensors
    folded = flat.view(length, shape.layers, 2, shape.heads, shape.head_dim)
    return Prompt("prefix", folded.permute(1, 2, 3, 0, 4).contiguous()), tensors


def check_base_model(folder: Path, backbone: Backbone) -> None:
    """Refuse a foreign adapter that names another base model: equal shapes do not make equal models."""
    base = _config(folder).get("base_model_name_or_path")
    if not base or _same_model(str(base), backbone):
        return
    raise PandaError(
        f"The prompt in {folder} is for the base model '{base}', not for {backbone.name}; give --model {base}, or, if "
        f"they are the same, set base_model_name_or_path to '{backbone.name}' in its {CONFIG_NAME}."
    )


def _same_model(base: str, backbone: Backbone) -> bool:
    last = base.rstrip("/").rsplit("/", 1)[-1].lower()
    if backbone.name == EMBEDDED and last in _EMBEDDED_ALIASES:
        return True
    location = str(backbone.config.name_or_path)
    return base in (backbone.name, location) or last == backbone.name.rstrip("/").rsplit("/", 1)[-1].lower()


def _config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_NAME
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise PandaError(f"{folder} is not a prompt folder: it has no {CONFIG_NAME}.") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise PandaError(f"{path} is not valid JSON; the folder is damaged.") from error
    if not isinstance(config, dict):
        raise PandaError(f"{path} is not a PEFT configuration: expected a JSON object.")
    return config
