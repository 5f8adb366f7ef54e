"""Which model families take prompts, and what was proved of each: the content of families.yaml.

The tests prove every cell and find the file and the table in docs/models.md as they are;
`python tests/support_matrix.py` writes both anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import yaml


@cache
def _content() -> dict[str, Any]:
    text = (files("promptpanda") / "families.yaml").read_text(encoding="utf-8")
    content: dict[str, Any] = yaml.safe_load(text)
    return content


def families() -> Mapping[str, Mapping[str, Any]]:
    """By the name that users know it by: `type`, transformers' name of it, and whether each proof holds."""
    listed: dict[str, dict[str, Any]] = _content()["families"]
    return listed


def family_names() -> list[str]:
    """The families that work."""
    return list(families())


def proved(model_type: str, proof: str) -> bool:
    """Whether a proof holds of the family that transformers calls `model_type`; of others nothing is known."""
    return any(family["type"] == model_type and family[proof] for family in families().values())


def refused() -> Mapping[str, str]:
    """Families that are refused before anything is downloaded, by transformers' name, and why."""
    reasons: dict[str, str] = _content()["refused"]
    return reasons
