"""Predicted transferability against the measured gain of PoT: Spearman by target, and scatter panels."""

from __future__ import annotations

import statistics
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from promptpanda.evaluation.agreement import FEWEST, Measured, spearman
from promptpanda.report.figures import Figure, Point, scatter
from promptpanda.report.maps import Grid, estimate_grid, gain_grid
from promptpanda.report.study import Group
from promptpanda.report.tables import NOTHING, Cell, Mark, Table
from promptpanda.sweep.recipe import DEFAULT
from promptpanda.transfers.methods import POT


class Agreement(NamedTuple):
    """An estimator on one target; `spearman` is None with too few sources, or where one side is constant."""

    points: list[Point]
    spearman: float | None


def agreement(group: Group, estimator: str, target: str) -> Agreement:
    """What an estimator predicts of a target's sources beside what PoT from them gained, both mean over seeds.

    Sets that share text, and sources that were not measured and scored on every seed of the target, are left out.
    """
    measured = gain_grid(group, POT.name)
    seeds = {row.seed for row in group.runs if row.task == target and row.method == POT.name}
    seeds &= set() if group.baseline is None else group.chosen(group.baseline, target).keys()
    found = []
    for source in group.sources:
        runs = group.pair_runs(POT.name, DEFAULT, target, source)
        predicted = group.estimates_of(estimator, target, source)
        whole = seeds <= runs.keys() and seeds <= predicted.keys()
        if whole and (source, target) in measured.values and not group.overlaps(target, source):
            mean = statistics.fmean(predicted[seed] for seed in seeds)
            found.append(Point(mean, measured.values[source, target], source))
    # Scores on few rows are often equal, and their means must not differ in the last bit.
    predictions, gains = (np.round([getattr(point, side) for point in found], 9) for side in "xy")
    return Agreement(found, spearman(predictions, gains))


def mean_agreement(group: Group, estimator: str) -> Measured:
    """An estimator's mean over the targets where it can be computed."""
    found = [agreement(group, estimator, target).spearman for target in group.targets]
    return Measured.over([value for value in found if value is not None])


def spearman_table(group: Group, prefix: str) -> Table | None:
    """Targets by estimators; None where nothing was predicted or nothing measured."""
    if not gain_grid(group, POT.name).values or not group.estimators:
        return None
    rows = []
    for target in group.targets:
        cells = [Cell(target)]
        for estimator in group.estimators:
            found = agreement(group, estimator, target)
            cells.append(_rho(found.spearman, hint=f"{len(found.points)} sources"))
        rows.append(tuple(cells))
    foot = [mean_cell(mean_agreement(group, estimator)) for estimator in group.estimators]
    return Table(
        f"{prefix}-spearman",
        "How well the gain of PoT was predicted",
        group.conditions.title,
        "Spearman's rank correlation, over a target's sources, between what an estimator predicted and the measured "
        "gain of PoT over prompt tuning. 1: the same order; 0: no relation.",
        ("target", *group.estimators),
        tuple(rows),
        ((Cell("mean"), *foot),),
        (
            f"Mean over targets with its standard error. Left out are pairs that share texts, and sources that lack a "
            f"seed; fewer than {FEWEST} sources give no correlation.",
        ),
    )


def scatters(group: Group, prefix: str) -> list[Figure]:
    """One figure an estimator, one panel a target."""
    figures: list[Figure] = []
    for estimator in group.estimators:
        panels = []
        for target in group.targets:
            found = agreement(group, estimator, target)
            if not found.points:
                continue
            rho = "too few sources for \u03c1" if found.spearman is None else f"\u03c1 = {_two(found.spearman)}"
            panels.append(scatter(target, rho, found.points, estimator, "gain of PoT", f"{prefix} {estimator}"))
        if panels:
            figures.append(
                Figure(
                    f"{prefix}-scatter-{len(figures)}",
                    f"Predicted by {estimator}, and measured",
                    group.conditions.title,
                    f"Every dot is a source. Across: what {estimator} predicted before any transfer was trained; "
                    "upwards: what PoT from that source then gained over prompt tuning, in points, mean over seeds. "
                    "A good estimator makes the dots rise from left to right. With an orange ring: the source that "
                    "it prefers; blue: the one that turned out best. \u03c1 is Spearman's rank correlation.",
                    tuple(panels),
                )
            )
    return figures


def estimator_grids(group: Group) -> list[tuple[str, Grid]]:
    """The predictions of every estimator that made any."""
    grids = [(name, estimate_grid(group, name)) for name in group.estimators]
    return [(name, grid) for name, grid in grids if grid.values]


def mean_cell(mean: Measured, mark: Mark = "") -> Cell:
    """A mean of correlations with its standard error over targets."""
    extra = "" if mean.targets_error is None else f"\u00b1 {mean.targets_error:.2f}"
    return NOTHING if mean.mean is None else Cell(_two(mean.mean), extra, mean.mean, "", mark)


def _rho(value: float | None, hint: str) -> Cell:
    return replace(NOTHING, hint=hint) if value is None else Cell(_two(value), "", value, hint)


def _two(value: float) -> str:
    return f"{value:.2f}".replace("-", "\u2212")
