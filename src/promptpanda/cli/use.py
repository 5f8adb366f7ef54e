"""panda evaluate, predict: using prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from promptpanda.cli import output
from promptpanda.cli.command import command
from promptpanda.cli.options import DATA, Json, ModelChoice, TaskChoice
from promptpanda.errors import PandaError

PromptReference = Annotated[str, typer.Argument(metavar="PROMPT", help="Bank id, path, or task name.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    command(app, "evaluate")(evaluate_command)
    command(app, "predict")(predict_command)


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
    from promptpanda.transfers.predict import evaluate, with_labels_of

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


def predict_command(
    prompt: PromptReference,
    model: ModelChoice,
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE]",
            help="Rows with the task's fields; left out: stdin, JSON lines, or one text a line.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Predict labels or values; one JSON line each, whatever --json says.

    Lines are written as they are computed, in the order of the rows.
    """
    bank = model.open_bank()
    from promptpanda.bank.card import Card
    from promptpanda.tasks.reading import read_rows
    from promptpanda.tasks.unlabeled import read_inputs

    path = bank.resolve(prompt)
    card = Card.read(path)
    spec = card.task
    if file is None or str(file) == "-":
        from promptpanda.cli.stdin import rows_of_stdin

        rows, origin = rows_of_stdin(spec), "standard input"
    else:
        rows, origin = read_rows(file, spec.columns, spec.fields, every_line=True), str(file)
    inputs = read_inputs(spec, rows, origin)
    from promptpanda.transfers.predict import predictions

    backbone = model.load(card.backbone.name)
    for prediction in predictions(bank.load(str(path), backbone), backbone, inputs):
        output.print_json(prediction)
