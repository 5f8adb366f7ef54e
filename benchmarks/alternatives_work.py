"""What every alternative gets, and what it gives."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from promptpanda.backbone import Backbone
from promptpanda.tasks.inputs import Split
from promptpanda.tasks.metrics import compute_metrics
from promptpanda.tasks.protocol import Partition
from promptpanda.tasks.task import Task
from promptpanda.training.options import TrainingOptions


@dataclass(frozen=True)
class Work:
    """One target and seed.

    Attributes:
        part: training and validation part of the labelled rows.
        folder: of the model, for libraries that load it themselves.
        options: settled ones: max length, and epochs.
    """

    task: Task
    part: Partition
    test: Split
    seed: int
    backbone: Backbone
    folder: Path
    options: TrainingOptions

    @cached_property
    def labelled(self) -> Split:
        """All labelled rows."""
        return self.part.train.joined(self.part.validation)

    def score(self, split: Split, predictions: Any) -> float:
        """The task's own metric."""
        spec = self.task.spec
        return compute_metrics(spec, self.task.labels, split, predictions)[spec.metric]


@dataclass(frozen=True)
class Seconds:
    """Time on the wall, and of the processor (of all threads), which does not know of other work on the machine."""

    wall: float = 0.0
    cpu: float = 0.0

    @classmethod
    def now(cls) -> Seconds:
        return cls(time.perf_counter(), time.process_time())

    def __add__(self, other: Seconds) -> Seconds:
        return Seconds(self.wall + other.wall, self.cpu + other.cpu)

    def __sub__(self, other: Seconds) -> Seconds:
        return Seconds(self.wall - other.wall, self.cpu - other.cpu)

    @property
    def passed(self) -> Seconds:
        """Since this was `now`."""
        return Seconds.now() - self


@dataclass(frozen=True)
class Found:
    """What an alternative gives.

    Attributes:
        score: on the test rows.
        training: of one training at the settings that were found.
        search: of finding them.
        megabytes: of the files that the task needs beside the base model.
        settings: what was found, and by which scores.
    """

    score: float
    training: Seconds
    search: Seconds
    megabytes: float
    settings: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "score": self.score,
            "seconds": self.training.wall,
            "cpu_seconds": self.training.cpu,
            "search_seconds": self.search.wall,
            "search_cpu_seconds": self.search.cpu,
            "megabytes": self.megabytes,
            "settings": self.settings,
        }


def megabytes(path: Path) -> float:
    """Of a file, or of all files below a folder (1 MB is 10^6 bytes)."""
    files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
    return sum(one.stat().st_size for one in files) / 1e6
