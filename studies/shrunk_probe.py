"""Does a source that is chosen with 64 labels serve examples to come? `probe_r2` against strong penalties (docs/log.md)

    python studies/shrunk_probe.py --data-dir DATA --bank BANK cr mpqa trec sst2 tweeteval_irony

For each task and draw of 64 labels the features under every prompt of the bank that did not see the task's rows. What a
prompt is worth is the accuracy of a logistic regression on them (C by cross-validation) on up to 400 other rows of
train. Test data is looked at for its texts alone. A JSON object a task: the mean over draws of what the prompt is worth
that each rule puts first, beside the best prompt (`oracle`), the mean of all, and the bare model.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

import numpy as np

from promptpanda import Backbone, Bank, load_task
from promptpanda.bank.folder import SourcePrompt
from promptpanda.progress import Silent
from promptpanda.tasks.encoding import encode
from promptpanda.tasks.inputs import Split
from promptpanda.tasks.protocol import partition
from promptpanda.training.inference import read_rows
from promptpanda.training.objectives.kinds import objective_for
from promptpanda.transfers.estimators.probe import PENALTIES, left_out
from promptpanda.transfers.linear import fitted
from promptpanda.transfers.overlap import TargetRows
from promptpanda.transfers.ranking import fitting_cards, readable_sources

LABELS, OTHERS = 64, 400
RULES = {  # penalties, relative to the variance of the features, that a rule takes the mean over; None: the best
    "probe_r2": None,
    "from 0.3": (0.3, 1000),
    "from 1": (1, 1000),
    "1 to 100": (1, 100),
    "from 3": (3, 1000),
    "at 10": (10, 10),
    "at 100": (100, 100),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="+")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--bank", type=Path, required=True)
    parser.add_argument("--draws", type=int, default=4)
    arguments = parser.parse_args()
    backbone, bank = Backbone.load(), Bank(arguments.bank, others={})
    for name in arguments.tasks:
        print(
            json.dumps({"task": name, **_of_task(name, arguments.data_dir, arguments.draws, backbone, bank)}),
            flush=True,
        )


def _of_task(name: str, data_dir: Path, draws: int, backbone: Backbone, bank: Bank) -> dict[str, float]:
    task = load_task(name, data_dir=data_dir)
    train = task.train()
    parts = [partition(task, train_examples=LABELS, seed=seed) for seed in range(draws)]
    labelled = [part.train.joined(part.validation) for part in parts]
    seen = {repr(text) for split in labelled for text in split.texts}
    order = np.random.default_rng(5).permutation(len(train))
    others = train.take(np.asarray([row for row in order if repr(train.texts[row]) not in seen][:OTHERS]))
    rows = TargetRows.of([partition(task)], task.test())
    sources = readable_sources(fitting_cards(task, backbone, bank, rows, Silent()).cards, backbone, bank, Silent())
    readout = objective_for(task.spec, len(task.labels), train.labels).readout(backbone, "auto")

    def features(split: Split, source: SourcePrompt | None) -> np.ndarray:
        prompt = None if source is None else source.prompt
        return np.stack(read_rows(backbone, encode(backbone, split.texts, 128), readout, prompt)).astype(np.float64)

    bare, worth = np.zeros(draws), np.zeros((draws, len(sources)))
    scores: dict[str, np.ndarray] = defaultdict(lambda: np.zeros_like(worth))
    for column, source in enumerate([None, *sources], -1):
        held = features(others, source)
        for draw, split in enumerate(labelled):
            vectors = features(split, source)
            value = _worth(vectors, split.labels, held, others.labels)
            if source is None:
                bare[draw] = value
                continue
            worth[draw, column] = value
            for rule, score in _scores(vectors, split.labels).items():
                scores[rule][draw, column] = score
    chosen = {rule: worth[np.arange(draws), score.argmax(1)].mean() for rule, score in scores.items()}
    found = {
        "sources": len(sources),
        "oracle": worth.max(1).mean(),
        "mean": worth.mean(),
        "bare": bare.mean(),
        **chosen,
    }
    return {key: round(float(value), 4) for key, value in found.items()}


def _worth(vectors: np.ndarray, labels: np.ndarray, held: np.ndarray, truth: np.ndarray) -> float:
    size = np.linalg.norm(vectors, axis=1).mean()
    model = fitted(vectors / size, labels, np.arange(len(labels)), lambda found: float((found == labels).mean()))
    assert model is not None
    return float((model.predict(held / size) == truth).mean())


def _scores(vectors: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    targets = (labels[:, None] == np.unique(labels)).astype(float)
    errors = ((left_out(vectors, targets, np.arange(len(labels))) - targets) ** 2).mean((1, 2))
    explained = 1 - errors / targets.var(0).mean()
    penalties = np.asarray(PENALTIES)
    return {
        rule: float(explained.max() if bounds is None else explained[_within(penalties, *bounds)].mean())
        for rule, bounds in RULES.items()
    }


def _within(penalties: np.ndarray, low: float, high: float) -> np.ndarray:
    return (penalties > 0.99 * low) & (penalties < 1.01 * high)


if __name__ == "__main__":
    main()
