"""Which run an outcome is of: hashes of everything that determines it. Equal hashes are loaded instead of trained."""

from __future__ import annotations

from dataclasses import asdict

import torch

from promptpanda.files import digest
from promptpanda.training.objectives.objective import Threshold
from promptpanda.transfers.estimators import Cosine
from promptpanda.transfers.method import Method, MethodContext, options_used
from promptpanda.version import __version__


def identities(
    context: MethodContext, method: Method, *, cosine: Cosine, threshold: Threshold | None = None
) -> tuple[str, str]:
    """The hash of a method's run, and of its series: the same without what the seed decides.

    Args:
        cosine: options of the metric that governs the adaptive coefficient.
        threshold: one that an earlier training chose and this one keeps, or None.
    """
    sources = context.sources_of(method)
    several = method.sources == "several"
    series: dict[str, object] = {
        "version": __version__,
        "method": method.name,
        "task": context.task.spec.content,
        "labels": context.task.labels,
        "backbone": context.backbone.fingerprint,
        "readout": context.objective.readout(context.backbone, context.options.readout),
        "options": options_used(context.options, method),
        "protocol": context.partition.protocol,
        "budget": len(context.partition.train) + len(context.partition.validation),
        "distillation": _distillation(context, method, cosine) if method.teacher is not None else None,
        "source": sorted(one.series for one in sources) if several else sources[0].series if sources else None,
        "threads": torch.get_num_threads(),
    }
    if method.version:
        series["method_version"] = method.version
    run = series | {
        "seed": context.seed,
        "train": context.partition.train.fingerprint,
        "validation": context.partition.validation.fingerprint,
        "source": sources[0].checksum if sources else None,
    }
    if threshold is not None:
        run["threshold"] = threshold
    if several:
        run["source"] = [[one.checksum for one in sources], context.weights(method).tolist()]
    if method.unlabeled:
        series["unlabeled"] = len(context.unlabeled or ())
        run["unlabeled"] = digest(context.unlabeled or ())
    return digest(run), digest(series)


def _distillation(context: MethodContext, method: Method, cosine: Cosine) -> dict[str, object]:
    used = context.distillation.used(unlabeled=method.unlabeled)
    return used | {"cosine": asdict(cosine)} if context.distillation.coefficient == "adaptive" else used
