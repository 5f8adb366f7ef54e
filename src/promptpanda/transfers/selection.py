"""`--source auto`: estimators prune the bank, a race decides among the survivors, shrunken scores choose the method.

What is done for one seed, in this order: every prompt of the bank that fits sees the target's examples once (`prune`);
the best of them race, with no transfer beside them (`race`); the methods that are asked for start from the winner; the
one with the highest expected score is chosen (transfers/choice.py). Test data plays no part in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass, replace
from typing import Any, Literal

import numpy as np

from promptpanda.errors import PandaError
from promptpanda.names import SIGNATURE_EXAMPLES
from promptpanda.tasks.protocol import Partition
from promptpanda.tasks.spec import Kind
from promptpanda.training.learner import is_read_once
from promptpanda.training.loop import UntrainableError
from promptpanda.training.options import TrainingOptions
from promptpanda.transfers.beside import train_beside
from promptpanda.transfers.choice import (
    NOISE,
    SPREAD,
    Contestant,
    Gain,
    Posterior,
    Resamples,
    best_of,
    posteriors,
    prior_of,
)
from promptpanda.transfers.estimators import (
    DEFAULT_ESTIMATOR,
    TargetFeatures,
)
from promptpanda.transfers.linear_probe import best_probe
from promptpanda.transfers.method import Method
from promptpanda.transfers.methods import (
    CONTRASTIVE,
    CONTRASTIVE_POT,
    LINEAR_PROBE,
    METHODS,
    POT,
    PROMPT_TUNING,
    SOURCE_PROBE,
    check_methods,
)
from promptpanda.transfers.pruning import HALVED, Pruned, planned_reading, prune
from promptpanda.transfers.race import FINALISTS, RaceResult, planned_cost, planned_training, race, validations
from promptpanda.transfers.trial import Trial

SURVIVORS = 4
Effort = Literal["full", "quick"]

MANY_CLASSES = 6
"""From so many on a contrastive training starts from a fresh prompt, and is what quick trains (docs/log.md)."""
MANY_CLASSES_GAIN = 0.1
"""Its gain over prompt tuning there, before validation scores are seen: as measured on other rows of train."""
CONTESTANTS = ("prompt_tuning", "pot", "contrastive", "contrastive_pot", "linear_probe", "source_probe")


@dataclass(frozen=True)
class SelectionOptions:
    """How `--source auto` selects (docs/choosing-a-source.md).

    Attributes:
        survivors: at most how many source prompts race, each of another task; 4 by default, at least 1.
        finalists: how many of them are trained to the end, from 1 to `survivors`. None, the default: 1, or 2 (of at
            least as many survivors) where a method fuses several sources.
        refit: whether the chosen method is trained again on training and validation part together. None, the default:
            where that is possible, that is without early stopping and under the clean protocol.
        effort: `full`, the default; or `quick`: the estimator alone decides, and one training on all labelled examples
            follows. The other settings are only for `full`.
    """

    survivors: int = SURVIVORS
    finalists: int | None = None
    refit: bool | None = None
    effort: Effort = "full"

    def check(self, options: TrainingOptions, protocol: str) -> None:
        """Raises PandaError if a number is out of range or settings contradict each other."""
        if self.effort == "quick":
            self._check_quick(protocol)
        if self.survivors < 1:
            raise PandaError(f"--survivors must be at least 1, found {self.survivors}.")
        if self.finalists is not None and not 1 <= self.finalists <= self.survivors:
            raise PandaError(
                f"--finalists must be from 1 to the number of survivors ({self.survivors}), found {self.finalists}."
            )
        if self.refit and protocol == "paper":
            raise PandaError("--refit adds the validation part to the training part; use --protocol clean with it.")
        if self.refit and options.early_stopping is not None:
            raise PandaError(
                "--refit trains on the validation part too, so that nothing is left for --early-stopping to stop by; "
                "leave one of them out."
            )

    def finalists_for(self, methods: Sequence[Method]) -> int:
        """How many sources are trained to the end for these methods."""
        if self.finalists is not None:
            return self.finalists
        fused = any(method.sources == "several" for method in methods)
        return min(FINALISTS + fused, self.survivors)

    def refits(self, options: TrainingOptions, protocol: str) -> bool:
        """Whether the chosen method is trained again on all labelled examples."""
        if self.refit is None:
            return self.effort == "full" and protocol == "clean" and options.early_stopping is None
        return self.refit

    def _check_quick(self, protocol: str) -> None:
        if self != SelectionOptions(effort="quick"):
            raise PandaError(
                "--effort quick holds no race and trains on all labelled examples at once; leave --survivors, "
                "--finalists and --refit out."
            )
        if protocol == "paper":
            raise PandaError("--effort quick trains on the validation part too; use --protocol clean with it.")


def contestants_of(kind: Kind) -> tuple[Method, ...]:
    """The methods that `auto` chooses among for a kind of task, if none are asked for (see `one_contrastive`)."""
    return tuple(method for method in check_methods(CONTESTANTS) if method.supports(kind))


def one_contrastive(methods: Sequence[Method], pruned: Sequence[Pruned], classes: int) -> tuple[Method, ...]:
    """The methods without one of the two contrastive ones.

    The other starts from the source where the estimator puts the best one above no transfer on the average of the
    seeds, else from a fresh prompt, and so it does where there are many classes (`MANY_CLASSES`).

    Args:
        classes: of the target.
    """
    leads = [one.lead(one.survivors[:1]) for one in pruned if one.survivors]
    ahead = len(leads) == len(pruned) and float(np.mean(leads)) > 0 and classes < MANY_CLASSES
    return tuple(method for method in methods if method is not (CONTRASTIVE if ahead else CONTRASTIVE_POT))


def decisive_settings() -> tuple[tuple[str, Any], ...]:
    """What decides how `auto` selects where nothing else is asked for, as sorted pairs of name and value."""
    priors = tuple((method.name, astuple(prior_of(method))) for method in check_methods(CONTESTANTS))
    return (
        *(("contestants", CONTESTANTS), ("estimator", DEFAULT_ESTIMATOR), ("finalists", FINALISTS), ("halved", HALVED)),
        *(("many_classes", (MANY_CLASSES, MANY_CLASSES_GAIN)), ("noise", NOISE)),
        *(("priors", priors), ("race", "expected"), ("refit", True), ("spread", SPREAD), ("survivors", SURVIVORS)),
    )


@dataclass(frozen=True)
class Selection:
    """All that `auto` did for one seed.

    Attributes:
        trial: on which the contestants were trained; its sources are the race's finalists, best first.
        pruned: before the race.
        race: None where there was no prompt to race.
        posterior: expected score of every contestant; empty where the estimator alone decided.
        chosen: the method with the highest.
        gain: of its validation score over prompt tuning's; the interval allows for having chosen among the contestants.
            None where the estimator alone decided.
        planned, cost: in trainings of `unit` examples, without the search of a learning rate.
        unit: epochs times examples of the training part.
        cross_validation: where the estimator alone decided, the cross-validated score of a linear probe under the
            prompt that was chosen, on all labelled examples; None where it is not defined, and otherwise.
    """

    trial: Trial
    pruned: Pruned
    race: RaceResult | None
    posterior: dict[str, Posterior]
    chosen: str
    gain: Gain | None
    planned: float
    cost: float
    unit: int
    cross_validation: float | None = None

    def to_json(self) -> dict[str, Any]:
        """One seed of the object `selection` of `panda transfer --json`."""
        scores = self.pruned.scores or {}
        return {
            "estimator": self.pruned.estimator,
            "survivors": [
                {"prompt": source.id, "task": source.task, "estimate": scores.get(source.id)}
                for source in self.pruned.survivors
            ],
            "no_transfer": self.pruned.no_transfer,
            "race": [] if self.race is None else self.race.to_json(),
            "winner": None if self.trial.source is None else self.trial.source.id,
            "posterior": {name: asdict(one) for name, one in self.posterior.items()},
            "chosen": self.chosen,
            "gain_over_prompt_tuning": None
            if self.gain is None
            else {**asdict(self.gain), "distinguishable": self.gain.distinguishable},
            "cross_validation": self.cross_validation,
            "cost_planned": self.planned,
            "cost": self.cost,
        }


def planned(
    methods: Sequence[Method],
    options: TrainingOptions,
    target: TargetFeatures,
    part: Partition,
    selection: SelectionOptions,
    sources: Sequence[str],
    unlabeled: int = 0,
) -> float:
    """The cost of `auto` for one seed, in trainings, before anything is computed.

    Divergence and early stopping make it less, and so do prompts of another shape than the best. The most expensive
    refit is assumed.

    Args:
        sources: the task of every prompt to choose from.
        unlabeled: texts without labels.
    """
    n_train, n_val, tracked = len(part.train), len(part.validation), part.protocol == "paper"
    passes = validations(options, tracked=tracked)
    whole = options.epochs * n_train
    one = planned_training(options, n_train, n_val, tracked=tracked)
    racing = min(len(set(sources)), selection.survivors)
    finalists = selection.finalists_for(methods)
    work = 0.0
    if racing:
        work += planned_reading(len(sources), len(target.texts)) / 3
        work += whole * planned_cost(racing, options, n_train, n_val, finalists=finalists, tracked=tracked)
    else:
        work += one
    for method in methods:
        if method is CONTRASTIVE and CONTRASTIVE_POT in methods:
            continue
        vectors = n_train * options.max_length  # one a token, at most
        if method.trainings == 0:
            readings = 1 + (_of_pairs(target) and target.readout != "compare")
            readings *= 1 + (_of_pairs(target) and method in (LINEAR_PROBE, SOURCE_PROBE))
            signature = min(SIGNATURE_EXAMPLES, n_train) if method.trained == "prompt" else 0
            work += (readings * n_train + n_val + signature) / 3
        elif method.trained == "head" and is_read_once(target.readout, vectors, target.backbone.hidden_size):
            work += (n_train + passes * n_val) / 3
        elif method not in (PROMPT_TUNING, POT):
            work += method.trainings * one
        work += method.warm_up_epochs(n_train, options.batch_size) * n_train
        work += whole if method.unlabeled else 0
        if method.teacher is not None:
            teachers = min(finalists, racing) if method.sources == "several" else 1
            work += teachers * (n_train + unlabeled * method.unlabeled) / 3
        if method.trained != "model" and not (racing and method is POT):  # the race has looked at its winner
            work += n_val / 3
    if selection.refits(options, part.protocol):
        work += (1 + any(method.teacher is not None for method in methods)) * one * (n_train + n_val) / n_train
    return work / whole


def _of_pairs(target: TargetFeatures) -> bool:
    return target.spec is not None and len(target.spec.segments) == 2


def run_race(trial: Trial, pruned: Pruned, finalists: int) -> tuple[Trial, RaceResult | None]:
    """The trial with the race's finalists as its sources, best first; what they were trained to is known to it."""
    if not trial.sources:
        return trial, None
    leads = {source.id: pruned.lead([source]) for source in trial.sources}
    result = race(trial, leads, finalists=finalists)
    known = {PROMPT_TUNING.name: trial.outcome(PROMPT_TUNING)}
    if result.finalists:
        known[POT.name] = trial.with_source(result.finalists[0]).outcome(POT)
    return trial.with_sources(result.finalists, known), result


def choose(trial: Trial, methods: Sequence[Method], selection: SelectionOptions) -> Selection:
    """All of it on one trial, whose sources are the prompts to choose from, all of one kind and length.

    Raises:
        PandaError: a training diverged.
    """
    tasks = [source.task for source in trial.sources]
    plan = planned(methods, trial.options, trial.target, trial.partition, selection, tasks)
    pruned = prune(trial.sources, trial.target, trial.cosine, selection.survivors, trial.progress)
    after, result = run_race(trial.with_sources(pruned.survivors, {}), pruned, selection.finalists_for(methods))
    able = one_contrastive(methods, [pruned], len(trial.task.labels))
    selected = select(after, pruned, result, trainable([after], able), plan)
    return refitted(selected) if selection.refits(trial.options, trial.partition.protocol) else selected


def trainable(trials: Sequence[Trial], methods: Sequence[Method]) -> tuple[Method, ...]:
    """The methods that can train on all trials: with sources where they need them, and without diverging.

    What cannot is told, and out of the contest.

    Raises:
        PandaError: prompt tuning, which all are compared with, diverged.
    """
    able = [method for method in methods if not method.needs_source or all(trial.sources for trial in trials)]
    train_beside(trials, able)
    kept = []
    for method in able:
        try:
            for trial in trials:
                trial.outcome(method)
        except UntrainableError as error:
            if method is PROMPT_TUNING:
                raise
            trials[0].progress.note(f"{error} The choice is made from the others.")
        else:
            kept.append(method)
    return tuple(kept)


def select(
    trial: Trial, pruned: Pruned, result: RaceResult | None, methods: Sequence[Method], planned_cost: float
) -> Selection:
    """Train the contestants that the race has not trained, and choose among all.

    Args:
        methods: those that can be chosen, and those that cannot (a tuned model is not kept).

    Raises:
        PandaError: a training diverged.
    """
    data = trial.validation_data
    winner = None if result is None else result.winner
    contestants, passes = {}, 0
    for method in methods:
        lead = pruned.lead(trial.sources_of(method))
        if method is POT and winner is not None:
            contestants[method.name] = replace(winner, prior=prior_of(POT).of(lead))
        elif method.trained != "model":
            apart, read = _apart(trial, method)
            contestant = Contestant.of(trial, method, lead)
            credit = apart + _of_many_classes(trial, method)
            contestants[method.name] = replace(contestant, prior=contestant.prior + credit)
            passes += len(data) + read
    resamples = Resamples(data)
    posterior = posteriors(contestants, resamples)
    chosen = best_of(
        {name: one.mean for name, one in posterior.items()}, {name: one.loss for name, one in contestants.items()}
    )
    runs = frozenset() if result is None else result.runs
    work = pruned.work + (0.0 if result is None else result.work)
    trained = [*trial.trained(methods), *(one for one in trial.cached.values() if one.card.diverged is not None)]
    work += sum(one.card.work for one in trained if one.card.run not in runs)
    work += passes / 3
    unit = trial.options.epochs * len(trial.partition.train)
    return Selection(
        trial,
        pruned,
        result,
        posterior,
        chosen,
        resamples.gain(contestants[chosen], contestants[PROMPT_TUNING.name], tuple(contestants.values())),
        planned_cost,
        work / unit,
        unit,
    )


def _apart(trial: Trial, method: Method) -> tuple[float, int]:
    """What a linear probe gains by reading the texts of a pair apart, and the forward passes that it takes to know.

    Prompt tuning and the estimator read them together, so that nothing else promises it.
    """
    if method not in (LINEAR_PROBE, SOURCE_PROBE) or len(trial.task.spec.segments) != 2:
        return 0.0, 0
    source = trial.source if method.needs_source else None
    probe = best_probe(trial, None if source is None else source.prompt)
    return (0.0, 0) if probe is None else (probe.apart, probe.forward_examples)


def _of_many_classes(trial: Trial, method: Method) -> float:
    """What a contrastive training from a fresh prompt is expected to gain with many classes."""
    return MANY_CLASSES_GAIN if method is CONTRASTIVE and len(trial.task.labels) >= MANY_CLASSES else 0.0


def refit_trial(trial: Trial) -> Trial:
    """The trial whose training part is training and validation part together; it keeps the thresholds of the first."""
    part = trial.partition
    whole = Partition(part.train.joined(part.validation), part.validation, part.protocol)
    again = replace(trial, partition=whole, cached={}, earlier=trial)
    again.target = trial.target  # it has the validation part's labels already, and must not have them twice
    return again


def refitted(selection: Selection, others: Sequence[Method] = ()) -> Selection:
    """The chosen method trained again on training and validation part together, on a trial of its own.

    If that diverges, a note says so, and the selection stays what it is.

    Args:
        others: methods that are trained again too.
    """
    trial = refit_trial(selection.trial)
    try:
        trained = trial.trained([METHODS[selection.chosen], *others])
    except UntrainableError as error:
        trial.progress.note(f"{error} What was chosen is kept as it was trained without the validation part.")
        return selection
    cost = selection.cost + sum(one.card.work for one in trained) / selection.unit
    return replace(selection, trial=trial, cost=cost)
