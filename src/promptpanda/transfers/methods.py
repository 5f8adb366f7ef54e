"""The methods, one registry entry each: how a prompt for the target is obtained."""

from __future__ import annotations

from collections.abc import Sequence

from promptpanda.errors import PandaError, suggest
from promptpanda.training.loop import Fitted
from promptpanda.transfers.trial import Method, Trial


def _prompt_tuning(trial: Trial) -> Fitted:
    return trial.fit(PROMPT_TUNING)


def _pot(trial: Trial) -> Fitted:
    return trial.fit(POT, start=trial.source)


def _panda(trial: Trial) -> Fitted:
    return trial.fit(PANDA, distillation=trial.taught_by(POT))


PROMPT_TUNING = Method(
    "prompt_tuning",
    "prompt tuning",
    "P-tuning v2, arXiv 2110.07602; Lester et al., arXiv 2104.08691",
    needs_source=False,
    teacher=None,
    run=_prompt_tuning,
)
POT = Method("pot", "PoT", "SPoT, arXiv 2110.07904", needs_source=True, teacher=None, run=_pot)
PANDA = Method("panda", "PANDA", "arXiv 2208.10160", needs_source=True, teacher=POT, run=_panda)


def _head_only(trial: Trial) -> Fitted:
    return trial.fit(HEAD_ONLY)


def _model_tuning(trial: Trial) -> Fitted:
    return trial.fit(MODEL_TUNING)


HEAD_ONLY = Method(
    "head_only",
    "head only",
    "a linear probe on the frozen backbone, without a prompt",
    needs_source=False,
    teacher=None,
    run=_head_only,
    trained="head",
)
MODEL_TUNING = Method(
    "model_tuning",
    "model tuning",
    "fine-tuning of all weights, the paper's upper line; Devlin et al., arXiv 1810.04805",
    needs_source=False,
    teacher=None,
    run=_model_tuning,
    trained="model",
)

METHODS: dict[str, Method] = {method.name: method for method in (PROMPT_TUNING, POT, PANDA, HEAD_ONLY, MODEL_TUNING)}


def check_methods(names: Sequence[str]) -> tuple[Method, ...]:
    """The methods of these names, each once, in the registry's order. Raises PandaError for an unknown name."""
    for name in names:
        if name not in METHODS:
            raise PandaError(f"No method '{name}'; known are {', '.join(METHODS)}.{suggest(name, METHODS)}")
    if not names:
        raise PandaError(f"At least one method is needed; known are {', '.join(METHODS)}.")
    return tuple(method for name, method in METHODS.items() if name in names)


def with_teachers(methods: Sequence[Method]) -> list[Method]:
    """The methods and those that they are distilled from, each once: all that must be trained."""
    return [
        method for method in METHODS.values() if method in methods or any(other.teacher is method for other in methods)
    ]
