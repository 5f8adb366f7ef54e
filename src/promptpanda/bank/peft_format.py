"""PEFT's layout of a prompt: adapter_config.json and adapter_model.safetensors, written and read without PEFT.

Checked against peft 0.21. The tensor `prompt_embeddings` of prefix tuning has, for each virtual token, keys and values
of all layers in a row: (V, layers x 2 x heads x head_dim). CARTRIDGE adapters hold the same tensor, which they train
in another way.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from torch import Tensor

from promptpanda.backbone import Backbone
from promptpanda.bank.card import PeftForm
from promptpanda.bank.layout import CONFIG_NAME
from promptpanda.bank.outside import read_object
from promptpanda.bank.tensors import read_tensors
from promptpanda.errors import PandaError
from promptpanda.families import proved
from promptpanda.models import EMBEDDED
from promptpanda.prompts.prompt import Prompt, PromptShape
from promptpanda.tasks.spec import Kind
from promptpanda.training.heads import Head

WEIGHTS_NAME = "adapter_model.safetensors"

_MOST_SIZE = 2**31
_PREFIXES = ("PREFIX_TUNING", "CARTRIDGE")
_DECODERS = {"gpt2", "llama", "qwen3"}
_EMBEDDED_ALIASES = {EMBEDDED, "all-minilm-l6-v2"}
_EMBEDDED_HUB = "sentence-transformers/all-MiniLM-L6-v2"  # what the package carries; PEFT finds it by this name


def peft_form(backbone: Backbone, prompt: Prompt | None, head: Head, kind: Kind) -> PeftForm:
    """Which of PEFT's model classes expresses this prompt and head exactly."""
    if prompt is None or (prompt.kind == "prefix" and not proved(backbone.family, "equal to PEFT")):
        return "unsupported"
    if prompt.kind == "prefix" and (kind.classifies or kind in (Kind.MULTI_LABEL, Kind.REGRESSION)):
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
        "base_model_name_or_path": _EMBEDDED_HUB if backbone.name == EMBEDDED else backbone.name,
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
    tensors = prompt_tensors(prompt)
    if form == "SEQ_CLS":
        layer = "score" if backbone.family in _DECODERS else "classifier"
        tensors[f"base_model.{layer}.weight"] = head.weight.contiguous()
        if head.bias is not None:
            tensors[f"base_model.{layer}.bias"] = head.bias.contiguous()
    return tensors


def prompt_tensors(prompt: Prompt) -> dict[str, Tensor]:
    """The content of adapter_model.safetensors of a prompt without a head."""
    tensor = prompt.tensor
    if prompt.kind == "prefix":
        tensor = tensor.permute(3, 0, 1, 2, 4).reshape(prompt.length, -1)
    return {"prompt_embeddings": tensor.contiguous()}


def unfolded(flat: Tensor, shape: PromptShape) -> Prompt:
    """A prefix from PEFT's form of it. *Shape:* (V, layers x 2 x heads x head_dim)."""
    folded = flat.view(flat.shape[0], shape.layers, 2, shape.heads, shape.head_dim)
    return Prompt("prefix", folded.permute(1, 2, 3, 0, 4).contiguous())


def read_adapter(folder: Path, backbone: Backbone | None = None) -> tuple[Prompt, dict[str, Tensor]]:
    """The prompt of a PEFT folder, and the remaining tensors.

    Args:
        backbone: what a foreign prompt is for, since its configuration may leave its shape open; None: the
            configuration tells the shape, as ours do.

    Raises:
        PandaError: not a prefix or prompt tuning adapter, damaged, or of another backbone.
    """
    config, path = _config(folder), folder / WEIGHTS_NAME
    kind = config.get("peft_type")
    if kind not in (*_PREFIXES, "PROMPT_TUNING"):
        raise PandaError(
            f"{folder} holds a PEFT adapter of type {str(kind)[:80]}; expected PREFIX_TUNING, CARTRIDGE or "
            "PROMPT_TUNING."
        )
    tensors, _ = read_tensors(path)
    flat = tensors.pop("prompt_embeddings", None)
    if flat is None or flat.ndim != 2 or 0 in flat.shape or not flat.is_floating_point():
        raise PandaError(f"{path} has no tensor 'prompt_embeddings' of numbers in two dimensions.")
    length = flat.shape[0]
    counted = config.get("num_virtual_tokens", length)
    if counted != length:
        raise PandaError(
            f"The prompt in {folder} has {length} virtual tokens, but its {CONFIG_NAME} says {str(counted)[:80]}; one "
            "of the two was changed."
        )
    shape = _shape(config, folder) if backbone is None else backbone.shape
    width = shape.layers * 2 * shape.heads * shape.head_dim if kind in _PREFIXES else shape.embedding_dim
    if flat.shape[1] != width:
        taker = f"its {CONFIG_NAME} tells of" if backbone is None else f"{backbone.name} takes"
        raise PandaError(
            f"The prompt in {folder} is of shape {tuple(flat.shape)}, but {taker} {(length, width)}; use the backbone "
            f"it was trained on ({str(config.get('base_model_name_or_path') or 'not named')[:200]})."
        )
    if kind == "PROMPT_TUNING":
        return Prompt("shallow", flat), tensors
    return unfolded(flat, shape), tensors


def _shape(config: dict[str, Any], folder: Path) -> PromptShape:
    """What the configuration of one of our prompts tells of its shape."""
    sizes = [config.get(name) for name in ("num_layers", "num_attention_heads", "token_dim")]
    if not all(type(size) is int and 0 < size < _MOST_SIZE for size in sizes):
        raise PandaError(
            f"{folder / CONFIG_NAME} does not tell num_layers, num_attention_heads and token_dim as positive numbers; "
            "it was changed."
        )
    layers, heads, width = cast(list[int], sizes)
    return PromptShape(layers, heads, width // heads, width)


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
    try:
        return read_object(folder / CONFIG_NAME)
    except FileNotFoundError as error:
        raise PandaError(f"{folder} is not a prompt folder: it has no {CONFIG_NAME}.") from error
