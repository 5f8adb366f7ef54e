"""Are the rows of several tasks together a better source than each task alone? (docs/log.md)

    python studies/pooled_sources.py --data-dir DATA --bank BANK --kept KEPT --seeds 0,1,2

A pool is one task made of the training rows of several that ask the same; classes that one of them has not (the neutral
reviews of sst5) are left out, and `very negative` is negative. Its prompt is trained with the default options and kept
in KEPT, so that the same command goes on where it was stopped; those of the single tasks are a bank's. PoT starts from
each with 64 labelled rows of a target, and is scored on other rows of the target's train, so that no test data is
read. One JSON line a target, seed and source; then the means.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import torch
from held_out import draws, on_all_labels

from promptpanda import Backbone, Bank, TrainingOptions, load_task, train
from promptpanda.bank.folder import read_source
from promptpanda.quiet import quiet_libraries
from promptpanda.tasks.catalog import own_task
from promptpanda.tasks.task import Task
from promptpanda.training.defaults import settled
from promptpanda.transfers.methods import POT
from promptpanda.transfers.trial import Trial


@dataclass(frozen=True)
class Pool:
    """Tasks whose rows go together, and targets whose rows are in none of them."""

    tasks: tuple[str, ...]
    classes: tuple[str, ...]
    targets: tuple[str, ...]


POOLS = {
    "sentiment": Pool(("sst2", "mr", "sst5"), ("negative", "positive"), ("cr", "mpqa")),
    "inference": Pool(("mnli", "snli"), ("entailment", "neutral", "contradiction"), ("rte", "cb")),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--bank", type=Path, required=True, help="with the prompts of the single tasks")
    parser.add_argument("--kept", type=Path, required=True, help="where the pools' prompts are kept")
    parser.add_argument("--pools", default=",".join(POOLS))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--examples", type=int, default=64)
    parser.add_argument("--rows", type=int, default=400)
    given = parser.parse_args()
    torch.set_num_threads(1)
    quiet_libraries()
    backbone, singles, kept = Backbone.load(), Bank(given.bank, others={}), Bank(given.kept, others={})
    for name in given.pools.split(","):
        pool = POOLS[name]
        sources = {task: read_source(singles.resolve(task), backbone) for task in pool.tasks}
        made = train(pooled(name, pool, given.data_dir), backbone, bank=kept)
        sources[name] = read_source(kept.folder_of(made.card.id), backbone)
        scores: dict[tuple[str, str], list[float]] = defaultdict(list)
        targets = ",".join(pool.targets)
        for task, seed, drawn, rest in draws(targets, given.seeds, given.data_dir, given.examples, given.rows):
            part = on_all_labels(drawn)
            options = settled(TrainingOptions(), task.kind, part.train, backbone)
            for source, prompt in sources.items():
                trial = Trial(backbone, task, part, options, seed, (prompt,))
                score = trial.test(POT, rest)[1].scores[task.spec.metric]
                scores[task.name, source].append(100 * score)
                line = {"task": task.name, "seed": seed, "source": source, "score": round(score, 4)}
                print(json.dumps(line), flush=True)
        for (task, source), found in scores.items():
            print(json.dumps({"task": task, "source": source, "mean": round(statistics.fmean(found), 1)}), flush=True)


def pooled(name: str, pool: Pool, data_dir: Path) -> Task:
    """One task of all training rows of a pool."""
    rows = []
    for member in pool.tasks:
        task = load_task(member, data_dir=data_dir)
        split = task.train()
        for text, label in zip(split.texts, split.labels, strict=True):
            named = task.labels[int(label)].removeprefix("very ")
            if named in pool.classes:
                rows.append(dict(zip(("text", "text2"), text, strict=False)) | {"label": named})
    return own_task(train=rows, text="text", text2="text2" if "text2" in rows[0] else None, label="label", name=name)


if __name__ == "__main__":
    main()
