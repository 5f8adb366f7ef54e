"""The contest of a transfer: every method on every seed, and which of them is chosen on validation data."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from promptpanda.bank.folder import TrainedPrompt
from promptpanda.tasks.inputs import Split
from promptpanda.transfers.beside import train_beside
from promptpanda.transfers.choice import best_of
from promptpanda.transfers.method import Method
from promptpanda.transfers.methods import METHODS
from promptpanda.transfers.result import MethodResult
from promptpanda.transfers.selection import Selection, refitted
from promptpanda.transfers.trial import Trial


@dataclass(frozen=True)
class Contest:
    """Methods that were tried, with their outcomes.

    Attributes:
        trials: one a seed.
        results: by method.
        selections: what `auto` did, one entry a seed; None where the source was named.
    """

    trials: tuple[Trial, ...]
    results: dict[str, MethodResult]
    selections: tuple[Selection, ...] | None = None

    @classmethod
    def held(
        cls,
        trials: Sequence[Trial],
        methods: Sequence[Method],
        test: Split | None,
        selections: tuple[Selection, ...] | None = None,
    ) -> Contest:
        """Train what is not trained yet, and score all on the test data.

        Raises:
            PandaError: a training diverged.
        """
        train_beside(trials, methods)
        return cls(tuple(trials), {method.name: over_seeds(method, trials, test) for method in methods}, selections)

    @cached_property
    def chosen(self) -> str:
        """The method with the best mean validation score, of `auto` with the best mean expected score.

        Equal ones are decided by the validation loss. A tuned model is chosen only where it is alone.
        """
        if len(self.results) == 1:
            return next(iter(self.results))
        eligible = [name for name in self.results if METHODS[name].trained != "model"] or list(self.results)
        if self.selections is None:
            means = {name: statistics.fmean(self.results[name].validation or ()) for name in eligible}
        else:
            means = {name: statistics.fmean(one.posterior[name].mean for one in self.selections) for name in eligible}
        return best_of(means, {name: self.results[name].validation_loss for name in eligible})

    @property
    def best_seed(self) -> int:
        """The place of the seed whose prompt of the chosen method did best on validation data, or the first."""
        cards = [outcome.card for outcome in self.results[self.chosen].outcomes]
        if self.results[self.chosen].validation is None:
            return 0
        return max(range(len(cards)), key=lambda place: (cards[place].score, -cards[place].validation["loss"]))

    @property
    def prompt(self) -> TrainedPrompt:
        """The prompt to use."""
        return self.results[self.chosen].outcomes[self.best_seed]

    @property
    def chosen_by_seed(self) -> MethodResult | None:
        """What `auto` chooses on each seed if that seed were all there is; None without it."""
        if self.selections is None:
            return None
        picked = [self.results[one.chosen] for one in self.selections]
        scores = [one.scores[place] for place, one in enumerate(picked) if one.scores is not None]
        outcomes = tuple(one.outcomes[place] for place, one in enumerate(picked))
        validation = tuple(outcome.card.score for outcome in outcomes)
        return MethodResult(outcomes, tuple(scores) or None, validation, sum(one.card.seconds for one in outcomes))

    def cost(self, searched: int) -> float:
        """Trainings a seed. Scoring the test data is left out: it chooses nothing.

        Args:
            searched: examples that the search of a learning rate took, once for all seeds.
        """
        methods = [METHODS[name] for name in self.results]
        costs = []
        for place, trial in enumerate(self.trials):
            unit = trial.options.epochs * len(trial.partition.train)
            if self.selections is None:
                costs.append((_work(trial, methods) + searched / len(self.trials)) / unit)
            else:
                costs.append(self.selections[place].cost + searched / len(self.trials) / unit)
        return statistics.fmean(costs)


@dataclass(frozen=True)
class Refit:
    """The chosen methods trained again on training and validation part together.

    Attributes:
        selections: with what the refits cost.
        automatic: what each seed's choice gives; validation scores stay those that chose, for a refit has seen the
            validation part.
        prompt: to use.
    """

    selections: tuple[Selection, ...]
    automatic: MethodResult
    prompt: TrainedPrompt

    def cost(self, contest: Contest, searched: int) -> float:
        """Trainings a seed, those of the contest included; see `Contest.cost`."""
        return replace(contest, selections=self.selections).cost(searched)

    @classmethod
    def of(cls, contest: Contest, test: Split | None) -> Refit:
        """Raises PandaError: a training diverged."""
        automatic = contest.chosen_by_seed
        assert contest.selections is not None and automatic is not None
        chosen, best = METHODS[contest.chosen], contest.best_seed
        selections = [
            refitted(selection, (chosen,) if place == best else ())  # which may not be what is chosen on that seed
            for place, selection in enumerate(contest.selections)
        ]
        prompt = selections[best].trial.outcome(chosen)
        outcomes, scores, seconds = [], [], 0.0
        for selection in selections:
            method, trial = METHODS[selection.chosen], selection.trial
            outcome = trial.outcome(method)
            if test is not None:
                outcome, card = trial.test(method, test)
                scores.append(card.scores[trial.task.spec.metric])
            outcomes.append(outcome)
            seconds += sum(one.card.seconds for one in trial.trained([METHODS[name] for name in trial.cached]))
        found = MethodResult(tuple(outcomes), tuple(scores) or None, automatic.validation, seconds)
        return cls(tuple(selections), found, prompt)


def over_seeds(method: Method, trials: Sequence[Trial], test: Split | None) -> MethodResult:
    """One method on every trial, scored on the test data where there is any."""
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
        None if any(one.card.validation_seen for one in outcomes) else tuple(one.card.score for one in outcomes),
        seconds,
    )


def _work(trial: Trial, methods: Sequence[Method]) -> float:
    return sum(one.card.work for one in trial.trained(methods))
