"""Which settings suit which kind of task? Defaults and the rates of `--lr auto` follow from this (docs/log.md).

    python studies/settings.py --data-dir DATA --tasks conll04,copa --lr 0.003,0.01,0.03
    python studies/settings.py --data-dir DATA --tasks cr,trec,subj --init-std 1,0.02 --examples 64 --epochs 12

Every combination trains on `--examples` rows of a task's train split and is scored on 400 other rows of it; test data
is not read. One JSON line a run.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path

import numpy as np

from promptpanda import Backbone, TrainingOptions, load_task
from promptpanda.quiet import quiet_libraries
from promptpanda.tasks.protocol import Partition
from promptpanda.transfers.methods import METHODS
from promptpanda.transfers.trial import Trial


def numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data-dir", type=Path, required=True)
parser.add_argument("--model")
parser.add_argument("--tasks", default="conll04,copa,rte,stsb,cola,cr")
parser.add_argument("--method", default="prompt_tuning", choices=METHODS)
parser.add_argument("--seeds", type=numbers, default=[0.0])
parser.add_argument("--lr", type=numbers, default=[3e-3, 1e-2, 3e-2], help="of prompts, or of the model if it is tuned")
parser.add_argument("--init-std", type=numbers, default=[1.0])
parser.add_argument("--epochs", type=numbers, default=[10.0])
parser.add_argument("--examples", type=int, default=160)
arguments = parser.parse_args()

quiet_libraries()
backbone = Backbone.load(arguments.model)
for name, seed in itertools.product(arguments.tasks.split(","), map(int, arguments.seeds)):
    task = load_task(name, data_dir=arguments.data_dir)
    rows = task.train()
    drawn = np.random.default_rng([seed, 0]).permutation(len(rows))
    train, validation = (rows.take(part) for part in np.split(drawn[: arguments.examples + 400], [arguments.examples]))
    for lr, std, epochs in itertools.product(arguments.lr, arguments.init_std, map(int, arguments.epochs)):
        options = TrainingOptions(epochs=epochs, lr=lr, model_lr=lr, init_std=std)
        trial = Trial(backbone, task, Partition(train, validation, "clean"), options, seed)
        card = trial.outcome(METHODS[arguments.method]).card
        setting = {"task": name, "method": arguments.method, "seed": seed, "lr": lr, "init_std": std, "epochs": epochs}
        scores = {"n_val": len(validation), "score": card.score, "loss": card.validation["loss"]}
        print(json.dumps(setting | scores | {"seconds": card.seconds}), flush=True)
