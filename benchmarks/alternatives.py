"""What people would use instead of a prompt, on the same labelled rows, seeds and test rows as `panda transfer`.

    pip install -e '.[alternatives]' -c constraints.txt
    OMP_NUM_THREADS=1 python benchmarks/alternatives.py --data-dir DATA --out runs/alternatives
    python benchmarks/alternatives.py --data-dir DATA --out runs/alternatives --targets cr,mpqa --time-limit 1h
    panda transfer cr --train-examples 64 --test-examples 1000 --seeds 0,1,2 --json > cr.json
    python benchmarks/alternatives.py --out runs/alternatives --tables-only --ours cr.json

SetFit 1.2 with sentence-transformers 6.2 runs in the same environment (torch 2.13, transformers 5.23); installing them
changes no other package.

Rows are those of the `clean` protocol: the labelled rows are training and validation part together. The budget of a
target with many classes is `--per-class` rows a class in the mean (a stratified draw, so that frequent classes have
more). All alternatives are on the same model:

- `logistic_regression`: on frozen, mean-pooled embeddings of unit length; C of 1e-2 ... 1e2 by 5-fold cross-validation.
  What `panda transfer` tells too. Pairs: each text by itself, difference and product. Regression: ridge. Tags: on the
  vectors of the words.
- `setfit`: SetFit's published defaults (all pairs, oversampled; 1 epoch, batch 16, rate 2e-5). The texts of a pair are
  joined by [SEP]. Not defined for values and tags. With many classes the defaults take hours.
- `setfit_20`: SetFit with the 20 iterations of its paper, 40 pairs a text, for targets with many classes.
- `lora`: by PEFT, r 8, alpha 16, on all matrices of attention and feed-forward layers.
- `full`: all weights.

The last two have a linear head on the mean (or on the words' first tokens), promptpanda's epochs (40 for 64 rows: 160
steps), AdamW with decay .01, warm-up over a tenth of the steps and then a linear fall, batch 16, the model's own
dropout, and the best of three rates by the validation part. What is scored is then trained at that rate on all labelled
rows.

Every (target, seed, alternative) is one file of OUT/rows, written whole; what is there is not computed again. OUT gets
a table of each target (tables.md) and all rows (rows.csv). Seconds are those of one training, and apart from it those
of the search (of C or of the rate), of the processor: on one thread of a quiet machine that is the time on the wall,
which the rows have too. Megabytes are those of the files that a task needs beside the base model; SetFit and full
fine-tuning replace that.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from alternatives_linear import logistic_regression
from alternatives_setfit import setfit
from alternatives_tables import write_tables
from alternatives_tuning import full, lora
from alternatives_work import Found, Work

from promptpanda.backbone import Backbone
from promptpanda.errors import PandaError
from promptpanda.models import EMBEDDED, locate
from promptpanda.quiet import quiet_libraries
from promptpanda.sweep.filters import seconds_of
from promptpanda.tasks.catalog import catalog_spec, load_task
from promptpanda.tasks.protocol import capped, check_seeds, partition
from promptpanda.tasks.task import Task
from promptpanda.training.defaults import settled
from promptpanda.training.options import TrainingOptions

TARGETS = (
    *("cr", "mpqa", "subj", "trec", "tweeteval_irony", "ag_news", "tweeteval_offensive", "snli", "stsb", "conll04"),
    *("banking77", "clinc150"),
)
ALTERNATIVES = {
    "logistic_regression": logistic_regression,
    "setfit": lambda work: setfit(work, iterations=None),
    "setfit_20": lambda work: setfit(work, iterations=20),
    "lora": lora,
    "full": full,
}
PACKAGES = ("promptpanda", "torch", "transformers", "scikit-learn", "peft", "sentence-transformers", "setfit")


@dataclass(frozen=True)
class Run:
    """One alternative on one target and seed."""

    target: str
    seed: int
    alternative: str

    def path(self, out: Path) -> Path:
        return out / "rows" / f"{self.target}-s{self.seed}-{self.alternative}.json"


def main() -> None:
    arguments = parse()
    quiet_libraries()
    began = time.monotonic()
    if not arguments.tables_only:
        for run in planned(arguments):
            if arguments.time_limit is not None and time.monotonic() - began > arguments.time_limit:
                print("The time limit is reached; the same command goes on.", flush=True)
                break
            carry_out(run, arguments)
    write_tables(arguments.out, arguments.ours)


def parse() -> argparse.Namespace:
    def names(text: str) -> list[str]:
        return [name.strip() for name in text.split(",") if name.strip()]

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="data root with a folder a task")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--targets", type=names, default=list(TARGETS))
    parser.add_argument("--seeds", type=lambda text: [int(name) for name in names(text)], default=[0, 1, 2])
    parser.add_argument("--alternatives", type=names, default=list(ALTERNATIVES))
    parser.add_argument("--train-examples", type=int, default=64, help="labelled rows, validation included")
    parser.add_argument("--per-class", type=int, default=5, help="labelled rows a class, where that is more")
    parser.add_argument("--test-examples", type=int, default=1000)
    parser.add_argument("--epochs", type=int, help="of lora and full; by default as promptpanda's")
    parser.add_argument("--model", default=EMBEDDED)
    parser.add_argument("--time-limit", type=seconds_of, help="begin no row after so long, such as 50m or 1h30m")
    parser.add_argument("--ours", type=Path, nargs="*", default=[], help="what `panda transfer --json` printed")
    parser.add_argument("--tables-only", action="store_true", help="compute nothing")
    arguments = parser.parse_args()
    check_seeds(arguments.seeds)
    for name in arguments.alternatives:
        if name not in ALTERNATIVES:
            parser.error(f"no alternative {name!r}; there are {', '.join(ALTERNATIVES)}")
    for name in arguments.targets:
        catalog_spec(name)
    return arguments


def planned(arguments: argparse.Namespace) -> Iterator[Run]:
    """What is not there yet: all of one seed first, the fast alternatives before the slow ones."""
    for seed in arguments.seeds:
        for alternative in arguments.alternatives:
            for target in arguments.targets:
                run = Run(target, seed, alternative)
                if run.path(arguments.out).exists():
                    check_same(run, arguments)
                else:
                    yield run


def budget(task: Task, arguments: argparse.Namespace) -> int:
    """Labelled rows of a target."""
    return max(arguments.train_examples, arguments.per_class * len(task.labels) if task.kind.classifies else 0)


def check_same(run: Run, arguments: argparse.Namespace) -> None:
    """Raises PandaError if a row that is there was made with other settings."""
    row = json.loads(run.path(arguments.out).read_text(encoding="utf-8"))
    task = load_task(run.target, data_dir=arguments.data_dir)
    wanted = {"n_labelled": budget(task, arguments), "test_examples": arguments.test_examples, "model": arguments.model}
    for name, value in wanted.items():
        if row[name] != value:
            raise PandaError(
                f"{run.path(arguments.out)} was made with {name} {row[name]}, and now it is {value}; give another "
                "--out, or the same settings."
            )


def carry_out(run: Run, arguments: argparse.Namespace) -> None:
    """Compute one row, and write it whole."""
    work = work_of(run, arguments)
    print(f"{run.target} seed {run.seed} {run.alternative}: {len(work.labelled)} labelled, {len(work.test)} test rows "
          f"{time.strftime('%H:%M:%S')}", flush=True)  # fmt: skip
    found: Found | None = ALTERNATIVES[run.alternative](work)
    if found is None:
        print("  not defined", flush=True)
        return
    row = vars(run) | found.to_json() | facts(work, arguments)
    path = run.path(arguments.out)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".part-{os.getpid()}")
    part.write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")
    part.replace(path)
    print(f"  {row['metric']} {found.score:.4f}, {found.training.cpu:.1f} s and {found.search.cpu:.1f} s of search, "
          f"{found.megabytes:.2f} MB, {json.dumps(found.settings)}", flush=True)  # fmt: skip


def work_of(run: Run, arguments: argparse.Namespace) -> Work:
    """The rows of a run, as `panda transfer` draws them."""
    task = load_task(run.target, data_dir=arguments.data_dir)
    part = partition(task, train_examples=budget(task, arguments), seed=run.seed)
    test = task.test()
    if test is None:
        raise PandaError(f"Task '{task.name}' has no test data; alternatives are compared on it.")
    backbone = Backbone.load(arguments.model)
    given = {} if arguments.epochs is None else {"epochs": arguments.epochs}
    options = settled(TrainingOptions(**given), task.kind, part.train, backbone)
    folder = Path(locate(arguments.model))
    return Work(task, part, capped(test, arguments.test_examples), run.seed, backbone, folder, options)


def facts(work: Work, arguments: argparse.Namespace) -> dict[str, Any]:
    """What the row is of."""
    return {
        "metric": work.task.spec.metric,
        "n_labelled": len(work.labelled),
        "n_val": len(work.part.validation),
        "n_test": len(work.test),
        "test_examples": arguments.test_examples,
        "labelled_fingerprint": work.labelled.fingerprint,
        "test_fingerprint": work.test.fingerprint,
        "model": arguments.model,
        "model_fingerprint": work.backbone.fingerprint,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
    }


if __name__ == "__main__":
    try:
        main()
    except PandaError as error:
        raise SystemExit(str(error)) from None
