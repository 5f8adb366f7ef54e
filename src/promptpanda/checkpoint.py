"""What a checkpoint must bring: its weights, its tokenizer, and how sentence-transformers would pool."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig, PreTrainedTokenizerBase
from transformers.utils import cached_file

from promptpanda.errors import PandaError


def check_complete(missing: frozenset[str], name: str, config: PreTrainedConfig) -> None:
    """Raises PandaError if weights are missing: they would be random numbers.

    A pooler may be missing, since it need not be read.
    """
    drawn = sorted(key for key in missing if "pooler" not in key)
    if drawn:
        raise PandaError(
            f"The model in {name!r} lacks {len(drawn)} of the weights of a {config.model_type} ('{drawn[0]}' is the "
            "first), which would be random numbers; give the folder or hub id of a complete checkpoint."
        )


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, name: str, location: str) -> None:
    """transformers makes up a tokenizer without words where a folder has none: every text would be one unknown word."""
    files = {*tokenizer.vocab_files_names.values(), "tokenizer.json"}
    if Path(location).is_dir() and not any((Path(location) / file).exists() for file in files):
        raise PandaError(
            f"The model in {name!r} has no tokenizer; put its {' or '.join(sorted(files))} into the folder."
        )


def first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0][:200].rstrip(".")


def sentence_pooling(location: str, revision: str | None) -> dict[str, Any] | None:
    path = cached_file(
        location,
        "1_Pooling/config.json",
        revision=revision,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    if path is None:
        return None
    pooling: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    return pooling
