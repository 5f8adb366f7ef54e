"""Named settings in YAML: a published set-up by one word."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from promptpanda.errors import PandaError, suggest
from promptpanda.training.options import TrainingOptions
from promptpanda.yaml_input import read_yaml

_FOLDER = Path(str(files("promptpanda"))) / "recipes"


class Recipe(BaseModel):
    """Settings that belong together.

    Attributes:
        title, reference: what it is and where it is published.
        task, model: what it was published for; it may be used on others.
        options: of the training.
        coefficient: of PANDA, or None for the default.
        note: what is to know before it is used.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    title: str
    reference: str
    task: str | None = None
    model: str | None = None
    options: TrainingOptions
    coefficient: str | None = None
    note: str = ""


def recipe_names() -> list[str]:
    """The names of all recipes, sorted."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


@cache
def recipe(name: str) -> Recipe:
    """A recipe by its name. Raises PandaError for an unknown one."""
    if name not in recipe_names():
        raise PandaError(f"No recipe '{name}'; known are {', '.join(recipe_names())}.{suggest(name, recipe_names())}")
    content: Any = read_yaml((_FOLDER / f"{name}.yaml").read_text(encoding="utf-8"), f"The recipe '{name}'")
    try:
        return Recipe.model_validate({"name": name, **content})
    except ValidationError as error:
        raise PandaError(f"The recipe '{name}' is not valid: {error.errors()[0]['msg']}.") from error
