"""Predictions a second, beside the same model that encodes the same texts in sentence-transformers.

    python benchmarks/predict.py PROMPT texts.csv --text text --bank bank

Three things take turns: sentence-transformers encodes all texts (batches of 32, its own sorting by length); `predict`
with the prompt; and `predict_pairs` with fifty prompts, drawn anew for each row (the prompt with noise: what is
computed is the same). All cut texts to the prompt's max length. What counts are the ratios within a round; processor
time is shown beside, since the clock depends on what else the machine does.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from promptpanda import Backbone, Bank
from promptpanda.bank.folder import TrainedPrompt
from promptpanda.models import locate
from promptpanda.quiet import quiet_libraries
from promptpanda.tasks.reading import column, read_rows
from promptpanda.transfers.predict import predict_pairs, predictions

_PROMPTS = 50


def noisy(trained: TrainedPrompt) -> TrainedPrompt:
    """The same with another prompt."""
    assert trained.prompt is not None
    tensor = trained.prompt.tensor + 0.01 * torch.randn_like(trained.prompt.tensor)
    return replace(trained, prompt=replace(trained.prompt, tensor=tensor))


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock, and of the processor."""
    clock, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - clock, time.process_time() - processor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompt", help="of a task of single texts")
    parser.add_argument("file", type=Path)
    parser.add_argument("--text", default="text", help="column of the texts")
    parser.add_argument("--bank", default="bank")
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    quiet_libraries()
    backbone = Backbone.load()
    trained = Bank(given.bank).load(given.prompt, backbone)
    texts = [str(text) for text in column(read_rows(given.file), given.text, str(given.file))[: given.rows]]
    other = SentenceTransformer(locate(backbone.name), device="cpu")
    other.max_seq_length = trained.card.options.max_length
    draws, many = np.random.default_rng(0), [noisy(trained) for _ in range(_PROMPTS)]
    pairs = [
        (many[int(place)], text) for place, text in zip(draws.integers(0, _PROMPTS, len(texts)), texts, strict=True)
    ]
    runs: dict[str, Callable[[], object]] = {
        "sentence-transformers": lambda: other.encode(texts, batch_size=32, show_progress_bar=False),
        "one prompt": lambda: list(predictions(trained, backbone, texts)),
        "fifty prompts": lambda: predict_pairs(backbone, pairs),
    }
    for round_ in range(given.rounds):
        found = {name: timed(work) for name, work in runs.items()}
        reference = found["sentence-transformers"]
        for name, (clock, processor) in found.items():
            print(
                f"round {round_ + 1}  {name:22} {len(texts) / clock:7.1f} rows/s  x {reference[0] / clock:.2f}   "
                f"processor: {len(texts) / processor:7.1f} rows/s  x {reference[1] / processor:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
