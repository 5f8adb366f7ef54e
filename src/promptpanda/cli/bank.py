"""panda bank list | search | show | verify | adopt | rm | du; what sends and fetches prompts is in sharing.py"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from promptpanda.cli import output
from promptpanda.cli.command import command
from promptpanda.cli.options import BankFolder, Json, ModelChoice, NoStarter
from promptpanda.errors import PandaError

if TYPE_CHECKING:
    from promptpanda.bank.catalogue import BankContents
    from promptpanda.bank.entry import Entry

_SHOWN = 200  # prompts of a table, where nothing else is asked for

app = typer.Typer(help="The bank of trained prompts.", no_args_is_help=True)

OwnPrompts = Annotated[
    list[str],
    typer.Argument(metavar="PROMPT...", help="Ids, patterns ('books-*'), or names of tasks that have only one prompt."),
]


@command(app, "list")
def list_prompts(
    bank: BankFolder = Path("bank"),
    no_starter: NoStarter = False,
    limit: Annotated[
        int | None,
        typer.Option(
            min=0, help="Show at most this many; 0 shows all. By default 200 in a table, and all with --json."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """List the prompts of the bank and of installed banks."""
    from promptpanda.bank.bank import Bank
    from promptpanda.bank.catalogue import opened
    from promptpanda.bank.installed import installed_banks

    most = limit if limit is not None else 0 if json else _SHOWN
    with output.TerminalProgress() as progress, opened(Bank(bank, others={} if no_starter else None), progress) as here:
        total = sum(map(len, here.shelves))
        found = here.first(most or total)
        problems = here.problems + ([] if no_starter else list(installed_banks()[1]))
    if json:
        output.print_json(
            {"bank": str(bank), "prompts": [_plain(one, shelf, bank) for one, shelf in found], "problems": problems}
        )
        return
    _print_prompts(found, bank)
    if len(found) == most < total:
        typer.echo(
            f"The first {len(found):,} of {total:,}; --limit 0 shows all, `panda bank search WORDS` finds some.",
            err=True,
        )
    for problem in problems:
        typer.echo(problem, err=True)


@command(app, "search")
def search_prompts(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="WORDS...",
            help="Words from titles, tasks, labels, kinds or metrics, such as 'product reviews, two classes'.",
        ),
    ],
    bank: BankFolder = Path("bank"),
    no_starter: NoStarter = False,
    limit: Annotated[int, typer.Option(min=1, help="Show at most this many prompts.")] = 20,
    json: Json = False,
) -> None:
    """Find prompts by words, best match first: those that match all words, then those that match some."""
    from promptpanda.bank.bank import Bank
    from promptpanda.bank.catalogue import opened
    from promptpanda.bank.search import search

    query = " ".join(words)
    with output.TerminalProgress() as progress, opened(Bank(bank, others={} if no_starter else None), progress) as here:
        found = search(here, query, limit)
        problems = here.problems
    if json:
        rows = [_plain(one, shelf, bank) for one, shelf in found]
        output.print_json({"query": query, "prompts": rows, "problems": problems})
        return
    if found:
        columns = ["prompt", "kind", "labels", "metric", "validation", "n_train", "model", "bank", "title"]
        lines = [_described(one, shelf, bank) for one, shelf in found]
        output.print_table(None, columns, lines, (4, 5), optional=(2, 7, 6, 5))
    else:
        typer.echo(f"No prompt in the bank {bank} matches '{query}'; `panda bank list` shows all.")
    for problem in problems:
        typer.echo(problem, err=True)


def _plain(one: Entry, shelf: BankContents, bank: Path) -> dict[str, Any]:
    """A prompt for --json."""
    return {
        "id": one.id,
        "task": one.task,
        "title": one.title,
        "kind": one.kind,
        "labels": list(one.labels),
        "classes": one.classes,
        "bank": shelf.name or str(bank),
        "method": one.method,
        "seed": one.seed,
        "metric": one.metric,
        "validation": one.validation,
        "test": one.test,
        "n_train": one.n_train,
        "model": one.model,
    }


def _described(one: Entry, shelf: BankContents, bank: Path) -> list[str]:
    """A prompt that was searched for, as a line of a table."""
    labels = ", ".join(one.labels[:4]) + (f" and {one.classes - 4} more" if one.classes > 4 else "")
    return [
        one.id,
        one.kind.replace("_", " "),
        labels or "-",
        one.metric,
        output.points(one.validation),
        str(one.n_train),
        Path(one.model).name,
        shelf.name or str(bank),
        one.title or "-",
    ]


def _print_prompts(found: list[tuple[Entry, BankContents]], bank: Path) -> None:
    lines = [
        [
            one.id,
            one.method + (" (diverged)" if one.diverged else ""),
            " + ".join(task for _, task in one.sources) or "-",
            str(one.n_train),
            one.metric,
            output.points(one.validation),
            output.points(one.test),
            Path(one.model).name,
            shelf.name or str(bank),
        ]
        for one, shelf in found
    ]
    columns = ["prompt", "method", "source", "n_train", "metric", "validation", "test", "model", "bank"]
    if found:
        output.print_table(None, columns, lines, (3, 5, 6), optional=(2, 3, 4, 7, 8))
    else:
        typer.echo(f"The bank {bank} is empty.")


@command(app, "show")
def show_prompt(
    prompt: Annotated[str, typer.Argument(help="Id, path or task name.")],
    bank: BankFolder = Path("bank"),
    json: Json = False,
) -> None:
    """Show the card of one prompt: task, settings, scores."""
    from promptpanda.bank.bank import Bank
    from promptpanda.bank.card import Card

    card = Card.read(Bank(bank).resolve(prompt))
    if json:
        output.print_json(card.model_dump(mode="json"))
        return
    typer.echo(card.model_dump_json(indent=2))


@command(app, "verify")
def verify_prompts(
    prompts: Annotated[
        list[str] | None, typer.Argument(metavar="[PROMPT]...", help="Ids, patterns or task names; by default all.")
    ] = None,
    bank: BankFolder = Path("bank"),
    no_starter: NoStarter = False,
    json: Json = False,
) -> None:
    """Check every file of the prompts, installed ones too, against its checksum; exit code 2 if one is damaged."""
    from promptpanda.bank.bank import Bank
    from promptpanda.sharing.selection import chosen

    store = Bank(bank, others={} if no_starter else None)
    problems: dict[str, str] = {}
    if prompts:
        found = [(Bank(path.parent, others={}), path.name) for path in chosen(store, prompts)]
    else:
        found = [(one, name) for one in (store, *store.others.values()) for name in one.ids()]
    names = [name for _, name in found]
    for one, name in found:
        try:
            one.verify(name)
        except PandaError as error:
            problems[name] = str(error)
    if json:
        output.print_json({"sound": [name for name in names if name not in problems], "problems": problems})
    else:
        typer.echo(f"{len(names) - len(problems)} of {len(names)} prompts are intact.")
    for problem in problems.values():
        typer.echo(f"panda: {problem}", err=True)
    if problems:
        raise typer.Exit(2)


@command(app, "adopt")
def adopt_prompts(
    prompts: OwnPrompts,
    model: ModelChoice,
    json: Json = False,
) -> None:
    """Accept prompts of older versions, whose cards identify the model by its weights but not config and tokenizer.

    Only you can know that they were trained on this very model. By default --model is what the first card names.
    """
    bank = model.open_bank()
    from promptpanda.bank.adoption import adopt, check_adoptable
    from promptpanda.bank.card import Card
    from promptpanda.sharing.selection import own_ids

    prompts = own_ids(bank, prompts)
    backbone = model.load(Card.read(bank.path(prompts[0])))
    check_adoptable(bank, prompts, backbone)  # all, before the first is rewritten
    typer.echo(
        f"The cards identify {backbone.name} by its weights alone; that config and tokenizer were the same is accepted "
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
    prompts: OwnPrompts,
    bank: BankFolder = Path("bank"),
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Delete without asking.")] = False,
    json: Json = False,
) -> None:
    """Delete prompts permanently. In a terminal, you are asked first."""
    from promptpanda.bank.bank import Bank
    from promptpanda.sharing.selection import own_ids

    store = Bank(bank)
    ids = own_ids(store, prompts)  # all must exist before the first is deleted
    if not yes and sys.stdin is not None and sys.stdin.isatty():
        shown = ", ".join(ids[:8]) + (f" and {len(ids) - 8} more" if len(ids) > 8 else "")
        typer.echo(f"Delete {shown} from {bank}? [y/N] ", nl=False, err=True)  # typer.confirm writes to stdout too
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise PandaError("Nothing was deleted.")
    for name in ids:
        store.remove(name)
    if json:
        output.print_json({"removed": ids})
    else:
        typer.echo(f"Removed {', '.join(ids)}.")


@command(app, "du")
def disk_use(bank: BankFolder = Path("bank"), json: Json = False) -> None:
    """Show how much disk space the bank's prompts take, largest first."""
    from promptpanda.bank.bank import Bank
    from promptpanda.sharing.disk_use import bytes_of

    store = Bank(bank)
    sizes = {name: bytes_of(bank / name) for name in store.ids()}
    total = bytes_of(bank) if bank.is_dir() else 0
    rest = total - sum(sizes.values())
    ordered = dict(sorted(sizes.items(), key=lambda item: (-item[1], item[0])))
    if json:
        output.print_json({"bank": str(bank), "bytes": total, "prompts": ordered, "rest": rest})
        return
    rows = [[name, output.megabytes(size)] for name, size in ordered.items()]
    if rest:
        rows.append(["(what is no prompt)", output.megabytes(rest)])
    output.print_table(None, ["prompt", "MB"], [*rows, [f"{len(sizes)} prompts", output.megabytes(total)]], (1,))
