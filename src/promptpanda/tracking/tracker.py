"""The trackers that can be asked for, and what happens when one of them fails."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Literal, Protocol

from promptpanda.errors import PandaError
from promptpanda.progress import Progress
from promptpanda.tracking.record import Record

TrackerName = Literal["mlflow", "trackio", "wandb"]
_WORDS = {"mlflow": "MLflow", "trackio": "Trackio", "wandb": "Weights & Biases"}
_GIVES_UP = 3  # failures one after the other


class Tracker(Protocol):
    """A place where trainings are kept. An adapter is a module with `opened(project)`, which gives one of these."""

    def record(self, record: Record) -> None:
        """Keep one training. Raises whatever the tracker's own package raises."""


class Recorder:
    """A tracker whose failures cost no training: they are told, and after three in a row it is left alone."""

    def __init__(self, tracker: Tracker, name: TrackerName, progress: Progress) -> None:
        self._tracker, self._words, self._progress = tracker, _WORDS[name], progress
        self._failures = 0

    def __call__(self, record: Record) -> None:
        if self._failures >= _GIVES_UP:
            return
        try:
            with _quiet():
                self._tracker.record(record)
        except Exception as error:  # of another package: whatever it is, the training counts
            self._failures += 1
            last = "; nothing more is told to it" if self._failures == _GIVES_UP else ""
            self._progress.note(
                f"{self._words} did not take {record.name} ({_reason(error)}){last}; the training is not affected."
            )
        else:
            self._failures = 0


def recorder(name: TrackerName, project: str, tell: Progress) -> Callable[[Record], None]:
    """What takes the records of trainings from now on.

    Args:
        project: what the tracker sorts them under, where its own environment variable names nothing else.
        tell: told what goes wrong later.

    Raises:
        PandaError: its package is not installed, or it cannot be reached; so told before anything is trained.
    """
    if find_spec(name) is None:
        raise PandaError(
            f"--log-to {name} needs {_WORDS[name]}, which is not installed; run `pip install 'promptpanda[{name}]'`."
        )
    try:
        with _quiet():
            tracker: Tracker = import_module(f"promptpanda.tracking.to_{name}").opened(project)
    except PandaError:
        raise
    except Exception as error:
        raise PandaError(f"{_WORDS[name]} cannot be used ({_reason(error)}); fix it, or leave --log-to out.") from error
    return Recorder(tracker, name, tell)


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200].rstrip(". ")


@contextmanager
def _quiet() -> Iterator[None]:
    """Trackers greet on stdout, which is for results."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
