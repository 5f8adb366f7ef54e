"""ONNX Runtime and, for shallow prompts, plain embeddings give what promptpanda gives."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import WORDS, sentiment_rows, task_of
from shared_banks import panda, refused
from transformers import AutoModel, AutoTokenizer

from promptpanda.bank.bank import Bank
from promptpanda.export.onnx import export_folded, export_shared
from promptpanda.tasks.encoding import encode
from promptpanda.training.inference import predict_outputs
from promptpanda.training.options import TrainingOptions
from promptpanda.transfers.transfer import train

pytestmark = pytest.mark.usefixtures("one_thread")

TEXTS = [("the phone good fine",), ("the screen bad",), ("a food w3 w5 w7 w9 w11 awful dull",)]


def trained_on(backbone, folder, name="mood", **options):
    task = task_of(sentiment_rows(24, 5), folder / "data", name, labels=["good", "bad"])
    chosen = TrainingOptions(**{"epochs": 1, "prompt_length": 4, "max_length": 24} | options)
    return train(task, backbone, bank=Bank(folder / "bank"), options=chosen)


def onnx_session(path):
    runtime = pytest.importorskip("onnxruntime", reason="ONNX is an extra")
    return runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def tokens(folder, session):
    """The texts by the exported tokenizer alone, as whoever has no promptpanda makes them."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    batch = tokenizer([text for (text,) in TEXTS], padding=True, return_tensors="np")
    wanted = {one.name for one in session.get_inputs()}
    return {name: np.asarray(batch[name], dtype=np.int64) for name in batch if name in wanted}


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("bert", {"readout": "pooler"}),
        ("roberta", {"readout": "mean", "prompt_kind": "shallow"}),
        ("distilbert", {"readout": "cls"}),
        ("modernbert", {"readout": "mean"}),
        ("llama", {"readout": "last"}),
    ],
)
def test_the_graph_of_a_prompt_gives_our_logits(family, options, load_tiny, tmp_path):
    backbone = load_tiny(family)
    ours = trained_on(backbone, tmp_path, **options)
    assert export_folded(ours, backbone, tmp_path / "out") < 1e-4
    session = onnx_session(tmp_path / "out" / "model.onnx")
    expected = predict_outputs(backbone, ours.prompt, ours.head, encode(backbone, TEXTS, 24))
    (logits,) = session.run(["logits"], tokens(tmp_path / "out", session))
    np.testing.assert_allclose(logits, expected, atol=1e-4, rtol=1e-4)
    facts = json.loads((tmp_path / "out" / "promptpanda.json").read_text())
    assert (facts["id"], facts["labels"]) == (ours.card.id, ["good", "bad"])


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_one_graph_serves_many_prompts_in_one_batch(family, load_tiny, tmp_path):
    """Two prompts of different tasks, mixed row by row, each with its own head in NumPy."""
    backbone = load_tiny(family)
    prompts = [trained_on(backbone, tmp_path, name, readout="mean") for name in ("mood", "taste")]
    assert export_shared(prompts, backbone, tmp_path / "out") < 1e-4
    session = onnx_session(tmp_path / "out" / "model.onnx")
    stored = [np.load(tmp_path / "out" / "prompts" / f"{one.card.id}.npz", allow_pickle=False) for one in prompts]
    rows = np.array([0, 1, 0])
    inputs = tokens(tmp_path / "out", session) | {
        "keys": np.stack([one["keys"] for one in stored]),
        "values": np.stack([one["values"] for one in stored]),
        "rows": rows,
    }
    (mean,) = session.run(["read_mean"], inputs)
    encoded = encode(backbone, TEXTS, 24)
    expected = [predict_outputs(backbone, one.prompt, one.head, encoded) for one in prompts]
    for row, owner in enumerate(rows):
        found = mean[row] @ stored[owner]["weight"].T + stored[owner]["bias"]
        np.testing.assert_allclose(found, expected[owner][row], atol=1e-4, rtol=1e-4)
    assert stored[0]["labels"].tolist() == ["good", "bad"]


def test_what_cannot_be_exported_is_told(load_tiny, tiny_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trained_on(load_tiny("gpt2"), tmp_path)
    trained_on(load_tiny("bert"), tmp_path, "books", prompt_kind="shallow")
    decoder, encoder = ["--model", tiny_folder("gpt2")], ["--model", tiny_folder("bert")]
    assert "either --onnx OUT, or --prompt-embeds OUT" in refused("export", "mood", *decoder)
    assert "is not a shallow prompt" in refused("export", "mood", "--prompt-embeds", "out.pt", *decoder)
    assert "is not a decoder" in refused("export", "books", "--prompt-embeds", "out.pt", *encoder)
    assert "is not a prefix" in refused("export", "books", "--onnx", "out", "--shared", *encoder)
    assert "2 prompts were named" in refused("export", "mood", "books", "--onnx", "out", *encoder)
    Path("out").mkdir()
    assert "out already exists" in refused("export", "mood", "--onnx", "out", *decoder)
    assert list(Path("out").iterdir()) == []


def test_prompt_embeds_before_a_text_give_our_hidden_states(load_tiny, tiny_folder, tmp_path, monkeypatch):
    """What vLLM does: embeddings of prompt and text in a row, and the model's own positions."""
    monkeypatch.chdir(tmp_path)
    backbone = load_tiny("llama")
    ours = trained_on(backbone, tmp_path, prompt_kind="shallow")
    panda("export", "mood", "--prompt-embeds", "mood.pt", "--model", tiny_folder("llama"))
    virtual = torch.load("mood.pt", weights_only=True)
    assert virtual.shape == (4, 32)
    model = AutoModel.from_pretrained(tiny_folder("llama"))
    ids = torch.tensor([[5 + WORDS.index(word) for word in ("the", "phone", "good")]])
    embeddings = torch.cat([virtual, model.get_input_embeddings()(ids)[0]])
    with torch.no_grad():
        last = model(inputs_embeds=embeddings[None]).last_hidden_state[0, -1]
    expected = predict_outputs(backbone, ours.prompt, ours.head, encode(backbone, [("the phone good",)], 24))
    np.testing.assert_allclose(ours.head(last).detach().numpy(), expected[0], atol=1e-4, rtol=1e-4)
