"""What should `auto` expect of a method before it sees validation scores, and how strongly? (docs/results)

    python studies/choice.py runs/study        # or rows that `panda sweep --export` wrote

Fits the priors of transfers/choice.py to a measured grid: for every method the gain in test score over prompt tuning as
a line in the lead of its source (what the estimator says of it, less what it says of no transfer), by least squares in
which every target counts alike. Then chooses as `auto` does, with several values of SPREAD: among prompt tuning, the
head alone, and PoT and PANDA from the source with the highest expectation of those that the estimator puts first. Every
target is chosen for by priors that were fitted to the other targets, which is what a user of another target can expect,
by those of all, and by those that are in use. The oracle takes what is best on the other seeds.
One JSON object per line, all in points.

It differs from `auto` in this: survivors are compared at the end of training alone, and since rows hold no validation
predictions, noise is taken from test predictions. All contestants of a target get one variance, that of a test score if
there were as many test as validation examples, and any two the same correlation, the mean of that on other targets.
`--independent` chooses as if noise did not correlate. The line `deviation` is of gains around the line of their method
without the noise of test scores, on all targets and on all but one: a gain is the difference of two scores, and SPREAD
the deviation of one, so that it is less by the square root of 2. The line `flattered` says whether sources that promise
more do better on validation than on test data, which promises by the validation part's own labels may cause.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from promptpanda.evaluation.grid import Cell
from promptpanda.report.resample import TestRows, scorer
from promptpanda.sweep.exchange import read_rows
from promptpanda.sweep.row import Answers, Row, in_force
from promptpanda.tasks.shared_text import share_text
from promptpanda.transfers.choice import RESAMPLES, prior_of
from promptpanda.transfers.estimators import DEFAULT_ESTIMATOR
from promptpanda.transfers.methods import METHODS
from promptpanda.transfers.selection import SURVIVORS

SPREADS = (0.0, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 1.0)  # 0 believes the estimator alone, 1 validation scores
SOURCELESS = ("prompt_tuning", "head_only")
LED = ("pot", "panda")

Line = tuple[float, float]  # gain without lead, and for one unit of it


@dataclass(frozen=True)
class Contestant:
    """A method from one source, or from none, on one target and seed.

    Attributes:
        lead: of its source.
        score, loss: on the validation part.
        gain: in test score over prompt tuning, in points.
    """

    method: str
    source: str | None
    lead: float
    score: float
    loss: float
    gain: float


@dataclass(frozen=True)
class Contest:
    """One target on one model and one seed.

    Attributes:
        noises: covariance of the contestants' test scores. *Shape:* (contestants, contestants).
        n_test, n_val: examples.
    """

    target: str
    seed: int
    contestants: tuple[Contestant, ...]
    noises: np.ndarray
    n_test: int
    n_val: int

    @property
    def noise(self) -> float:
        """Variance of a validation score."""
        return max(float(np.diag(self.noises).mean()) * self.n_test / self.n_val, self.least)

    @property
    def least(self) -> float:
        """`Resamples.least_variance`."""
        return (self.n_val + 1) / (self.n_val + 2) ** 2 / self.n_val

    @property
    def correlation(self) -> float:
        """Of the noise of two contestants, mean over pairs."""
        apart = ~np.eye(len(self.noises), dtype=bool)
        return float(self.noises[apart].mean() / np.diag(self.noises).mean())

    def of(self, *methods: str) -> list[Contestant]:
        return [one for one in self.contestants if one.method in methods]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("--model", help="rows of this model alone")
    parser.add_argument("--independent", action="store_true", help="take the noise of contestants for independent")
    arguments = parser.parse_args()
    rows, answers, _, plan = read_rows(arguments.store)
    known = {one.test_fingerprint: one for one in answers}
    contests = contests_of([row for row in in_force(rows, plan) if arguments.model in (None, row.model)], known)
    targets = sorted({one.target for one in contests})
    print(json.dumps({"priors": fitted(contests), "residual": residuals(contests)}))
    without = {target: [one for one in contests if task_of(one.target) != task_of(target)] for target in targets}
    together = {
        target: 0.0 if arguments.independent else float(np.mean([one.correlation for one in others]))
        for target, others in without.items()
    }
    own = {target: float(np.mean([one.correlation for one in contests if one.target == target])) for target in targets}
    print(json.dumps({"correlation": rounded(own)}))
    print(json.dumps({"flattered": flattered(contests)}))
    print(json.dumps({"deviation": deviations(contests), "without": {t: deviations(o) for t, o in without.items()}}))
    oracle = {target: float(np.mean(oracles([one for one in contests if one.target == target]))) for target in targets}
    print(json.dumps({"oracle": round(float(np.mean(list(oracle.values()))), 2), "targets": rounded(oracle)}))
    of_others = {target: fitted(others) for target, others in without.items()}
    used = {name: prior_of(METHODS[name]) for name in (*SOURCELESS, *LED)}
    in_use = {name: (100 * prior.gain, 100 * prior.slope) for name, prior in used.items()}
    ways = {
        "of other targets": of_others,
        "of all targets": dict.fromkeys(targets, fitted(contests)),
        "in use": dict.fromkeys(targets, in_use),
    }
    for name, priors in ways.items():
        for spread in SPREADS:
            chosen = [(one, choice(one, priors[one.target], spread, together[one.target])) for one in contests]
            gains = {t: float(np.mean([got.gain for one, got in chosen if one.target == t])) for t in targets}
            mean = float(np.mean(list(gains.values())))
            regret = float(np.mean(list(oracle.values()))) - mean
            print(
                json.dumps(
                    {
                        "priors": name,
                        "spread": spread,
                        "gain": round(mean, 2),
                        "regret": round(regret, 2),
                        "worst": round(min(gains.values()), 2),
                        "targets": rounded(gains),
                    }
                )
            )


def task_of(target: str) -> str:
    """A target's name without its setting."""
    return target.split(",")[0]


def rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 2) for name, value in values.items()}


def contests_of(rows: list[Row], answers: Mapping[str | None, Answers]) -> list[Contest]:
    """Every target, setting and seed on which `auto` was run: it alone knows what is said of no transfer.

    Sources that share texts with the target are left out, as `auto` leaves them out.
    """
    by_place: dict[tuple[object, ...], list[Row]] = defaultdict(list)
    for row in rows:
        counts = row.status == "finished" and row.variant == "default" and row.kind != "source"
        if counts and (row.source is None or not share_text(row.task, row.source, frozenset())):
            by_place[row.task, row.model, row.budget, row.protocol, row.seed].append(row)
    titles = {place[:-1] for place in by_place}
    found = []
    for (task, *setting, seed), here in sorted(by_place.items(), key=str):
        selection = next((row.selection for row in here if row.selection is not None), None)
        tuned = next((row for row in here if row.method == "prompt_tuning"), None)
        if selection is None or tuned is None or selection["estimator"] != DEFAULT_ESTIMATOR:
            continue
        said = {row.source: (row.estimates or {}).get(DEFAULT_ESTIMATOR) for row in here if row.kind == "estimates"}
        contestants, samples = [], []
        draws = None
        for row in here:
            estimate = selection["no_transfer"] if row.source is None else said.get(row.source)
            if row.method in (*SOURCELESS, *LED) and estimate is not None:
                gain = 100 * (score(row.test, row) - score(tuned.test, tuned))
                lead = estimate - selection["no_transfer"]
                validation = row.validation or {}
                one = Contestant(row.method, row.source, lead, score(validation, row), validation["loss"], gain)
                contestants.append(one)
                rights = answers[row.test_fingerprint]
                if draws is None:
                    draws = TestRows.of(rights).draw(RESAMPLES, np.random.default_rng(0))
                samples.append(scorer(rights, row.metric, row.predictions)(draws))
        alone = len({title for title in titles if title[0] == task}) == 1
        name = str(task) if alone else ", ".join(map(str, (task, *setting)))
        found.append(Contest(name, int(str(seed)), tuple(contestants), np.cov(samples), tuned.n_test, tuned.n_val))
    return found


def score(scores: dict[str, float] | None, row: Row) -> float:
    return (scores or {})[row.metric or ""]


def fitted(contests: Iterable[Contest]) -> dict[str, Line]:
    """The line of every method, in points; of methods without a source it is flat, of prompt tuning 0."""
    found: dict[str, Line] = {"prompt_tuning": (0.0, 0.0)}
    for method in ("head_only", *LED):
        ones = [(one.target, other) for one in contests for other in one.of(method)]
        counts = defaultdict(int)
        for target, _ in ones:
            counts[target] += 1
        weights = np.sqrt([1 / counts[target] for target, _ in ones])
        columns = np.asarray([[1.0, other.lead] for _, other in ones]).reshape(-1, 2)
        gains = np.asarray([other.gain for _, other in ones])
        if method == "head_only":
            columns = columns[:, :1]
        line = np.linalg.lstsq(columns * weights[:, None], gains * weights, rcond=None)[0]
        found[method] = (round(float(line[0]), 2), round(float(line[1]) if len(line) > 1 else 0.0, 2))
    return found


def residuals(contests: list[Contest]) -> dict[str, float]:
    """Standard deviation of gains around the line of their method, in points."""
    lines = fitted(contests)
    return {
        method: round(float(np.std([other.gain - at(lines, other) for one in contests for other in one.of(method)])), 2)
        for method in ("head_only", *LED)
    }


def deviations(contests: list[Contest]) -> dict[str, float]:
    """Standard deviation of gains around the line of their method, without the noise of test scores, in points."""
    lines, found = fitted(contests), {}
    for method in ("head_only", *LED):
        squares, noises = [], []
        for contest in contests:
            base = next(place for place, one in enumerate(contest.contestants) if one.method == "prompt_tuning")
            for place, one in enumerate(contest.contestants):
                if one.method == method:
                    squares.append((one.gain - at(lines, one)) ** 2)
                    apart = contest.noises[place, place] + contest.noises[base, base] - 2 * contest.noises[place, base]
                    noises.append(100**2 * apart)
        found[method] = round(float(np.sqrt(max(np.mean(squares) - np.mean(noises), 0))), 2)
    return found


def flattered(contests: list[Contest]) -> dict[str, float]:
    """By how many points a unit of lead flatters PoT's gain in validation score, its gain in test score taken away.

    Differences between sources on the same target and seed alone; the error is a jackknife over targets.
    """

    def slope(some: list[Contest]) -> float:
        leads, excess = [], []
        for contest in some:
            (base,), ones = contest.of("prompt_tuning"), contest.of("pot")
            apart = np.asarray([[one.lead, 100 * (one.score - base.score) - one.gain] for one in ones])
            leads.append(apart[:, 0] - apart[:, 0].mean())
            excess.append(apart[:, 1])
        return float(np.concatenate(leads) @ np.concatenate(excess) / (np.concatenate(leads) ** 2).sum())

    targets = sorted({one.target for one in contests})
    without = np.asarray([slope([one for one in contests if one.target != target]) for target in targets])
    error = np.sqrt((len(targets) - 1) * without.var())
    return {"slope": round(slope(contests), 1), "error": round(float(error), 1)}


def at(lines: dict[str, Line], one: Contestant) -> float:
    """The gain that is expected of a contestant beforehand, in points."""
    return lines[one.method][0] + lines[one.method][1] * one.lead


def choice(contest: Contest, lines: dict[str, Line], spread: float, correlation: float) -> Contestant:
    """What would be chosen (transfers/choice.py; transfers/selection.py).

    Where all noises are equal and correlate alike, what all share cancels out.
    """
    ahead = sorted(contest.of("pot"), key=lambda one: (-one.lead, one.source or ""))[:SURVIVORS]
    weight = spread**2 / (spread**2 + max(contest.noise * (1 - correlation), contest.least / 2))

    def best(ones: list[Contestant]) -> Contestant:
        centre = np.mean([100 * one.score - at(lines, one) for one in ones])
        expected = {id(one): weight * 100 * one.score + (1 - weight) * (centre + at(lines, one)) for one in ones}
        return max(ones, key=lambda one: (round(expected[id(one)], 9), -one.loss))

    winner = best(ahead)
    panda = [one for one in contest.of("panda") if one.source == winner.source]
    return best([*contest.of(*SOURCELESS), winner, *panda])


def oracles(contests: list[Contest]) -> list[float]:
    """The gain, on every seed of a target, of the source (or none) that is best on the other seeds."""
    tables = [{one.source or "": one.gain for one in contest.of("pot")} for contest in contests]
    sources = tuple(sorted(set.intersection(*map(set, tables))))
    gains = np.asarray([[table[source] for source in sources] for table in tables]).round(9)  # ties are ties
    seeds = tuple(contest.seed for contest in contests)
    cell = Cell(contests[0].target, seeds, sources, gains, np.zeros(len(contests)), {})
    return [cell.oracle(place) for place in range(len(contests))]


if __name__ == "__main__":
    main()
