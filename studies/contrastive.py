"""What a contrastive warm-up of the prompt adds to prompt tuning, without any source.

    python studies/contrastive.py --data-dir DATA --tasks cr,mpqa,subj,trec --seeds 0,1,2

Every task has a budget of 64 labelled examples; scores are of 400 other rows of its train split, so that no test data
is read. Both methods share subset, carve, order, head and fresh prompt.
"""

from __future__ import annotations

import argparse
import json
import statistics

import torch
from held_out import draws

from promptpanda import Backbone, TrainingOptions
from promptpanda.training.defaults import settled
from promptpanda.transfers.methods import CONTRASTIVE, PROMPT_TUNING
from promptpanda.transfers.trial import Trial

METHODS = (PROMPT_TUNING, CONTRASTIVE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--tasks", default="cr,mpqa,subj,trec")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--examples", type=int, default=64)
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--model")
    given = parser.parse_args()
    torch.set_num_threads(1)
    backbone = Backbone.load(given.model)
    gains: list[float] = []
    for task, seed, part, rest in draws(given.tasks, given.seeds, given.data_dir, given.examples, given.rows):
        options = settled(TrainingOptions(), task.kind, part.train, backbone)
        trial = Trial(backbone, task, part, options, seed)
        found = {}
        for method in METHODS:
            trained, card = trial.test(method, rest)
            found[method.name] = {"score": card.scores[task.spec.metric], "seconds": trained.card.seconds}
        gains.append(found[CONTRASTIVE.name]["score"] - found[PROMPT_TUNING.name]["score"])
        print(json.dumps({"task": task.name, "seed": seed, "metric": task.spec.metric, **found}), flush=True)
    error = statistics.stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else float("nan")
    print(json.dumps({"gain in points": 100 * statistics.fmean(gains), "standard error": 100 * error}))


if __name__ == "__main__":
    main()
