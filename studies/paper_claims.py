"""What holds of the PANDA paper's claims on a measured grid of its regime? (docs/results/paper-regime)

    panda sweep recipes/paper-small.yaml --out runs/paper --export rows.parquet
    python studies/paper_claims.py rows.parquet

Every run is read twice. `best`: at its best epoch on the development set, as the paper reports. `last`: after its last
epoch, which the development set did not choose. Scores are in points, means over the seeds that there are; pairs of a
source and a target that share texts are left out. `+-` is a standard error over targets. One JSON object a line:

- `table`: a target's scores by method; of PoT and PANDA the mean over sources, the best and the worst source.
- `gap`: PANDA less PoT over all pairs, its share from pairs whose PoT is more than five points below prompt tuning
  (collapses), how many these are, and the largest gap; and both methods less prompt tuning.
- `metric`: the rank correlation over sources of an estimator with PoT's score after the first epoch, as the paper
  judges metrics, and with the final score; the target itself is excluded.
- `teacher`: the correlation of teacher (PoT) and student (PANDA) over the sources of a target.
- `curve`: prompt tuning's score after a fifth, two fifths, ... of the epochs: has it converged?
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy.stats import pearsonr, spearmanr

from promptpanda.sweep.exchange import read_rows
from promptpanda.sweep.recipe import DEFAULT
from promptpanda.sweep.row import Row, in_force
from promptpanda.tasks.shared_text import share_text

Reading = Callable[[Row], float]
COLLAPSE = 5.0  # points below prompt tuning
FIFTHS = 5


def best(row: Row) -> float:
    """At the best epoch on the development set."""
    return max(_scores(row))


def last(row: Row) -> float:
    """After the last epoch."""
    return _scores(row)[-1]


def first(row: Row) -> float:
    """After the first epoch."""
    return _scores(row)[0]


def _scores(row: Row) -> list[float]:
    assert row.metric is not None
    return [100 * epoch.validation[row.metric] for epoch in row.curve if epoch.validation is not None]


@dataclass(frozen=True)
class Grid:
    """All runs on targets of one model, of methods as they are by default.

    Attributes:
        estimated: of every target and source what estimators say.
    """

    rows: tuple[Row, ...]
    estimated: dict[tuple[str, str], dict[str, float]]

    @cached_property
    def targets(self) -> list[str]:
        return sorted({row.task for row in self.rows})

    def scores(self, target: str, method: str, reading: Reading) -> dict[str | None, float]:
        """Means over seeds, by source."""
        found: dict[str | None, list[float]] = defaultdict(list)
        for row in self.rows:
            if (row.task, row.method) == (target, method):
                found[row.source].append(reading(row))
        return {source: statistics.fmean(values) for source, values in found.items()}

    def tuned(self, target: str, reading: Reading) -> float | None:
        """Prompt tuning."""
        return self.scores(target, "prompt_tuning", reading).get(None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path, help="rows that `panda sweep --export` wrote")
    given = parser.parse_args()
    rows, _, _, plan = read_rows(given.rows)
    known = in_force(rows, plan)
    for model in sorted({row.model for row in known}):
        grid = grid_of([row for row in known if row.model == model])
        lines = [line for read in (best, last) for line in (*tables(grid, read), gap(grid, read), teacher(grid, read))]
        for line in (*lines, *metrics(grid), *curves(grid)):
            print(json.dumps({"model": Path(model).name, **line}))


def grid_of(rows: Sequence[Row]) -> Grid:
    """Of the rows of one model."""
    finished = [row for row in rows if row.status == "finished" and row.protocol == "paper"]
    apart = [row for row in finished if row.source is None or not share_text(row.task, row.source)]
    estimated: dict[tuple[str, str], dict[str, float]] = {}
    for row in apart:
        if row.estimates is not None and row.source is not None:
            estimated.setdefault((row.task, row.source), row.estimates)  # those of the lowest seed
    runs = [row for row in apart if row.kind == "target" and row.variant == DEFAULT and row.source != row.task]
    return Grid(tuple(sorted(runs, key=lambda row: row.seed)), estimated)


def tables(grid: Grid, reading: Reading) -> Iterable[dict[str, object]]:
    """A line a target."""
    methods = sorted({row.method for row in grid.rows if row.method is not None})
    for target in grid.targets:
        line: dict[str, object] = {"of": "table", "reading": reading.__name__, "target": target}
        line["seeds"] = len({row.seed for row in grid.rows if row.task == target})
        for method in methods:
            found = grid.scores(target, method, reading)
            if None in found:
                line[method] = round(found[None], 1)
            elif found:
                worst, top = (choose(found, key=found.__getitem__) for choose in (min, max))
                line[method] = {
                    "mean": round(statistics.fmean(found.values()), 1),
                    "best": [top, round(found[top], 1)],
                    "worst": [worst, round(found[worst], 1)],
                }
        yield line


def gap(grid: Grid, reading: Reading) -> dict[str, object]:
    """PANDA against PoT, and both against prompt tuning."""
    gaps: dict[str, list[float]] = defaultdict(list)
    collapsed: dict[str, list[float]] = defaultdict(list)
    over: dict[str, dict[str, float]] = {"pot": {}, "panda": {}}
    largest: tuple[float, str, str | None] = (-np.inf, "", None)
    for target in grid.targets:
        tuned, pot = grid.tuned(target, reading), grid.scores(target, "pot", reading)
        panda = grid.scores(target, "panda", reading)
        for source in sorted(pot.keys() & panda.keys(), key=str):
            gaps[target].append(panda[source] - pot[source])
            largest = max(largest, (gaps[target][-1], target, source))
            if tuned is not None and pot[source] < tuned - COLLAPSE:
                collapsed[target].append(gaps[target][-1])
        for method, found in (("pot", pot), ("panda", panda)):
            if tuned is not None and found:
                over[method][target] = statistics.fmean(found.values()) - tuned
    pairs = sum(map(len, gaps.values()))
    repaired = sum(sum(values) for values in collapsed.values()) / pairs if pairs else 0.0
    return {
        "of": "gap",
        "reading": reading.__name__,
        "pairs": pairs,
        "panda_less_pot": _mean([statistics.fmean(values) for values in gaps.values()]),
        "from_collapses": round(repaired, 2),
        "collapses": sum(map(len, collapsed.values())),
        "largest": [round(largest[0], 1), *largest[1:]] if pairs else None,
        "less_prompt_tuning": {method: _mean(list(found.values())) for method, found in over.items()},
    }


def teacher(grid: Grid, reading: Reading) -> dict[str, object]:
    """Whether a better teacher has a better student."""
    found = {}
    for target in grid.targets:
        pot, panda = (grid.scores(target, method, reading) for method in ("pot", "panda"))
        both = sorted(pot.keys() & panda.keys(), key=str)
        if len(both) > 2:
            found[target] = float(pearsonr([pot[one] for one in both], [panda[one] for one in both])[0])
    return {"of": "teacher", "reading": reading.__name__, "correlation": _mean([*found.values()], 2)}


def metrics(grid: Grid) -> Iterable[dict[str, object]]:
    """A line an estimator."""
    names = sorted({name for found in grid.estimated.values() for name in found})
    for name in names:
        line: dict[str, object] = {"of": "metric", "estimator": name}
        for reading in (first, best, last):
            found = []
            for target in grid.targets:
                pot = grid.scores(target, "pot", reading)
                both = [one for one in pot if one is not None and name in grid.estimated.get((target, one), {})]
                if len(both) > 3:
                    said = [grid.estimated[target, one][name] for one in both]
                    found.append(float(spearmanr(said, [pot[one] for one in both])[0]))
            line[reading.__name__] = _mean(found, 2)
        yield line


def curves(grid: Grid) -> Iterable[dict[str, object]]:
    """A line a target."""
    for target in grid.targets:
        runs = [row for row in grid.rows if (row.task, row.method) == (target, "prompt_tuning")]
        if runs:
            places = [max(1, round(len(runs[0].curve) * part / FIFTHS)) - 1 for part in range(1, FIFTHS + 1)]
            at = [round(statistics.fmean(_scores(row)[place] for row in runs), 1) for place in places]
            yield {"of": "curve", "target": target, "epochs": [place + 1 for place in places], "scores": at}


def _mean(values: Sequence[float], digits: int = 1) -> str | None:
    sound = [value for value in values if np.isfinite(value)]
    if not sound:
        return None
    error = f" +- {np.std(sound, ddof=1) / len(sound) ** 0.5:.{digits}f}" if len(sound) > 1 else ""
    return f"{statistics.fmean(sound):.{digits}f}{error}"


if __name__ == "__main__":
    main()
