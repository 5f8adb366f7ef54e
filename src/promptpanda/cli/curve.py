"""panda curve: what more labels would give."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from promptpanda.cli import output
from promptpanda.cli.command import command
from promptpanda.cli.options import DATA, OUTPUT, SELECTION, DataChoice, Json, ModelChoice, TaskChoice, TrainingChoice
from promptpanda.errors import PandaError
from promptpanda.transfers.names import method_names

if TYPE_CHECKING:
    from promptpanda.curves.measure import CurveRun
    from promptpanda.transfers.method import Method


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    command(app, "curve")(curve_command)


def curve_command(
    target: TaskChoice,
    model: ModelChoice,
    training: TrainingChoice,
    sizes: Annotated[
        str | None,
        typer.Option(
            help="Numbers of labelled rows to train with, such as 32,64,128; by default 16, 32, 64, ... and all.",
            rich_help_panel=DATA,
        ),
    ] = None,
    seeds: Annotated[
        str,
        typer.Option(
            help="Seeds; each draws its own rows, and small draws are parts of larger ones.", rich_help_panel=DATA
        ),
    ] = "0,1,2",
    test_examples: Annotated[
        int, typer.Option(min=1, help="Score at most this many rows.", rich_help_panel=DATA)
    ] = 1000,
    source: Annotated[
        str | None,
        typer.Option(help="Prompt to start from (id, path or task name), by PoT.", rich_help_panel=SELECTION),
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(
            help="Methods, separated by commas; by default prompt_tuning, or pot with --source.",
            rich_help_panel=SELECTION,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for finished points, which are never trained again; by default curves/NAME.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="OUT.html", help="Also write an HTML page.", rich_help_panel=OUTPUT)
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="--report: replace an existing page.", rich_help_panel=OUTPUT)
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and its cost, and train nothing.", rich_help_panel=OUTPUT)
    ] = False,
    json: Json = False,
) -> None:
    """Train with 16, 32, 64, ... labelled rows, up to all there are, and forecast what twice as many would give.

    All sizes are scored on the same rows: the test data, or a quarter of the rows kept aside. The plan and its cost
    are printed first. You can stop at any time; the same command resumes.
    """
    output.check_place(report, force)
    bank, options = model.open_bank(), training.options()
    seed_list = DataChoice(seeds=seeds).seed_list()
    names = None if methods is None else method_names(methods)
    loaded = target.load()
    loaded.train()
    folder = out or Path("curves") / loaded.name
    _check_folder(folder)
    from promptpanda.curves.measure import CurveRun
    from promptpanda.curves.request import CurveRequest

    request = CurveRequest(
        task=loaded,
        source=source,
        methods=names,
        sizes=None if sizes is None else _numbers(sizes),
        seeds=seed_list,
        test_examples=test_examples,
        options=options,
        bank=bank,
    )
    backbone = model.load()
    with output.TerminalProgress() as progress:
        run = CurveRun.of(request, backbone, folder=folder, progress=progress)
        left = run.left()
        seconds = run.seconds(left)
        if dry_run:
            _show_plan(run, left, seconds, json)
            return
        for sentence in _plan(run, left, seconds):
            progress.note(sentence)
        curve = run.run()
    if report is not None:
        from promptpanda.curves.page import write_page

        write_page(curve, report, shlex.join(["panda", *sys.argv[1:]]))
    if json:
        output.print_json(curve.to_json() | ({} if report is None else {"report": str(report)}))
        return
    from promptpanda.curves.text import drawn

    scored = f"{len(curve.plan.scored)} {'rows cut off once' if curve.plan.carved else 'test examples'}"
    typer.echo(f"{loaded.name}, {curve.metric} on {scored}; seeds {seeds}; a constant prediction {curve.floor:.3f}\n")
    for line in drawn(curve):
        typer.echo(line)
    for name in curve.measured:
        for sentence in curve.sentences(name):
            typer.echo(sentence)
    typer.echo(f"Finished points are in {folder}." + ("" if report is None else f" Page: {report}"))


def _plan(run: CurveRun, left: list[tuple[Method, int, int]], seconds: float) -> list[str]:
    """What is ahead, in sentences."""
    from promptpanda.sweep.filters import duration

    plan = run.plan
    names = ", ".join(method.title for method in plan.methods)
    scored = "of the training rows, cut off once" if plan.carved else "of the test data"
    done = len(plan.points) - len(left)
    sentences = [
        f"{plan.task.name}: {names} with {', '.join(map(str, plan.sizes))} labelled rows, seeds "
        f"{', '.join(map(str, plan.seeds))}; scored on {len(plan.scored)} rows {scored}.",
        f"{len(plan.points)} trainings{f', {done} of them finished' if done else ''}; {len(left)} to do"
        f"{f', about {duration(seconds)}' if left else ''}.",
    ]
    if plan.left_out:
        sentences.append(
            f"Left out: {', '.join(map(str, plan.left_out))} rows, too few for every class and a validation part."
        )
    return sentences


def _show_plan(run: CurveRun, left: list[tuple[Method, int, int]], seconds: float, json: bool) -> None:
    plan = run.plan
    if json:
        content: dict[str, Any] = {
            "target": plan.task.name,
            "sizes": list(plan.sizes),
            "left_out": list(plan.left_out),
            "seeds": list(plan.seeds),
            "methods": [method.name for method in plan.methods],
            "n_scored": len(plan.scored),
            "trainings": len(plan.points),
            "left": len(left),
            "seconds": seconds,
        }
        output.print_json(content)
        return
    for sentence in _plan(run, left, seconds):
        typer.echo(sentence)


def _numbers(text: str) -> list[int]:
    try:
        return [int(one) for one in text.split(",")]
    except ValueError as error:
        raise PandaError(f"--sizes must be numbers with commas, such as 16,32,64; found {text!r}.") from error


def _check_folder(folder: Path) -> None:
    """Before anything is trained."""
    if folder.exists() and not folder.is_dir():
        raise PandaError(f"{folder} is a file, and the points of a curve need a folder; choose another with --out.")
