"""`--source auto --effort quick`: the estimator decides, and one training on all labelled examples follows.

Every prompt of the bank that fits sees the target's examples once, and so does the bare model. Where a prompt is put
above the bare model, PoT from the best of them is trained, else prompt tuning. No example is kept back, so there is no
validation score; test data, where there is any, gives the figure.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from promptpanda.tasks.protocol import Partition
from promptpanda.transfers.estimators import TargetFeatures
from promptpanda.transfers.method import Method
from promptpanda.transfers.methods import POT, PROMPT_TUNING
from promptpanda.transfers.pruning import Pruned
from promptpanda.transfers.selection import Selection, refit_trial
from promptpanda.transfers.trial import Trial


def favourite(pruned: Sequence[Pruned]) -> Method:
    """PoT where the best prompt is put above no transfer, on the average of the seeds; else prompt tuning."""
    lead = statistics.fmean(one.lead(one.survivors[:1]) for one in pruned)
    return POT if lead > 0 and all(one.survivors for one in pruned) else PROMPT_TUNING


def planned(target: TargetFeatures, part: Partition, epochs: int, prompts: int) -> float:
    """What it will take for one seed, in trainings (contract: cost).

    Args:
        prompts: that fit the target.
    """
    labelled, unit = len(part.train) + len(part.validation), epochs * len(part.train)
    passes = (prompts + 1) * len(target.texts) if prompts else 0
    return labelled / len(part.train) + passes / 3 / unit


def trained(trial: Trial, pruned: Pruned, method: Method, plan: float) -> Selection:
    """Train the method on all labelled examples of one seed, and say what it took.

    Raises:
        PandaError: the training diverged.
    """
    whole = refit_trial(trial)
    whole.outcome(method)
    outcomes = [*whole.cached.values(), *trial.cached.values()]  # the latter where a threshold had to be chosen first
    work = pruned.work + sum(one.card.work for one in outcomes)
    unit = trial.options.epochs * len(trial.partition.train)
    return Selection(whole, pruned, None, {}, method.name, None, plan, work / unit)
