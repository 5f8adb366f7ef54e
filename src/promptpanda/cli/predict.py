"""panda predict: labels and values for rows without them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import typer

from promptpanda.cli import output as shown
from promptpanda.cli.command import command
from promptpanda.cli.options import DATA, MODEL, OUTPUT, Json, ModelChoice, PromptReference, warn_moved
from promptpanda.errors import PandaError

if TYPE_CHECKING:
    from promptpanda.bank.card import Card
    from promptpanda.tasks.tables import Survey, Table
    from promptpanda.transfers.cells import Cells
    from promptpanda.transfers.predict_table import Predictor, TableSummary

Format = Literal["csv", "jsonl", "text"]
# What a row gets that cannot be read, by kind of task; the other kinds have labels.
_EMPTY: dict[str, dict[str, Any]] = {
    "regression": {"value": None},
    "multi_label": {"labels": None, "probabilities": {}},
    "token_classification": {"spans": None, "tags": None, "confidence": None},
    "extractive_qa": {"answer": None, "start": None, "score": None, "nbest": []},
}


@dataclass(frozen=True)
class RowsChoice:
    """The rows to predict from."""

    panel: ClassVar[str] = DATA

    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE]",
            help="Rows with the task's fields, or .txt with one text per line; by default stdin: one text per line, "
            "JSON lines or CSV.",
        ),
    ] = None
    format: Annotated[Format | None, typer.Option(help="Format of stdin, if it is not detected correctly.")] = None
    delimiter: Annotated[
        str | None,
        typer.Option(help="For .csv and .tsv: comma, semicolon, tab, bar, or a character; by default detected."),
    ] = None
    sheet: Annotated[str | None, typer.Option(help="For .xlsx: the sheet, by name or number.")] = None
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop if a row cannot be read; by default it gets no prediction.")
    ] = False

    @property
    def path(self) -> Path | None:
        """The file, or None for standard input."""
        return None if self.file is None or str(self.file) == "-" else self.file

    def table(self, card: Card) -> Table:
        """The rows, as the prompt's task reads them."""
        from promptpanda.tasks.files.records import Layout
        from promptpanda.tasks.tables import Table

        layout = Layout(delimiter=self.delimiter, sheet=self.sheet)
        if self.path is None:
            from promptpanda.cli.stdin import table_of_stdin

            return table_of_stdin(card.task, self.format, layout)
        if self.format is not None:
            raise PandaError(f"--format is for standard input; the name of {self.path} shows its format.")
        return Table.of_file(self.path, card.task, layout)


@dataclass(frozen=True)
class OutputChoice:
    """The file that the rows are written to with their predictions."""

    panel: ClassVar[str] = OUTPUT

    output: Annotated[
        Path | None,
        typer.Option(help="Write the rows with their predictions: .csv, .tsv, .jsonl, .parquet or .xlsx."),
    ] = None
    probabilities: Annotated[bool, typer.Option("--probabilities", help="--output: add a column for every class.")] = (
        False
    )
    top: Annotated[int, typer.Option(min=1, help="--output: the K most likely labels, each with its confidence.")] = 1
    threshold: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="--output: leave predictions below this confidence empty."),
    ] = None
    calibrated: Annotated[
        bool, typer.Option("--calibrated", help="Scale probabilities by the temperature in the prompt's card.")
    ] = False
    force: Annotated[bool, typer.Option("--force", help="--output: replace a file that exists.")] = False

    def cells(self, card: Card) -> Cells:
        """Which columns predictions become. Raises PandaError if an option does not go with the prompt's task."""
        from promptpanda.transfers.cells import Cells

        if self.output is None and (self.probabilities or self.top > 1 or self.threshold is not None or self.force):
            raise PandaError("--probabilities, --top, --threshold and --force are for --output FILE; name one.")
        cells = Cells(self.probabilities, self.top, self.threshold)
        cells.check(card)
        return cells


@dataclass(frozen=True)
class ServerChoice:
    """A server that predicts, instead of a model here."""

    panel: ClassVar[str] = MODEL

    server: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Have the rows predicted by a running `panda serve`; no model is needed here."
        ),
    ] = None
    token_file: Annotated[Path | None, typer.Option(help="--server: file with the server's token.")] = None

    def predictor(self, prompt: str, model: ModelChoice, *, calibrated: bool) -> Predictor | None:
        """The server's, for what it knows under a name; None where no server was named."""
        if self.server is None:
            if self.token_file is not None:
                raise PandaError("--token-file is for --server URL; name one, or leave it out.")
            return None
        if model.model is not None or model.revision is not None or model.dtype is not None:
            raise PandaError(
                "--model, --revision and --dtype are for a model on this machine, and --server has its own; leave "
                "them out."
            )
        if model.offline:
            raise PandaError("--offline and --server were given; leave one out.")
        from promptpanda.serving.client import Client
        from promptpanda.serving.predictor import ServerPredictor
        from promptpanda.serving.token import read_token

        token = None if self.token_file is None else read_token(self.token_file)
        return ServerPredictor(Client(self.server, token), prompt, calibrated=calibrated)


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    command(app, "predict")(predict_command)


def predict_command(
    prompt: PromptReference,
    rows: RowsChoice,
    model: ModelChoice,
    server: ServerChoice,
    out: OutputChoice,
    json: Json = False,
) -> None:
    """Predict labels or values: as a table with --output, otherwise one JSON line per row, with or without --json.

    With --output, the columns of FILE stay as they are, and prediction and confidence are added. If it is stopped, the
    same command resumes. Lines on stdout are written as they are computed, in the order of the rows.
    """
    predictor = server.predictor(prompt, model, calibrated=out.calibrated)
    if predictor is None:
        from promptpanda.bank.card import Card

        path = model.open_bank().resolve(prompt)
        card = Card.read(path)
    else:
        card = predictor.card
    cells = out.cells(card)
    if out.output is not None:
        from promptpanda.tasks.writing import check_output

        check_output(out.output, rows.path, force=out.force)
    table = rows.table(card)
    table.check_fields()
    survey = table.survey(rows.strict) if rows.strict or out.output is not None else None
    for note in table.notes:
        typer.echo(note, err=True)
    if predictor is None:
        predictor = _predictor_here(path, card, model, calibrated=out.calibrated)
    if out.output is None or survey is None:
        _print_lines(predictor, table, strict=rows.strict)
    else:
        told = _write_table(predictor, table, survey, out, cells, json=json)
        if rows.strict and told.problem is not None:  # the text can be read, and the model has no room for it
            raise PandaError(told.problem)


def _predictor_here(path: Path, card: Card, model: ModelChoice, *, calibrated: bool) -> Predictor:
    """The prompt of a folder, on a model of this machine."""
    backbone = model.load(card)
    from promptpanda.bank.folder import read_folder
    from promptpanda.transfers import calibrated as scaling
    from promptpanda.transfers.predict_rows import ModelPredictor

    trained = read_folder(path, backbone)
    warn_moved(card, backbone)
    return ModelPredictor(scaling.calibrated(trained) if calibrated else trained, backbone)


def _write_table(
    predictor: Predictor, table: Table, survey: Survey, out: OutputChoice, cells: Cells, *, json: bool
) -> TableSummary:
    """The rows and their predictions as a file."""
    assert out.output is not None
    from promptpanda.transfers.predict_table import predict_table

    with shown.TerminalProgress() as progress:
        told = predict_table(predictor, table, survey, out.output, cells, progress, force=out.force)
    if json:
        counts = {"rows": told.rows, "unreadable": told.unreadable, "below_threshold": told.below}
        shown.print_json({"output": str(out.output), "prompt": predictor.card.id, **counts})
    else:
        limit = cells.threshold
        below = "" if limit is None else f", {told.below:,} of them left empty below {limit:g}"
        typer.echo(f"Wrote {out.output}: {shown.counted(told.rows, 'row')}{below}")
    _warn_unreadable(told.unreadable, told.rows, told.problem)
    return told


def _print_lines(predictor: Predictor, table: Table, *, strict: bool) -> None:
    """A JSON line for every row, as they are computed."""
    empty = _EMPTY.get(predictor.card.task.kind.value, {"label": None, "probabilities": {}})
    rows = unreadable = 0
    problem = None
    for answer in (one for part in predictor.parts(table.rows()) for one in part):
        rows += 1
        if isinstance(answer, str):
            if strict:
                raise PandaError(answer)
            unreadable += 1
            problem = problem or answer
            answer = {**empty, "error": answer}
        shown.print_json(answer)
    _warn_unreadable(unreadable, rows, problem)


def _warn_unreadable(unreadable: int, rows: int, problem: str | None) -> None:
    if unreadable:
        typer.echo(
            f"{unreadable:,} of {rows:,} rows could not be read and have no prediction; the first: {problem}", err=True
        )
