"""`--source auto --effort quick`: the estimator decides, and one training on all labelled examples follows.

Every prompt of the bank that fits reads the target's examples, as in the selection, and so does the bare model. Where a
prompt is put above the bare model, PoT from the best of them is trained, else prompt tuning. Of pairs of texts linear
probes decide first: where the bare model's, which may read the texts apart, is cross-validated above the best prompt's,
it is the answer, and nothing is trained. Of many classes (`MANY_CLASSES`) of single texts a fresh prompt is trained
contrastively, whatever the estimator says. No example is kept back, so there is no validation score. A linear probe
under the prompt that it started from is cross-validated on all of them instead; what is trained is a little better than
that (docs/log.md).
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import numpy as np

from promptpanda.tasks.protocol import Partition
from promptpanda.tasks.spec import Kind
from promptpanda.transfers.estimators import TargetFeatures
from promptpanda.transfers.linear_probe import Probe, best_probe
from promptpanda.transfers.method import Method
from promptpanda.transfers.methods import CONTRASTIVE, LINEAR_PROBE, POT, PROMPT_TUNING
from promptpanda.transfers.pruning import Pruned, planned_reading
from promptpanda.transfers.selection import MANY_CLASSES, Selection, refit_trial
from promptpanda.transfers.trial import Trial

METHODS = (PROMPT_TUNING, POT, LINEAR_PROBE, CONTRASTIVE)


def first_choice(trials: Sequence[Trial], pruned: Sequence[Pruned]) -> tuple[Method, float]:
    """What to train, and by how many examples trained it was dear to say so beyond the pruning.

    PoT where the best prompt is put above no transfer, on the average of the seeds; else prompt tuning.

    Of pairs a linear probe of the bare model, where that is cross-validated above one of the best prompt. Of many
    classes of single texts the contrastive method, where there is enough to learn from.
    """
    work = 0.0
    if _many_classes(trials[0]):
        found = [best_probe(trial, None) for trial in trials]
        if all(found) and all(_has_twos(trial) for trial in trials):
            return CONTRASTIVE, sum(one.forward_examples for one in found if one) / 3 / len(trials)
    if len(trials[0].task.spec.segments) == 2 and LINEAR_PROBE.supports(trials[0].task.kind):
        pairs = [(best_probe(trial, None), _of_source(trial)) for trial in trials]
        leads = [bare.cross_validation - (0.0 if led is None else led.cross_validation) for bare, led in pairs if bare]
        passes = sum(probe.forward_examples for pair in pairs for probe in pair if probe is not None)
        work = passes / 3 / len(trials)
        if leads and statistics.fmean(leads) > 0:
            return LINEAR_PROBE, work
    lead = statistics.fmean(one.lead(one.survivors[:1]) for one in pruned)
    return POT if lead > 0 and all(one.survivors for one in pruned) else PROMPT_TUNING, work


def _many_classes(trial: Trial) -> bool:
    return trial.task.kind == Kind.SINGLE_CLASSIFICATION and len(trial.task.labels) >= MANY_CLASSES


def _has_twos(trial: Trial) -> bool:
    """Whether some class has two training examples, which contrastive training needs."""
    return bool(np.bincount(trial.partition.train.labels).max() > 1)


def _of_source(trial: Trial) -> Probe | None:
    """A linear probe of the best prompt; None where there is no prompt."""
    return None if trial.source is None else best_probe(trial, trial.source.prompt)


def planned(target: TargetFeatures, part: Partition, epochs: int, prompts: int) -> float:
    """What it will take for one seed, in trainings.

    Args:
        prompts: that fit the target.
    """
    labelled, unit = len(part.train) + len(part.validation), epochs * len(part.train)
    return labelled / len(part.train) + planned_reading(prompts, len(target.texts)) / 3 / unit


def trained(trial: Trial, pruned: Pruned, method: Method, plan: float, decided: float) -> Selection:
    """Train the method on all labelled examples of one seed, and say what it took.

    Args:
        decided: what the decision took, in examples trained.

    Raises:
        PandaError: the training diverged.
    """
    whole = refit_trial(trial)
    whole.outcome(method)
    outcomes = [*whole.cached.values(), *trial.cached.values()]  # the latter where a threshold had to be chosen first
    work = pruned.work + decided + sum(one.card.work for one in outcomes)
    probe = None
    if LINEAR_PROBE.supports(trial.task.kind):
        source = whole.source if method.needs_source else None
        probe = best_probe(whole, None if source is None else source.prompt)
    work += 0 if probe is None else probe.forward_examples / 3
    unit = trial.options.epochs * len(trial.partition.train)
    said = None if probe is None else probe.cross_validation
    return Selection(whole, pruned, None, {}, method.name, None, plan, work / unit, unit, said)
