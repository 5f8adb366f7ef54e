"""How strongly should a temperature that is fitted on few validation examples be drawn towards 1?

    python studies/temperature.py --data-dir DATA --tasks trec,cr,subj --seeds 0,1

Trains a prompt on 64 labelled rows of each task, and takes the temperature of its validation part (13 rows) with
several strengths: the standard deviation of log T that is expected before any data, of which the least draws to 1 most,
and `inf` not at all. They are judged on training rows that the prompt has never seen; test data are not read. One JSON
object a line: temperature, mean log loss and calibration error of every strength, and the best temperature of the
unseen rows themselves.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import numpy as np
from scipy.optimize import minimize_scalar

from promptpanda import Backbone, TrainingOptions, load_task, train
from promptpanda.assessment.calibration import expected_calibration_error
from promptpanda.assessment.judged import Answers, softmax
from promptpanda.quiet import quiet_libraries
from promptpanda.tasks.encoding import encode
from promptpanda.tasks.inputs import Split
from promptpanda.tasks.protocol import partition
from promptpanda.training.inference import predict_outputs

BUDGET, UNSEEN = 64, 500
SPREADS = (0.0, 0.1, 0.2, 0.3, 0.5, 1.0, math.inf)


def log_loss(outputs: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    shares = softmax(outputs / temperature)
    return float(-np.log(np.maximum(shares[np.arange(len(labels)), labels], 1e-300)).mean())


def best(outputs: np.ndarray, labels: np.ndarray, spread: float) -> float:
    """As `fit_temperature`, with any strength."""
    if spread == 0:
        return 1.0
    found = minimize_scalar(
        lambda log_t: len(labels) * log_loss(outputs, labels, math.exp(log_t)) + log_t**2 / (2 * spread**2),
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--tasks", default="trec,cr,subj,mr,sst5,tweeteval_emotion")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--model")
    given = parser.parse_args()
    quiet_libraries()
    backbone = Backbone.load(given.model)
    options = TrainingOptions(max_length=32)
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
            line = {"task": name, "seed": seed, "own": round(best(outputs[1], rows.labels, math.inf), 3), "spreads": {}}
            for spread in SPREADS:
                temperature = best(outputs[0], part.validation.labels, spread)
                loss, error = (score(outputs[1], rows.labels, temperature) for score in (log_loss, calibration_error))
                line["spreads"][str(spread)] = [round(temperature, 3), round(loss, 4), round(error, 4)]
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
