"""All estimators by name, as in commands and results."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from promptpanda.errors import PandaError
from promptpanda.plugins import Registry, one_line
from promptpanda.transfers.estimators.base import COSTS, Estimator, IncomparableError, Needs
from promptpanda.transfers.estimators.formats import SameFormat
from promptpanda.transfers.estimators.h_score import HScore
from promptpanda.transfers.estimators.logme import LogME
from promptpanda.transfers.estimators.probe import Probe
from promptpanda.transfers.estimators.signatures import ActivatedNeurons, AveragePrompt, Cosine

if TYPE_CHECKING:
    from promptpanda.bank.folder import SourcePrompt
    from promptpanda.transfers.estimators.target import TargetFeatures

DEFAULT_ESTIMATOR = "probe_shrunk"  # orders rankings, prunes banks and leads expectations: docs/results says why
PANDA_METRIC = "cosine"  # governs the adaptive coefficient, as in the paper, and the weights of fusions


def _plugin(entry: object, name: str, source: str) -> Estimator:
    """An estimator from elsewhere: an instance, or a class that needs no arguments. Raises PandaError if it is none."""
    try:
        made = entry() if isinstance(entry, type) else entry
    except Exception as error:  # a stranger's code may raise anything
        raise PandaError(
            f"The estimator {name} of {source} cannot be created: {one_line(error)}; leave it out."
        ) from error
    if not isinstance(made, Estimator):
        raise PandaError(f"{name!r} of {source} is a {type(made).__name__}; an estimator is a promptpanda.Estimator.")
    if made.needs not in COSTS:
        raise PandaError(f"The estimator {name} of {source} needs {made.needs!r}; known are {', '.join(COSTS)}.")
    return PluginEstimator(name, source, made)


@dataclass(frozen=True)
class PluginEstimator(Estimator):
    """An estimator from elsewhere: where its code fails, or what it says is not finite, it has nothing to say."""

    name: str
    source: str
    wrapped: Estimator

    @property
    def reference(self) -> str:  # type: ignore[override]  # of an instance here
        return f"{getattr(self.wrapped, 'reference', '') or 'no reference'} ({self.source})"

    @property
    def needs(self) -> Needs:
        return self.wrapped.needs

    def score(self, source: SourcePrompt | None, target: TargetFeatures) -> float:
        try:
            found = float(self.wrapped.score(source, target))
        except PandaError:
            raise
        except Exception as error:  # a stranger's code may raise anything
            problem = f"The estimator {self.name} of {self.source} failed: {one_line(error)}; it is left out."
            ESTIMATORS.report(problem)
            raise IncomparableError(problem) from error
        if not math.isfinite(found):
            raise IncomparableError(f"The estimator {self.name} of {self.source} gave {found}.")
        return found


def _own(cosine: Cosine) -> dict[str, Estimator]:
    return {
        "same_format": SameFormat(),
        "cosine": replace(cosine, prompt="source"),
        "on": ActivatedNeurons(),
        "logme": LogME(),
        "h_score": HScore(),
        "probe": Probe(),
        "probe_r2": Probe("explained"),
        "probe_shrunk": Probe("shrunk"),
        "cosine_own": replace(cosine, prompt="own"),
        "on_own": ActivatedNeurons(prompt="own"),
        "e_avg": AveragePrompt(),
    }


ESTIMATORS: Registry[Estimator] = Registry("promptpanda.estimators", _own(Cosine()), _plugin)


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
    return {**ESTIMATORS, **_own(cosine)}


def estimates(source: SourcePrompt | None, target: TargetFeatures, cosine: Cosine | None = None) -> dict[str, float]:
    """What every estimator that can run says of a source, or of no transfer.

    Those that need a prompt trained on the target run where the view has one. A value that is not finite is left out.

    Raises:
        PandaError: the source has no signature.
    """
    found: dict[str, float] = {}
    for name, estimator in estimators(cosine).items():
        if not estimator.needs_target_prompt or target.own is not None:
            with suppress(IncomparableError):
                found[name] = estimator.score(source, target)
    return {name: value for name, value in found.items() if math.isfinite(value)}
