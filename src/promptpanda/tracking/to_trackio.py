"""Trackio: its local store, or the Space that TRACKIO_SPACE_ID names, under TRACKIO_PROJECT or the project."""

from __future__ import annotations

import os
from dataclasses import dataclass

from promptpanda.tracking.record import Record


@dataclass(frozen=True)
class _Project:
    name: str

    def record(self, record: Record) -> None:
        import trackio

        config = record.parameters | ({} if record.failure is None else {"failure": record.failure})
        trackio.init(project=self.name, name=record.name, config=config, resume="never", embed=False)
        try:
            for epoch, values in enumerate(record.curve, 1):
                trackio.log(values, step=epoch)
            trackio.log(record.scores, step=len(record.curve) + 1)
        finally:
            trackio.finish()


def opened(project: str) -> _Project:
    """The project; Trackio makes it with its first run."""
    import trackio  # noqa: F401  # whether it can be imported is to be known before a training

    return _Project(os.environ.get("TRACKIO_PROJECT", project))
