"""panda evaluate: how good a prompt is on labelled data."""

from __future__ import annotations

from typing import Annotated

import typer

from promptpanda.cli import output
from promptpanda.cli.command import command
from promptpanda.cli.options import DATA, Json, ModelChoice, PromptReference, TaskChoice
from promptpanda.errors import PandaError


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    command(app, "evaluate")(evaluate_command)


def evaluate_command(
    prompt: PromptReference,
    task: TaskChoice,
    model: ModelChoice,
    test_examples: Annotated[
        int | None,
        typer.Option(min=1, help="At most so many test examples, drawn with a fixed seed.", rich_help_panel=DATA),
    ] = None,
    json: Json = False,
) -> None:
    """Score a prompt on the test data of a task (by default the task that it was trained on)."""
    bank = model.open_bank()
    from promptpanda.bank.card import Card
    from promptpanda.tasks.protocol import capped
    from promptpanda.tasks.task import Task, data_root

    path = bank.resolve(prompt)
    card = Card.read(path)
    given = None if task.task is None and not task.own else task.load()
    from promptpanda.transfers.evaluate import evaluate, with_labels_of

    loaded = with_labels_of(card, given or Task(card.task, data_root(task.data_dir)))
    test = loaded.test()
    if test is None:
        raise PandaError(f"Task '{loaded.name}' has no labelled test data; give --test FILE with --text and --label.")
    test = capped(test, test_examples)
    backbone = model.load(card.backbone.name)
    scores = evaluate(bank.load(str(path), backbone), backbone, loaded, test)
    if json:
        metric = loaded.spec.metric
        output.print_json({"metric": metric, "score": scores[metric], "n_test": len(test), "metrics": scores})
        return
    found = ", ".join(f"{name} {score:.3f}" for name, score in scores.items())
    typer.echo(f"{found} on {len(test)} test examples of {loaded.name}")
