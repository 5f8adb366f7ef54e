"""The controls of one group: what changes when one setting of a method changes."""

from __future__ import annotations

from dataclasses import replace

from promptpanda.report.gains import Bootstrap
from promptpanda.report.results import gain_cell, interval_notes
from promptpanda.report.study import Group
from promptpanda.report.tables import Cell, Table
from promptpanda.transfers.names import AUTO


def controls(group: Group, bootstrap: Bootstrap, prefix: str) -> Table | None:
    """Variants, and the methods beside them, by targets: gains over prompt tuning; None where there is no variant.

    Of all methods count the runs from those sources that variants were run from, so that rows can be compared; fusions
    where one of them was varied, and never a selection among sources.
    """
    varied = {(one.method, one.variant) for one in group.everything if one not in group.contenders}
    sources = {row.source for row in group.runs if (row.method, row.variant) in varied}
    from_these = [row for row in group.runs if row.source in sources or not row.sources]
    alike = replace(group, runs=tuple(row for row in from_these if row.method != AUTO))
    base = alike.baseline
    if not varied or base is None:
        return None
    rows: list[tuple[Cell, ...]] = []
    shown = []
    compared = [one for one in alike.everything if one.choice != "best" and one != base]
    complete = alike.complete_targets([base, *compared])
    for one in compared:
        gains = [bootstrap.gain(alike, one, base, target) for target in alike.targets]
        shown += list(zip(alike.targets, gains, strict=True))
        means = [bootstrap.mean_gain(alike, one, base, complete)] if len(complete) > 1 else []
        rows.append((Cell(one.method_title), *map(gain_cell, [*gains, *means])))
    named = sorted(source for source in sources if source is not None)
    seeds = {len(alike.chosen(one, target)) for one in compared for target in complete}
    notes = [f"From {', '.join(named)}: mean over the sources of a seed, then over seeds."] if named else []
    left_out = [target for target in alike.targets if target not in complete]
    if left_out and len(complete) > 1:
        notes.append(f"Left out of the mean, since not all have a result there: {', '.join(left_out)}.")
    if len(seeds) > 1:
        notes.append(f"Over {min(seeds)} to {max(seeds)} seeds, as far as runs are there.")
    return Table(
        f"{prefix}-controls",
        "Controls",
        group.conditions.title,
        "One setting changed at a time: points won or lost against prompt tuning with the same seeds and examples; in "
        "brackets the 95 % bootstrap interval.",
        ("method", *alike.targets, *([f"mean of {len(complete)}"] if len(complete) > 1 else [])),
        tuple(rows),
        (),
        (*notes, *interval_notes(shown)),
        total=len(complete) > 1,
    )
