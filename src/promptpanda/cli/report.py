"""panda report"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from promptpanda.cli import output
from promptpanda.cli.command import command
from promptpanda.cli.options import Json
from promptpanda.errors import PandaError


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    command(app, "report")(report_command)


def report_command(
    sweep: Annotated[
        Path, typer.Argument(metavar="SWEEP", help="Folder or store of a sweep, or rows that --export wrote.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the report; by default `report` in the folder of SWEEP.")
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(help="Published tables (JSON, docs/studies.md) to show beside ours.")
    ] = None,
    shared: Annotated[
        list[str] | None,
        typer.Option(
            metavar="A,B", help="Two sets that share texts, to be left out of means. May be given several times."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Write what a sweep found: one HTML page that needs no network, and its tables in Markdown and LaTeX.

    The sweep may still be running. Equal rows give equal reports, except for the date.
    """
    from promptpanda.sweep.exchange import read_rows
    from promptpanda.tasks.shared_text import pairs_of

    pairs = pairs_of(map(_pair, shared or []))
    rows, answers, known, plan = read_rows(sweep)
    from promptpanda.report.page import LATEX, MARKDOWN
    from promptpanda.report.reference import Reference
    from promptpanda.report.report import Facts, make_report
    from promptpanda.report.sizes import model_sizes

    published = None if reference is None else Reference.read(reference)
    facts = Facts(
        known.get("name") or sweep.resolve().stem,
        known.get("command") or None,
        known.get("recipe"),
        model_sizes(row.model for row in rows),
        plan,
    )
    page = make_report(rows, answers, facts, reference=published, shared=pairs).write(out or _beside(sweep))
    finished = sum(row.status == "finished" for row in rows)
    if json:
        tables = {"markdown": str(page.parent / MARKDOWN), "latex": str(page.parent / LATEX)}
        output.print_json({"report": str(page), **tables, "finished": finished, "failed": len(rows) - finished})
        return
    typer.echo(
        f"{page}: {finished} finished runs, {len(rows) - finished} failed. Tables: {MARKDOWN}, {LATEX} beside it."
    )


def _beside(sweep: Path) -> Path:
    return (sweep if sweep.is_dir() else sweep.parent) / "report"


def _pair(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if len(names) != 2 or not all(names) or names[0] == names[1]:
        raise PandaError(f"--shared takes two names separated by a comma, such as mr,sst2; found {text!r}.")
    return names
