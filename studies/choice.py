"""How strongly should `auto` shrink validation scores, and how much should it believe the estimator? (docs/results)

    python studies/choice.py runs/study        # or rows that `panda sweep --export` wrote

Takes the runs of `auto` in a store and chooses again among the same contestants with other values of SLOPE and SPREAD
(transfers/choice.py): the contestants' validation scores are in the rows of their methods, the noise of each follows
from its posterior. Every pair of values is judged by the test score of what it chooses, mean over seeds and targets, in
points over prompt tuning; then each target by the values that are best on the other targets, which is what a user of
another target can expect. One JSON line a pair, and a summary.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from promptpanda.sweep.exchange import read_rows
from promptpanda.sweep.row import Row

SLOPES = (0.0, 0.25, 0.5, 1.0, 2.0)
SPREADS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 1.0)  # the last is next to no shrinking


@dataclass(frozen=True)
class Contestant:
    """A method on one target and seed.

    Attributes:
        score, loss: on the validation part.
        noise: variance of the score.
        lead: what the estimator puts its source above no transfer.
        gain: in test score over prompt tuning, in points.
    """

    score: float
    loss: float
    noise: float
    lead: float
    gain: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("--model", help="rows of this model alone")
    arguments = parser.parse_args()
    rows = read_rows(arguments.store)[0]
    contests = contests_of([row for row in rows if arguments.model in (None, row.model)])
    found = {(slope, spread): gains(contests, slope, spread) for slope in SLOPES for spread in SPREADS}
    for (slope, spread), by_target in found.items():
        gain = float(np.mean(list(by_target.values())))
        print(json.dumps({"slope": slope, "spread": spread, "gain": gain, "targets": by_target}), flush=True)
    by_target = {}
    for target in contests:
        others = {pair: np.mean([gain for name, gain in one.items() if name != target]) for pair, one in found.items()}
        best = max(others, key=lambda pair: others[pair])
        by_target[target] = {"slope": best[0], "spread": best[1], "gain": found[best][target]}
    print(json.dumps({"chosen on the other targets": by_target,
                      "gain": float(np.mean([one["gain"] for one in by_target.values()]))}))  # fmt: skip


def contests_of(rows: list[Row]) -> dict[str, list[dict[str, Contestant]]]:
    """The contestants of every target and seed where `auto` was run, by target (and model, where there are several)."""
    several = len({row.model for row in rows}) > 1
    trained = {
        (row.model, row.task, row.seed, row.method, row.source): row
        for row in rows
        if row.kind == "target" and row.variant == "default" and row.status == "finished"
    }
    found: dict[str, list[dict[str, Contestant]]] = defaultdict(list)
    for row in rows:
        if row.selection is None:
            continue
        chosen, settings = row.selection, row.spec["selection"]
        winner = next(one for one in chosen["survivors"] if one["prompt"] == chosen["winner"])
        place, metric = (row.model, row.task, row.seed), row.metric or ""
        tuned = trained[*place, "prompt_tuning", None].test or {}
        contest = {}
        for name, posterior in chosen["posterior"].items():
            led = name in ("pot", "panda")
            one = trained[*place, name, winner["task"] if led else None]
            validation, test = one.validation or {}, one.test or {}
            noise = 1 / (1 / posterior["se"] ** 2 - 1 / settings["spread"] ** 2)
            lead = winner["estimate"] - chosen["no_transfer"] if led else 0.0
            gain = 100 * (test[metric] - tuned[metric])
            contest[name] = Contestant(validation[metric], validation["loss"], noise, lead, gain)
        again = expected(contest, settings["slope"], settings["spread"])
        for name, posterior in chosen["posterior"].items():  # what is put together here is what `auto` had
            assert abs(again[name] - posterior["mean"]) < 1e-6, (place, name, again[name], posterior)
        found[f"{row.task}, {row.model}" if several else row.task].append(contest)
    return dict(found)


def expected(contest: dict[str, Contestant], slope: float, spread: float) -> dict[str, float]:
    """Posterior means (transfers/choice.py)."""
    centre = np.mean([one.score for one in contest.values()])
    found = {}
    for name, one in contest.items():
        prior = centre + slope * one.lead
        found[name] = (one.score / one.noise + prior / spread**2) / (1 / one.noise + 1 / spread**2)
    return {name: float(value) for name, value in found.items()}


def gains(contests: dict[str, list[dict[str, Contestant]]], slope: float, spread: float) -> dict[str, float]:
    """The gain of what would be chosen, by target, mean over seeds."""
    found = {}
    for target, seeds in contests.items():
        values = []
        for contest in seeds:
            means = expected(contest, slope, spread)
            values.append(contest[max(means, key=lambda name: (round(means[name], 12), -contest[name].loss))].gain)
        found[target] = float(np.mean(values))
    return found


if __name__ == "__main__":
    main()
