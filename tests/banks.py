"""Banks as a stranger might hand them over: what is in a folder changed, its checksums made right again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from conftest import sentiment_rows, task_of
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from promptpanda.backbone import Backbone
from promptpanda.bank.bank import Bank
from promptpanda.bank.folder import TrainedPrompt
from promptpanda.training.options import TrainingOptions
from promptpanda.transfers.transfer import train

OPTIONS = TrainingOptions(epochs=1, prompt_length=4, max_length=24, readout="mean")
CLASSES = {"labels": ["good", "bad"]}


def trained_in(bank: Path, backbone: Backbone, name: str = "books") -> TrainedPrompt:
    """A small prompt of two classes; its data stands beside the bank."""
    task = task_of(sentiment_rows(24, 5), bank.parent / "data", name, **CLASSES)
    return train(task, backbone, bank=Bank(bank), options=OPTIONS)


def read_card(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    return content


def write_card(folder: Path, content: Any) -> None:
    (folder / "card.json").write_text(json.dumps(content), encoding="utf-8")


def forge(folder: Path, name: str, change: Callable[[dict[str, Tensor]], None]) -> None:
    """Change the tensors of a file in place, and the card's checksum with them."""
    with safe_open(folder / name, framework="pt") as file:
        tensors = {key: file.get_tensor(key).clone() for key in file.keys()}
        metadata = file.metadata()
    change(tensors)
    replace_file(folder, name, save({key: value.contiguous() for key, value in tensors.items()}, metadata))


def replace_file(folder: Path, name: str, content: bytes) -> None:
    """Change a file, and the card's checksum with it."""
    (folder / name).write_bytes(content)
    card = read_card(folder)
    card["files"][name] = hashlib.sha256(content).hexdigest()
    write_card(folder, card)
