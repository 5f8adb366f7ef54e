"""How wide should a fresh prompt start, and how fast should it learn? Prompt tuning with 64 labels, several settings.

Test data is not touched: each setting trains on 64 rows of a task's train split and is scored on 400 other rows of it.

    python studies/fresh_prompt.py --data-dir ../shared/data
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import numpy as np

from promptpanda import Backbone, TrainingOptions, load_task
from promptpanda.backbone import quiet_libraries
from promptpanda.tasks.encoding import encode
from promptpanda.training.inference import Data
from promptpanda.training.loop import fit
from promptpanda.training.objectives import objective_for

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data-dir", type=Path, required=True)
parser.add_argument("--tasks", nargs="+", default=["cr", "trec", "subj"])
parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
parser.add_argument("--init-std", nargs="+", type=float, default=[1.0, 0.02])
parser.add_argument("--lr", nargs="+", type=float, default=[1e-2, 3e-2])
arguments = parser.parse_args()

quiet_libraries()
backbone = Backbone.load()
for std, lr in itertools.product(arguments.init_std, arguments.lr):
    options = TrainingOptions(init_std=std, lr=lr, epochs=12, max_length=48)
    scores: dict[str, list[float]] = {}
    for name, seed in itertools.product(arguments.tasks, arguments.seeds):
        task = load_task(name, data_dir=arguments.data_dir)
        rows = np.random.default_rng(seed).permutation(len(task.train()))
        parts = [task.train().take(rows[:64]), task.train().take(rows[64:464])]
        train, other = (
            Data(encode(backbone, part.texts, options.max_length), part.labels, task.spec, task.labels)
            for part in parts
        )
        objective = objective_for(task.kind, len(task.labels), train.labels)
        fitted = fit(backbone, train, other, objective, options, seed=seed)
        scores.setdefault(name, []).append(fitted.validation[task.spec.metric])
    shown = "  ".join(f"{name} {'/'.join(f'{score:.3f}' for score in values)}" for name, values in scores.items())
    mean = np.mean([np.mean(values) for values in scores.values()])
    print(f"init std {std:<5g} lr {lr:<5g}  mean {mean:.3f}  {shown}", flush=True)
