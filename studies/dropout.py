"""Does it cost accuracy that the frozen backbone has no dropout while a prompt is trained? (docs/log.md)

    python studies/dropout.py --data-dir DATA --tasks cb,cr,trec,subj --seeds 5

Prompt tuning on `--examples` rows of a task's train split, with the backbone's own dropout on (as PEFT with a Trainer
trains) and off (as promptpanda does), same seed, same order, same prompt and head; scored without dropout on up to 400
other rows of train. Test data is not read. One JSON line a pair, then the paired differences.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

import numpy as np
import torch

from promptpanda import Backbone, TrainingOptions, load_task
from promptpanda.quiet import quiet_libraries
from promptpanda.tasks.encoding import encode
from promptpanda.tasks.inputs import Split
from promptpanda.training.defaults import settled
from promptpanda.training.inference import Data, predict_outputs, scores_of
from promptpanda.training.loop import Training
from promptpanda.training.objectives.kinds import objective_for

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data-dir", type=Path, required=True)
parser.add_argument("--model")
parser.add_argument("--tasks", default="cb,cr,trec,subj")
parser.add_argument("--seeds", type=int, default=5, help="how many")
parser.add_argument("--examples", type=int, default=100)
parser.add_argument("--epochs", type=int, default=12)
arguments = parser.parse_args()

quiet_libraries()
backbone = Backbone.load(arguments.model)
differences = []
for name in arguments.tasks.split(","):
    task = load_task(name, data_dir=arguments.data_dir)
    rows = task.train()
    for seed in range(arguments.seeds):
        drawn = np.random.default_rng([seed, 0]).permutation(len(rows))
        train, held_out = (
            rows.take(part) for part in np.split(drawn[: arguments.examples + 400], [arguments.examples])
        )
        options = settled(TrainingOptions(epochs=arguments.epochs), task.kind, train, backbone)

        def data(split: Split) -> Data:
            return Data(encode(backbone, split.texts, options.max_length), split, task.spec, task.labels)  # noqa: B023

        objective = objective_for(task.spec, len(task.labels), train.labels)
        scores = {}
        for mode in ("off", "on"):
            torch.manual_seed(seed)  # the backbone's dropout draws from torch's own stream
            backbone.model.train(mode == "on")
            fitted = Training(backbone, data(train), data(held_out), objective, options, seed=seed).run()
            backbone.model.eval()
            outputs = predict_outputs(backbone, fitted.prompt, fitted.head, data(held_out).encoded)
            scores[mode] = scores_of(outputs, data(held_out), objective)[task.spec.metric]
        print(json.dumps({"task": name, "seed": seed, "n_held_out": len(held_out)} | scores), flush=True)
        differences.append(scores["off"] - scores["on"])
error = statistics.stdev(differences) / len(differences) ** 0.5
print(json.dumps({"off_minus_on": statistics.fmean(differences), "standard_error": error, "pairs": len(differences)}))
