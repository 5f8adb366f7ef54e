"""How fast is prompt tuning, beside what users would otherwise do, and beside the limit of this machine?

    make bench                                  # or: python benchmarks/speed.py --data-dir DATA --out results.json
    python benchmarks/speed.py --lengths cb --repetitions 1 --base-examples 0 --no-curves     # a first look

One interleaved run (A B C A B C ...): every system trains on the same examples, as often, with prompts of one length;
medians and ratios, with the range over repetitions. Between repetitions the machine's rate of matrix products is taken.
Then the curves: speed against batch size, length, prompt length, students side by side and processes.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from breakdown import breakdown
from curves import curves
from limit import Shape, gemm_rate, mean_work
from memory import resident_kb
from systems import SYSTEMS, Work, quiet
from transformers import AutoModel, BertConfig

from promptpanda.backbone import Backbone
from promptpanda.models import EMBEDDED
from promptpanda.tasks.catalog import load_task
from promptpanda.tasks.encoding import encode
from promptpanda.tasks.inputs import Split
from promptpanda.tasks.task import Task

# The sets whose lengths are asked for; the mix is a third of each.
LENGTHS = {"cb": ("cb",), "rte": ("rte",), "sst2": ("sst2",), "mix": ("qqp", "stsb", "mnli")}
# Where there is no data root: long texts of the demo's corpora, cut to 0.4 to 1.6 times these mean lengths.
STAND_IN = "newsgroups_politics"
TOKENS = {"cb": 78, "rte": 67, "sst2": 13, "mix": 33}
TOKENS_A_WORD = 1.4  # in these texts
SAMPLE = 250  # examples of a set that lengths are drawn from: no set has fewer


def main() -> None:
    arguments = parse()
    quiet()
    torch.manual_seed(0)
    with TemporaryDirectory() as folder:
        small, base = Path(folder) / "small", Path(folder) / "base"
        save_models(small, base)
        if arguments.memory_of:
            work = work_of(small, arguments.lengths[0], arguments, arguments.examples, arguments.epochs)
            print(peak_memory(work, arguments.memory_of))
            return
        tables = []
        for length in arguments.lengths:
            few = work_of(small, length, arguments, arguments.examples, arguments.epochs)
            tables.append(compare("6-layer BERT", few, length, arguments))
            if arguments.base_examples:
                few = work_of(base, length, arguments, arguments.base_examples, arguments.base_epochs)
                tables.append(compare("BERT base, random weights", few, length, arguments))
        drawn = None if arguments.no_curves else curves(small, arguments.repetitions)
    facts = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "processor": platform.processor() or platform.machine(),
        "command": " ".join(sys.argv),
    }
    if arguments.out is not None:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(
            json.dumps({"facts": facts, "tables": tables, "curves": drawn}, indent=1) + "\n", encoding="utf-8"
        )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--lengths", type=lambda text: text.split(","), default=list(LENGTHS))
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--examples", type=int, default=32)
    parser.add_argument("--base-examples", type=int, default=16, help="on the base-size model; 0 leaves it out")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--base-epochs", type=int, default=2)
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--no-curves", action="store_true")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    return parser.parse_args()


def save_models(small: Path, base: Path) -> None:
    """The two models as folders that PEFT and promptpanda both load."""
    backbone = Backbone.load(EMBEDDED)
    backbone.model.config.use_cache = True
    backbone.model.save_pretrained(small)
    model = AutoModel.from_config(BertConfig())
    model.save_pretrained(base)
    for folder in (small, base):
        backbone.tokenizer.save_pretrained(folder)


def work_of(folder: Path, length: str, arguments: argparse.Namespace, examples: int, epochs: int) -> Work:
    """So many examples whose lengths are those of the sets: evenly from the shortest to the longest, shuffled."""
    backbone = Backbone.load(str(folder))
    tasks = [load_task(name, data_dir=arguments.data_dir) for name in LENGTHS[length]]
    if all(task.available() for task in tasks):
        texts = [text for task in tasks for text in sample(task)]
    else:
        tasks = [load_task(STAND_IN)]
        texts = [
            (" ".join(text.split()[: round(TOKENS[length] * (0.4 + 1.2 * place / SAMPLE) / TOKENS_A_WORD)]),)
            for place, (text,) in enumerate(sample(tasks[0]))
        ]
    lengths = encode(backbone, tuple(texts), Work.max_length).lengths
    order = np.argsort(lengths, kind="stable")
    even = order[((np.arange(examples) + 0.5) * len(order) / examples).astype(int)]
    chosen = np.random.default_rng(1).permutation(even)
    split = Split(tuple(texts[row] for row in chosen), np.arange(examples) % 2)
    return Work(folder, split, spec_of(tasks[0]), epochs=epochs)


def sample(task: Task) -> list[Any]:
    """Texts of a task's training split."""
    rows = task.train()
    return list(rows.take(np.random.default_rng(0).permutation(len(rows))[:SAMPLE]).texts)


def spec_of(task: Task):  # type: ignore[no-untyped-def]
    """Two classes, whatever the task's are: the labels play no part in speed."""
    return task.spec.model_copy(update={"labels": ("a", "b"), "metrics": ("accuracy",), "drop_other_labels": False})


def compare(model: str, work: Work, length: str, arguments: argparse.Namespace) -> dict[str, object]:
    """All systems on one length, interleaved; prints and returns the table."""
    backbone = Backbone.load(str(work.folder))
    lengths = encode(backbone, work.split.texts, work.max_length).lengths
    config = backbone.config
    shape = Shape(config.num_hidden_layers, config.hidden_size, config.intermediate_size)
    useful, naive = mean_work(shape, lengths, work.prompt_length, work.readout)
    runs: dict[str, Callable[[], float]] = {name: make(work) for name, make in SYSTEMS.items()}
    few = replace(work, split=work.split.take(np.arange(work.batch_size)), epochs=1)
    for make in SYSTEMS.values():
        make(few)()  # what is loaded at the first step does not count
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    rates = [gemm_rate()]
    for _ in range(arguments.repetitions):
        for name, run in runs.items():
            seconds[name].append(run())
        rates.append(gemm_rate())
    speed = {name: [work.examples / value for value in values] for name, values in seconds.items()}
    rate = max(rates)
    rows = {}
    for name, values in speed.items():
        median = statistics.median(values)
        reference = speed["promptpanda, PANDA student" if "teacher" in name else "promptpanda, prompt tuning"]
        ratios = [ours / theirs for ours, theirs in zip(reference, values, strict=True)]
        rows[name] = {
            "examples_per_second": values,
            "median": median,
            "ours_is_faster": statistics.median(ratios),
            "range": [min(ratios), max(ratios)],
            "of_limit": median * useful / rate,
            "of_naive_count": median * naive / rate,
            "peak_mb": None if arguments.no_memory or "base" in model else memory(name, length, arguments),
        }
    print(f"\n{model}, {length}: {lengths.mean():.0f} tokens on average; GEMM {rate / 1e9:.0f} GFLOP/s")
    print(f"{'':32}{'ex/s':>8}{'x ours':>8}{'range':>14}{'limit':>8}{'naive':>8}{'peak MB':>9}")
    for name, row in rows.items():
        low, high = row["range"]
        peak = "-" if row["peak_mb"] is None else f"{row['peak_mb']:.0f}"
        print(
            f"{name:32}{row['median']:8.1f}{row['ours_is_faster']:8.2f}{f'{low:.2f}-{high:.2f}':>14}"
            f"{row['of_limit']:8.2f}{row['of_naive_count']:8.2f}{peak:>9}",
            flush=True,
        )
    shares = breakdown(runs["promptpanda, prompt tuning"])
    print("where our time goes: " + ", ".join(f"{part} {share:.0%}" for part, share in shares.items()), flush=True)
    facts = {"model": model, "length": length, "tokens": float(lengths.mean()), "examples": len(work.split)}
    return facts | {"epochs": work.epochs, "gemm": rates, "systems": rows, "where": shares}


def memory(name: str, length: str, arguments: argparse.Namespace) -> float | None:
    """Peak memory in MB of a process that runs one system alone (Linux)."""
    if not Path("/proc/self/status").exists():
        return None
    command = [sys.executable, __file__, "--memory-of", name, "--lengths", length, "--epochs", "1"]
    command += ["--examples", str(arguments.examples)]
    command += [] if arguments.data_dir is None else ["--data-dir", str(arguments.data_dir)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def peak_memory(work: Work, name: str) -> float:
    """Run one system and tell the peak of this process beyond what was there before, in MB."""
    run = SYSTEMS[name](work)
    before = resident_kb("VmRSS")
    run()
    return (resident_kb("VmHWM") - before) / 1024


if __name__ == "__main__":
    main()
