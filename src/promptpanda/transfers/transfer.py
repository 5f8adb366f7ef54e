"""Train source prompts, and transfer them: every method on every seed, and the choice among them on validation data."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptpanda.backbone import Backbone, default_device
from promptpanda.bank.bank import Bank, as_bank, as_trained
from promptpanda.bank.folder import SourcePrompt, TrainedPrompt
from promptpanda.progress import Progress, Silent
from promptpanda.tasks.catalog import own_task
from promptpanda.tasks.metrics import baseline
from promptpanda.tasks.protocol import Protocol, check_seeds, partition
from promptpanda.tasks.reading import Row
from promptpanda.tasks.spec import Kind
from promptpanda.tasks.task import Task
from promptpanda.training.defaults import settled
from promptpanda.training.distillation import DistillationOptions
from promptpanda.training.options import TrainingOptions
from promptpanda.transfers.ablation import ablate
from promptpanda.transfers.contest import Contest, Refit
from promptpanda.transfers.continuing import Start
from promptpanda.transfers.estimators import Cosine, estimates
from promptpanda.transfers.frozen import frozen_embeddings
from promptpanda.transfers.method import Method
from promptpanda.transfers.methods import PANDA, PROMPT_TUNING
from promptpanda.transfers.names import AUTO
from promptpanda.transfers.overlap import LeftOut
from promptpanda.transfers.rates import best_rate
from promptpanda.transfers.request import TransferRequest
from promptpanda.transfers.result import TransferResult
from promptpanda.transfers.selection import SelectionOptions
from promptpanda.transfers.setting import Setting
from promptpanda.transfers.source_rules import Sources, source_rule
from promptpanda.transfers.trial import Trial

if TYPE_CHECKING:
    import pandas


def train(
    task: Task | Sequence[Mapping[str, Any]] | pandas.DataFrame,
    backbone: Backbone,
    *,
    bank: Bank | Path | str | None = None,
    options: TrainingOptions | None = None,
    protocol: Protocol = "clean",
    train_examples: int | None = None,
    seed: int = 0,
    start: TrainedPrompt | Path | str | None = None,
    progress: Progress | None = None,
) -> TrainedPrompt:
    """Train a prompt for a task by prompt tuning, or continue the training of a prompt. Test data is not read.

    Args:
        task: the task to train on. Or rows with the columns `text` and `label`: a pandas frame, or a list of
            dictionaries; use `own_task` for other columns and kinds.
        backbone: the frozen model.
        bank: the bank, or the path of its folder, in which to save the prompt. A prompt that the bank has already is
            loaded instead of trained. None, the default, keeps the prompt in memory.
        options: how to train. What they leave open follows from the kind and the amount of data; None leaves all open.
        protocol: `clean`, the default: a fifth of the budget (8 to 500 examples) is kept back for validation, and the
            last epoch counts. `paper`: the whole budget trains, and the best epoch on the official validation set
            counts.
        train_examples: the budget of labelled examples, training and validation part together; None, the default, takes
            the whole training split.
        seed: a number from 0 that determines the draw of examples, their order, the initial values of prompt and head,
            and dropout. The same seed gives the same prompt.
        start: a trained prompt to continue with, its folder, or, with a bank, its id or a task's name; prompt and head
            are trained further. Labels new to it get fresh rows of the head; labels that the task lacks are kept.
            None, the default, starts from a fresh prompt and head.
        progress: an object with the methods of `promptpanda.progress.Progress`, which is told what is being done; None,
            the default, is silent.

    Returns:
        The trained prompt. Its validation score is `card.score`.

    Raises:
        PandaError: something that the caller can fix: data, settings, or a training that diverged.
    """
    check_seeds([seed])
    if not isinstance(task, Task):
        task = own_task(train=task)
    progress, given = progress or Silent(), options or TrainingOptions()
    begun = None if start is None else Start.of(as_trained(start, backbone, bank))
    if begun is not None:
        task, given = begun.task(task, progress), begun.options(given)
    part = partition(task, protocol=protocol, train_examples=train_examples, seed=seed)
    settings = settled(given, task.kind, part.train, backbone)
    method, sources = PROMPT_TUNING, tuple[SourcePrompt, ...]()
    if begun is not None:
        begun.warn(part.validation, progress)
        settings = begun.settled(settings, given)
        method, sources = begun.method(task.labels), (begun.source,)

    def trial_of(options: TrainingOptions) -> Trial:
        return Trial(backbone, task, part, options, seed, sources, bank=as_bank(bank), progress=progress)

    if settings.lr == "auto":
        settings, _ = best_rate(settings, trial_of, progress, method)
    trial = trial_of(settings)
    trial.announce()
    return trial.outcome(method)


def transfer(
    task: Task,
    source: str | Path | SourcePrompt | TrainedPrompt = AUTO,
    backbone: Backbone | None = None,
    *,
    bank: Bank | Path | str | None = None,
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
    """Try several methods on a target task, and choose one of them on validation data.

    Args:
        task: the target.
        source: where to start from: `auto`, the default (source and method are selected, see
            docs/choosing-a-source.md); `best`, the prompt that the default estimator ranks first; a trained prompt; the
            path of a prompt's folder (also of a PEFT prefix); or, with a bank, an id or a task's name. For a task's
            name and for `best`, seed s uses the prompt of seed s if the bank has one; `auto` selects for each seed
            separately. Several names separated by commas are several sources; methods without fusion take the first.
        backbone: the frozen model; None, the default, loads the embedded one.
        bank: the bank, or the path of its folder, in which sources are found and trained prompts are saved. None, the
            default, keeps prompts in memory.
        options: how to train, for all methods. What they leave open follows from the kind and the amount of data; None
            leaves all open.
        methods: names of methods (`transfers/methods.py` lists them). None, the default, tries `prompt_tuning`, `pot`
            and `panda`; with `auto` it tries `prompt_tuning`, `pot`, the linear probes and a contrastive method, where
            the kind of task has them. With `auto`, `prompt_tuning` is always among them.
        distillation: how PANDA's student learns from its teacher: coefficient, distance, temperature, start.
        cosine: options of PANDA's metric, which determines the adaptive coefficient.
        selection: how `auto` selects; allowed only with `auto`.
        protocol: `clean`, the default: validation examples come from the budget, and nothing is chosen by test data.
            `paper`: the whole budget trains, and the best epoch on the official validation set is reported.
        train_examples: the budget of labelled examples, training and validation part together; None, the default, takes
            the whole training split.
        test_examples: at most this many test examples, drawn with a fixed seed; None, the default, takes all.
        seeds: numbers from 0, each once; `(0,)` by default. Every seed draws its own examples, order and initial
            values; scores are reported for each seed.
        unlabeled: rows of the target without labels, as dictionaries (other fields are ignored), for methods that learn
            from them; `panda_unlabeled` is added to the methods if none of them does. Texts of test and validation data
            are left out. None, the default, for none.
        ablation: whether to train the controls too: the default settings with one thing changed at a time
            (docs/fusion-and-unlabeled.md). Off by default.
        progress: an object with the methods of `promptpanda.progress.Progress`, which is told what is being done; None,
            the default, is silent.

    Returns:
        The scores of all methods, the chosen one, and its prompt.

    Raises:
        PandaError: something that the caller can fix; what was trained before is in the bank.
    """
    request = TransferRequest(
        task=task,
        source=source,
        methods=methods,
        options=options or TrainingOptions(),
        distillation=distillation or DistillationOptions(),
        cosine=cosine or Cosine(),
        selection=selection,
        protocol=protocol,
        train_examples=train_examples,
        test_examples=test_examples,
        seeds=seeds,
        unlabeled=unlabeled,
        ablation=ablation,
    )
    return run_transfer(request, backbone or Backbone.load(device=default_device()), bank=bank, progress=progress)


def run_transfer(
    request: TransferRequest,
    backbone: Backbone,
    *,
    bank: Bank | Path | str | None = None,
    progress: Progress | None = None,
) -> TransferResult:
    """Carry out a request: find the sources, train every method on every seed, and choose on validation data.

    Raises:
        PandaError: something that the caller can fix; what was trained before is in the bank.
    """
    setting = Setting.of(request, backbone, as_bank(bank), progress or Silent())
    rule = source_rule(setting)
    sources = rule.find(setting)
    methods = rule.able(request.contestants)
    trials, searched = _trials(setting, sources)
    _check(setting, trials, methods)
    contest = rule.contest(setting, trials, methods)
    refits = request.selection_options.refits(setting.options, request.protocol)
    refit = Refit.of(contest, setting.test) if contest.selections and refits else None
    return _result(setting, contest, refit, searched, rule.left_out)


def _trials(setting: Setting, sources: Sequence[Sources]) -> tuple[list[Trial], int]:
    """The trial of every seed, and the cost of the search for a learning rate, in examples trained."""
    options, searched = setting.options_for(sources[0]), 0
    if options.lr == "auto":
        options, searched = best_rate(options, lambda tried: setting.trial(0, sources[0], tried), setting.progress)
    return [setting.trial(place, each, options) for place, each in enumerate(sources)], searched


def _check(setting: Setting, trials: Sequence[Trial], methods: Sequence[Method]) -> None:
    """Check everything that a method needs before anything is trained."""
    trials[0].announce()
    if setting.test is not None and setting.request.task.kind == Kind.EXTRACTIVE_QA:
        trials[0].data(setting.test)  # a question that leaves no room must not be found out at the end
    for trial in trials:
        if trial.source is not None:
            _ = trial.transferability
        for method in (*methods, PANDA) if setting.request.ablation else methods:
            trial.check(method)


def _result(
    setting: Setting, contest: Contest, refit: Refit | None, searched: int, left_out: tuple[LeftOut, ...]
) -> TransferResult:
    request, trials, test = setting.request, contest.trials, setting.test
    part = setting.partitions[0]
    return TransferResult(
        request.task,
        None if trials[0].source is None else trials[0].source.id,
        request.protocol,
        len(part.train),
        len(part.validation),
        0 if test is None else len(test),
        tuple(request.seeds),
        contest.results,
        _mean_transferability(contest),
        contest.cost(searched) if refit is None else refit.cost(contest, searched),
        contest.chosen,
        contest.prompt if refit is None else refit.prompt,
        _constant(setting),
        contest.selections if refit is None else refit.selections,
        contest.chosen_by_seed if refit is None else refit.automatic,
        ablate(trials, test) if request.ablation else None,
        left_out,
        frozen_embeddings(setting),
    )


def _constant(setting: Setting) -> float | None:
    """What a constant prediction scores on the test data, mean over seeds."""
    task, test = setting.request.task, setting.test
    if test is None:
        return None
    scores = [baseline(task.spec, task.labels, part.train, test)[task.spec.metric] for part in setting.partitions]
    return statistics.fmean(scores)


def _mean_transferability(contest: Contest) -> dict[str, float]:
    """Every estimator's prediction, mean over seeds; those that need a prompt of the target use prompt tuning's."""
    tuned = contest.results.get(PROMPT_TUNING.name)
    by_name: dict[str, list[float]] = {}
    for place, trial in enumerate(contest.trials):
        values = trial.transferability
        if values and trial.source is not None and tuned is not None:
            trial.target.own = tuned.outcomes[place].signature
            values = estimates(trial.source, trial.target, trial.cosine)
        for name, value in values.items():
            by_name.setdefault(name, []).append(value)
    return {name: statistics.fmean(values) for name, values in by_name.items()}
