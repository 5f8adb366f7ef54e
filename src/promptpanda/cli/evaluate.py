"""panda evaluate: how good a prompt is on labelled data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from promptpanda.cli import output
from promptpanda.cli.command import command
from promptpanda.cli.options import DATA, OUTPUT, Json, LabelledRows, ModelChoice, PromptReference, warn_moved
from promptpanda.errors import PandaError

if TYPE_CHECKING:
    from promptpanda.assessment.evaluated import Evaluated
    from promptpanda.backbone import Backbone
    from promptpanda.bank.bank import Bank
    from promptpanda.bank.card import Card
    from promptpanda.bank.folder import TrainedPrompt
    from promptpanda.tasks.inputs import Split
    from promptpanda.tasks.task import Task


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    command(app, "evaluate")(evaluate_command)


def evaluate_command(
    prompt: PromptReference,
    rows: LabelledRows,
    model: ModelChoice,
    test_examples: Annotated[
        int | None,
        typer.Option(min=1, help="Use at most this many test examples, drawn with a fixed seed.", rich_help_panel=DATA),
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option(
            metavar="PROMPT",
            help="Compare with another prompt: which is better, and is the difference more than chance?",
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT.html",
            help="Also write everything as one HTML page, which needs no network.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="--report: replace an existing page.", rich_help_panel=OUTPUT)
    ] = False,
    json: Json = False,
) -> None:
    """Show how good a prompt is on labelled rows, with an interval for every figure, and where it errs.

    The file should have the columns that the prompt was trained on; otherwise name them with --text and --label.
    """  # fmt: skip
    output.check_place(report, force)
    bank = model.open_bank()
    from promptpanda.bank.card import Card

    path = bank.resolve(prompt)
    card = Card.read(path)
    other = None if compare is None else bank.resolve(compare)
    if other is not None and Card.read(other).id == card.id:
        raise PandaError(f"--compare names {card.id} itself; name another prompt.")
    given = _given(rows, card)
    split = _labelled(card, given, test_examples)
    from promptpanda.assessment.assess import assess, to_json
    from promptpanda.assessment.evaluated import Evaluated

    backbone = model.load(card)
    trained = bank.load(str(path), backbone)
    warn_moved(card, backbone)
    evaluated = Evaluated.of(trained, backbone, given, split)
    beside = None
    if other is not None:
        beside = _other(bank, other, given, test_examples, (model, backbone))
    notes = _seen(trained, split)
    temperature = _temperature(bank, trained, backbone, rows.data_dir)
    found = assess(evaluated, temperature=temperature, other=beside, notes=notes)
    if report is not None:
        from promptpanda.assessment.page import write_page

        write_page(found, trained.card, report)
    if json:
        output.print_json(to_json(found))
        return
    from promptpanda.cli.assessment import print_assessment

    print_assessment(found)
    if report is not None:
        typer.echo(f"\nReport: {report}")


def _given(rows: LabelledRows, card: Card) -> Task:
    """The task that the options mean, for a prompt with this card."""
    from promptpanda.tasks.task import Task, data_root

    if rows.task is not None and _names_file(rows.task) and not rows.own:
        rows = replace(rows, task=None, test=Path(rows.task))
    if rows.task is None and not rows.own:
        return Task(card.task, data_root(rows.data_dir))
    complete = rows.text is not None and bool(rows.label)
    others = (rows.train, rows.validation, rows.task, rows.kind, rows.choices, rows.name, rows.template)
    if rows.test is None or complete or any(other is not None for other in others):
        return rows.load()
    from promptpanda.cli.card_columns import spec_as_in

    return rows.with_notes(Task(spec_as_in(card, rows, test=rows.test), None, card.labels, strict=rows.strict))


def _names_file(name: str) -> bool:
    """Whether an argument means a file with rows, and no task."""
    from promptpanda.tasks.files.arrow import is_saved
    from promptpanda.tasks.files.reader import ENDINGS

    lower = name.lower()
    if lower.endswith((".yaml", ".yml")):
        return False
    return lower.endswith(ENDINGS) or Path(name).is_file() or is_saved(Path(name))


def _labelled(card: Card, given: Task, limit: int | None) -> Split:
    from promptpanda.tasks.protocol import capped
    from promptpanda.transfers.evaluate import with_labels_of

    task = with_labels_of(card, given)
    test = task.test()
    if test is None:
        raise PandaError(f"Task '{task.name}' has no labelled test data; give --test FILE with --text and --label.")
    return capped(test, limit)


def _other(bank: Bank, path: Path, given: Task, limit: int | None, known: tuple[ModelChoice, Backbone]) -> Evaluated:
    """What another prompt, perhaps of another model, says of the same rows."""
    from promptpanda.assessment.evaluated import Evaluated
    from promptpanda.bank.card import Card
    from promptpanda.bank.ownership import is_owner

    model, backbone = known
    card = Card.read(path)
    if not is_owner(card.backbone, backbone):
        backbone = replace(model, model=None).load(card)
    return Evaluated.of(bank.load(str(path), backbone), backbone, given, _labelled(card, given, limit))


def _seen(trained: TrainedPrompt, split: Split) -> list[str]:
    """A note on rows that the prompt knows already."""
    from promptpanda.bank.seen_texts import KnownRows

    count = 0 if trained.seen is None else KnownRows.of(split.texts).seen_by(trained.seen)
    if not count:
        return []
    return [
        f"{count} of {len(split)} examples share a text with those that the prompt, or what it started from, was "
        "trained and validated on: the figures are too good."
    ]


def _temperature(bank: Bank, trained: TrainedPrompt, backbone: Backbone, data_dir: Path | None) -> float | None:
    """The card's, or one that is fitted now and, in the user's own bank, kept."""
    if trained.card.temperature is not None:
        return trained.card.temperature
    from promptpanda.assessment.temperature import fitted_again
    from promptpanda.tasks.task import data_root

    temperature = fitted_again(trained, backbone, data_root(data_dir))
    if temperature is not None and trained.path is not None and trained.path.parent == bank.folder:
        try:
            bank.record_temperature(trained, temperature)
        except OSError as error:
            typer.echo(f"The temperature could not be kept in {trained.path} ({error.strerror}).", err=True)
    return temperature
