"""Where the sources of a transfer come from: nowhere, from names, from the top of a ranking, or from a selection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from promptpanda.bank.folder import SourcePrompt, TrainedPrompt
from promptpanda.training.defaults import summary
from promptpanda.transfers import quick
from promptpanda.transfers.contest import Contest
from promptpanda.transfers.method import Method
from promptpanda.transfers.names import BEST
from promptpanda.transfers.overlap import LeftOut
from promptpanda.transfers.pruning import Pruned, SourceCandidates
from promptpanda.transfers.selection import one_contrastive, planned, run_race, select, trainable
from promptpanda.transfers.setting import Setting
from promptpanda.transfers.sources import best_source, find_sources, named
from promptpanda.transfers.trial import Trial

Sources = tuple[SourcePrompt, ...]


class SourceRule(Protocol):
    """Finds the sources of every seed, and holds the contest that goes with them.

    Attributes:
        left_out: the prompts that were no candidates, since they saw the target's rows; known after `find`.
    """

    left_out: tuple[LeftOut, ...]

    def find(self, setting: Setting) -> list[Sources]:
        """The sources of every seed, best first."""

    def able(self, methods: Sequence[Method]) -> tuple[Method, ...]:
        """The methods that can start from what was found."""

    def contest(self, setting: Setting, trials: Sequence[Trial], methods: Sequence[Method]) -> Contest:
        """Train the methods on the trials, and keep what decides among them."""


class NoSource:
    """None of the methods starts from a source."""

    def __init__(self) -> None:
        self.left_out: tuple[LeftOut, ...] = ()

    def find(self, setting: Setting) -> list[Sources]:
        return [()] * len(setting.request.seeds)

    def able(self, methods: Sequence[Method]) -> tuple[Method, ...]:
        return tuple(methods)

    def contest(self, setting: Setting, trials: Sequence[Trial], methods: Sequence[Method]) -> Contest:
        return Contest.held(trials, methods, setting.test)


class NamedSource(NoSource):
    """The source is a prompt, or what a name, a path or `best` means; names with commas are several.

    A foreign prompt brings no texts of its own: its signature is made of the target's. That tells nothing of PANDA's
    adaptive coefficient, so that methods that need it are left out, unless they were asked for.
    """

    def __init__(self) -> None:
        super().__init__()
        self._no_students = False

    def find(self, setting: Setting) -> list[Sources]:
        found = list(zip(*(self._one(name, setting) for name in named(setting.request.source)), strict=True))
        sources = [tuple(_signed(source, setting) for source in each) for each in found]
        first, request = sources[0][0], setting.request
        students = [method.name for method in request.contestants if method.teacher is not None]
        if first.borrowed and request.methods is None and request.distillation.coefficient == "adaptive" and students:
            self._no_students = True
            setting.progress.note(
                f"{' and '.join(students)} {'is' if len(students) == 1 else 'are'} left out: the adaptive coefficient "
                f"compares texts of the source with the target's, and {first.id} brings none; --coefficient published, "
                "or a number, needs no texts."
            )
        return sources

    def able(self, methods: Sequence[Method]) -> tuple[Method, ...]:
        return tuple(method for method in methods if method.teacher is None or not self._no_students)

    def _one(self, name: str | Path | SourcePrompt | TrainedPrompt, setting: Setting) -> list[SourcePrompt]:
        request, seeds = setting.request, tuple(setting.request.seeds)
        known = (seeds, request.task, setting.backbone, setting.bank)
        if name != BEST:
            return find_sources(name, *known, setting.rows, setting.progress)
        found, self.left_out = best_source(*known, setting.targets[0], setting.rows, request.cosine, setting.progress)
        return found


class SelectedSource:
    """`auto`: forward passes prune the bank, a race decides among the survivors (transfers/selection.py)."""

    def __init__(self) -> None:
        self.left_out: tuple[LeftOut, ...] = ()
        self._by_default = True
        self._pruned: list[Pruned] = []
        self._plan, self._classes = 0.0, 0

    def find(self, setting: Setting) -> list[Sources]:
        """The survivors of every seed; what the selection will take is told first."""
        request, options = setting.request, setting.request.selection_options
        self._by_default, self._classes = request.methods is None, len(request.task.labels)
        entrants = SourceCandidates.of(
            request.task, setting.backbone, setting.bank, request.options, setting.rows, setting.progress
        )
        self.left_out = entrants.left_out
        tasks = [card.task for card in entrants.of_seed(request.seeds[0], setting.targets[0])]
        self._plan = self._planned(setting, tasks)
        setting.progress.note(
            f"--source auto will take about {self._plan:.1f} trainings per seed; one is {summary(setting.options)}."
        )
        self._pruned = entrants.pruned(setting.targets, request.seeds, request.cosine, options.survivors)
        return [one.survivors for one in self._pruned]

    def _planned(self, setting: Setting, tasks: Sequence[str]) -> float:
        request = setting.request
        return planned(
            request.contestants if tasks else _without_source(request.contestants),
            setting.options,
            setting.targets[0],
            setting.partitions[0],
            request.selection_options,
            tasks,
            0 if setting.unlabeled is None else len(setting.unlabeled[0]),
        )

    def able(self, methods: Sequence[Method]) -> tuple[Method, ...]:
        if not all(one.survivors for one in self._pruned):
            return _without_source(methods)
        return one_contrastive(methods, self._pruned, self._classes) if self._by_default else tuple(methods)

    def contest(self, setting: Setting, trials: Sequence[Trial], methods: Sequence[Method]) -> Contest:
        options = setting.request.selection_options
        finalists = options.finalists_for(methods)
        runs = [run_race(trial, one, finalists) for trial, one in zip(trials, self._pruned, strict=True)]
        after = [trial for trial, _ in runs]
        finishing = trainable(after, methods)
        selections = tuple(
            select(trial, one, result, finishing, self._plan)
            for (trial, result), one in zip(runs, self._pruned, strict=True)
        )
        return Contest.held(after, finishing, setting.test, selections)


class QuickSource(SelectedSource):
    """`auto` of little effort: the estimator alone decides (transfers/quick.py)."""

    def contest(self, setting: Setting, trials: Sequence[Trial], methods: Sequence[Method]) -> Contest:
        method, decided = quick.first_choice(trials, self._pruned)
        selections = tuple(
            quick.trained(trial, one, method, self._plan, decided)
            for trial, one in zip(trials, self._pruned, strict=True)
        )
        return Contest.held([one.trial for one in selections], [method], setting.test, selections)

    def _planned(self, setting: Setting, tasks: Sequence[str]) -> float:
        return quick.planned(setting.targets[0], setting.partitions[0], setting.options.epochs, len(tasks))


def source_rule(setting: Setting) -> SourceRule:
    """The rule that a request asks for."""
    if setting.request.selects:
        return QuickSource() if setting.request.selection_options.effort == "quick" else SelectedSource()
    return NamedSource() if setting.request.takes_source else NoSource()


def _signed(source: SourcePrompt, setting: Setting) -> SourcePrompt:
    """The source, with a signature of the target's texts where it has none."""
    if source.signature is not None:
        return source
    return replace(source, signature=setting.targets[0].signature_under("source", source), borrowed=True)


def _without_source(methods: Sequence[Method]) -> tuple[Method, ...]:
    return tuple(method for method in methods if not method.needs_source)
