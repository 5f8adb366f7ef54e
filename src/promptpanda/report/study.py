"""Rows of a store as a study: groups that can be compared, and in each the contenders of its main table."""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

from promptpanda.errors import PandaError
from promptpanda.sweep.recipe import DEFAULT
from promptpanda.sweep.row import Answers, Row, in_force
from promptpanda.tasks.shared_text import Pairs, share_text
from promptpanda.transfers.methods import METHODS, PROMPT_TUNING
from promptpanda.transfers.names import AUTO

Choice = Literal["only", "mean", "best"]


class Conditions(NamedTuple):
    """What runs must have in common to stand in one table; `budget` None is all examples."""

    model: str
    budget: int | None
    protocol: str

    @property
    def title(self) -> str:
        return f"{self.model_name}, {self.budget_words}, {self.protocol} protocol"

    @property
    def model_name(self) -> str:
        """The model as the recipe names it; of a folder its own name."""
        return Path(self.model).name if os.path.isabs(self.model) or self.model.startswith(".") else self.model

    @property
    def budget_words(self) -> str:
        return "all examples" if self.budget is None else f"{self.budget} examples"


class Contender(NamedTuple):
    """A column of the main table.

    Attributes:
        choice: `only`: a method with one run a seed; else a method with one run for every source: the `mean` over the
            sources, or the run that has the `best` validation score.
    """

    method: str
    variant: str
    choice: Choice

    @property
    def title(self) -> str:
        how = {"only": "", "mean": ", mean of sources", "best": ", best source"}[self.choice]
        return f"{self.method_title}{how}"

    @property
    def method_title(self) -> str:
        name = METHODS[self.method].title if self.method in METHODS else self.method
        return name if self.variant == DEFAULT else f"{name} ({self.variant})"


class Score(NamedTuple):
    """Points (fractions times 100) over seeds: mean, sample standard deviation (None for one seed)."""

    mean: float
    sd: float | None
    seeds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Score:
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))


@dataclass(frozen=True)
class Group:
    """All finished runs on targets under the same conditions, and what estimators said there.

    Attributes:
        runs: rows of kind `target`.
        estimates: rows of kind `estimates`.
        shared: pairs of sets that share texts, beside the known ones.
    """

    conditions: Conditions
    runs: tuple[Row, ...]
    estimates: tuple[Row, ...]
    shared: Pairs

    @cached_property
    def targets(self) -> list[str]:
        return sorted({row.task for row in self.runs})

    @cached_property
    def sources(self) -> list[str]:
        return sorted({row.source for row in (*self.runs, *self.estimates) if row.source is not None})

    @cached_property
    def contenders(self) -> list[Contender]:
        """What main tables show: the default variant of every method; where there is none, its variants."""
        plain = {one.method for one in self.everything if one.variant == DEFAULT}
        return [one for one in self.everything if one.variant == DEFAULT or one.method not in plain]

    @cached_property
    def everything(self) -> list[Contender]:
        """All variants of all methods: prompt tuning, `auto`, then the registry's order; default variants first."""
        order = list(dict.fromkeys((PROMPT_TUNING.name, AUTO, *METHODS)))
        methods = sorted(
            {(row.method, row.variant) for row in self.runs if row.method is not None},
            key=lambda pair: (
                order.index(pair[0]) if pair[0] in order else len(order),
                pair[0],
                pair[1] != DEFAULT,
                pair[1],
            ),
        )
        found = []
        for method, variant in methods:
            choices: tuple[Choice, ...] = ("mean", "best") if self._many_sources(method, variant) else ("only",)
            found += [Contender(method, variant, choice) for choice in choices]
        return found

    def find(self, method: str, choice: Choice | None = None) -> Contender | None:
        """The default variant of a method; of several choices `choice`, or the only one."""
        for one in self.contenders:
            if one.method == method and one.variant == DEFAULT and one.choice in (choice, "only"):
                return one
        return None

    @property
    def baseline(self) -> Contender | None:
        """Prompt tuning, where it was run."""
        return self.find(PROMPT_TUNING.name)

    def overlaps(self, target: str, source: str | None) -> bool:
        """Whether target and source share texts, so that the pair is left out of averages and choices."""
        return source is not None and share_text(target, source, self.shared)

    def measured(self, target: str) -> Literal["test", "validation"]:
        """What scores of this target are: those on validation examples where no run has others."""
        return "test" if any(row.test is not None for row in self.runs if row.task == target) else "validation"

    def score(self, row: Row) -> float | None:
        """In points, or None if this run has none of the kind that the target is measured by."""
        scores = row.test if self.measured(row.task) == "test" else row.validation
        value = math.nan if scores is None or row.metric is None else scores.get(row.metric, math.nan)
        return None if math.isnan(value) else 100 * value

    def constant(self, target: str) -> float | None:
        """What a constant prediction scores on the test data in points, mean over seeds; None where it is not known."""
        if self.measured(target) != "test":
            return None
        by_seed = {row.seed: row.constant for row in self.runs if row.task == target and row.constant is not None}
        return 100 * statistics.fmean(by_seed.values()) if by_seed else None

    def chosen(self, contender: Contender, target: str) -> dict[int, list[Row]]:
        """The runs that count, by seed: all whose sources may count, or the one with the best validation score.

        Equal validation scores are decided by the lower validation loss, then by the source's name.
        """
        chosen: dict[int, list[Row]] = {}
        for row in self._by_method.get((contender.method, contender.variant), {}).get(target, []):
            # A fusion or a selection among sources is spoilt by one of them.
            if not any(self.overlaps(target, source) for source in row.sources):
                chosen.setdefault(row.seed, []).append(row)
        if contender.choice == "best":
            return {seed: [min(rows, key=_rank)] for seed, rows in sorted(chosen.items())}
        return dict(sorted(chosen.items()))

    def pair_runs(self, method: str, variant: str, target: str, source: str) -> dict[int, Row]:
        """The runs of one source on one target, by seed; those of sets that share text too."""
        rows = self._by_method.get((method, variant), {}).get(target, [])
        return {row.seed: row for row in rows if row.source == source}

    def result(self, contender: Contender, target: str) -> Score | None:
        """Mean over seeds of the mean over the runs that count."""
        by_seed = []
        for rows in self.chosen(contender, target).values():
            scores = [value for value in map(self.score, rows) if value is not None]
            if scores:
                by_seed.append(statistics.fmean(scores))
        return Score.of(by_seed) if by_seed else None

    def complete_targets(self, contenders: Sequence[Contender]) -> list[str]:
        """The targets for which every contender has a result: those that means are taken over."""
        return [target for target in self.targets if all(self.result(one, target) is not None for one in contenders)]

    def mean_result(self, contender: Contender, targets: Sequence[str]) -> float | None:
        """Mean over targets, each of which counts alike."""
        found = [result.mean for target in targets if (result := self.result(contender, target)) is not None]
        return statistics.fmean(found) if found else None

    def estimates_of(self, name: str, target: str, source: str) -> dict[int, float]:
        """What an estimator predicts for a source and a target, by seed."""
        rows = self._estimates.get((target, source), [])
        return {
            row.seed: row.estimates[name]
            for row in rows
            if row.estimates is not None and math.isfinite(row.estimates.get(name, math.nan))
        }

    @cached_property
    def estimators(self) -> list[str]:
        """Names, in the order in which the rows have them."""
        return list(dict.fromkeys(name for row in self.estimates for name in row.estimates or {}))

    @cached_property
    def _by_method(self) -> dict[tuple[str, str], dict[str, list[Row]]]:
        found: dict[tuple[str, str], dict[str, list[Row]]] = {}
        for row in self.runs:
            if row.method is not None:
                found.setdefault((row.method, row.variant), {}).setdefault(row.task, []).append(row)
        return found

    @cached_property
    def _estimates(self) -> dict[tuple[str, str | None], list[Row]]:
        found: dict[tuple[str, str | None], list[Row]] = {}
        for row in self.estimates:
            found.setdefault((row.task, row.source), []).append(row)
        return found

    def _many_sources(self, method: str, variant: str) -> bool:
        """Whether a target and seed have runs from several sources."""
        for rows in self._by_method[method, variant].values():
            seen = {(row.seed, row.source) for row in rows}
            if len(seen) > len({seed for seed, _ in seen}):
                return True
        return False


@dataclass(frozen=True)
class Study:
    """Everything that a report shows.

    Attributes:
        groups: by conditions, larger models first where their sizes are known.
        failed: runs that failed and were not done again with success.
        superseded: rows under another spec, data or model than the one that counts in their place.
        answers: by test fingerprint.
    """

    groups: tuple[Group, ...]
    sources: tuple[Row, ...]
    failed: tuple[Row, ...]
    finished: tuple[Row, ...]
    superseded: int
    answers: dict[str, Answers] = field(repr=False)

    def label(self, group: Group) -> str:
        """A short name of a group: its model, and what else of its conditions differs between the groups."""
        all_conditions = [one.conditions for one in self.groups]
        words = [group.conditions.model_name]
        if len({one.budget for one in all_conditions}) > 1:
            words.append(group.conditions.budget_words)
        if len({one.protocol for one in all_conditions}) > 1:
            words.append(f"{group.conditions.protocol} protocol")
        return ", ".join(words)

    @classmethod
    def of(
        cls,
        rows: Iterable[Row],
        answers: Iterable[Answers],
        *,
        shared: Pairs = frozenset(),
        sizes: dict[str, int],
        plan: Mapping[str, str] | None = None,
    ) -> Study:
        """Order rows into a study.

        Args:
            plan: the runs that the sweep was last asked for, by key (sweep/row.py: in_force).
            shared: pairs of sets that share texts, beside those that are known to.
            sizes: parameters by model name, as far as known.

        Raises:
            PandaError: no run of these rows is finished.
        """
        known = list(rows)
        latest = in_force(known, plan or {})
        latest.sort(key=lambda row: (row.task, row.method or "", row.source or "", row.seed, row.variant, row.key))
        finished = [row for row in latest if row.status == "finished"]
        if not finished:
            raise PandaError(
                f"A report needs at least one finished run, found none and {len(latest)} that failed; run `panda "
                "sweep` first."
            )
        conditions = {Conditions(row.model, row.budget, row.protocol) for row in finished if row.kind != "source"}
        ordered = sorted(
            conditions,
            key=lambda one: (-sizes.get(one.model, 0), one.model, one.protocol, one.budget is None, one.budget or 0),
        )
        groups = []
        for one in ordered:
            own = [row for row in finished if (row.model, row.budget, row.protocol) == one]
            groups.append(
                Group(
                    one,
                    tuple(row for row in own if row.kind == "target"),
                    tuple(row for row in own if row.kind == "estimates"),
                    shared,
                )
            )
        return cls(
            tuple(groups),
            tuple(row for row in finished if row.kind == "source"),
            tuple(row for row in latest if row.status == "failed"),
            tuple(finished),
            len(known) - len(latest),
            {one.test_fingerprint: one for one in answers},
        )


def _rank(row: Row) -> tuple[float, float, str]:
    validation = row.validation or {}
    score, loss = validation.get(row.metric or "", math.nan), validation.get("loss", math.nan)
    return _last(-score), _last(loss), row.source or ""


def _last(value: float) -> float:
    """What is undefined comes last."""
    return math.inf if math.isnan(value) else value
