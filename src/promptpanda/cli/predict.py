"""panda predict: labels and values for rows without them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from promptpanda.cli import output
from promptpanda.cli.command import command
from promptpanda.cli.options import Json, ModelChoice, PromptReference


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    command(app, "predict")(predict_command)


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
