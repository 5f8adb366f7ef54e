"""The methods, one registry entry each: how a prompt for the target is obtained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from promptpanda.errors import PandaError, suggest
from promptpanda.training.distillation import Distillation
from promptpanda.training.loop import Fitted

if TYPE_CHECKING:
    from promptpanda.transfers.trial import Trial


@dataclass(frozen=True)
class Method:
    """A way to a target prompt.

    Attributes:
        name: as in commands and results.
        title: as in tables.
        reference: where it comes from.
        needs_source: whether it starts from a source prompt.
        teacher: the method whose outcome it is distilled from, or None.
        run: trains on a trial; the second value tells how it was distilled, if it was.
    """

    name: str
    title: str
    reference: str
    needs_source: bool
    teacher: str | None
    run: Callable[[Trial], tuple[Fitted, Distillation | None]]


def _prompt_tuning(trial: Trial) -> tuple[Fitted, None]:
    return trial.fit("prompt_tuning"), None


def _pot(trial: Trial) -> tuple[Fitted, None]:
    return trial.fit("pot", start=trial.source), None


def _panda(trial: Trial) -> tuple[Fitted, Distillation]:
    distillation = trial.teacher("pot")
    return trial.fit("panda", distillation=distillation), distillation


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            "prompt_tuning",
            "prompt tuning",
            "P-tuning v2, arXiv 2110.07602; Lester et al., arXiv 2104.08691",
            needs_source=False,
            teacher=None,
            run=_prompt_tuning,
        ),
        Method(
            "pot",
            "PoT",
            "SPoT, arXiv 2110.07904",
            needs_source=True,
            teacher=None,
            run=_pot,
        ),
        Method(
            "panda",
            "PANDA",
            "arXiv 2208.10160",
            needs_source=True,
            teacher="pot",
            run=_panda,
        ),
    )
}


def check_methods(names: Sequence[str]) -> tuple[str, ...]:
    """The names, each once, in the registry's order. Raises PandaError for an unknown one."""
    for name in names:
        if name not in METHODS:
            raise PandaError(f"No method '{name}'; known are {', '.join(METHODS)}.{suggest(name, METHODS)}")
    if not names:
        raise PandaError(f"At least one method is needed; known are {', '.join(METHODS)}.")
    return tuple(name for name in METHODS if name in names)


def with_teachers(names: Sequence[str]) -> set[str]:
    """The methods and those that they are distilled from: all that must be trained."""
    return set(names) | {teacher for name in names if (teacher := METHODS[name].teacher) is not None}
