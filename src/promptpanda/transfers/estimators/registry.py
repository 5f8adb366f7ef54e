"""All estimators by name, as in commands and results."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import replace

from promptpanda.bank.folder import SourcePrompt
from promptpanda.transfers.estimators.base import Estimator, IncomparableError
from promptpanda.transfers.estimators.formats import SameFormat
from promptpanda.transfers.estimators.h_score import HScore
from promptpanda.transfers.estimators.logme import LogME
from promptpanda.transfers.estimators.probe import Probe
from promptpanda.transfers.estimators.signatures import ActivatedNeurons, AveragePrompt, Cosine
from promptpanda.transfers.estimators.view import TargetView

DEFAULT_ESTIMATOR = "probe_r2"  # orders rankings, prunes banks and leads expectations: docs/results says why
PANDA_METRIC = "cosine"  # governs the adaptive coefficient, as in the paper, and the weights of fusions


def preferred() -> tuple[str, ...]:
    """Names of all estimators in the order in which they are asked to compare sources: the first that can, decides."""
    return tuple(dict.fromkeys((DEFAULT_ESTIMATOR, PANDA_METRIC, *estimators())))


def estimators(cosine: Cosine | None = None) -> dict[str, Estimator]:
    """The registry.

    Args:
        cosine: layer, pooling and examples of PANDA's metric. `cosine` sees both sides under the source's prompt,
            `cosine_own` each side under its own; likewise `on` and `on_own`.
    """
    cosine = cosine or Cosine()
    return {
        "same_format": SameFormat(),
        "cosine": replace(cosine, prompt="source"),
        "on": ActivatedNeurons(),
        "logme": LogME(),
        "h_score": HScore(),
        "probe": Probe(),
        "probe_r2": Probe("explained"),
        "cosine_own": replace(cosine, prompt="own"),
        "on_own": ActivatedNeurons(prompt="own"),
        "e_avg": AveragePrompt(),
    }


def estimates(source: SourcePrompt | None, target: TargetView, cosine: Cosine | None = None) -> dict[str, float]:
    """What every estimator that can run says of a source, or of no transfer.

    Those that need a prompt trained on the target run where the view has one. A value that is not finite is left out.

    Raises:
        PandaError: the source has no signature.
    """
    found: dict[str, float] = {}
    for name, estimator in estimators(cosine).items():
        if estimator.needs != "target_prompt" or target.own is not None:
            with suppress(IncomparableError):
                found[name] = estimator.score(source, target)
    return {name: value for name, value in found.items() if math.isfinite(value)}
