"""Which prompts of a bank are meant: ids, patterns of ids, names of tasks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from promptpanda.bank.bank import Bank
from promptpanda.bank.catalogue import opened
from promptpanda.errors import PandaError, suggest


def is_pattern(reference: str) -> bool:
    """Whether a reference means all ids of a form, such as `mnli-*`."""
    return any(sign in reference for sign in "*?[")


def matching(names: Iterable[str], patterns: Sequence[str]) -> list[str]:
    """The names that are one of these, or of their form; without patterns all."""
    return [name for name in names if not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)]


def chosen(bank: Bank, references: Sequence[str]) -> list[Path]:
    """Folders of the prompts that are meant, each once; no reference means all.

    Patterns mean prompts of this bank alone; an id may be one of the banks beside it. A task's name means its best
    prompt, as everywhere.

    Raises:
        PandaError: a reference means none.
    """
    if not references:
        return [bank.folder / name for name in bank.ids()]
    found: list[Path] = []
    for reference in references:
        if is_pattern(reference) and not Path(reference).is_dir():
            found += [bank.folder / name for name in _some(bank.ids(), reference, bank)]
        else:
            found.append(bank.resolve(reference))
    return list(dict.fromkeys(found))


def own_ids(bank: Bank, references: Sequence[str]) -> list[str]:
    """Ids of the bank's own prompts that are meant, each once. Only where a task has one prompt does its name mean it.

    Raises:
        PandaError: a reference means none, or a task has several prompts.
    """
    found: list[str] = []
    for reference in references:
        if is_pattern(reference):
            found += _some(bank.ids(), reference, bank)
        elif bank.holds(reference):
            found.append(reference)
        else:
            found.append(_only(bank, reference))
    return list(dict.fromkeys(found))


def _some(names: Sequence[str], pattern: str, bank: Bank) -> list[str]:
    found = matching(names, [pattern])
    if not found:
        raise PandaError(f"No prompt in the bank {bank.folder} is of the form '{pattern}'.{suggest(pattern, names)}")
    return found


def _only(bank: Bank, task: str) -> str:
    with opened(Bank(bank.folder, others={})) as catalogue:
        ids = [entry.id for entry in catalogue.entries if entry.task == task]
    if len(ids) > 1:
        raise PandaError(f"The task '{task}' has {len(ids)} prompts ({', '.join(ids[:4])}); name one, or '{task}-s*'.")
    return ids[0] if ids else bank.path(task).name
