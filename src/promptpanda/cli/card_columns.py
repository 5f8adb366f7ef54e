"""Own files with the columns that a prompt was trained on, where the options name no others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from promptpanda.cli.options import TaskChoice

if TYPE_CHECKING:
    from promptpanda.bank.card import Card
    from promptpanda.tasks.spec import TaskSpec
    from promptpanda.tasks.task import Task


def spec_as_in(card: Card, choice: TaskChoice, **files: Path | None) -> TaskSpec:
    """The spec of a card for other files, with the columns that the options name.

    Args:
        files: by split.
    """
    from promptpanda.tasks.columns import ColumnData
    from promptpanda.tasks.files.reader import is_column_file
    from promptpanda.tasks.spec import FileData, Kind

    spec, given = card.task, {split: path for split, path in files.items() if path is not None}
    changes: dict[str, object] = {
        "files": FileData(
            delimiter=choice.delimiter, sheet=choice.sheet, **{split: str(path) for split, path in given.items()}
        ),
        "benchmark": None,
        "sizes": {},
    }
    in_columns = spec.kind == Kind.TOKEN_CLASSIFICATION and all(map(is_column_file, given.values()))
    if in_columns and spec.columns is None:
        changes |= {"columns": ColumnData(), "segments": ("{tokens}",), "label": "tags"}
    if choice.text is not None:
        changes["segments"] = tuple(f"{{{name}}}" for name in (choice.text, choice.text2) if name is not None)
    if choice.label:
        label_columns = tuple(choice.label) if len(choice.label) > 1 else ()
        changes |= {"label": choice.label[0], "label_columns": label_columns}
    return spec.model_copy(update=changes)


def task_to_continue(card: Card, choice: TaskChoice) -> Task:
    """The task that the options mean, for a training that goes on from a prompt with this card."""
    from promptpanda.files import check_name
    from promptpanda.tasks.task import Task

    others = (choice.task, choice.kind, choice.choices, choice.template)
    complete = choice.text is not None and bool(choice.label)
    if choice.train is None or complete or any(other is not None for other in others):
        return choice.load()
    spec = spec_as_in(card, choice, train=choice.train, validation=choice.validation, test=choice.test)
    name = check_name(choice.name or choice.train.name.split(".")[0], "Task name")
    # Labels are those of the new rows; the prompt's own are kept beside them.
    return choice.with_notes(Task(spec.model_copy(update={"name": name, "labels": ()}), strict=choice.strict))
