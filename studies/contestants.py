"""What each method gives on all labelled examples and on the training part alone, from the best-ranked source.

    python studies/contestants.py --data-dir DATA --bank BANK --tasks cr,trec --seeds 0,1

For each task and seed `probe_shrunk` chooses the source; the methods are scored on other rows of train, so that no test
data is read. A choice such as `--effort quick`'s can be judged on these rows without training anything again. One JSON
line a method.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from held_out import draws, on_all_labels, pruned

from promptpanda import Backbone, Bank, TrainingOptions
from promptpanda.quiet import quiet_libraries
from promptpanda.training.defaults import settled
from promptpanda.training.loop import UntrainableError
from promptpanda.transfers.linear_probe import best_probe
from promptpanda.transfers.methods import METHODS
from promptpanda.transfers.trial import Trial


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--bank", type=Path, required=True)
    parser.add_argument("--tasks", required=True)
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--methods", default="prompt_tuning,pot,contrastive,contrastive_pot,linear_probe,source_probe")
    parser.add_argument("--parts", default="all", help="all, train, or both with a comma")
    parser.add_argument("--examples", type=int, default=64)
    parser.add_argument("--rows", type=int, default=400)
    given = parser.parse_args()
    torch.set_num_threads(1)
    quiet_libraries()
    backbone, bank = Backbone.load(), Bank(given.bank, others={})
    for task, seed, drawn, rest in draws(given.tasks, given.seeds, given.data_dir, given.examples, given.rows):
        base = settled(TrainingOptions(), task.kind, drawn.train, backbone)
        found = pruned(task, drawn, seed, backbone, bank, base, 1)
        for name_of_part in given.parts.split(","):
            part = on_all_labels(drawn) if name_of_part == "all" else drawn
            options = settled(TrainingOptions(), task.kind, part.train, backbone)
            trial = Trial(backbone, task, part, options, seed, found.survivors)
            prompts = [None, *(one.prompt for one in found.survivors)]
            probes = [best_probe(trial, prompt) for prompt in prompts if METHODS["linear_probe"].supports(task.kind)]
            head = {
                "task": task.name,
                "seed": seed,
                "part": name_of_part,
                "source": [one.task for one in found.survivors],
                "lead": round(found.lead(found.survivors), 4),
                "classes": len(task.labels),
                "cross_validation": [None if one is None else round(one.cross_validation, 4) for one in probes],
            }
            for method_name in given.methods.split(","):
                method = METHODS[method_name]
                if not method.supports(task.kind) or (method.needs_source and not found.survivors):
                    continue
                began = time.process_time()
                try:
                    trained = trial.outcome(method)
                except UntrainableError:
                    continue
                seconds = time.process_time() - began
                score = trial.test(method, rest)[1].scores[task.spec.metric]
                line = {"method": method_name, "score": round(score, 4), "validation": round(trained.card.score, 4)}
                print(json.dumps(head | line | {"seconds": round(seconds, 1)}), flush=True)


if __name__ == "__main__":
    main()
