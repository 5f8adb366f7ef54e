"""How long from a bank of 21 prompts to a trained, tested prompt of a target, beside trying all 21 as published.

    python benchmarks/answer.py --data-dir DATA --targets cr,cb --out answer.json

Ours is `--source auto` in one process, measured as a whole: from a bank on the disk and a loaded backbone to the test
score. The published scheme (systems.py) would train PoT and PANDA's student from each of the 21 sources with the same
examples, epochs and V; it is measured for a few epochs of one PoT and one student on the same target, and the rest is
extrapolated. It is not charged for scoring anything. Both have early stopping off. The 21 source prompts are trained
for one epoch on 32 examples: how good they are plays no part in speed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from speed import save_models, spec_of
from systems import Peft, Work, quiet

from promptpanda.backbone import Backbone
from promptpanda.bank.bank import Bank
from promptpanda.tasks.catalog import load_task
from promptpanda.tasks.encoding import encode
from promptpanda.tasks.inputs import Split
from promptpanda.tasks.protocol import partition
from promptpanda.training.defaults import settled
from promptpanda.training.options import TrainingOptions
from promptpanda.transfers.transfer import train, transfer

SOURCES = (
    *("boolq", "rte", "wic", "wsc", "copa", "multirc", "mnli", "cola", "sst2", "qnli", "mrpc", "stsb", "qqp", "snli"),
    *("conll03", "conll04", "trec", "subj", "ag_news", "tweeteval_emotion", "openbookqa"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--targets", type=lambda text: text.split(","), default=["cr", "cb"])
    parser.add_argument("--examples", type=int, default=100, help="of a target, train and validation together")
    parser.add_argument("--published-epochs", type=int, default=3, help="of the published scheme that are measured")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    quiet()
    with TemporaryDirectory() as folder:
        small = Path(folder) / "small"
        save_models(small, Path(folder) / "base")
        backbone = Backbone.load(str(small))
        bank = Bank(Path(folder) / "bank")
        for name in SOURCES:
            few = TrainingOptions(epochs=1, max_length=128)
            train(load_task(name, data_dir=arguments.data_dir), backbone, bank=bank, options=few, train_examples=32)
        found = []
        for name in arguments.targets:
            own = Path(folder) / name  # what is trained for one target is no source of the next
            shutil.copytree(bank.folder, own)
            found.append(answer(name, backbone, Bank(own), small, arguments))
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def answer(name: str, backbone: Backbone, bank: Bank, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Both ways on one target; prints and returns seconds."""
    task = load_task(name, data_dir=arguments.data_dir)
    part = partition(task, protocol="clean", train_examples=arguments.examples, seed=0)
    options = settled(TrainingOptions(), task.kind, part.train, backbone)
    tokens = float(encode(backbone, part.train.texts, options.max_length).lengths.mean())
    task.test()  # reading the data is the same for both
    began = time.perf_counter()
    result = transfer(task, "auto", backbone, bank=bank, train_examples=arguments.examples)
    ours = time.perf_counter() - began
    labels = part.train.labels % 2  # two classes, as everywhere in the benchmark
    work = Work(
        folder, Split(part.train.texts, labels), spec_of(task), epochs=arguments.published_epochs, readout="mean"
    )
    epochs = options.epochs / arguments.published_epochs
    pot, student = (Peft(work, teacher, published=True)() * epochs for teacher in (False, True))
    theirs = len(SOURCES) * (pot + student)
    print(f"{name}: {tokens:.0f} tokens on average, {len(part.train)} + {len(part.validation)} examples, "
          f"{options.epochs} epochs, {result.n_test} test rows, {torch.get_num_threads()} threads")  # fmt: skip
    print(f"  auto {ours:.1f} s ({result.cost:.2f} trainings); published: PoT {pot:.0f} s, student {student:.0f} s, "
          f"of 21 sources {theirs:.0f} s (extrapolated); {theirs / ours:.0f} times", flush=True)  # fmt: skip
    return {
        "target": name,
        "tokens": tokens,
        "n_train": len(part.train),
        "n_val": len(part.validation),
        "n_test": result.n_test,
        "epochs": options.epochs,
        "auto_seconds": ours,
        "auto_cost": result.cost,
        "published_pot_seconds": pot,
        "published_student_seconds": student,
        "published_seconds": theirs,
        "ratio": theirs / ours,
    }


if __name__ == "__main__":
    main()
