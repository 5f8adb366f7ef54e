"""panda bank list | show | verify | adopt | rm"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from promptpanda.cli import output
from promptpanda.cli.command import command
from promptpanda.cli.options import BankFolder, Json, ModelChoice, NoStarter
from promptpanda.errors import PandaError

app = typer.Typer(help="The bank of trained prompts.", no_args_is_help=True)


@command(app, "list")
def list_prompts(bank: BankFolder = Path("bank"), no_starter: NoStarter = False, json: Json = False) -> None:
    """All prompts of the bank, and of the banks that installed packages brought."""
    from promptpanda.bank.bank import Bank
    from promptpanda.bank.installed import installed_banks

    store = Bank(bank, others={} if no_starter else None)
    cards, problems = store.cards_in_force()
    problems += [] if no_starter else installed_banks()[1]
    homes = {other.folder: name for name, other in store.others.items()}
    places = [homes.get(store.folder_of(card.id).parent, str(bank)) for card in cards]
    if json:
        rows = [
            {
                "id": card.id,
                "task": card.task.name,
                "kind": card.task.kind.value,
                "bank": place,
                "method": card.method,
                "seed": card.seed,
                "metric": card.task.metric,
                "validation": card.score,
                "test": None if card.test is None else card.test.scores[card.task.metric],
                "n_train": card.n_train,
                "model": card.backbone.name,
            }
            for card, place in zip(cards, places, strict=True)
        ]
        output.print_json({"bank": str(bank), "prompts": rows, "problems": problems})
        return
    lines = [
        [
            card.id,
            card.method + (" (diverged)" if card.diverged is not None else ""),
            " + ".join(source.task for source in card.sources) or "-",
            str(card.n_train),
            card.task.metric,
            output.points(card.score),
            output.points(None if card.test is None else card.test.scores[card.task.metric]),
            Path(card.backbone.name).name,
            place,
        ]
        for card, place in zip(cards, places, strict=True)
    ]
    columns = ["prompt", "method", "source", "n_train", "metric", "validation", "test", "model", "bank"]
    if cards:
        output.print_table(None, columns, lines, (3, 5, 6), optional=(2, 3, 4, 7, 8))
    else:
        typer.echo(f"The bank {bank} is empty.")
    for problem in problems:
        typer.echo(problem, err=True)


@command(app, "show")
def show_prompt(
    prompt: Annotated[str, typer.Argument(help="Id, path or task name.")],
    bank: BankFolder = Path("bank"),
    json: Json = False,
) -> None:
    """The card of one prompt."""
    from promptpanda.bank.bank import Bank
    from promptpanda.bank.card import Card

    card = Card.read(Bank(bank).resolve(prompt))
    if json:
        output.print_json(card.model_dump(mode="json"))
        return
    typer.echo(card.model_dump_json(indent=2))


@command(app, "verify")
def verify_prompts(
    prompts: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Ids; left out: all.")] = None,
    bank: BankFolder = Path("bank"),
    json: Json = False,
) -> None:
    """Check every file of the prompts against its checksum, also in installed banks; exit code 2 if one is damaged."""
    from promptpanda.bank.bank import Bank

    store = Bank(bank)
    problems: dict[str, str] = {}
    everywhere = [(one, name) for one in (store, *store.others.values()) for name in one.ids()]
    chosen = [(store, name) for name in prompts] if prompts else everywhere
    names = [name for _, name in chosen]
    for one, name in chosen:
        try:
            one.verify(name)
        except PandaError as error:
            problems[name] = str(error)
    if json:
        output.print_json({"sound": [name for name in names if name not in problems], "problems": problems})
    else:
        typer.echo(f"{len(names) - len(problems)} of {len(names)} prompts are sound.")
    for problem in problems.values():
        typer.echo(f"panda: {problem}", err=True)
    if problems:
        raise typer.Exit(2)


@command(app, "adopt")
def adopt_prompts(
    prompts: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids, as `panda bank list` shows them.")],
    model: ModelChoice,
    json: Json = False,
) -> None:
    """Accept prompts of older versions, whose cards tell the model's weights but not its config and tokenizer.

    Only you can know that they were trained on this very model. Without --model: the one that the first card names.
    """
    bank, prompts = model.open_bank(), list(dict.fromkeys(prompts))
    from promptpanda.bank.adoption import adopt, check_adoptable
    from promptpanda.bank.card import Card

    backbone = model.load(Card.read(bank.path(prompts[0])).backbone.name)
    check_adoptable(bank, prompts, backbone)  # all, before the first is rewritten
    typer.echo(
        f"The cards tell the weights of {backbone.name} alone; that its config and tokenizer were these too is taken "
        "on your word.",
        err=True,
    )
    adopted = [name for name in prompts if adopt(bank, name, backbone)]
    if json:
        output.print_json({"adopted": adopted})
    else:
        typer.echo(f"Adopted {', '.join(adopted)}." if adopted else f"All belong to {backbone.name} already.")


@command(app, "rm")
def remove_prompts(
    prompts: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids, as `panda bank list` shows them.")],
    bank: BankFolder = Path("bank"),
    json: Json = False,
) -> None:
    """Delete prompts for good."""
    from promptpanda.bank.bank import Bank

    store, prompts = Bank(bank), list(dict.fromkeys(prompts))
    for name in prompts:
        store.path(name)  # all must exist before the first is deleted
    for name in prompts:
        store.remove(name)
    if json:
        output.print_json({"removed": prompts})
    else:
        typer.echo(f"Removed {', '.join(prompts)}.")
