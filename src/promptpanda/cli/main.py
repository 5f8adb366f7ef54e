"""The `panda` command. What takes long to import is imported inside the commands, so that --help answers at once."""

from __future__ import annotations

import typer

from promptpanda.cli import bank, demo, doctor, tasks, train, use

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
use.register(app)
app.add_typer(bank.app, name="bank")
doctor.register(app)


def main() -> None:
    """Entry point of the `panda` script."""
    app()
