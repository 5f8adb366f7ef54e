"""May what is promised by labels of the validation part be a prior to scores on the same part? (docs/log.md)

    python studies/double_use.py

A simulation of a target with 64 labels, 51 for training and 13 for validation, and six contestants whose features
separate two classes by more or less along one direction; the rest of the features, and what makes an example hard,
they mostly share. A contestant's score is the accuracy of a ridge readout that was fitted to the training part, its
truth the same on 1,500 other examples, its lead `probe_r2` less the first contestant's: of all 64 labels, or of the
training part's alone. For each, as a JSON object: points of true gain that a unit of lead is worth (which the prior is
fitted to), points by which a unit of lead flatters the validation gain (0 without double use), and the regret of the
choice.
"""

from __future__ import annotations

import argparse
import json

import numpy as np

from promptpanda.transfers.choice import conditional
from promptpanda.transfers.estimators.probe import left_out

LABELS, TRAINING, TEST, DIMENSIONS, CONTESTANTS = 64, 51, 1500, 24, 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=3000)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    scores, truths, whole, training = np.asarray([case(rng) for _ in range(arguments.cases)]).transpose(1, 0, 2)
    noise = np.cov((scores - truths).T)
    print(json.dumps({"correlation": round(float(np.corrcoef((scores - truths).T)[0, 1]), 2)}))
    regrets = {}
    for name, promised in (("all labels", whole), ("of the training part", training)):
        leads, gains = promised - promised[:, :1], truths - truths[:, :1]
        flattered = scores - scores[:, :1] - gains
        slope = float(np.polyfit(leads[:, 1:].ravel(), gains[:, 1:].ravel(), 1)[0])
        spread = float((gains - slope * leads)[:, 1:].std() / np.sqrt(2))
        chosen = [
            conditional(s, slope * lead, noise, spread)[0].argmax() for s, lead in zip(scores, leads, strict=True)
        ]
        regrets[name] = 100 * (truths.max(axis=1) - truths[np.arange(len(truths)), chosen])
        found = {
            "leads": name,
            "slope of gain": round(100 * slope, 1),
            "slope of noise": round(100 * float(np.polyfit(leads[:, 1:].ravel(), flattered[:, 1:].ravel(), 1)[0]), 1),
            "regret": round(float(regrets[name].mean()), 2),
        }
        print(json.dumps(found))
    apart = regrets["all labels"] - regrets["of the training part"]
    error = apart.std() / np.sqrt(len(apart))
    print(json.dumps({"difference": round(float(apart.mean()), 2), "standard error": round(float(error), 2)}))


def case(rng: np.random.Generator) -> np.ndarray:
    """Score, truth and both promises of every contestant. *Shape:* (4, contestants)."""
    count = LABELS + TEST
    classes = rng.integers(0, 2, count) * 2.0 - 1
    hard, shared = rng.normal(size=count), rng.normal(size=(count, DIMENSIONS))
    direction = rng.normal(size=DIMENSIONS)
    direction /= np.linalg.norm(direction)
    found = []
    for apart in np.clip(rng.normal(1, 0.12, CONTESTANTS), 0.2, None):
        features = 0.95 * shared + 0.31 * rng.normal(size=shared.shape)
        along = apart * classes + 0.96 * hard + 0.28 * rng.normal(size=count)
        features += np.outer(along - features @ direction, direction)
        right = readout(features[:TRAINING], classes[:TRAINING], features) * classes > 0
        promises = [probe_r2(features[:labels], classes[:labels]) for labels in (LABELS, TRAINING)]
        found.append([right[TRAINING:LABELS].mean(), right[LABELS:].mean(), *promises])
    return np.asarray(found).T


def readout(features: np.ndarray, classes: np.ndarray, asked: np.ndarray, penalty: float = 10.0) -> np.ndarray:
    """What a ridge fitted to some says of others."""
    centre, mean = features.mean(0), classes.mean()
    centred = features - centre
    weights = np.linalg.solve(centred.T @ centred + penalty * np.eye(DIMENSIONS), centred.T @ (classes - mean))
    return (asked - centre) @ weights + mean


def probe_r2(features: np.ndarray, classes: np.ndarray) -> float:
    targets = (classes[:, None] > 0).astype(float)
    predictions = left_out(features, targets, np.arange(len(features)))
    return float(1 - ((predictions - targets) ** 2).mean((1, 2)).min() / targets.var())


if __name__ == "__main__":
    main()
