"""Weights & Biases: with WANDB_MODE=offline in ./wandb, else online, under WANDB_PROJECT or the project."""

from __future__ import annotations

import os
from dataclasses import dataclass

from promptpanda.errors import PandaError
from promptpanda.tracking.record import Record


@dataclass(frozen=True)
class _Project:
    name: str

    def record(self, record: Record) -> None:
        import wandb

        settings = wandb.Settings(silent=True, console="off")
        run = wandb.init(
            project=self.name, name=record.name, config=dict(record.parameters), reinit="create_new", settings=settings
        )
        try:
            for epoch, values in enumerate(record.curve, 1):
                run.log(values, step=epoch)
            run.summary.update(record.scores | ({} if record.failure is None else {"failure": record.failure}))
        finally:
            run.finish(0 if record.failure is None else 1)


def opened(project: str) -> _Project:
    """The project. Raises PandaError where nobody is logged in, which W&B would ask for after the training."""
    import wandb

    if os.environ.get("WANDB_MODE", "online") == "online" and not wandb.api.api_key:
        raise PandaError(
            "No key for Weights & Biases was found; run `wandb login`, or set WANDB_MODE=offline to keep runs here."
        )
    return _Project(os.environ.get("WANDB_PROJECT", project))
