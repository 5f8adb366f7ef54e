"""What a constant prediction scores, and where methods do not beat it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from promptpanda.report.study import Group
from promptpanda.report.tables import NOTHING, Cell, points

COLUMN = "a constant"


def constant_cells(group: Group, targets: Sequence[str]) -> list[Cell]:
    """One cell a target; none at all where no run of the group recorded what a constant scores."""
    floors = [group.constant(target) for target in targets]
    if all(group.constant(target) is None for target in group.targets):
        return []
    return [NOTHING if floor is None else Cell(points(floor), value=floor) for floor in floors]


def mean_constant(group: Group, targets: Sequence[str]) -> Cell:
    """The mean over targets; nothing where it is not known of one of them."""
    floors = [floor for target in targets if (floor := group.constant(target)) is not None]
    if not floors or len(floors) < len(targets):
        return NOTHING
    mean = statistics.fmean(floors)
    return Cell(points(mean), value=mean)


def constant_note(group: Group) -> str:
    """Where methods do not beat a constant prediction; empty where all do, or what it scores is not known."""
    no_method, some = [], []
    for target in group.targets:
        floor = group.constant(target)
        results = {one.title: result.mean for one in group.contenders if (result := group.result(one, target))}
        below = [] if floor is None else [title for title, mean in results.items() if mean <= floor]
        if floor is not None and below:
            if len(below) == len(results):
                no_method.append(f"{target} ({points(floor)})")
            else:
                some.append(f"{', '.join(below)} on {target} ({points(floor)})")
    notes = [f"No method beats a constant prediction on {', '.join(no_method)}."] if no_method else []
    notes += [f"Not above a constant prediction: {'; '.join(some)}."] if some else []
    return " ".join(notes)
