"""Train source prompts, and transfer them: every method on every seed, and the choice among them on validation data."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from promptpanda.backbone import Backbone, default_device
from promptpanda.bank.bank import Bank
from promptpanda.bank.folder import SourcePrompt, TrainedPrompt
from promptpanda.bank.signature import EXAMPLES
from promptpanda.errors import PandaError
from promptpanda.progress import Progress, Silent
from promptpanda.tasks.inputs import Input, Split
from promptpanda.tasks.metrics import baseline
from promptpanda.tasks.protocol import Partition, Protocol, capped, partition
from promptpanda.tasks.reading import Row
from promptpanda.tasks.spec import Kind
from promptpanda.tasks.task import Task
from promptpanda.tasks.unlabeled import read_inputs, without
from promptpanda.training.defaults import settled, told
from promptpanda.training.distillation import DistillationOptions
from promptpanda.training.options import TrainingOptions
from promptpanda.transfers.ablation import ablate
from promptpanda.transfers.choice import best_of
from promptpanda.transfers.estimators import Cosine, TargetView, estimates
from promptpanda.transfers.method import Method
from promptpanda.transfers.methods import METHODS, PANDA, PANDA_UNLABELED, PROMPT_TUNING, check_methods
from promptpanda.transfers.rates import best_rate
from promptpanda.transfers.result import MethodResult, TransferResult
from promptpanda.transfers.selection import (
    AUTO,
    CONTESTANTS,
    Entrants,
    Selection,
    SelectionOptions,
    planned,
    raced,
    refit_trial,
    select,
    sound,
)
from promptpanda.transfers.sources import find_sources, named, with_prompt_of
from promptpanda.transfers.trial import Trial


def train(
    task: Task,
    backbone: Backbone,
    *,
    bank: Bank | None = None,
    options: TrainingOptions | None = None,
    protocol: Protocol = "clean",
    train_examples: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> TrainedPrompt:
    """Train a prompt for a task by prompt tuning. Test data is not read.

    Args:
        bank: where to save it; a prompt that the bank has already is not trained again.
        options: what is left open in them is settled by kind and amount of data (training/defaults.py).
        train_examples: the whole budget, train and validation together; None takes all of train.
    """
    check_seeds([seed])
    progress = progress or Silent()
    part = partition(task, protocol=protocol, train_examples=train_examples, seed=seed)
    options = settled(options or TrainingOptions(), task.kind, part.train, backbone)

    def trial_of(options: TrainingOptions) -> Trial:
        return Trial(backbone, task, part, options, seed, bank=bank, progress=progress)

    if options.lr == "auto":
        options, _ = best_rate(options, trial_of, progress)
    trial = trial_of(options)
    trial.tell()
    return trial.outcome(PROMPT_TUNING)


def transfer(
    task: Task,
    source: str | Path | SourcePrompt | TrainedPrompt = AUTO,
    backbone: Backbone | None = None,
    *,
    bank: Bank | None = None,
    options: TrainingOptions | None = None,
    methods: Sequence[str] | None = None,
    distillation: DistillationOptions | None = None,
    cosine: Cosine | None = None,
    selection: SelectionOptions | None = None,
    protocol: Protocol = "clean",
    train_examples: int | None = None,
    test_examples: int | None = None,
    seeds: Sequence[int] = (0,),
    unlabeled: Sequence[Row] | None = None,
    ablation: bool = False,
    progress: Progress | None = None,
) -> TransferResult:
    """Try methods on a target and choose among them on validation data.

    Args:
        source: a trained prompt; a path; or, with a bank, an id, a task's name, `best`: the top of the default
            estimator, or `auto`: the full selection (transfers/selection.py). Of a task's name and of `best`, seed s
            uses the prompt of seed s if the bank has one; `auto` selects for each seed by itself. Names with commas are
            several sources, of which methods without fusion take the first.
        backbone: None loads the embedded model.
        methods: names in the registry (transfers/methods.py). None: prompt_tuning, pot and panda, and head_only too
            with `auto`, whose contestants always include prompt_tuning.
        cosine: options of PANDA's metric, which governs the adaptive coefficient.
        selection: of `auto`.
        test_examples: at most so many test examples, drawn with a fixed seed; None takes all.
        unlabeled: rows of the target without labels (others' fields are ignored), which `panda_unlabeled`, then among
            the methods, learns from; texts of test and validation data are left out.
        ablation: whether the controls around the default are trained too (transfers/ablation.py).

    Raises:
        PandaError: anything that the caller can mend; what was trained before is in the bank.
    """
    progress = progress or Silent()
    auto = source == AUTO
    if selection is not None and not auto:
        raise PandaError("--survivors, --finalists and --refit are for --source auto; leave them out, or say that.")
    default = CONTESTANTS if auto else ("prompt_tuning", "pot", "panda")
    contestants = check_methods(tuple(default if methods is None else methods))
    if unlabeled is not None and not any(method.unlabeled for method in contestants):
        contestants = (*contestants, PANDA_UNLABELED)
    led = ablation or any(method.needs_source for method in contestants)
    if selection is not None and not led:
        raise PandaError(
            "--survivors, --finalists and --refit are for choosing a source, and none of the methods starts from one; "
            "leave them out, or add pot or panda to --methods."
        )
    auto = auto and led
    if auto:
        contestants = check_methods((PROMPT_TUNING.name, *(method.name for method in contestants)))
    selection = selection or SelectionOptions()
    seeds = check_seeds(seeds)
    options = options or TrainingOptions()
    selection.check(options, protocol)
    cosine = cosine or Cosine()
    backbone = backbone or Backbone.load(device=default_device())
    partitions = [partition(task, protocol=protocol, train_examples=train_examples, seed=seed) for seed in seeds]
    # Read before anything is trained: a label that train lacks must not be found out at the end.
    test = partitions[0].validation if protocol == "paper" else task.test()
    texts = None if unlabeled is None else _unlabeled(task, unlabeled, partitions, test, progress)
    test = None if test is None else capped(test, test_examples)
    seen = settled(options, task.kind, partitions[0].train, backbone)
    views = [
        TargetView.of(backbone, task, part, seen, examples=max(EXAMPLES, cosine.examples))
        for part in (partitions if auto else partitions[:1])
    ]
    sources: list[tuple[SourcePrompt, ...]] = [()] * len(seeds)
    entrants = Entrants.of(task, backbone, bank, options, progress) if auto else None
    plan = 0.0
    if entrants is not None:
        tasks = [card.task.name for card in entrants.of_seed(seeds[0])]
        able = contestants if tasks else tuple(method for method in contestants if not method.needs_source)
        plan = planned(able, seen, views[0], partitions[0], selection, tasks, 0 if texts is None else len(texts[0]))
        progress.note(f"--source auto will take about {plan:.1f} trainings a seed; one is {told(seen)}.")
        pruned = entrants.pruned(views, seeds, cosine, selection.survivors)
        sources = [one.survivors for one in pruned]
        if not all(sources):
            contestants = tuple(method for method in contestants if not method.needs_source)
    elif led:
        found = [find_sources(one, seeds, task, backbone, bank, views[0], cosine, progress) for one in named(source)]
        sources = list(zip(*found, strict=True))
    if sources[0]:
        options = with_prompt_of(options, sources[0][0])
    options = settled(options, task.kind, partitions[0].train, backbone)

    def trial_of(options: TrainingOptions, place: int = 0) -> Trial:
        if sources[place]:
            options = with_prompt_of(options, sources[place][0])
        settings = distillation or DistillationOptions()
        trial = Trial(
            backbone,
            task,
            partitions[place],
            options,
            seeds[place],
            sources[place],
            settings,
            cosine,
            bank,
            progress,
            unlabeled=None if texts is None else texts[place],
        )
        if auto and options.max_length == seen.max_length:
            trial.target = views[place]  # which has seen the sources already
        return trial

    searched = 0
    if options.lr == "auto":
        options, searched = best_rate(options, trial_of, progress)
    trials = [trial_of(options, place) for place in range(len(seeds))]
    trials[0].tell()
    if test is not None and task.kind == Kind.EXTRACTIVE_QA:
        trials[0].data(test)  # a question that leaves no room must not be found out at the end
    for trial in trials:
        if trial.source is not None:
            _ = trial.transferability
        for method in (*contestants, PANDA) if ablation else contestants:
            trial.check(method)
    selections: tuple[Selection, ...] | None = None
    if auto:
        runs = [raced(trial, one, selection) for trial, one in zip(trials, pruned, strict=True)]
        trials = [trial for trial, _ in runs]
        contestants = sound(trials, contestants)
        selections = tuple(
            select(trial, one, result, contestants, plan) for (trial, result), one in zip(runs, pruned, strict=True)
        )
    results = {method.name: _over_seeds(method, trials, test) for method in contestants}
    eligible = [method.name for method in contestants if method.trained != "model"] or list(results)
    means = {name: statistics.fmean(results[name].validation) for name in eligible}
    if selections is not None:
        means = {name: statistics.fmean(one.posterior[name].mean for one in selections) for name in eligible}
    chosen = best_of(means, {name: results[name].validation_loss for name in eligible})
    outcomes = results[chosen].outcomes
    best = max(range(len(seeds)), key=lambda at: (outcomes[at].card.score, -outcomes[at].card.validation["loss"]))
    prompt, automatic = outcomes[best], None
    if selections is not None:
        automatic = _chosen_by_itself(selections, results)
        if selection.refit:
            refits = [refit_trial(trial) for trial in trials]
            prompt = refits[best].outcome(METHODS[chosen])
            selections, automatic = _refitted(selections, refits, automatic, test)
    if selections is None:
        cost = _cost(trials, contestants, searched)
    else:
        unit = options.epochs * len(partitions[0].train)
        cost = statistics.fmean(one.cost for one in selections) + searched / len(seeds) / unit
    return TransferResult(
        task,
        None if trials[0].source is None else trials[0].source.id,
        protocol,
        len(partitions[0].train),
        len(partitions[0].validation),
        0 if test is None else len(test),
        seeds,
        results,
        _mean_transferability(trials, results.get(PROMPT_TUNING.name)),
        cost,
        chosen,
        prompt,
        None if test is None else _constant(task, partitions, test),
        selections,
        automatic,
        ablate(trials, test) if ablation else None,
    )


def _unlabeled(
    task: Task, rows: Sequence[Row], partitions: Sequence[Partition], test: Split | None, progress: Progress
) -> list[tuple[Input, ...]]:
    """The texts of rows for each seed, without those that scores are taken on."""
    given = read_inputs(task.spec, rows, "the unlabelled text")
    kept = [without(given, test, part.validation) for part in partitions]
    fewest = min(map(len, kept))
    if fewest == 0:
        raise PandaError(
            f"All {len(given)} unlabelled texts are in the test or validation data of task '{task.name}'; give others."
        )
    if fewest < len(given):
        progress.note(
            f"{len(given) - fewest} of {len(given)} unlabelled texts are left out: they are in the test or validation "
            "data, or there twice."
        )
    return kept


def _chosen_by_itself(selections: Sequence[Selection], results: dict[str, MethodResult]) -> MethodResult:
    """What is chosen on each seed if that seed were all there is."""
    picked = [results[one.chosen] for one in selections]
    scores = [one.scores[place] for place, one in enumerate(picked) if one.scores is not None]
    outcomes = tuple(one.outcomes[place] for place, one in enumerate(picked))
    validation = tuple(outcome.card.score for outcome in outcomes)
    return MethodResult(outcomes, tuple(scores) or None, validation, sum(one.card.seconds for one in outcomes))


def _refitted(
    selections: Sequence[Selection], refits: Sequence[Trial], automatic: MethodResult, test: Split | None
) -> tuple[tuple[Selection, ...], MethodResult]:
    """The selections with what the refits cost, and what their chosen methods give when trained on all.

    Validation scores stay those that chose: a refit has seen the validation part.
    """
    outcomes, scores, costly, seconds = [], [], [], 0.0
    for one, trial in zip(selections, refits, strict=True):
        method = METHODS[one.chosen]
        outcome = trial.outcome(method)
        if test is not None:
            outcome, card = trial.test(method, test)
            scores.append(card.scores[trial.task.spec.metric])
        outcomes.append(outcome)
        # Beside its teacher there may be the method that is chosen over all seeds.
        trained = [other.card for other in trial.trained([METHODS[name] for name in trial.known])]
        seconds += sum(card.seconds for card in trained)
        unit = trial.options.epochs * len(one.trial.partition.train)
        costly.append(replace(one, cost=one.cost + sum(card.work for card in trained) / unit))
    return tuple(costly), MethodResult(tuple(outcomes), tuple(scores) or None, automatic.validation, seconds)


def check_seeds(seeds: Sequence[int]) -> tuple[int, ...]:
    """The seeds. Raises PandaError if there is none, one is negative, or one comes twice."""
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise PandaError(f"Seeds are numbers from 0, at least one, each once; found {list(seeds)}.")
    return tuple(seeds)


def _over_seeds(method: Method, trials: Sequence[Trial], test: Split | None) -> MethodResult:
    outcomes, scores, seconds = [], [], 0.0
    for trial in trials:
        outcome = trial.outcome(method)
        if test is not None:
            outcome, card = trial.test(method, test)
            scores.append(card.scores[trial.task.spec.metric])
        outcomes.append(outcome)
        seconds += sum(one.card.seconds for one in trial.trained([method]))
    return MethodResult(
        tuple(outcomes),
        None if test is None else tuple(scores),
        tuple(outcome.card.score for outcome in outcomes),
        seconds,
    )


def _constant(task: Task, partitions: Sequence[Partition], test: Split) -> float:
    scores = [baseline(task.spec, task.labels, part.train, test)[task.spec.metric] for part in partitions]
    return statistics.fmean(scores)


def _mean_transferability(trials: Sequence[Trial], tuned: MethodResult | None) -> dict[str, float]:
    """Every estimator's prediction, mean over seeds; those that need a prompt of the target use prompt tuning's."""
    by_name: dict[str, list[float]] = {}
    for position, trial in enumerate(trials):
        values = trial.transferability
        if values and trial.source is not None and tuned is not None:
            trial.target.own = tuned.outcomes[position].signature
            values = estimates(trial.source, trial.target, trial.cosine)
        for name, value in values.items():
            by_name.setdefault(name, []).append(value)
    return {name: statistics.fmean(values) for name, values in by_name.items()}


def _cost(trials: Sequence[Trial], methods: Sequence[Method], searched: int) -> float:
    """Trainings a seed. Scoring the test data is left out: it chooses nothing.

    Args:
        searched: examples that the search of a learning rate took, once for all seeds.
    """
    costs = []
    for trial in trials:
        cards = [one.card for one in trial.trained(methods)]
        unit = trial.options.epochs * len(trial.partition.train)
        work = sum(card.work for card in cards)
        costs.append((work + searched / len(trials)) / unit)
    return statistics.fmean(costs)
