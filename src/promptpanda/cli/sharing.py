"""panda bank copy | export | import | push | pull | card"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from promptpanda.cli import bank as bank_commands
from promptpanda.cli import output
from promptpanda.cli.command import command
from promptpanda.cli.options import BankFolder, Json, ModelChoice, PromptReference
from promptpanda.errors import PandaError

if TYPE_CHECKING:
    from promptpanda.bank.bank import Bank
    from promptpanda.sharing.parcel import Parcel
    from promptpanda.sharing.receive import Received

app = bank_commands.app
Prompts = Annotated[list[str], typer.Argument(metavar="PROMPT...", help="Ids, patterns ('books-*') or task names.")]
SomePrompts = Annotated[
    list[str] | None,
    typer.Argument(metavar="[PROMPT]...", help="Ids, patterns ('books-*') or task names; by default the whole bank."),
]
Force = Annotated[bool, typer.Option("--force", help="Replace what exists.")]
Licence = Annotated[
    str,
    typer.Option(
        "--license", metavar="LICENCE", help="Licence for the model cards, in the Hub's notation, such as apache-2.0."
    ),
]
NoSeenTexts = Annotated[
    bool,
    typer.Option(
        "--no-seen-texts",
        help="Leave out the record of the texts that the prompt saw; with it, whoever has a text can check "
        "if it was seen.",
    ),
]
AnyModel = Annotated[
    bool, typer.Option("--any-model", help="Accept prompts of any model, without comparing them with one.")
]
From = Annotated[str, typer.Argument(metavar="FROM", help="As TO of `panda bank push`.")]


@command(app, "copy")
def copy_prompts(
    prompts: Prompts,
    to: Annotated[Path, typer.Argument(metavar="TO", help="The folder of another bank; created if it does not exist.")],
    bank: BankFolder = Path("bank"),
    force: Force = False,
    json: Json = False,
) -> None:
    """Copy prompts into another bank, and check them. Prompts of installed banks can be copied too."""
    from promptpanda.sharing.folders import FolderPlace

    _send(_parcels(bank, prompts, with_readme=False), FolderPlace(to), force, json)


@command(app, "export")
def export_prompts(
    file: Annotated[Path, typer.Argument(metavar="FILE.tar", help="The file to write.")],
    prompts: Annotated[
        list[str] | None,
        typer.Option(
            "--prompt", metavar="PROMPT", help="Id, pattern or task name; repeat it for more; by default all."
        ),
    ] = None,
    bank: BankFolder = Path("bank"),
    license: Licence = "unknown",
    no_seen_texts: NoSeenTexts = False,
    force: Force = False,
    json: Json = False,
) -> None:
    """Pack prompts with their model cards into one tar file, whole or not at all."""
    _export(_parcels(bank, prompts, licence=license, seen_texts=not no_seen_texts), file, force, json)


@command(app, "import")
def import_prompts(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="A tar file of `panda bank export`, or a foreign prompt: .bin, .pt, .safetensors, .npy, its folder.",
        ),
    ],
    model: ModelChoice,
    name: Annotated[
        str | None, typer.Option(help="Foreign prompt: name of its folder in the bank; by default the file's.")
    ] = None,
    any_model: AnyModel = False,
    force: Force = False,
    json: Json = False,
) -> None:
    """Import all prompts of a tar file into the bank, or none if one of them is damaged.

    The file is not trusted until it is checked: links, paths, sizes, checksums, and the model of its prompts.
    A prompt that another program trained (P-tuning v2, Prompt-Transferability, SPoT) becomes a folder that can be a
    --source; it has no head.
    """
    from promptpanda.sharing.places import is_tar

    if is_tar(str(file)):
        _take(str(file), [], model, any_model, force, json)
        return
    bank = model.open_bank()
    from promptpanda.sharing.foreign import import_foreign

    backbone = model.load()
    target, prompt = import_foreign(file, backbone, bank.folder, name, force=force)
    if json:
        output.print_json({"source": str(target), "kind": prompt.kind, "length": prompt.length})
    else:
        typer.echo(
            f"Imported a {prompt.kind} of {prompt.length} virtual tokens for {backbone.name}; use it with "
            f"--source {target}. Only you can know whether it was trained on this very model."
        )


@command(app, "push")
def push_prompts(
    prompts: Prompts,
    to: Annotated[
        str,
        typer.Argument(
            metavar="TO",
            help="OWNER/NAME on the Hugging Face Hub, a URL (s3://BUCKET/PATH, gs://...), a folder, or FILE.tar.",
        ),
    ],
    bank: BankFolder = Path("bank"),
    license: Licence = "unknown",
    public: Annotated[
        bool, typer.Option("--public", help="Create a new Hub repository as public; by default it is private.")
    ] = False,
    no_seen_texts: NoSeenTexts = False,
    force: Force = False,
    json: Json = False,
) -> None:
    """Send prompts to a place that others can pull them from, each with its model card.

    Prompts that are there already are not sent again. If a push is interrupted, the same command resumes it.
    """
    from promptpanda.quiet import quiet_loggers
    from promptpanda.sharing.places import is_tar, place_of

    quiet_loggers()
    parcels = _parcels(bank, prompts, licence=license, seen_texts=not no_seen_texts)
    if is_tar(to) and "://" not in to:
        _export(parcels, Path(to), force, json)
    else:
        _send(parcels, place_of(to, public=public), force, json)


@command(app, "pull")
def pull_prompts(
    place: From,
    model: ModelChoice,
    prompts: Annotated[
        list[str] | None,
        typer.Option("--prompt", metavar="ID", help="Id or pattern ('books-*'); repeat it for more; by default all."),
    ] = None,
    any_model: AnyModel = False,
    force: Force = False,
    json: Json = False,
) -> None:
    """Pull prompts from a place into the bank, each whole or not at all.

    They are not trusted until they are checked: names, sizes, checksums, numbers, and whether they belong to the
    model (--model; by default the embedded one). If a pull is interrupted, the same command resumes it.
    """
    _take(place, prompts or [], model, any_model, force, json)


@command(app, "card")
def model_card_of(prompt: PromptReference, bank: BankFolder = Path("bank"), license: Licence = "unknown") -> None:
    """Show a prompt's model card (README.md), which `push` and `export` write."""
    from promptpanda.bank.bank import Bank
    from promptpanda.bank.card import Card
    from promptpanda.sharing.model_card import model_card

    typer.echo(model_card(Card.read(Bank(bank).resolve(prompt)), license), nl=False)


def _parcels(bank: Path, prompts: list[str] | None, **options: Any) -> list[Parcel]:
    from promptpanda.bank.bank import Bank
    from promptpanda.sharing.parcel import Parcel
    from promptpanda.sharing.selection import chosen

    folders = chosen(Bank(bank), prompts or [])
    if not folders:
        raise PandaError(f"The bank {bank} is empty: there is nothing to send.")
    return [Parcel.of(folder, **options) for folder in folders]


def _export(parcels: list[Parcel], file: Path, force: bool, json: bool) -> None:
    from promptpanda.sharing.archive import write_archive

    if file.suffix.lower() != ".tar":
        raise PandaError(f"{file} must end in .tar; other forms are not written.")
    if file.exists() and not force:
        raise PandaError(f"{file} already exists; replace it with --force, or choose another name.")
    with output.TerminalProgress() as progress:
        progress.begin(f"Packing {file}", len(parcels))
        write_archive(parcels, file, lambda: progress.advance(1))
    ids, size = [parcel.id for parcel in parcels], file.stat().st_size
    if json:
        output.print_json({"file": str(file), "exported": ids, "bytes": size})
    else:
        typer.echo(f"Packed {output.counted(len(ids), 'prompt')} into {file} ({output.megabytes(size)} MB).")


def _send(parcels: list[Parcel], place: Any, force: bool, json: bool) -> None:
    from promptpanda.sharing.send import send

    with output.TerminalProgress() as progress:
        progress.begin(f"Sending to {place.name}", len(parcels))
        sent = send(place, parcels, force=force, done=lambda: progress.advance(1))
    if json:
        output.print_json({"to": place.name, "sent": sent.new, "updated": sent.updated, "unchanged": sent.unchanged})
    else:
        typer.echo(
            f"Sent {output.counted(len(sent.new), 'prompt')} to {place.name}; only the cards of {len(sent.updated)} "
            f"were updated; {len(sent.unchanged)} were there already."
        )


def _take(text: str, patterns: list[str], model: ModelChoice, any_model: bool, force: bool, json: bool) -> None:
    bank = model.open_bank()
    from promptpanda.sharing.archive import opened_archive
    from promptpanda.sharing.places import is_tar, place_of

    if is_tar(text) and "://" not in text:
        with opened_archive(Path(text), bank) as archive:
            found = _received(archive, bank, patterns, model, any_model, force, together=True)
    else:
        found = _received(place_of(text), bank, patterns, model, any_model, force)
    _tell(found, text, bank, json)


def _received(
    place: Any,
    bank: Bank,
    patterns: list[str],
    model: ModelChoice,
    any_model: bool,
    force: bool,
    together: bool = False,
) -> Received:
    from promptpanda.sharing.receive import receive
    from promptpanda.sharing.selection import matching

    there = place.ids()
    if not there:
        raise PandaError(f"{place.name} is not a bank: nothing there is named as prompts are, TASK-sSEED-HASH8.")
    ids = matching(there, patterns)
    if not ids:
        raise PandaError(f"No prompt at {place.name} is {' or '.join(patterns)}; it has {', '.join(there[:8])}.")
    backbone = None if any_model else model.load()
    with output.TerminalProgress() as progress:
        progress.begin(f"Taking prompts from {place.name}", len(ids))
        return receive(
            place, bank, ids, backbone=backbone, force=force, together=together, done=lambda: progress.advance(1)
        )


def _tell(found: Received, text: str, bank: Bank, json: bool) -> None:
    """Prompts of other models are told and are no failure, unless nothing else was there."""
    if json:
        output.print_json(
            {"from": text, "bank": str(bank.folder)}
            | {
                "pulled": found.new,
                "unchanged": found.unchanged,
                "left_out": found.left_out,
                "problems": found.problems,
                "without_seen_texts": found.without_record,
            }
        )
    else:
        new = output.counted(len(found.new), "prompt")
        typer.echo(f"Pulled {new} into {bank.folder}; {len(found.unchanged)} were there already.")
    notes = list(found.problems.values())
    if found.left_out:
        first = next(iter(found.left_out.values()))
        notes.append(
            f"{len(found.left_out)} prompts belong to other models and were left out (--any-model takes them): {first}"
        )
    if found.without_record:
        notes.append(
            f"No record of the texts that they saw is with {', '.join(found.without_record[:8])}"
            f"{', ...' if len(found.without_record) > 8 else ''}: it is unknown whether they saw your data."
        )
    for note in notes:
        typer.echo(f"panda: {note}", err=True)
    if found.problems or (found.left_out and not found.new and not found.unchanged):
        raise typer.Exit(2)
