"""panda export: prompts for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from promptpanda.cli import output
from promptpanda.cli.command import command
from promptpanda.cli.options import Json, ModelChoice
from promptpanda.errors import PandaError

if TYPE_CHECKING:
    from promptpanda.backbone import Backbone
    from promptpanda.bank.folder import TrainedPrompt


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    command(app, "export")(export_command)


def export_command(
    prompts: Annotated[
        list[str],
        typer.Argument(metavar="PROMPT...", help="Id, path or task name; with --shared several, or patterns."),
    ],
    model: ModelChoice,
    onnx: Annotated[
        Path | None, typer.Option("--onnx", metavar="OUT", help="Folder to write: an ONNX graph and its tokenizer.")
    ] = None,
    shared: Annotated[
        bool,
        typer.Option(
            "--shared", help="--onnx: one graph for all prompts of the model, and each prompt as an .npz file."
        ),
    ] = False,
    prompt_embeds: Annotated[
        Path | None,
        typer.Option(
            "--prompt-embeds", metavar="OUT", help="File to write: a decoder's shallow prompt, in vLLM's form."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what exists.")] = False,
    json: Json = False,
) -> None:
    """Write prompts for other runtimes: as ONNX graphs, or as vLLM's prompt_embeds.

    The ONNX graph is run and compared with promptpanda's own outputs before it is written.
    """
    if (onnx is None) == (prompt_embeds is None):
        raise PandaError("Say what to write: either --onnx OUT, or --prompt-embeds OUT.")
    if shared and onnx is None:
        raise PandaError("--shared belongs to --onnx.")
    loaded, backbone = _loaded(prompts, model, several=shared)
    if prompt_embeds is not None:
        from promptpanda.export.embeds import export_embeds

        shape = export_embeds(loaded[0], backbone, prompt_embeds, force=force)
        if json:
            output.print_json({"file": str(prompt_embeds), "prompt": loaded[0].card.id, "shape": shape})
        else:
            typer.echo(
                f"Wrote {shape[0]} virtual tokens of {shape[1]} numbers to {prompt_embeds}; vLLM applies no head."
            )
        return
    assert onnx is not None
    from promptpanda.export.onnx import GRAPH_NAME, export_folded, export_shared

    if shared:
        difference = export_shared(loaded, backbone, onnx, force=force)
    else:
        difference = export_folded(loaded[0], backbone, onnx, force=force)
    size = sum(path.stat().st_size for path in onnx.glob(f"{GRAPH_NAME}*"))
    ids = [trained.card.id for trained in loaded]
    if json:
        output.print_json({"folder": str(onnx), "prompts": ids, "graph_bytes": size, "difference": difference})
    else:
        typer.echo(
            f"Wrote {onnx / GRAPH_NAME} ({output.megabytes(size)} MB) for {', '.join(ids)}; ONNX Runtime's outputs "
            f"differ from ours by {difference:.0e} at most."
        )


def _loaded(references: list[str], model: ModelChoice, *, several: bool) -> tuple[list[TrainedPrompt], Backbone]:
    bank = model.open_bank()
    from promptpanda.bank.card import Card
    from promptpanda.sharing.selection import chosen

    folders = chosen(bank, references)
    if len(folders) > 1 and not several:
        raise PandaError(f"{len(folders)} prompts were named, and one graph holds one; name one, or give --shared.")
    cards = [Card.read(folder) for folder in folders]
    backbone = model.load(cards[0])
    backbone.model.to("cpu")  # where graphs are traced and compared
    return [bank.load(str(folder), backbone) for folder in folders], backbone
