"""What `auto` chose: the table of one group."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any

from promptpanda.report.study import Group
from promptpanda.report.tables import Cell, Table
from promptpanda.sweep.row import Row
from promptpanda.transfers.methods import METHODS


def choices(group: Group, prefix: str) -> Table | None:
    """Targets by what was chosen, from which source, how surely and at what cost; None where `auto` was not run."""
    by_target: dict[str, list[Row]] = {}
    for row in group.runs:
        if row.selection is not None:
            by_target.setdefault(row.task, []).append(row)
    if not by_target:
        return None
    rows = []
    for target, found in sorted(by_target.items()):
        selections = [row.selection for row in found if row.selection is not None]
        sure = sum(one["gain_over_prompt_tuning"]["distinguishable"] for one in selections)
        cost = statistics.fmean(one["cost"] for one in selections)
        rows.append(
            (
                Cell(target),
                Cell(_counted([METHODS[one["chosen"]].title for one in selections])),
                Cell(_counted([_winner(one) for one in selections])),
                Cell(f"{sure} of {len(selections)}", value=sure / len(selections)),
                Cell(f"{cost:.2f}", value=cost),
            )
        )
    return Table(
        f"{prefix}-choices",
        "What auto chose",
        group.conditions.title,
        "Of every target, over its seeds: the method that was chosen on validation data, the source that won the race, "
        "how often the gain over prompt tuning was more than noise there, and the cost in trainings.",
        ("target", "chosen", "race won by", "gain distinguishable", "trainings"),
        tuple(rows),
        words=3,
    )


def _winner(selection: dict[str, Any]) -> str:
    return next((one["task"] for one in selection["survivors"] if one["prompt"] == selection["winner"]), "no source")


def _counted(names: Sequence[str]) -> str:
    return ", ".join(name if count == 1 else f"{name} ({count})" for name, count in Counter(names).most_common())
