"""How speed and memory change with batch size, length, prompt length, prompts side by side, and worker processes."""

from __future__ import annotations

import multiprocessing
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import torch
from memory import resident_kb
from torch import Tensor

from promptpanda.backbone import Backbone
from promptpanda.bank.signature import look
from promptpanda.prompts.prompt import Prompt, PromptStack
from promptpanda.tasks.encoding import encode
from promptpanda.tasks.inputs import Split
from promptpanda.tasks.spec import TaskSpec
from promptpanda.training.heads import features
from promptpanda.training.inference import Data
from promptpanda.training.loop import Training
from promptpanda.training.objectives.kinds import objective_for
from promptpanda.training.options import TrainingOptions

BATCH_SIZES = (1, 4, 8, 16, 32, 64)
LENGTHS = (8, 16, 33, 64, 128, 256)
PROMPT_LENGTHS = (1, 5, 20, 50, 100)
STUDENTS = (1, 2, 4, 8)
WORKER_SECONDS = 6.0
STANDARD = {"batch_size": 16, "length": 33, "prompt_length": 20}

SPEC = TaskSpec(
    name="curves", kind="single_classification", segments=("{text}",), labels=("a", "b"), metrics=("accuracy",)
)


def curves(folder: Path, repetitions: int) -> dict[str, Any]:
    """Examples a second at every point, all points interleaved; prints and returns them."""
    backbone = Backbone.load(str(folder))
    points: dict[tuple[str, int], Callable[[], float]] = {}
    for name, values in (("batch_size", BATCH_SIZES), ("length", LENGTHS), ("prompt_length", PROMPT_LENGTHS)):
        for value in values:
            points[name, value] = training(backbone, **STANDARD | {name: value})
    for count in STUDENTS:
        points["students", count] = students(backbone, count)
    rates: dict[tuple[str, int], list[float]] = {point: [] for point in points}
    for _ in range(repetitions):
        for point, run in points.items():
            rates[point].append(run())
    found: dict[str, Any] = {}
    for (name, value), measured in rates.items():
        found.setdefault(name, {})[str(value)] = measured
    found["students_peak_mb"] = {str(count): students_memory(folder, count) for count in STUDENTS}
    found["workers"] = {f"{count} x {threads} threads": workers(folder, count, threads) for count, threads in SETUPS}
    found["ranking"] = ranking(backbone)
    report(found)
    return found


def training(backbone: Backbone, *, batch_size: int, length: int, prompt_length: int) -> Callable[[], float]:
    """A training of examples that all have `length` tokens; a call returns examples a second."""
    examples = max(48, 2 * batch_size) if length <= 64 else 2 * batch_size
    data = data_of(backbone, examples, length)
    two = data_of(backbone, 2, length)
    options = TrainingOptions(
        epochs=1, batch_size=batch_size, prompt_length=prompt_length, max_length=length, readout="pooler"
    )

    def run() -> float:
        began = time.perf_counter()
        Training(backbone, data, two, objective_for(SPEC, 2), options, seed=0).run()
        return examples / (time.perf_counter() - began)

    return run


def data_of(backbone: Backbone, examples: int, length: int) -> Data:
    """Examples of exactly so many tokens."""
    texts = tuple(("good " * (length - 2),) for _ in range(examples))
    encoded = encode(backbone, texts, length)
    assert set(encoded.lengths) == {length}
    return Data(encoded, Split(texts, np.arange(examples) % 2), SPEC, SPEC.labels)


def students(backbone: Backbone, count: int) -> Callable[[], float]:
    """Forward and backward of so many prompts with a batch of their own each, all in one pass."""
    data = data_of(backbone, STANDARD["batch_size"], STANDARD["length"])
    layout = data.encoded.layout(np.tile(np.arange(len(data)), count))
    batch = data.encoded.batch(layout.rows.numpy())
    prompts = torch.randn(count, *backbone.shape.of("prefix", STANDARD["prompt_length"]), requires_grad=True)
    owners = torch.arange(count).repeat_interleave(len(data))

    def step() -> Tensor:
        streams = tuple(torch.Generator().manual_seed(seed) for seed in range(count))
        stack = PromptStack("prefix", prompts, owners, 0.1, streams)
        return features(backbone, batch, layout, stack, "pooler").pow(2).sum()

    def run() -> float:
        began = time.perf_counter()
        steps = max(2, 8 // count)
        for _ in range(steps):
            step().backward()
        return steps * count * len(data) / (time.perf_counter() - began)

    return run


def students_memory(folder: Path, count: int) -> float | None:
    """Peak memory in MB of a process that takes steps of so many students (Linux)."""
    if not Path("/proc/self/status").exists():
        return None
    command = [sys.executable, __file__, str(folder), str(count)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


SETUPS = ((1, 1), (1, 2), (2, 1))


def workers(folder: Path, count: int, threads: int) -> float:
    """Examples a second of so many processes together, each training on its own."""
    context = multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(count), context.Queue()
    processes = [context.Process(target=_worker, args=(folder, threads, barrier, queue)) for _ in range(count)]
    for process in processes:
        process.start()
    rates = [queue.get() for _ in processes]
    for process in processes:
        process.join()
    return float(sum(rates))


def _worker(folder: Path, threads: int, barrier: Barrier, queue: Any) -> None:
    torch.set_num_threads(threads)
    run = training(Backbone.load(str(folder)), **STANDARD)
    run()
    barrier.wait()
    rates, began = [], time.perf_counter()
    while time.perf_counter() - began < WORKER_SECONDS:
        rates.append(run())
    queue.put(statistics.median(rates))


def ranking(backbone: Backbone) -> dict[str, float]:
    """Seconds of one pass of 100 examples under 21 prompts, and of one training on them (80 train, 40 epochs)."""
    generator = torch.Generator().manual_seed(0)
    prompts = [Prompt.fresh("prefix", backbone.shape, 20, 1.0, generator) for _ in range(21)]
    hundred = data_of(backbone, 100, STANDARD["length"])
    readout = backbone.resolve_readout("auto")  # the default, on both sides
    began = time.perf_counter()
    look(backbone, prompts, hundred.encoded, readout=readout)
    ranked = time.perf_counter() - began
    # Four of the forty epochs: they are all alike.
    options = TrainingOptions(epochs=4, max_length=STANDARD["length"], readout=readout)
    train = data_of(backbone, 80, STANDARD["length"])
    fitted = Training(
        backbone, train, data_of(backbone, 20, STANDARD["length"]), objective_for(SPEC, 2), options, seed=0
    ).run()
    return {"seconds": ranked, "training_seconds": 10 * fitted.seconds, "ratio": ranked / (10 * fitted.seconds)}


def report(found: dict[str, Any]) -> None:
    """Print the curves."""
    standard = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in STANDARD.items())
    print(f"\nExamples/s around {standard} (median)")
    for name in ("batch_size", "length", "prompt_length", "students"):
        line = ", ".join(f"{value}: {statistics.median(rates):.0f}" for value, rates in found[name].items())
        print(f"  {name.replace('_', ' ')}: {line}")
    peaks = ", ".join(
        f"{count}: {'-' if peak is None else round(peak)}" for count, peak in found["students_peak_mb"].items()
    )
    print(f"  peak MB of students side by side: {peaks}")
    print("  processes: " + ", ".join(f"{name}: {rate:.0f}" for name, rate in found["workers"].items()))
    cost = found["ranking"]
    print(
        f"  ranking 21 prompts by 100 examples: {cost['seconds']:.1f} s, a training {cost['training_seconds']:.1f} s, "
        f"ratio {cost['ratio']:.2f}"
    )


if __name__ == "__main__":
    torch.manual_seed(0)
    step = students(Backbone.load(sys.argv[1]), int(sys.argv[2]))
    before = resident_kb("VmRSS")
    step()
    print((resident_kb("VmHWM") - before) / 1024)
