"""The file of a recipe as plain data; no library of models is loaded, so that a wrong path is told at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from promptpanda.errors import PandaError
from promptpanda.tasks.text import read_text
from promptpanda.yaml_input import read_yaml


def read_recipe(path: Path) -> Any:
    """What a recipe's file holds. Raises PandaError if there is none, or if it is not YAML."""
    if path.is_dir():
        raise PandaError(f"{path} is a folder; name the recipe in it.")
    if not path.is_file():
        raise PandaError(f"No recipe at {path}; check the path.")
    return read_yaml(read_text(path), str(path))
