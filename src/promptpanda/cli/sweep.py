"""panda sweep"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from promptpanda.cli import output
from promptpanda.cli.command import command
from promptpanda.cli.options import OUTPUT, DataDir, Json, LogTo

if TYPE_CHECKING:
    from promptpanda.sweep.drive import Outcome
    from promptpanda.sweep.estimate import Forecast
    from promptpanda.sweep.session import Places

_RUNS = "Which runs"
_RUNNING = "How they run"


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    command(app, "sweep")(sweep_command)


def sweep_command(
    recipe: Annotated[Path, typer.Argument(metavar="FILE.yaml", help="Recipe of the sweep (docs/studies.md).")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the results; by default runs/NAME.", rich_help_panel=OUTPUT)
    ] = None,
    bank: Annotated[
        Path | None, typer.Option(help="Folder for the prompts; by default the bank in --out.", rich_help_panel=OUTPUT)
    ] = None,
    data_dir: DataDir = None,
    executor: Annotated[
        str,
        typer.Option(help="in-process, processes:N, dask://HOST:PORT (or tcp://), slurm:N.", rich_help_panel=_RUNNING),
    ] = "in-process",
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Count runs, estimate time and disk; run and write nothing.", rich_help_panel=_RUNNING
        ),
    ] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="Only runs with all of these words: kinds, models, tasks, methods, sources, variants, seeds (s0); "
            "commas for alternatives, * and ? as in file names. If given twice, "
            "all words count. The runs that they start from are run too.",
            rich_help_panel=_RUNS,
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=0, help="Start at most this many runs.", rich_help_panel=_RUNS)
    ] = None,
    time_limit: Annotated[
        str | None,
        typer.Option(help="Such as 50m or 1h30m: start no run that would not end in time.", rich_help_panel=_RUNS),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try failed runs again.", rich_help_panel=_RUNS)
    ] = False,
    import_rows: Annotated[
        Path | None,
        typer.Option(
            "--import", help="First import the rows of another store (.parquet, .csv).", rich_help_panel=OUTPUT
        ),
    ] = None,
    export_rows: Annotated[
        Path | None,
        typer.Option(
            "--export", help="Write all rows to a .parquet or .csv file, and run nothing.", rich_help_panel=OUTPUT
        ),
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Never use the network.", rich_help_panel=_RUNNING)
    ] = False,
    log_to: LogTo = None,
    json: Json = False,
) -> None:
    """Run a whole grid: sources, targets, models, methods and seeds of one recipe.

    Nothing is computed twice. You can stop at any time; the same command resumes. Prompts are written to the bank,
    scores to the store.
    """
    began = time.monotonic()
    import os
    import shlex
    import sys

    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    from promptpanda.sweep.recipe_file import read_recipe

    content = read_recipe(recipe)
    from promptpanda.quiet import quiet_libraries
    from promptpanda.sweep.executors import workers_named
    from promptpanda.sweep.filters import RunFilter, seconds_of
    from promptpanda.sweep.recipe import SweepRecipe
    from promptpanda.sweep.session import Places, export, import_rows_of, preview, sweep

    quiet_libraries()
    read = SweepRecipe.parse(content, str(recipe))
    places = Places(out or Path("runs") / read.name, bank, data_dir, recipe.parent)
    seconds = None if time_limit is None else seconds_of(time_limit)
    run_filter = RunFilter(" ".join(only) if only else None, limit, seconds, retry_failed, began)
    if dry_run:
        found = preview(read, places, workers=workers_named(executor), run_filter=run_filter, imported=import_rows)
        _show_forecast(read.name, found, json)
        return
    if export_rows is not None:
        taken = None if import_rows is None else import_rows_of(places.store, import_rows)
        _show_export(places, export(places.store, export_rows), export_rows, taken, json)
        return
    with output.TerminalProgress() as progress:
        record = None
        if log_to is not None:
            from promptpanda.tracking.record import Record
            from promptpanda.tracking.tracker import recorder

            told = recorder(log_to, read.name, progress)
            record = lambda row: told(Record.of_row(row))  # noqa: E731
        outcome = sweep(
            read,
            places,
            workers=executor,
            run_filter=run_filter,
            imported=import_rows,
            command=shlex.join(["panda", *sys.argv[1:]]),
            progress=progress,
            record=record,
        )
    _show_outcome(read.name, outcome, places, json)


def _show_forecast(name: str, found: Forecast, json: bool) -> None:
    from promptpanda.sweep.filters import duration

    if json:
        output.print_json({"name": name, **found.to_json()})
        return
    rows = [
        [
            group.kind,
            group.method or "-",
            *map(str, (group.runs, group.finished, group.failed, group.left)),
            "-" if group.seconds is None else duration(group.seconds),
        ]
        for group in found.groups
    ]
    columns = ["kind", "method", "runs", "finished", "failed", "to do", "time"]
    output.print_table(f"Sweep {name}", columns, rows, (2, 3, 4, 5, 6))
    left = sum(group.left for group in found.groups)
    disk = f"{found.bytes / 1e6:.0f} MB" if found.bytes < 1e9 else f"{found.bytes / 1e9:.1f} GB"
    took = "an unknown time" if found.seconds is None else f"about {duration(found.seconds)}"
    typer.echo(f"{left} runs to do: {took}, {disk} on disk.")
    if found.why_unknown is not None:
        typer.echo(f"No time can be estimated: {found.why_unknown}")


def _show_export(places: Places, count: int, path: Path, taken: int | None, json: bool) -> None:
    if json:
        output.print_json({"store": str(places.store), "exported": count, "file": str(path), "imported": taken})
        return
    typer.echo(f"{count} rows of {places.store} are in {path}.")


def _show_outcome(name: str, found: Outcome, places: Places, json: bool) -> None:
    from promptpanda.sweep.filters import duration

    bank = places.open_bank().folder
    if json:
        content: dict[str, Any] = {
            "name": name,
            "store": str(places.store),
            "bank": str(bank),
            **{field: getattr(found, field) for field in ("total", "finished", "left", "begun", "stopped")},
            "failed": [
                {
                    **{field: getattr(row, field) for field in ("key", "kind", "model", "task", "method", "source")},
                    **{field: getattr(row, field) for field in ("seed", "budget", "variant", "reason")},
                }
                for row in found.failed
            ],
            "seconds": found.seconds,
            "seconds_left": found.seconds_left,
        }
        output.print_json(content)
        return
    typer.echo(
        f"Sweep {name}: {found.finished} of {found.total} runs finished, {len(found.failed)} failed, {found.left} left "
        f"({found.begun} started in {duration(found.seconds)}). Rows in {places.store}, prompts in {bank}."
    )
    for row in found.failed[:5]:
        source = "" if row.source is None else f" from {row.source}"
        typer.echo(f"Failed: {row.method or row.kind} of {row.task}{source}, seed {row.seed}: {row.reason}", err=True)
    if len(found.failed) > 5:
        typer.echo(f"... and {len(found.failed) - 5} more.", err=True)
    if found.failed:
        typer.echo("--retry-failed tries failed runs again.", err=True)
    if found.stopped is not None:
        more = "" if found.seconds_left is None else f", about {duration(found.seconds_left)}"
        typer.echo(f"Stopped by --{found.stopped}; the same command resumes with the {found.left} that are left{more}.")
