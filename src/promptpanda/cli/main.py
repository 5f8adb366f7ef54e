"""The `panda` command. What takes long to import is imported inside the commands, so that --help answers at once."""

from __future__ import annotations

import os
import sys
from typing import Any

import typer

from promptpanda.cli import (
    curve,
    demo,
    doctor,
    estimators,
    evaluate,
    export,
    predict,
    recipes,
    report,
    serve,
    sharing,
    sweep,
    tasks,
    train,
)

_USAGE_ERROR: type[Any] = typer.BadParameter.__mro__[1]  # click's UsageError; typer exports no name for it

app = typer.Typer(
    name="panda",
    help="Prompt transfer for frozen language models: train prompts, rank them for a task, transfer the best.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

demo.register(app)
app.add_typer(tasks.app, name="tasks")
train.register(app)
evaluate.register(app)
predict.register(app)
curve.register(app)
serve.register(app)
export.register(app)
sweep.register(app)
report.register(app)
app.add_typer(estimators.app, name="estimators")
app.add_typer(sharing.app, name="bank")
app.add_typer(recipes.app, name="recipes")
doctor.register(app)


def main() -> None:
    """Entry point of the `panda` script."""
    if sys.stderr is None:  # closed by whoever started us; notes go nowhere then
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if sys.stdout is None:
        typer.echo("panda: Standard output is closed; let it go to a file or to /dev/null.", err=True)
        sys.exit(2)
    try:
        code = app(standalone_mode=False)
    except _USAGE_ERROR as error:
        message = " ".join(error.format_message().split())
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()
        else:
            typer.echo(f"panda: {message}{'' if message.endswith(('.', '?')) else '.'}", err=True)
        code = 2
    except typer.Abort:
        typer.echo("Interrupted; what was finished is kept.", err=True)
        code = 130
    sys.exit(code)
