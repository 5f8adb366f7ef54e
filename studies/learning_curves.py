"""Which law tells best what twice as many labels give? The forecast of `panda curve` follows from this (docs/log.md).

    python studies/learning_curves.py --data-dir DATA

Curves of 9 seeds from 16 to 1024 labels are measured cheaply: logistic regression on frozen features of a model. From
each beginning of a curve (3 seeds, some of the scored rows) every law foretells the gain of the next doubling. The
truth is the mean gain over all 9 seeds on all scored rows. Printed: the mean distance from it in points, how often the
95 % interval holds it, and how wide that is. Test data is scored, and chooses a law, never a prompt or a task.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import normalize

from promptpanda import Backbone, load_task
from promptpanda.backbone import TextBatch
from promptpanda.curves import forecast as laws
from promptpanda.curves.forecast import Forecast, Measured, forecast
from promptpanda.quiet import quiet_libraries
from promptpanda.tasks.encoding import encode
from promptpanda.training.heads import features
from promptpanda.training.inference import forward

SIZES = (16, 32, 64, 128, 256, 512, 1024)
SEEDS = 9
TASKS = (
    "trec,cr,mpqa,subj,mr,sst2,ag_news,tweeteval_emotion,tweeteval_irony,sst5,tweeteval_offensive,cola,rte,banking77"
)


def right_answers(name: str, backbone: Backbone, data_dir: Path) -> dict[tuple[int, int], np.ndarray]:
    """By size and seed, which of the scored rows are told right. *Shape:* (rows,) each, bool."""

    def read(batch: TextBatch, layout: Any, stack: Any) -> Any:
        return features(backbone, batch, layout, stack, "mean")

    task, draws = load_task(name, data_dir=data_dir), np.random.default_rng(0)
    parts = []
    for split, most in ((task.train(), 1400), (task.test(), 600)):
        assert split is not None
        taken = split.take(draws.permutation(len(split))[:most])
        vectors = forward(backbone, [], encode(backbone, taken.texts, 64), read)
        parts.append((normalize(np.stack(vectors)), taken.labels))
    (known, labels), (scored, truth) = parts
    found = {}
    for seed in range(SEEDS):
        order = np.random.default_rng(seed).permutation(len(labels))
        first = [int(np.flatnonzero(labels[order] == label)[0]) for label in np.unique(labels)]
        order = np.concatenate([order[first], np.delete(order, first)])
        for size in SIZES:
            if len(first) <= size <= len(labels) and (len(first) < 30 or size >= 128):
                model = LogisticRegression(C=10, max_iter=300).fit(known[order[:size]], labels[order[:size]])
                found[size, seed] = model.predict(scored) == truth
    return found


def cases(right: dict[tuple[int, int], np.ndarray], rows: int) -> Iterator[tuple[Measured, float]]:
    """Beginnings of a curve, and the true gain of the doubling that follows."""
    sizes = sorted({size for size, _ in right})
    mean = {size: float(np.mean([right[size, seed] for seed in range(SEEDS)])) for size in sizes}
    for group in range(SEEDS // 3):
        draws = np.random.default_rng(group)
        some = draws.permutation(len(right[sizes[0], 0]))[:rows]
        picked = draws.integers(0, len(some), (400, len(some)))
        for count in range(laws.LAST, len(sizes)):
            each = [[right[size, 3 * group + place][some] for place in range(3)] for size in sizes[:count]]
            table = np.asarray(each, dtype=float)
            known = Measured(tuple(sizes[:count]), table.mean(axis=2), table[:, :, picked].mean(axis=3))
            yield known, mean[sizes[count]] - mean[sizes[count - 1]]


def with_laws(exponents: tuple[float, ...], last: int) -> Callable[[Measured, int], Forecast | None]:
    """The forecast with other exponents, or fitted to more of the last sizes."""

    def run(measured: Measured, size: int) -> Forecast | None:
        kept = laws.EXPONENTS, laws.LAST
        laws.EXPONENTS, laws.LAST = exponents, min(last, len(measured.sizes))  # type: ignore[misc]
        try:
            return forecast(measured, size)
        finally:
            laws.EXPONENTS, laws.LAST = kept  # type: ignore[misc]

    return run


LAWS = {
    "mixture, last 3 (ours)": with_laws(laws.EXPONENTS, 3),
    "mixture, last 4": with_laws(laws.EXPONENTS, 4),
    "mixture, all": with_laws(laws.EXPONENTS, 9),
    "line in log n, last 3": with_laws((0.0,), 3),
    "n^-0.5, last 3": with_laws((0.5,), 3),
    "n^-0.5, all": with_laws((0.5,), 9),
    "n^-1, last 3": with_laws((1.0,), 3),
}

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data-dir", type=Path, required=True)
parser.add_argument("--model")
parser.add_argument("--tasks", default=TASKS)
arguments = parser.parse_args()

quiet_libraries()
backbone = Backbone.load(arguments.model)
curves = [right_answers(name, backbone, arguments.data_dir) for name in arguments.tasks.split(",")]
for rows in (40, 100, 300, 600):
    known = [case for right in curves for case in cases(right, rows)]
    nothing = 100 * np.mean([abs(gain) for _, gain in known])
    print(f"{rows} rows scored, {len(known)} forecasts; a guess of no gain is {nothing:.2f} points away")
    for name, law in LAWS.items():
        found = [(law(measured, 2 * measured.sizes[-1]), gain) for measured, gain in known]
        told = [(one, gain) for one, gain in found if one is not None]
        away = 100 * np.mean([abs(one.gain - gain) for one, gain in told])
        held = np.mean([one.gain_low <= gain <= one.gain_high for one, gain in told])
        wide = 100 * np.mean([one.gain_high - one.gain_low for one, _ in told])
        print(f"  {name:24} {away:5.2f} away, interval holds {held:.2f}, {wide:4.1f} wide", flush=True)
