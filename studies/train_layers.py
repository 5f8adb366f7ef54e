"""What a transfer loses, and how much time it saves, if only the upper layers' prefixes learn (docs/log.md).

    python studies/train_layers.py --data-dir DATA --bank BANK --tasks cr,mpqa,subj,trec,stsb,conll04 --seeds 0,1,2

For each task and seed `probe_shrunk` chooses four sources of the bank; PoT trains from them on all labelled examples,
with K of the layers learning, and is scored on other rows of train. The first source is trained with every K of
`--layers`, the others with all layers and with half of them: does a race of halves order the sources as the full one
does? One JSON line a training; then, for each K, the mean loss against all layers with its standard error over tasks
and seeds, and the share of the processor's time, and for the races what is lost by letting halves choose.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from held_out import draws, on_all_labels, pruned

from promptpanda import Backbone, Bank, TrainingOptions
from promptpanda.quiet import quiet_libraries
from promptpanda.training.defaults import settled
from promptpanda.transfers.methods import POT
from promptpanda.transfers.trial import Trial

Found = dict[tuple[str, int, int, int], tuple[float, float]]  # (task, seed, place of the source, K): score and seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--bank", type=Path, required=True)
    parser.add_argument("--tasks", default="cr,mpqa,subj,trec,stsb,conll04")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--layers", default="6,4,3,2", help="the first of them is all")
    parser.add_argument("--sources", type=int, default=4)
    parser.add_argument("--examples", type=int, default=64)
    parser.add_argument("--rows", type=int, default=400)
    given = parser.parse_args()
    torch.set_num_threads(1)
    quiet_libraries()
    backbone, bank = Backbone.load(), Bank(given.bank, others={})
    layers = [int(one) for one in given.layers.split(",")]
    found: Found = {}
    for task, seed, drawn, rest in draws(given.tasks, given.seeds, given.data_dir, given.examples, given.rows):
        part = on_all_labels(drawn)
        options = settled(TrainingOptions(), task.kind, part.train, backbone)
        survivors = pruned(task, drawn, seed, backbone, bank, options, given.sources).survivors
        for place, source in enumerate(survivors):
            for depth in dict.fromkeys((*(layers if place == 0 else layers[:1]), layers[0] // 2)):
                chosen = options.model_copy(update={"train_layers": depth})
                trial = Trial(backbone, task, part, chosen, seed, (source,))
                began = time.process_time()
                trial.outcome(POT)
                seconds = time.process_time() - began
                score = trial.test(POT, rest)[1].scores[task.spec.metric]
                found[task.name, seed, place, depth] = score, seconds
                line = {"task": task.name, "seed": seed, "source": source.task, "place": place, "layers": depth}
                print(json.dumps(line | {"score": round(score, 4), "seconds": round(seconds, 2)}), flush=True)
    for line in summary(found, layers):
        print(json.dumps(line))


def summary(found: Found, layers: list[int]) -> list[dict[str, object]]:
    """The lines at the end."""
    cells = sorted({key[:2] for key in found})
    lines: list[dict[str, object]] = []
    for depth in layers[1:]:
        pairs = [(found[*cell, 0, layers[0]], found[*cell, 0, depth]) for cell in cells]
        lost = [100 * (whole[0] - upper[0]) for whole, upper in pairs]
        by_task: dict[str, list[float]] = defaultdict(list)
        for (task, _), points in zip(cells, lost, strict=True):
            by_task[task].append(points)
        lines.append(
            {
                "layers": depth,
                "points lost": _mean(lost),
                "by task": {task: round(float(np.mean(points)), 2) for task, points in by_task.items()},
                "share of seconds": round(sum(upper[1] for _, upper in pairs) / sum(whole[1] for whole, _ in pairs), 3),
            }
        )
    half = layers[0] // 2
    regrets, agrees = [], []
    for cell in cells:
        places = [key[2] for key in found if key[:2] == cell and key[3] == half]
        whole, halves = ({place: found[*cell, place, depth][0] for place in places} for depth in (layers[0], half))
        by_whole, by_halves = (max(places, key=scores.__getitem__) for scores in (whole, halves))
        regrets.append(100 * (whole[by_whole] - whole[by_halves]))
        agrees.append(by_whole == by_halves)
    lines.append({"race of halves": half, "points lost": _mean(regrets), "same winner": float(np.mean(agrees))})
    return lines


def _mean(values: list[float]) -> str:
    error = np.std(values, ddof=1) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return f"{np.mean(values):.2f} +- {error:.2f}"


if __name__ == "__main__":
    main()
