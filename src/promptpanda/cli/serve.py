"""panda serve: one model in one process for all prompts of a bank."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from promptpanda.cli.command import command
from promptpanda.cli.options import MODEL, Dtype, ModelChoice, NoStarter
from promptpanda.errors import PandaError

if TYPE_CHECKING:
    from promptpanda.serving.limits import Limits
    from promptpanda.serving.service import Service

_WHO = "Who may ask"
_HOW = "Batches and memory"
_LIMITS = "Limits of a request"


@dataclass(frozen=True)
class LimitChoice:
    """Limits of one request."""

    panel: ClassVar[str] = _LIMITS

    max_body: Annotated[int, typer.Option(min=1000, help="Bytes of a request's body.")] = 4_000_000
    max_rows: Annotated[int, typer.Option(min=1, help="Texts or rows in a request.")] = 1000
    max_chars: Annotated[int, typer.Option(min=1, help="Characters in one text or row.")] = 50_000
    max_queue: Annotated[int, typer.Option(min=1, help="Rows of all requests that may wait for the model.")] = 5000
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds for a request's body to arrive, and for its answer to be computed.")
    ] = 30.0

    def limits(self) -> Limits:
        from promptpanda.serving.limits import Limits

        return Limits(self.max_body, self.max_rows, self.max_chars, self.max_queue, self.timeout)


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    command(app, "serve")(serve_command)


def serve_command(
    *,
    bank: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of a bank; repeat it for more banks, of which the first takes precedence. Default: bank.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Hub id or folder of the frozen model; by default the embedded one.", rich_help_panel=MODEL),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit of the model on the hub.", rich_help_panel=MODEL)
    ] = None,
    dtype: Dtype = None,
    no_starter: NoStarter = False,
    offline: Annotated[bool, typer.Option("--offline", help="Never use the network.", rich_help_panel=MODEL)] = False,
    host: Annotated[
        str,
        typer.Option(
            help="Address to listen on; 0.0.0.0 admits every machine that can reach this one.", rich_help_panel=_WHO
        ),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.", rich_help_panel=_WHO)] = 8000,
    token_file: Annotated[
        Path | None, typer.Option(help="File with the token that requests must send.", rich_help_panel=_WHO)
    ] = None,
    max_batch: Annotated[int, typer.Option(min=1, max=32, help="Rows in a batch.", rich_help_panel=_HOW)] = 32,
    max_wait_ms: Annotated[
        float,
        typer.Option(
            min=0, max=1000, help="Milliseconds that a row waits for others to join its batch.", rich_help_panel=_HOW
        ),
    ] = 4.0,
    idle_unload: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            help="Seconds without requests after which the model is unloaded; by default never.",
            rich_help_panel=_HOW,
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Computing threads; by default all cores.", rich_help_panel=_HOW)
    ] = None,
    limits: LimitChoice,
) -> None:
    """Serve all prompts of the bank over HTTP, with one model; its address also shows a page to try them.

    Prompts that are added to the bank, changed or removed are noticed within seconds. Ctrl-C or SIGTERM stops the
    server once the requests that it accepted are answered.
    """
    _check_installed()
    from promptpanda.serving.server import is_loopback, listening_socket
    from promptpanda.serving.token import read_token

    token = None if token_file is None else read_token(token_file)
    banks = _banks(bank, no_starter)
    choice = ModelChoice(
        model=model,
        revision=revision,
        dtype=dtype,
        bank=next(iter(banks.values())),
        no_starter=no_starter,
        offline=offline,
    )
    choice.open_bank()  # --offline takes effect
    listening = listening_socket(host, port)
    if token is None and not is_loopback(listening):
        _tell(f"Whoever reaches {host} can ask, since there is no --token-file.")
    import torch

    threads = threads or torch.get_num_threads()
    torch.set_num_threads(threads)
    from promptpanda.bank.installed import installed_banks
    from promptpanda.serving.app import application
    from promptpanda.serving.model import Model
    from promptpanda.serving.server import Server, serve, url_of
    from promptpanda.serving.service import Service

    held = Model(choice.load)
    service = Service(
        held,
        banks,
        limits=limits.limits(),
        tell=_tell,
        installed=[name for name, folder in banks.items() if folder in installed_banks()[0].values()],
        max_batch=max_batch,
        max_wait=max_wait_ms / 1000,
        idle_after=idle_unload,
        threads=threads,
    )
    service.start()
    app = application(service, token=token, local=is_loopback(listening))
    server = Server(app, seconds=limits.timeout, started=lambda: _tell(_greeting(service, url_of(listening))))
    try:
        serve(server, listening)
    finally:
        service.close()
    _tell("Stopped; what was accepted is answered.")


def _check_installed() -> None:
    from importlib.util import find_spec

    missing = [name for name in ("fastapi", "uvicorn", "prometheus_client") if find_spec(name) is None]
    if missing:
        raise PandaError(
            f"`panda serve` needs {' and '.join(missing)}, which is not installed; run "
            "`pip install 'promptpanda[serve]'`."
        )


def _banks(folders: list[Path] | None, no_starter: bool) -> dict[str, Path]:
    """Banks by the names that are shown: those of folders, which stand first, and of installed packages."""
    from promptpanda.bank.installed import installed_banks

    found: dict[str, Path] = {}
    for folder in folders or [Path("bank")]:
        if not folder.is_dir():
            if folders is None:
                continue
            raise PandaError(f"There is no bank in {folder}: no such folder; name one that `panda train` wrote.")
        name = folder.resolve().name
        number = sum(known == name or known.startswith(f"{name} (") for known in found)
        found[f"{name} ({number + 1})" if number else name] = folder.resolve()
    if not no_starter:
        found |= {name: place for name, place in installed_banks()[0].items() if name not in found}
    if not found:
        raise PandaError(
            "There is no bank here: no folder 'bank', and no --bank; train a prompt first (`panda train`)."
        )
    return found


def _greeting(service: Service, url: str) -> str:
    entries = service.registry.entries()
    served = sum(entry.served for entry in entries)
    from promptpanda.serving.limits import outward

    return (
        f"Serving {served} of {len(entries)} prompt{'' if len(entries) == 1 else 's'} with "
        f"{outward(service.model.backbone.name)} at {url}"
    )


def _tell(sentence: str) -> None:
    typer.echo(sentence, err=True)
