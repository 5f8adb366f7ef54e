"""Estimators against a measured grid of our own: a pure function of the store's rows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from promptpanda.errors import PandaError
from promptpanda.evaluation.agreement import (
    FEWEST,
    Correlation,
    Measured,
    jackknife_error,
    kendall,
    spearman,
    standard_error,
    tops,
)
from promptpanda.evaluation.result import Choice, Evaluation, ModelEvaluation
from promptpanda.sweep.row import Row, in_force
from promptpanda.tasks.shared_text import Pairs, share_text
from promptpanda.transfers.names import AUTO

KS = (1, 3)
_DIGITS = 9
GAIN = 1.0  # points over no transfer from which on transfer is said to help a target


@dataclass(frozen=True)
class Cell:
    """One target on one model: what was predicted and what was measured.

    Attributes:
        sources: names.
        pot: test scores of PoT, in points. *Shape:* (seeds, sources).
        tuned: test scores of prompt tuning, in points. *Shape:* (seeds,).
        predicted: of every estimator that scored all sources on all seeds. *Shape:* (seeds, sources).
        auto: test scores of the full selection, in points, where it was run on all seeds. *Shape:* (seeds,).
    """

    target: str
    seeds: tuple[int, ...]
    sources: tuple[str, ...]
    pot: np.ndarray
    tuned: np.ndarray
    predicted: dict[str, np.ndarray]
    auto: np.ndarray | None = None

    def best(self, seed: int, contestants: Sequence[int]) -> float:
        """The score on a seed of the contestant that is best on the others.

        With one seed, on that seed itself. Contestants are places in `sources`; the place after the last is no
        transfer.
        """
        scores = np.concatenate([self.pot, self.tuned[:, None]], axis=1)[:, list(contestants)]
        others = np.delete(scores, seed, axis=0) if len(scores) > 1 else scores
        return float(scores[seed, int(others.mean(0).argmax())])

    def oracle(self, seed: int) -> float:
        return self.best(seed, range(len(self.sources) + 1))

    def top(self, estimator: str, seed: int, k: int) -> float:
        """The best of the k sources that are predicted best on a seed; equal predictions: mean over their orders."""
        return float(np.mean([self.best(seed, places) for places in tops(self.predicted[estimator][seed], k)]))

    def gain(self) -> float:
        """What the oracle gains over no transfer, in points, mean over seeds."""
        return float(np.mean([self.oracle(seed) for seed in range(len(self.seeds))]) - self.tuned.mean())

    def means(self, estimator: str, seeds: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Predicted and measured, mean over these seeds. *Shape:* (sources,) each."""
        # Equal means of numbers in another order differ in the last bit, and would not be ties.
        return self.predicted[estimator][seeds].mean(0).round(_DIGITS), self.pot[seeds].mean(0).round(_DIGITS)


def evaluate_rows(
    rows: Iterable[Row], *, shared: Pairs = frozenset(), plan: Mapping[str, str] | None = None
) -> Evaluation:
    """Every estimator on every model, budget and protocol of a sweep.

    Correlations are between an estimator's scores and the measured test scores of PoT, both mean over seeds. Of every
    target count the sources that were measured on all its seeds; sets that share texts do not count.

    Args:
        shared: pairs of sets that share texts, beside the known ones.
        plan: the runs that the sweep was last asked for, by key (sweep/row.py: in_force).

    Raises:
        PandaError: there is no target that prompt tuning, PoT from three sources and estimators were run on.
    """
    latest = [row for row in in_force(rows, plan or {}) if row.status == "finished"]
    counted = [row for row in latest if row.kind != "source" and row.variant == "default"]
    overlaps = {
        (row.source, row.task) for row in counted if row.source is not None and share_text(row.task, row.source, shared)
    }
    kept = [row for row in counted if (row.source, row.task) not in overlaps and row.source != row.task]
    conditions = sorted({(row.model, row.protocol, row.budget) for row in kept}, key=str)
    models = {}
    for one in conditions:
        part = [row for row in kept if (row.model, row.protocol, row.budget) == one]
        cells = [cell for target in sorted({row.task for row in part}) if (cell := _cell(target, part)) is not None]
        if cells:
            models[_title(one, conditions)] = _evaluate(cells)
    if not models:
        raise PandaError(
            f"Estimators are evaluated on targets with finished runs of prompt_tuning, of pot from at least {FEWEST} "
            "sources, and with estimates; this store has none."
        )
    return Evaluation(models, tuple(sorted((source, target) for source, target in overlaps if source is not None)))


def _cell(target: str, rows: Sequence[Row]) -> Cell | None:
    """None where there is too little to compare."""
    here = [row for row in rows if row.task == target]
    tuned = {row.seed: row for row in here if row.method == "prompt_tuning"}
    pot = {(row.seed, row.source): row for row in here if row.method == "pot" and row.source is not None}
    estimates = {(row.seed, row.source): _finite(row.estimates or {}) for row in here if row.kind == "estimates"}
    seeds = tuple(sorted(set(tuned) & {seed for seed, _ in pot}))
    names = sorted({source for _, source in pot if source is not None})
    sources = tuple(name for name in names if all((seed, name) in pot for seed in seeds))
    if not seeds or len(sources) < FEWEST:
        return None
    found = [[estimates.get((seed, name), {}) for name in sources] for seed in seeds]
    able = [name for name in found[0][0] if all(name in values for line in found for values in line)]
    if not able:
        return None
    auto = {row.seed: row for row in here if row.method == AUTO}
    auto = auto if auto.keys() >= set(seeds) else {}
    runs = [*tuned.values(), *pot.values(), *auto.values()]
    tested = all(row.test is not None for row in runs)
    return Cell(
        target,
        seeds,
        sources,
        np.asarray([[_points(pot[seed, name], tested) for name in sources] for seed in seeds]),
        np.asarray([_points(tuned[seed], tested) for seed in seeds]),
        {name: np.asarray([[values[name] for values in line] for line in found]) for name in able},
        np.asarray([_points(auto[seed], tested) for seed in seeds]) if auto else None,
    )


def _evaluate(cells: Sequence[Cell]) -> ModelEvaluation:
    names = list(dict.fromkeys(name for cell in cells for name in cell.predicted))
    helped = [cell for cell in cells if cell.gain() >= GAIN]
    rules: dict[str, list[list[float]]] = {
        "no_transfer": [list(cell.tuned) for cell in cells],
        "random": [list(cell.pot.mean(1)) for cell in cells],
        "oracle": [[cell.oracle(seed) for seed in range(len(cell.seeds))] for cell in cells],
    }
    regret: dict[str, dict[int, Measured]] = {}
    if all(cell.auto is not None for cell in cells):
        rules[AUTO] = [list(cell.auto) for cell in cells if cell.auto is not None]
    details: dict[str, dict[str, Any]] = {
        cell.target: {
            "sources": list(cell.sources),
            "seeds": list(cell.seeds),
            "gain": cell.gain(),
            "spearman": {},
            "kendall": {},
            "regret": {},
            "selection": {},
        }
        for cell in cells
    }
    for name in names:
        able = [cell for cell in cells if name in cell.predicted]
        for cell in able:
            predicted, measured = cell.means(name, list(range(len(cell.seeds))))
            details[cell.target]["spearman"][name] = spearman(predicted, measured)
            details[cell.target]["kendall"][name] = kendall(predicted, measured)
        for k in KS:
            reached = [[cell.top(name, seed, k) for seed in range(len(cell.seeds))] for cell in able]
            _lose(regret, details, name, k, able, reached)
            if len(able) == len(cells):  # else its mean would be over other targets than the other rules'
                rules[f"top{k}_{name}"] = reached
    chose = [cell for cell in cells if cell.auto is not None]
    if chose:
        _lose(regret, details, AUTO, 1, chose, [list(cell.auto) for cell in chose if cell.auto is not None])
    for rule, by_cell in rules.items():
        for cell, own in zip(cells, by_cell, strict=True):
            details[cell.target]["selection"][rule] = float(np.mean(own))
    return ModelEvaluation(
        "PoT's test score, mean over seeds",
        {name: _correlation(cells, name, spearman) for name in names},
        {name: _correlation(cells, name, kendall) for name in names},
        {
            rule: Choice(_over_both(cells, values), _over_both(cells, _beside(cells, values)))
            for rule, values in rules.items()
        },
        regret,
        {name: _correlation(helped, name, spearman) for name in names},
        details,
    )


def _lose(
    regret: dict[str, dict[int, Measured]],
    details: dict[str, dict[str, Any]],
    rule: str,
    k: int,
    cells: Sequence[Cell],
    reached: list[list[float]],
) -> None:
    """Write down the regret of what a rule reaches with k sources. Reached: of every cell one a seed."""
    lost = [
        [cell.oracle(seed) - value for seed, value in enumerate(values)]
        for cell, values in zip(cells, reached, strict=True)
    ]
    regret.setdefault(rule, {})[k] = _over_both(cells, lost)
    for cell, values in zip(cells, lost, strict=True):
        details[cell.target]["regret"].setdefault(rule, {})[str(k)] = float(np.mean(values))


def _correlation(cells: Sequence[Cell], name: str, function: Correlation) -> Measured:
    able = [cell for cell in cells if name in cell.predicted]

    def values(without: int | None = None) -> list[float]:
        kept = [[place for place, seed in enumerate(cell.seeds) if seed != without] for cell in able]
        found = [
            function(*cell.means(name, places)) if places else None for cell, places in zip(able, kept, strict=True)
        ]
        return [value for value in found if value is not None]

    seeds = sorted({seed for cell in able for seed in cell.seeds})
    left_out = [float(np.mean(found)) for seed in seeds if (found := values(seed))]
    return Measured.over(values(), jackknife_error(left_out))


def _over_both(cells: Sequence[Cell], values: list[list[float]]) -> Measured:
    """Mean over targets of means over seeds. Values: of every cell one a seed."""
    by_seed: dict[int, list[float]] = {}
    for cell, own in zip(cells, values, strict=True):
        for seed, value in zip(cell.seeds, own, strict=True):
            by_seed.setdefault(seed, []).append(value)
    seeds_error = standard_error([float(np.mean(found)) for found in by_seed.values()])
    return Measured.over([float(np.mean(own)) for own in values], seeds_error)


def _beside(cells: Sequence[Cell], values: list[list[float]]) -> list[list[float]]:
    """What values are more than prompt tuning's."""
    return [list(np.asarray(own) - cell.tuned) for cell, own in zip(cells, values, strict=True)]


def _finite(estimates: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in estimates.items() if math.isfinite(value)}


def _points(row: Row, tested: bool) -> float:
    """The task's metric on test data, or on validation data where not every run of the target was tested."""
    scores = row.test if tested else row.validation
    if scores is None or row.metric is None or math.isnan(scores.get(row.metric, math.nan)):
        raise PandaError(
            f"The run of {row.method} on {row.task} (seed {row.seed}, key {row.key[:8]}) is finished without a score "
            f"of {row.metric}; run the sweep again with --retry-failed."
        )
    return 100 * scores[row.metric]


def _title(one: tuple[str, str, int | None], conditions: Sequence[tuple[str, str, int | None]]) -> str:
    """The model's name, and of protocol and budget what tells it from others."""
    model, protocol, budget = one
    parts = [model]
    if len({other[1] for other in conditions}) > 1:
        parts.append(f"{protocol} protocol")
    if len({other[2] for other in conditions}) > 1:
        parts.append("all examples" if budget is None else f"{budget} examples")
    return ", ".join(parts)
