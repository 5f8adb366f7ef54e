"""What tells one backbone from another: its weights, and all else that decides what it computes of a text."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from promptpanda.files import digest

# Fields of a config that leave hidden states as they are: names and versions, how weights are stored and attention is
# carried out, what heads and generation make of the states.
_NOT_COMPUTING = frozenset(
    {
        "architectures",
        "auto_map",
        "dtype",
        "torch_dtype",
        "quantization_config",
        "chunk_size_feed_forward",
        "gradient_checkpointing",
    }
    | {"id2label", "label2id", "num_labels", "problem_type", "finetuning_task", "task_specific_params", "prefix"}
    | {"return_dict", "output_hidden_states", "output_attentions", "attn_implementation", "classifier_dropout"}
    | (set(GenerationConfig().to_dict()) - {"pad_token_id", "bos_token_id", "eos_token_id"})
)
# Arguments of a tokenizer that leave the tokens of a text as they are, beside names of files; the sides, since
# `encode` cuts and pads for itself.
_NOT_TOKENIZING = frozenset(
    {"name_or_path", "tokenizer_class", "processor_class", "auto_map", "chat_template", "backend", "is_local"}
    | {"padding_side", "truncation_side", "model_max_length", "max_length", "stride", "truncation_strategy"}
    | {"clean_up_tokenization_spaces", "pad_to_multiple_of", "model_input_names"}
)


def fingerprint(weights: str, config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> str:
    """Hex SHA-256 over everything that decides what a backbone computes of a text.

    Args:
        weights: of `weights_fingerprint`.
        config: as the model was built by it.
        tokenizer: the backbone's.
    """
    return digest({"weights": weights, "config": computing_fields(config), "tokenizer": tokenizer_state(tokenizer)})


def weights_fingerprint(
    model: PreTrainedModel, missing: frozenset[str] = frozenset(), dtype: torch.dtype | None = None
) -> str:
    """Hex SHA-256 over the names, shapes and bytes of all weights that the checkpoint brought.

    Args:
        missing: names of weights that the checkpoint lacks (a pooler, say): they are random at each load.
        dtype: take the weights as they would be in this number format.
    """
    total = hashlib.sha256()
    for key, tensor in sorted(model.state_dict().items()):
        if key not in missing:
            if dtype is not None and tensor.is_floating_point():
                tensor = tensor.to(dtype)
            # Of quantised weights: the numbers and their scales.
            parts = tensor.__tensor_flatten__()[0] if hasattr(tensor, "__tensor_flatten__") else []
            for part in parts:
                _add(total, f"{key}.{part}", getattr(tensor, part))
            if not parts:
                _add(total, key, tensor)
    return total.hexdigest()


def _add(total: hashlib._Hash, key: str, tensor: Tensor) -> None:
    total.update(f"{key} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
    total.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)


def computing_fields(config: PreTrainedConfig) -> dict[str, Any]:
    """The fields of a config that decide what its model computes, where they differ from the class's defaults.

    Defaults are left out because versions of transformers add fields: a model must stay the same model under the next.
    """
    fields = _computing(config)
    defaults = {} if getattr(config, "has_no_defaults_at_init", False) else _computing(type(config)())
    changed = {name: value for name, value in fields.items() if name not in defaults or value != defaults[name]}
    return changed | {"model_type": config.model_type}


def _computing(config: PreTrainedConfig) -> dict[str, Any]:
    found: dict[str, Any] = _without(json.loads(config.to_json_string(use_diff=False)))
    return found


def _without(value: Any) -> Any:
    """A JSON value without fields that do not compute, also in configs inside the config."""
    if isinstance(value, list):
        return [_without(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        name: _without(item)
        for name, item in value.items()
        if name not in _NOT_COMPUTING and not name.startswith("_") and not name.endswith("_version")
    }


def tokenizer_state(tokenizer: PreTrainedTokenizerBase | None) -> dict[str, Any]:
    """What decides the tokens of a text: its serialised form, its special tokens, and whether it gives segments.

    A model that is only measured has no tokenizer.
    """
    if tokenizer is None:
        return {}
    common = {
        "special": {name: str(token) for name, token in tokenizer.special_tokens_map.items()},
        "segments": "token_type_ids" in tokenizer.model_input_names,
        "split_special_tokens": bool(getattr(tokenizer, "split_special_tokens", False)),
    }
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return common | _slow_state(tokenizer)
    state = json.loads(backend.to_str())
    return common | {name: value for name, value in state.items() if name not in ("truncation", "padding")}


def _slow_state(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Of a tokenizer in Python: its class, arguments, and the files that it would write."""
    arguments = {
        name: str(value)
        for name, value in tokenizer.init_kwargs.items()
        if name not in _NOT_TOKENIZING and not name.endswith(("_file", "_path")) and not name.startswith("_")
    }
    with TemporaryDirectory() as folder:
        tokenizer.save_vocabulary(folder)
        files = {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in Path(folder).iterdir()
            if path.is_file()
        }
    vocabulary = tokenizer.get_vocab()
    return {"class": type(tokenizer).__name__, "arguments": arguments, "files": files, "vocabulary": vocabulary}
