"""What methods and sources are called on the command line; read without loading a model's libraries."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from promptpanda.errors import PandaError, suggest

if TYPE_CHECKING:
    from promptpanda.bank.bank import Bank

AUTO = "auto"
BEST = "best"
METHODS_GROUP = "promptpanda.methods"
"""Entry points of other distributions' methods."""

METHOD_NAMES = (
    "prompt_tuning",
    "pot",
    "panda",
    "head_only",
    "model_tuning",
    "early_fusion",
    "late_fusion",
    "panda_unlabeled",
    "late_fusion_unlabeled",
    "contrastive",
    "contrastive_pot",
    "linear_probe",
    "source_probe",
    "prompt_tuning_twice",
    "best_of_two",
    "permuted_source",
)
"""Our own methods, in the registry's order (transfers/methods.py)."""


def method_names(text: str) -> tuple[str, ...]:
    """The methods of `--methods`, names with commas.

    Raises:
        PandaError: a name is neither ours nor an installed package's, or there is none.
    """
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    known = [*METHOD_NAMES, *sorted(point.name for point in entry_points(group=METHODS_GROUP))]
    check_known(names, known)
    return names


def check_known(names: Sequence[str], known: Collection[str], why: str = "") -> None:
    """Raises PandaError if a name is not among those known, or there is none.

    Args:
        why: ends the sentence about an unknown name.
    """
    for name in names:
        if name not in known:
            raise PandaError(f"No method '{name}'; known are {', '.join(known)}.{suggest(name, known)}{why}")
    if not names:
        raise PandaError(f"At least one method is needed; known are {', '.join(known)}.")


def source_names(text: str) -> list[str]:
    """The sources that `--source` names: a path as it is, names with commas are several.

    Raises:
        PandaError: commas alone.
    """
    if "," not in text or Path(text).exists():
        return [text]
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise PandaError(f"--source {text!r} names no prompt; give names separated by commas.")
    return names


def check_sources(text: str, bank: Bank) -> None:
    """Raises PandaError if `--source` names a prompt that is neither in the bank nor a folder."""
    for name in source_names(text):
        if name not in (AUTO, BEST):
            bank.resolve(name)
