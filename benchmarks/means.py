"""What each means of going faster gives: a training without it, beside one with all of them.

    python benchmarks/means.py --data-dir DATA --out means.json

Prompt tuning of the 6-layer BERT on the lengths of CB and of the mix (speed.py), interleaved; the median of how many
times faster the training as it is runs than the one without a means, or with one that was not adopted.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from speed import save_models, work_of
from systems import Ours, Work, quiet

from promptpanda.training.inference import predict_outputs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--lengths", type=lambda text: text.split(","), default=["cb", "mix"])
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--examples", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--compile", action="store_true", help="torch.compile too; its compilation is told apart")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    quiet()
    found: dict[str, Any] = {}
    with TemporaryDirectory() as folder:
        small, base = Path(folder) / "small", Path(folder) / "base"
        save_models(small, base)
        for length in arguments.lengths:
            work = work_of(small, length, arguments, arguments.examples, arguments.epochs)
            found[length] = compare(work, arguments)
            print(f"\n{length}: as it is {work.examples / statistics.median(found[length]['as it is']):.0f} examples/s")
            for name, seconds in found[length].items():
                if name not in ("as it is", "compilation"):
                    pairs = zip(seconds, found[length]["as it is"], strict=True)
                    ratios = [other / ours for other, ours in pairs]
                    low, high = min(ratios), max(ratios)
                    print(f"  {name:44}{statistics.median(ratios):6.2f}  ({low:.2f}-{high:.2f})", flush=True)
            if "compilation" in found[length]:
                print(f"  compilation took {found[length]['compilation'][0]:.0f} s")
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def compare(work: Work, arguments: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of every repetition, by what is different."""
    runs = {name: make(work) for name, make in VARIANTS.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    if arguments.compile:
        began = time.perf_counter()
        runs["torch.compile"] = compiled(work)
        runs["torch.compile"]()
        seconds |= {"compilation": [time.perf_counter() - began], "torch.compile": []}
    for _ in range(arguments.repetitions):
        for name, run in runs.items():
            seconds[name].append(run())
    return seconds


def as_it_is(work: Work) -> Callable[[], float]:
    return Ours(work, teacher=False)


def without(**switches: bool) -> Callable[[Work], Callable[[], float]]:
    """With parts of the fast path switched off."""

    def make(work: Work) -> Callable[[], float]:
        ours = Ours(work, teacher=False)
        ours.backbone = copy.copy(ours.backbone)
        vars(ours.backbone).update({f"_{name}": value for name, value in switches.items()})
        return ours

    return make


def patched(target: str, replacement: Any) -> Callable[[Work], Callable[[], float]]:
    """With a function of the library replaced."""

    def make(work: Work) -> Callable[[], float]:
        ours = Ours(work, teacher=False)

        def run() -> float:
            with patch(target, replacement):
                return ours()

        return run

    return make


def any_order(lengths: np.ndarray, size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Batches of whatever lengths come."""
    order = rng.permutation(len(lengths))
    return [order[start : start + size] for start in range(0, len(order), size)]


def bernoulli(shape: Any, dropout: float, device: torch.device, generator: torch.Generator | None) -> torch.Tensor:
    return torch.empty(*shape, device=device).bernoulli_(1 - dropout, generator=generator)


def dropout_on(work: Work) -> Callable[[], float]:
    """The backbone in train mode."""
    ours = Ours(work, teacher=False)

    def run() -> float:
        ours.backbone.model.train()
        try:
            return ours()
        finally:
            ours.backbone.model.eval()

    return run


def teacher_each_epoch(work: Work) -> Callable[[], float]:
    """A student whose teacher reads every example in every epoch, instead of once."""
    ours = Ours(work, teacher=True)
    assert ours.source is not None

    def run() -> float:
        began = time.perf_counter()
        ours()
        for _ in range(work.epochs - 1):
            predict_outputs(ours.backbone, ours.source.prompt, ours.source.head, ours.train.encoded)
        return time.perf_counter() - began

    return run


def half_precision(work: Work) -> Callable[[], float]:
    ours = Ours(work, teacher=False)
    ours.options = ours.options.model_copy(update={"precision": "bf16"})
    return ours


def compiled(work: Work) -> Callable[[], float]:
    ours = Ours(work, teacher=False)
    for layer in ours.backbone.model.encoder.layer:
        layer.intermediate.compile(dynamic=True)
        layer.output.compile(dynamic=True)
    return ours


VARIANTS: dict[str, Callable[[Work], Callable[[], float]]] = {
    "as it is": as_it_is,
    "padded, last layer whole": without(packs=False, cuts_last_layer=False),
    "packed, last layer whole": without(cuts_last_layer=False),
    "batches of any lengths, packed": patched("promptpanda.training.steps.shuffled_batches", any_order),
    "prompt dropout by bernoulli_": patched("promptpanda.prompts.prefixes.keep_mask", bernoulli),
    "backbone's own dropout on": dropout_on,
    "student, teacher read in every epoch": teacher_each_epoch,
    "student, teacher read once": lambda work: Ours(work, teacher=True),
    "bfloat16 (autocast)": half_precision,
}


if __name__ == "__main__":
    main()
