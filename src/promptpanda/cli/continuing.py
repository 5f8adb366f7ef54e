"""The data that a training goes on with: own files have the columns of the prompt's card, where none are named."""

from __future__ import annotations

from typing import TYPE_CHECKING

from promptpanda.cli.options import TaskChoice

if TYPE_CHECKING:
    from promptpanda.bank.card import Card
    from promptpanda.tasks.task import Task


def task_as_in(card: Card, choice: TaskChoice) -> Task:
    """The task that the options mean, for data to go on with from a prompt with this card."""
    from promptpanda.files import check_name
    from promptpanda.tasks.spec import FileData
    from promptpanda.tasks.task import Task

    spec = card.task
    others = (choice.task, choice.kind, choice.choices, choice.template)
    complete = choice.text is not None and choice.label is not None
    if choice.train is None or complete or any(other is not None for other in others):
        return choice.load()
    given = {"train": choice.train, "validation": choice.validation, "test": choice.test}
    changes: dict[str, object] = {
        "name": check_name(choice.name or choice.train.name.split(".")[0], "Task name"),
        "files": FileData(**{split: None if path is None else str(path) for split, path in given.items()}),
        "labels": (),  # those of the new rows; the prompt's own are kept beside them
        "benchmark": None,
        "sizes": {},
    }
    if choice.text is not None:
        changes["segments"] = tuple(f"{{{name}}}" for name in (choice.text, choice.text2) if name is not None)
    if choice.label is not None:
        changes["label"] = choice.label
    return Task(spec.model_copy(update=changes))
