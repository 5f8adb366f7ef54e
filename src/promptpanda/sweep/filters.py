"""What one call of a sweep is to do, and how it is said."""

from __future__ import annotations

import fnmatch
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from promptpanda.errors import PandaError, suggest
from promptpanda.sweep.spec import RunSpec

_TIME = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?:in)?)?(?:(\d+(?:\.\d+)?)s?)?")


@dataclass(frozen=True)
class RunFilter:
    """What one call is to do.

    Attributes:
        only: words that a run must all have; see `chosen`.
        limit: begin at most so many runs.
        time_limit: begin no run that would not end within so many seconds of the call's beginning.
        retry_failed: try failed runs again.
        began: when the call began, by `time.monotonic`.
    """

    only: str | None = None
    limit: int | None = None
    time_limit: float | None = None
    retry_failed: bool = False
    began: float = field(default_factory=time.monotonic)


def chosen(specs: Sequence[RunSpec], only: str | None) -> list[RunSpec]:
    """The runs that `--only` means.

    Args:
        only: words, each of which must be the kind, model, task, method, source, variant or seed (`s0`) of a run;
            commas separate alternatives, `*` and `?` stand for what they do in file names.

    Raises:
        PandaError: a word that fits no run, or words that fit none together.
    """
    if only is None:
        return list(specs)
    words = [[part for part in word.split(",") if part] for word in only.split()]
    known = sorted({word for spec in specs for word in spec.words})
    for word in words:
        for part in word:
            if not any(fnmatch.fnmatchcase(one, part) for one in known):
                listed = ", ".join(known)
                raise PandaError(f"--only: no run has the word '{part}'; words are {listed}.{suggest(part, known)}")
    found = [
        spec
        for spec in specs
        if all(any(fnmatch.fnmatchcase(one, part) for part in word for one in spec.words) for word in words)
    ]
    if not found or not words:
        raise PandaError(f"--only {only!r} matches no run; words are {', '.join(known)}.")
    return found


def duration(seconds: float) -> str:
    """A time in words, such as `12 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def seconds_of(text: str) -> float:
    """A time in seconds: `50m`, `1h30m`, `90s`, or a number of seconds. Raises PandaError."""
    found = _TIME.fullmatch(text.strip().lower())
    if not text.strip() or found is None:
        raise PandaError(f"--time-limit must be a time such as 50m, 1h30m or 90s, found {text!r}.")
    hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return 3600 * hours + 60 * minutes + seconds
