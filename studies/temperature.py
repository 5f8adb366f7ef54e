"""How strongly should a temperature that is fitted on few validation examples be drawn, and towards what?

    python studies/temperature.py --data-dir DATA --tasks trec,cr,subj --seeds 0,1

Trains a prompt on 64 labelled rows of each task, and takes the temperature of its validation part (13 rows) with
several centres and strengths: what is expected of T before any data, and the standard deviation of log T, of which the
least draws to the centre most, and `inf` not at all. They are judged on training rows that the prompt has never seen;
test data are not read. One JSON object a line: by centre and strength the temperature, mean log loss and calibration
error, and the best temperature of the unseen rows themselves. Then, for every task, what was chosen by the log loss of
all others, and how it does there beside centre 1 with strength 0.5 and beside no temperature.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

from promptpanda import Backbone, TrainingOptions, load_task, train
from promptpanda.assessment.calibration import expected_calibration_error
from promptpanda.assessment.evaluated import Answers
from promptpanda.quiet import quiet_libraries
from promptpanda.tasks.encoding import encode
from promptpanda.tasks.inputs import Split
from promptpanda.tasks.protocol import partition
from promptpanda.training.inference import predict_outputs
from promptpanda.transfers.outputs import softmax

BUDGET, UNSEEN = 64, 500
SPREADS = (0.0, 0.1, 0.2, 0.3, 0.5, 1.0, math.inf)
CENTRES = (1.0, 1.5, 2.0, 2.5, 3.0)
NOW = "1.0 0.5"  # centre and strength, as `fit_temperature` had them first


def log_loss(outputs: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    shares = softmax(outputs / temperature)
    return float(-np.log(np.maximum(shares[np.arange(len(labels)), labels], 1e-300)).mean())


def best(outputs: np.ndarray, labels: np.ndarray, spread: float, centre: float = 1.0) -> float:
    """As `fit_temperature`, with any centre and strength."""
    if spread == 0:
        return centre
    off = math.log(centre)
    found = minimize_scalar(
        lambda log_t: len(labels) * log_loss(outputs, labels, math.exp(log_t)) + (log_t - off) ** 2 / (2 * spread**2),
        bounds=(-math.log(20), math.log(20)),
        method="bounded",
    )
    return math.exp(float(found.x))


def calibration_error(outputs: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    shares = softmax(outputs / temperature)
    answers = Answers(np.arange(len(labels)), shares.max(axis=1), shares.argmax(axis=1) == labels)
    return float(expected_calibration_error(answers, len(labels))(np.ones((1, len(labels))))[0])


def unseen(train_split: Split, seen: set[object], seed: int) -> Split:
    rest = np.asarray([row for row, text in enumerate(train_split.texts) if text not in seen])
    return train_split.take(np.random.default_rng(seed).permutation(rest)[:UNSEEN])


def left_out(lines: list[dict[str, Any]], task: str) -> dict[str, Any]:
    """What all other tasks would choose, and the mean loss and error on this one of that, of today's, and of none."""

    def means(own: bool, way: str) -> list[float]:
        kept = [line["found"][way][1:] for line in lines if (line["task"] == task) == own]
        return [round(float(value), 4) for value in np.mean(kept, axis=0)]

    chosen = min(lines[0]["found"], key=lambda way: means(False, way)[0])
    return {"left out": task, "chosen": chosen, **{way: means(True, way) for way in (chosen, NOW, "1.0 0.0")}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--tasks", default="trec,cr,subj,mr,sst5,tweeteval_emotion")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--model")
    parser.add_argument("--epochs", type=int)
    given = parser.parse_args()
    quiet_libraries()
    backbone = Backbone.load(given.model)
    options = TrainingOptions(max_length=32, **({} if given.epochs is None else {"epochs": given.epochs}))
    lines = []
    for name in given.tasks.split(","):
        for seed in map(int, given.seeds.split(",")):
            task = load_task(name, data_dir=given.data_dir)
            part = partition(task, train_examples=BUDGET, seed=seed)
            trained = train(task, backbone, train_examples=BUDGET, seed=seed, options=options)
            rows = unseen(task.train(), {*part.train.texts, *part.validation.texts}, seed)
            outputs = [
                predict_outputs(backbone, trained.prompt, trained.head, encode(backbone, split.texts, 32)).astype(float)
                for split in (part.validation, rows)
            ]
            line = {"task": name, "seed": seed, "own": round(best(outputs[1], rows.labels, math.inf), 3), "found": {}}
            for centre, spread in itertools.product(CENTRES, SPREADS):
                temperature = best(outputs[0], part.validation.labels, spread, centre)
                loss, error = (score(outputs[1], rows.labels, temperature) for score in (log_loss, calibration_error))
                line["found"][f"{centre} {spread}"] = [round(temperature, 3), round(loss, 4), round(error, 4)]
            lines.append(line)
            print(json.dumps(line), flush=True)
    for name in given.tasks.split(",") if "," in given.tasks else ():
        print(json.dumps(left_out(lines, name)))


if __name__ == "__main__":
    main()
