"""What a prompt's folder is called, and which files lie in it: for those who look at many and read none."""

from __future__ import annotations

import re
from pathlib import Path

from promptpanda.errors import PandaError
from promptpanda.files import check_name

CARD_NAME = "card.json"
CONFIG_NAME = "adapter_config.json"  # of PEFT
SIGNATURE_NAME = "signature.safetensors"
SEEN_NAME = "seen_texts.safetensors"
ID_LIMIT = 150  # a task's name, and seed and hash behind it
_ID = re.compile(r".+-s\d+-[0-9a-f]{8}")


def is_prompt_folder(folder: Path) -> bool:
    """Whether a folder holds a prompt: ours, or one of PEFT's."""
    return any((folder / name).is_file() for name in (CARD_NAME, CONFIG_NAME))


def check_id(prompt_id: str) -> str:
    """Return `prompt_id` if it is formed as ids are, `TASK-sSEED-HASH8`, else raise PandaError."""
    if not is_id(check_name(prompt_id, "Prompt id", ID_LIMIT)):
        raise PandaError(f"{prompt_id!r} is no prompt's id: those end in a seed and eight digits, TASK-sSEED-HASH8.")
    return prompt_id


def is_id(name: str) -> bool:
    """Whether a name is formed as ids are."""
    return _ID.fullmatch(name) is not None
