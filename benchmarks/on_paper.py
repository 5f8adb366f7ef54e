"""What the paper's whole grid, and a large bank, would cost on GPUs: arithmetic, not a measurement (docs/scaling.md).

    python benchmarks/on_paper.py --data-dir DATA

Work is counted as for the limit (limit.py) from `recipes/paper.yaml`; sizes are the published ones, lengths those of
the data where it is there. A step takes the longer of its work at the assumed rate and of its kernel launches.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from limit import Shape, useful_work

from promptpanda.backbone import Backbone
from promptpanda.sweep.recipe import SweepRecipe
from promptpanda.tasks.catalog import load_task
from promptpanda.tasks.encoding import encode

SHAPES = {
    "bert-large": Shape(24, 1024, 4096),
    "bert-base": Shape(12, 768, 3072),
    "bert-medium": Shape(8, 512, 2048),
    "bert-small": Shape(4, 512, 2048),
    "bert-tiny": Shape(2, 128, 512),
}
# Training examples, as published.
EXAMPLES = {
    "boolq": 9_427, "cb": 250, "rte": 2_490, "wic": 5_428, "wsc": 554, "copa": 400, "multirc": 27_243,
    "record": 100_730, "mnli": 392_702, "cola": 8_551, "sst2": 67_349, "qnli": 104_743, "mrpc": 3_668, "stsb": 5_749,
    "qqp": 363_846, "squad": 87_599, "conll03": 14_041, "conll04": 922, "ontonotes": 59_924, "conll05": 90_750,
    "conll12": 253_070,
}  # fmt: skip
# Mean tokens of an example where its data is not at hand; ReCoRD's rows are cut to 128, some nine entities each.
TOKENS = {"record": 9 * 128.0, "ontonotes": 25.0, "conll05": 32.0, "conll12": 26.0}

# Assumptions, per H100 (SXM). Dense bf16 peak is 989 TFLOP/s; a third of that is what well-kept trainings reach.
RATE = 330e12
LAUNCH = 4e-6  # seconds a kernel
KERNELS = 70  # a layer, forward and backward
READ = 2e9  # bytes a second from disk


@dataclass(frozen=True)
class Load:
    """A task as a training sees it: examples, mean tokens."""

    examples: int
    tokens: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    recipe = SweepRecipe.from_yaml(Path(__file__).parents[1] / "recipes" / "paper.yaml")
    loads = {name: load_of(name, parser.parse_args().data_dir) for name in recipe.sources.tasks}
    print(f"{'model':14}{'examples x epochs':>20}{'PFLOP':>10}{'1 H100, hours':>16}{'of which launches bind':>24}")
    total = 0.0
    for model, shape in SHAPES.items():
        steps = work = hours = bound = 0.0
        for name in recipe.sources.tasks:
            options = recipe.source_options(name)
            cost = training(shape, loads[name], options.epochs, options.batch_size, options.prompt_length)
            steps, work, hours, bound = (a + b for a, b in zip((steps, work, hours, bound), cost, strict=True))
        for name in recipe.targets.tasks:
            options = recipe.target_options(name)
            sources = len(recipe.sources.tasks) - (name in recipe.sources.tasks)
            # Prompt tuning once, PoT and PANDA's student once a source.
            cost = training(shape, loads[name], options.epochs, options.batch_size, 20, times=1 + 2 * sources)
            steps, work, hours, bound = (a + b for a, b in zip((steps, work, hours, bound), cost, strict=True))
        total += hours
        print(f"{model:14}{steps:20.3g}{work / 1e15:10.0f}{hours:16.1f}{bound / hours:24.0%}")
    print(f"all: {total:.0f} hours on one H100, {total / 64:.1f} on 64 (runs are independent; 21 source prompts first)")
    bank(100_000)


def load_of(name: str, data_dir: Path) -> Load:
    """Size and mean length of a task."""
    task = load_task(name, data_dir=data_dir)
    if name in TOKENS or not task.available():
        return Load(EXAMPLES[name], TOKENS[name])
    train = task.train()
    sample = train.take(np.random.default_rng(0).permutation(len(train))[:300])
    encoded = encode(Backbone.load(), sample.texts, 384 if task.kind == "extractive_qa" else 128)
    return Load(EXAMPLES[name], float(encoded.row_lengths.sum()) / len(encoded))


def training(
    shape: Shape, load: Load, epochs: int, batch: int, prompt: int, times: int = 1
) -> tuple[float, float, float, float]:
    """Example-steps, operations, hours, and the hours in which launches bind."""
    examples = load.examples * epochs * times
    work = useful_work(shape, round(load.tokens), prompt, 1)
    computing, launching = batch * work / RATE, shape.layers * KERNELS * LAUNCH
    hours = examples / batch * max(computing, launching) / 3600
    return examples, examples * work, hours, hours * (launching > computing)


def bank(prompts: int) -> None:
    """Disk, reading and ranking of a bank."""
    print(f"\nA bank of {prompts:,} prompts (V 20)")
    for model in ("bert-large", "bert-base"):
        shape = SHAPES[model]
        size = 4 * shape.layers * 2 * 20 * shape.hidden
        ranking = prompts * 100 * useful_work(shape, 50, 20, 50) / 2 / RATE  # forward is about half of a step
        hours = prompts * training(shape, Load(800, 50.0), 10, 16, 20)[2]
        disk, reading = size * prompts / 1e9, size * prompts / READ
        print(f"{model}: {size / 1e6:.2f} MB a prompt, {disk:.0f} GB; read in {reading:.0f} s")
        print(f"  ranked by 100 examples of 50 tokens: {ranking:.0f} s on one H100, {ranking / 64:.1f} s on 64")
        print(f"  trained, 800 examples x 10 epochs each: {hours:.0f} hours on one, {hours / 64:.0f} on 64")


if __name__ == "__main__":
    main()
