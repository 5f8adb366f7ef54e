"""panda predict: labels and values for rows without them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from promptpanda.cli import output as shown
from promptpanda.cli.command import command
from promptpanda.cli.options import DATA, OUTPUT, Json, ModelChoice, PromptReference
from promptpanda.errors import PandaError

if TYPE_CHECKING:
    from promptpanda.backbone import Backbone
    from promptpanda.bank.card import Card
    from promptpanda.bank.folder import TrainedPrompt
    from promptpanda.tasks.tables import Table

Format = Literal["csv", "jsonl", "text"]
# What a row gets that cannot be read, by kind of task; the other kinds have labels.
_EMPTY: dict[str, dict[str, Any]] = {
    "regression": {"value": None},
    "token_classification": {"spans": None, "tags": None, "confidence": None},
    "extractive_qa": {"answer": None, "start": None, "score": None, "nbest": []},
}


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
            help="Rows with the task's fields, or .txt with one text a line; left out: stdin, one text a line, JSON "
            "lines or CSV.",
        ),
    ] = None,
    format: Annotated[
        Format | None,
        typer.Option(help="What stdin is, where it is not as it seems.", rich_help_panel=DATA),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Stop at a row that cannot be read; else it gets none.", rich_help_panel=DATA),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Write the rows with their predictions: .csv, .tsv, .jsonl, .parquet or .xlsx.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="--output: a column for every class.", rich_help_panel=OUTPUT)
    ] = False,
    top: Annotated[
        int, typer.Option(min=1, help="--output: the K likeliest, each with its confidence.", rich_help_panel=OUTPUT)
    ] = 1,
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=1.0, help="--output: leave predictions of less confidence empty.", rich_help_panel=OUTPUT
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="--output: replace a file that exists.", rich_help_panel=OUTPUT)
    ] = False,
    json: Json = False,
) -> None:
    """Predict labels or values: as a table with --output, else one JSON line each, whatever --json says.

    With --output the columns of FILE stay as they are, beside them stand prediction and confidence. Killed and started
    again, it goes on. Lines on stdout are written as they are computed, in the order of the rows.
    """
    if output is None and (probabilities or top > 1 or threshold is not None or force):
        raise PandaError("--probabilities, --top, --threshold and --force are for --output FILE; name one.")
    bank = model.open_bank()
    from promptpanda.bank.card import Card
    from promptpanda.transfers.cells import Cells
    from promptpanda.transfers.predict_table import check_output, predict_table

    path = bank.resolve(prompt)
    card = Card.read(path)
    cells = Cells(probabilities, top, threshold)
    cells.check(card)
    table = _table(card, file, format)
    if output is not None:
        check_output(output, file, force=force)
    else:
        table.check_fields()
    survey = table.survey(strict) if strict or output is not None else None
    for note in table.notes:
        typer.echo(note, err=True)
    backbone = model.load(card.backbone.name)
    trained = bank.load(str(path), backbone)
    if output is None or survey is None:
        _print_lines(trained, backbone, table)
        return
    with shown.TerminalProgress() as progress:
        told = predict_table(trained, backbone, table, survey, output, cells, progress)
    if json:
        counts = {"rows": told.rows, "unreadable": told.unreadable, "below_threshold": told.below}
        shown.print_json({"output": str(output), "prompt": card.id, **counts})
    else:
        below = f", {told.below:,} of them left empty below {threshold:g}" if threshold is not None else ""
        typer.echo(f"Wrote {output}: {told.rows:,} rows{below}")
    _tell_unreadable(told.unreadable, told.rows, told.problem)


def _table(card: Card, file: Path | None, format: Format | None) -> Table:
    from promptpanda.tasks.tables import Table

    if file is None or str(file) == "-":
        from promptpanda.cli.stdin import table_of_stdin

        return table_of_stdin(card.task, format)
    if format is not None:
        raise PandaError(f"--format is for standard input; the name of {file} tells its format.")
    return Table.of_file(file, card.task)


def _print_lines(trained: TrainedPrompt, backbone: Backbone, table: Table) -> None:
    """A JSON line for every row, as they are computed."""
    from promptpanda.transfers.predict_table import answers

    empty = _EMPTY.get(trained.card.task.kind.value, {"label": None, "probabilities": {}})
    rows = unreadable = 0
    problem = None
    for answer in answers(trained, backbone, table.rows()):
        rows += 1
        if isinstance(answer, str):
            unreadable += 1
            problem = problem or answer
            answer = {**empty, "error": answer}
        shown.print_json(answer)
    _tell_unreadable(unreadable, rows, problem)


def _tell_unreadable(unreadable: int, rows: int, problem: str | None) -> None:
    if unreadable:
        typer.echo(
            f"{unreadable:,} of {rows:,} rows could not be read and have no prediction; the first: {problem}", err=True
        )
