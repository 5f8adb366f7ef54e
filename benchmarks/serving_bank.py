"""What benchmarks/serve.py asks for: a bank of prompts of three kinds, requests, and the way without a server."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from promptpanda.backbone import Backbone
from promptpanda.bank.bank import Bank
from promptpanda.bank.folder import TrainedPrompt, read_folder, write_folder
from promptpanda.prompts.prompt import Prompt
from promptpanda.tasks.encoding import encode
from promptpanda.tasks.spec import TaskSpec
from promptpanda.tasks.task import Task
from promptpanda.tasks.unlabeled import read_inputs
from promptpanda.training.heads import Head, read_hidden
from promptpanda.training.options import TrainingOptions
from promptpanda.transfers.predict import predict_pairs
from promptpanda.transfers.transfer import train

_TEXT = (
    "the a this that we they she he it was is are was has have been will would can could good bad great poor fresh "
    "screen battery service food phone city paper river company market minister season player game film story music "
    "said told found made took came went saw gave kept left right early late during after before against between"
)
WORDS = _TEXT.split()
_VIRTUAL = 20  # tokens of a prompt
SPECS: dict[str, dict[str, Any]] = {
    "topic": {
        "kind": "single_classification",
        "segments": ["{text}"],
        "labels": ["a", "b", "c", "d"],
        "metrics": ["accuracy"],
    },
    "pair": {
        "kind": "pair_classification",
        "segments": ["{first}", "{second}"],
        "labels": ["yes", "no"],
        "metrics": ["accuracy"],
    },
    "names": {
        "kind": "token_classification",
        "segments": ["{tokens}"],
        "label": "tags",
        "labels": ["PER", "LOC"],
        "metrics": ["span_f1"],
    },
}


@dataclass(frozen=True)
class Request:
    """One request, and what `predict` says of its rows."""

    prompt: str
    rows: list[dict[str, Any]]
    expected: list[dict[str, Any]]

    @property
    def body(self) -> bytes:
        return json.dumps({"prompt": self.prompt, "rows": self.rows, "probabilities": True}).encode()


def make_bank(folder: Path, backbone: Backbone, prompts: int) -> list[TrainedPrompt]:
    """Prompts of three kinds in turn: one a kind is trained for a moment, the others are it with noise."""
    draws = np.random.default_rng(0)
    room = 128 if backbone.positions is None else backbone.positions - _VIRTUAL
    options = TrainingOptions(epochs=1, max_length=min(128, room), prompt_length=_VIRTUAL)
    first = []
    for name, spec in SPECS.items():
        path = folder / "data" / name / "train.jsonl"
        path.parent.mkdir(parents=True)
        rows = [_labelled(name, _row(name, draws), number) for number in range(40)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        task = Task(TaskSpec.parse({"name": name, **spec}, "the benchmark"), folder / "data")
        first.append(train(task, backbone, bank=Bank(folder / "first", others={}), options=options))
    made = []
    generator = torch.Generator().manual_seed(0)
    for number in range(prompts):
        one = first[number % len(first)]
        assert one.prompt is not None
        card = one.card.model_copy(update={"id": f"{one.card.task.name}-s{number}-{number:08x}", "seed": number})
        tensor = one.prompt.tensor + 0.1 * torch.randn(one.prompt.tensor.shape, generator=generator)
        weight = one.head.weight + 0.5 * torch.randn(one.head.weight.shape, generator=generator)
        other = replace(one, prompt=Prompt(one.prompt.kind, tensor), card=card, path=None)
        other = replace(other, head=Head(weight, one.head.bias, one.head.readout))
        path = write_folder(other, folder / "bank" / card.id, backbone)
        made.append(read_folder(path, backbone))
    return made


def _labelled(name: str, row: dict[str, Any], number: int) -> dict[str, Any]:
    if name == "names":
        return row | {"tags": ["B-PER", "B-LOC", *["O"] * (len(row["tokens"]) - 2)]}
    labels = SPECS[name]["labels"]
    return row | {"label": labels[number % len(labels)]}


def _words(draws: np.random.Generator, mean: float = 22) -> list[str]:
    return [str(word) for word in draws.choice(WORDS, max(3, min(90, int(draws.lognormal(np.log(mean), 0.5)))))]


def _row(name: str, draws: np.random.Generator) -> dict[str, Any]:
    if name == "names":
        return {"tokens": _words(draws)}
    if name == "pair":
        return {"first": " ".join(_words(draws, 12)), "second": " ".join(_words(draws, 12))}
    return {"text": " ".join(_words(draws))}


def make_requests(
    trained: Sequence[TrainedPrompt], backbone: Backbone, count: int, most_rows: int
) -> tuple[list[Request], Callable[[], float]]:
    """Requests of 1 to `most_rows` rows with their right answers, and a measurement of one offline mixed pass.

    The measurement gives rows a second; it is made before and after the load, since machines do not stay as they are.
    """
    draws = np.random.default_rng(1)
    asked = []
    for _ in range(count):
        one = trained[int(draws.integers(len(trained)))]
        rows = [_row(one.card.task.name, draws) for _ in range(int(draws.integers(1, most_rows + 1)))]
        asked.append((one, rows, read_inputs(one.card.task, rows, "the benchmark")))
    pairs = [(one, given) for one, _, inputs in asked for given in inputs]
    found = iter(predict_pairs(backbone, pairs))
    requests = [Request(one.card.id, rows, [next(found) for _ in rows]) for one, rows, _ in asked]

    def offline() -> float:
        began = time.perf_counter()
        predict_pairs(backbone, pairs)
        return len(pairs) / (time.perf_counter() - began)

    return requests, offline


def peft_rate(trained: Sequence[TrainedPrompt], model: Path, requests: Sequence[Request], seconds: float) -> float:
    """Rows a second of one PEFT model that switches its adapter for every request, without any HTTP.

    Rows of one request go through together, padded to the longest, and the head is applied to what PEFT gives.
    """
    from peft import PeftModel
    from transformers import AutoModel

    by_id = {one.card.id: one for one in trained}
    backbone = Backbone.load(str(model))
    base = AutoModel.from_pretrained(model, dtype=torch.float32).eval()
    adapters = None
    for one in trained:
        assert one.path is not None
        if adapters is None:
            adapters = PeftModel.from_pretrained(base, one.path, adapter_name=one.card.id)
        else:
            adapters.load_adapter(one.path, adapter_name=one.card.id)
    assert adapters is not None
    adapters.eval()
    rows, began = 0, time.perf_counter()
    for request in requests:
        one = by_id[request.prompt]
        adapters.set_adapter(request.prompt)
        encoded = encode(
            backbone, read_inputs(one.card.task, request.rows, "the benchmark"), one.card.options.max_length
        )
        chosen = np.arange(len(encoded.input_ids))
        batch, layout = encoded.batch(chosen), encoded.row_layout(chosen)
        given = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
        if batch.token_type_ids is not None:
            given["token_type_ids"] = batch.token_type_ids
        with torch.inference_mode():
            hidden = adapters(**given).last_hidden_state
            one.head(read_hidden(backbone, hidden, batch, layout, one.head.readout))
        rows += len(request.rows)
        if time.perf_counter() - began > seconds:
            break
    return rows / (time.perf_counter() - began)
