"""Train source prompts, and transfer them: every method on every seed, and the choice among them on validation data."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from promptpanda.backbone import Backbone
from promptpanda.bank.bank import Bank
from promptpanda.bank.folder import SourcePrompt, TrainedPrompt
from promptpanda.bank.signature import EXAMPLES
from promptpanda.errors import PandaError
from promptpanda.progress import Progress, Silent
from promptpanda.tasks.inputs import Split
from promptpanda.tasks.metrics import baseline
from promptpanda.tasks.protocol import Partition, Protocol, capped, partition
from promptpanda.tasks.spec import Kind
from promptpanda.tasks.task import Task
from promptpanda.training.defaults import settled
from promptpanda.training.options import TrainingOptions
from promptpanda.transfers.estimators import Cosine, TargetView, estimates
from promptpanda.transfers.methods import PROMPT_TUNING, check_methods, with_teachers
from promptpanda.transfers.rates import best_rate
from promptpanda.transfers.sources import find_sources, with_prompt_of
from promptpanda.transfers.trial import DistillationOptions, Method, Trial


@dataclass(frozen=True)
class MethodResult:
    """One method over all seeds; every list has one entry a seed.

    Attributes:
        outcomes: the trained prompts.
        seconds: wall time of its trainings over all seeds, those of its teachers included.
        scores: test scores, or None where there is no test data.
        validation: validation scores.
    """

    outcomes: tuple[TrainedPrompt, ...]
    scores: tuple[float, ...] | None
    validation: tuple[float, ...]
    seconds: float

    @property
    def mean(self) -> float | None:
        return None if self.scores is None else statistics.fmean(self.scores)

    @property
    def std(self) -> float | None:
        """Sample standard deviation over seeds; None for fewer than two."""
        return None if self.scores is None or len(self.scores) < 2 else statistics.stdev(self.scores)

    @property
    def validation_loss(self) -> float:
        return statistics.fmean(outcome.card.validation["loss"] for outcome in self.outcomes)


@dataclass(frozen=True)
class TransferResult:
    """What a transfer gives.

    Attributes:
        chosen: the method with the best mean validation score; equal scores are decided by the validation loss. Model
            tuning is a line to compare with and never chosen, unless it is alone.
        prompt: its prompt of the seed with the best validation score.
        constant: what a constant prediction (the most frequent class of the training part, the mean, no span) scores on
            the test data, mean over seeds; a floor to compare with. None without test data.
        transferability: mean over seeds of what each estimator predicted for the source.
        cost: trainings a seed, in units of one training of all epochs on the training part (contract: cost).
    """

    task: Task
    source: str | None
    protocol: Protocol
    n_train: int
    n_val: int
    n_test: int
    seeds: tuple[int, ...]
    methods: dict[str, MethodResult]
    transferability: dict[str, float]
    cost: float
    chosen: str
    prompt: TrainedPrompt
    constant: float | None

    def to_json(self) -> dict[str, Any]:
        """The object that `panda transfer --json` prints (contract: command line)."""
        return {
            "target": self.task.name,
            "source": self.source,
            "protocol": self.protocol,
            "metric": self.task.spec.metric,
            "n_train": self.n_train,
            "n_val": self.n_val,
            "n_test": self.n_test,
            "seeds": list(self.seeds),
            "methods": {
                name: {
                    "mean": result.mean,
                    "std": result.std,
                    "scores": None if result.scores is None else list(result.scores),
                    "validation": list(result.validation),
                    "seconds": result.seconds,
                }
                for name, result in self.methods.items()
            },
            "transferability": self.transferability,
            "cost": self.cost,
            "chosen": self.chosen,
            "constant": self.constant,
            "prompt": None if self.prompt.path is None else str(self.prompt.path),
        }


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
    source: str | SourcePrompt | TrainedPrompt,
    backbone: Backbone,
    *,
    bank: Bank | None = None,
    options: TrainingOptions | None = None,
    methods: Sequence[str] = ("prompt_tuning", "pot", "panda"),
    distillation: DistillationOptions | None = None,
    cosine: Cosine | None = None,
    protocol: Protocol = "clean",
    train_examples: int | None = None,
    test_examples: int | None = None,
    seeds: Sequence[int] = (0,),
    progress: Progress | None = None,
) -> TransferResult:
    """Try methods on a target and choose among them on validation data.

    Args:
        source: a trained prompt; or, with a bank, an id, a path, a task's name, or `best`: the top of the default
            estimator. Of a task's name and of `best`, seed s uses the prompt of seed s if the bank has one.
        methods: names in the registry (transfer/methods.py).
        cosine: options of PANDA's metric, which `best` and the adaptive coefficient use.
        test_examples: at most so many test examples, drawn with a fixed seed; None takes all.

    Raises:
        PandaError: anything that the caller can mend; what was trained before is in the bank.
    """
    progress = progress or Silent()
    contestants = check_methods(tuple(methods))
    seeds = check_seeds(seeds)
    options = options or TrainingOptions()
    cosine = cosine or Cosine()
    partitions = [partition(task, protocol=protocol, train_examples=train_examples, seed=seed) for seed in seeds]
    # Read before anything is trained: a label that train lacks must not be found out at the end.
    test = partitions[0].validation if protocol == "paper" else task.test()
    test = None if test is None else capped(test, test_examples)
    sources: list[SourcePrompt | None] = [None] * len(seeds)
    if any(method.needs_source for method in contestants):
        seen = settled(options, task.kind, partitions[0].train, backbone)
        target = TargetView.of(backbone, task, partitions[0], seen, examples=max(EXAMPLES, cosine.examples))
        sources = list(find_sources(source, seeds, task, backbone, bank, target, cosine, progress))
    if sources[0] is not None:
        options = with_prompt_of(options, sources[0])
    options = settled(options, task.kind, partitions[0].train, backbone)

    def trial_of(options: TrainingOptions, place: int = 0) -> Trial:
        prompt = sources[place]
        if prompt is not None:
            options = with_prompt_of(options, prompt)
        settings = distillation or DistillationOptions()
        return Trial(backbone, task, partitions[place], options, seeds[place], prompt, settings, cosine, bank, progress)

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
        if any(method.teacher is not None for method in contestants):
            _ = trial.coefficient
    results = {method.name: _over_seeds(method, trials, test) for method in contestants}
    eligible = [method.name for method in contestants if method.trained != "model"] or list(results)
    chosen = max(
        eligible, key=lambda name: (statistics.fmean(results[name].validation), -results[name].validation_loss)
    )
    outcomes = results[chosen].outcomes
    return TransferResult(
        task,
        None if sources[0] is None else sources[0].id,
        protocol,
        len(partitions[0].train),
        len(partitions[0].validation),
        0 if test is None else len(test),
        seeds,
        results,
        _mean_transferability(trials, results.get(PROMPT_TUNING.name)),
        _cost(trials, contestants, searched),
        chosen,
        max(outcomes, key=lambda outcome: (outcome.card.score, -outcome.card.validation["loss"])),
        None if test is None else _constant(task, partitions, test),
    )


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
        seconds += sum(trial.outcome(part).card.seconds for part in with_teachers([method]))
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
        cards = [trial.outcome(method).card for method in with_teachers(methods)]
        unit = trial.options.epochs * len(trial.partition.train)
        work = sum(card.work for card in cards)
        costs.append((work + searched / len(trials)) / unit)
    return statistics.fmean(costs)
