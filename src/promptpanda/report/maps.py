"""Source by target: the gains of a method and the predictions of an estimator, as heat maps."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

from promptpanda.report.colours import gain_colour, level_colour
from promptpanda.report.study import Group
from promptpanda.report.tables import NOTHING, Cell, Table, signed
from promptpanda.sweep.recipe import DEFAULT

_SHARED_NOTE = "\u2020 The two sets share texts: the pair is shown, but is left out of means and choices."


class Grid(NamedTuple):
    """Values by source and target; `None` where nothing was run."""

    sources: list[str]
    targets: list[str]
    values: dict[tuple[str, str], float]
    hints: dict[tuple[str, str], str]


def gain_grid(group: Group, method: str, variant: str = DEFAULT) -> Grid:
    """Gain of every source on every target over prompt tuning, mean over the seeds that have both."""
    values, hints = {}, {}
    base = group.baseline
    for target in group.targets if base is not None else []:
        assert base is not None
        tuned = {seed: group.score(rows[0]) for seed, rows in group.chosen(base, target).items()}
        for source in group.sources:
            found = []
            for seed, row in group.pair_runs(method, variant, target, source).items():
                score, before = group.score(row), tuned.get(seed)
                if score is not None and before is not None:
                    found.append(score - before)
            if found:
                values[source, target] = statistics.fmean(found)
                spread = f", standard deviation {statistics.stdev(found):.1f}" if len(found) > 1 else ""
                hints[source, target] = f"{len(found)} seed{'s' * (len(found) != 1)}{spread}"
    return Grid(group.sources, group.targets, values, hints)


def estimate_grid(group: Group, estimator: str) -> Grid:
    """What an estimator predicts for every source and target, mean over seeds."""
    targets = sorted({row.task for row in group.estimates})
    values = {
        (source, target): statistics.fmean(found.values())
        for source in group.sources
        for target in targets
        if (found := group.estimates_of(estimator, target, source))
    }
    return Grid(group.sources, targets, values, {})


def heat_map(
    group: Group, grid: Grid, id: str, title: str, caption: str, limit: float | None, digits: int = 1
) -> Table:
    """A grid as a table with coloured cells; its last column and row are means.

    Args:
        limit: gains get full colour there; None for values that have no zero.
    """

    def shown(value: float) -> str:
        return signed(value) if limit is not None else f"{value:.{digits}f}".replace("-", "\u2212")

    low, high = min(grid.values.values()), max(grid.values.values())
    paint: Callable[[float], str] = (
        (lambda value: level_colour(value, low, high)) if limit is None else (lambda value: gain_colour(value, limit))
    )

    def cell(source: str, target: str) -> Cell:
        value = grid.values.get((source, target))
        if value is None:
            return Cell("", mark="none", hint="not run")
        shared = group.overlaps(target, source)
        hint = ", ".join(part for part in (f"{source} \u2192 {target}", grid.hints.get((source, target), "")) if part)
        return Cell(shown(value), "", value, hint + "; shares texts" * shared, "shared" if shared else "", paint(value))

    def mean(pairs: Sequence[tuple[str, str]]) -> Cell:
        counted = [grid.values[pair] for pair in pairs if pair in grid.values and not group.overlaps(pair[1], pair[0])]
        if not counted:
            return NOTHING
        value = statistics.fmean(counted)
        return Cell(shown(value), "", value, f"mean of {len(counted)}", "", paint(value))

    sources = [source for source in grid.sources if any((source, target) in grid.values for target in grid.targets)]
    rows = [
        (
            Cell(source),
            *(cell(source, target) for target in grid.targets),
            mean([(source, target) for target in grid.targets]),
        )
        for source in sources
    ]
    by_target = [mean([(source, target) for source in sources]) for target in grid.targets]
    known = [cell.value for cell in by_target if cell.value is not None]
    whole = NOTHING
    if known:
        # Targets count alike, as in the other tables, whatever number of sources each has.
        value = statistics.fmean(known)
        whole = Cell(shown(value), "", value, f"mean of {len(known)} targets", "", paint(value))
    foot = (Cell("mean"), *by_target, whole)
    overlaps = any(group.overlaps(target, source) for source, target in grid.values)
    return Table(
        id,
        title,
        group.conditions.title,
        caption,
        ("source", *grid.targets, "mean"),
        tuple(rows),
        (foot,),
        (_SHARED_NOTE,) if overlaps else (),
        heat=True,
        total=True,
    )
