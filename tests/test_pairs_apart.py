"""The readout `compare`: the two texts of a pair go through the model apart, and a head reads how they differ."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import sentiment_rows, write_jsonl
from kinds import kind_task, pair_rows
from shared_banks import panda, refused

from promptpanda.bank.bank import Bank
from promptpanda.bank.signature import Signature
from promptpanda.errors import PandaError
from promptpanda.export.onnx import export_folded, export_shared
from promptpanda.prompts.prompt import Prompt, PromptStack
from promptpanda.tasks.encoding import encode
from promptpanda.training.heads import features
from promptpanda.training.inference import forward, mixed_outputs, predict_outputs
from promptpanda.training.options import TrainingOptions
from promptpanda.transfers.predict import predict
from promptpanda.transfers.transfer import train

pytestmark = pytest.mark.usefixtures("one_thread")

PAIRS = [("the phone good", "a"), ("bad", "the screen w3 w5 w7 w9 awful"), ("w1 w2", "w1 w2")]
OPTIONS = TrainingOptions(epochs=2, prompt_length=3, max_length=24, readout="compare")


def prompt_of(backbone, kind="prefix", seed=0):
    return Prompt.fresh(kind, backbone.shape, 3, 1.0, torch.Generator().manual_seed(seed))


def mean_of(backbone, text, prompt):
    """One text alone, as if it were no pair."""
    batch = encode(backbone, [(text,)], 24).batch([0])
    stack = None if prompt is None else PromptStack.of([prompt])
    return backbone.hidden(batch, stack)[0].mean(0).double().numpy()


def written_out(backbone, pair, prompt):
    u, v = (mean_of(backbone, text, prompt) for text in pair)
    u, v = (vector / np.sqrt(np.mean(vector**2)) for vector in (u, v))
    return np.concatenate([abs(u - v), u * v])


@pytest.mark.parametrize("family", ["bert", "modernbert", "llama"])
@pytest.mark.parametrize("kind", [None, "prefix", "shallow"])
def test_features_equal_those_of_texts_that_are_read_alone(family, kind, load_tiny):
    backbone = load_tiny(family)
    prompt = None if kind is None else prompt_of(backbone, kind)
    encoded = encode(backbone, PAIRS, 24, apart=True)

    def read(batch, layout, stack):
        return features(backbone, batch, layout, stack, "compare")

    found = forward(backbone, [] if prompt is None else [prompt], encoded, read)
    for vector, pair in zip(found, PAIRS, strict=True):
        np.testing.assert_allclose(vector, written_out(backbone, pair, prompt), atol=2e-4)
    assert found[2][: backbone.hidden_size].max() < 1e-4  # equal texts do not differ


def test_each_text_is_cut_by_itself(tiny_backbone):
    long = " ".join(["good"] * 50)
    encoded = encode(tiny_backbone, [(long, "bad")], 10, apart=True)
    alone = encode(tiny_backbone, [(long,), ("bad",)], 10)
    assert encoded.input_ids[0].tolist() == [*alone.input_ids[0], *alone.input_ids[1]]
    assert encoded.second.tolist() == [10]


def test_a_signature_is_the_mean_of_the_texts(tiny_backbone):
    prompt = prompt_of(tiny_backbone)
    pairs = Signature.of(tiny_backbone, prompt, encode(tiny_backbone, PAIRS, 24, apart=True))
    texts = [(text,) for pair in PAIRS for text in pair]
    alone = Signature.of(tiny_backbone, prompt, encode(tiny_backbone, texts, 24))
    torch.testing.assert_close(pairs.embeddings, alone.embeddings)
    assert torch.equal(pairs.activated_neurons, alone.activated_neurons)
    assert pairs.examples == len(PAIRS)


@pytest.fixture
def two_readings(tiny_backbone, tmp_path):
    """Two prompts of one task: of texts that are read apart, and together."""
    task = kind_task("pair_classification", tmp_path / "data")
    bank = Bank(tmp_path / "bank")
    together = OPTIONS.model_copy(update={"readout": "mean"})
    return task, [train(task, tiny_backbone, bank=bank, options=each) for each in (OPTIONS, together)]


def test_what_is_saved_predicts_as_before_and_mixes_with_other_readings(two_readings, tiny_backbone, tmp_path):
    task, trained = two_readings
    assert [one.head.readout for one in trained] == ["compare", "mean"]
    assert trained[0].head.weight.shape == (2, 2 * tiny_backbone.hidden_size)
    loaded = [Bank(tmp_path / "bank").load(one.card.id, tiny_backbone) for one in trained]
    texts = task.test().texts
    encoded = [encode(tiny_backbone, texts, 24, apart=apart) for apart in (True, False)]
    models = [(one.prompt, one.head) for one in loaded]
    mixed = mixed_outputs(tiny_backbone, models, encoded)
    for one, rows, outputs in zip(trained, encoded, mixed, strict=True):
        alone = predict_outputs(tiny_backbone, one.prompt, one.head, rows)
        np.testing.assert_allclose(outputs, alone, atol=1e-5)
    both = predict([loaded[place % 2] for place in range(len(texts))], tiny_backbone, list(texts))
    for place, found in enumerate(both):
        (alone,) = predict(loaded[place % 2], tiny_backbone, [texts[place]])
        assert found["label"] == alone["label"]
        assert found["probabilities"] == pytest.approx(alone["probabilities"], abs=1e-5)


@pytest.mark.parametrize("export", [export_folded, export_shared])
def test_its_graph_gives_the_same(export, two_readings, tiny_backbone, tmp_path):
    pytest.importorskip("onnxruntime", reason="ONNX is an extra")
    _, (apart, _) = two_readings
    exported = apart if export is export_folded else [apart]
    assert export(exported, tiny_backbone, tmp_path / "out") < 1e-4


def test_single_texts_cannot_be_compared(sentiment, tiny_backbone):
    with pytest.raises(PandaError, match="compares the two texts of a pair, and '.*' has none beside it"):
        train(sentiment(), tiny_backbone, options=OPTIONS)
    with pytest.raises(PandaError, match="compares the two texts of a pair, and 'good' has none beside it"):
        encode(tiny_backbone, [("good",)], 24, apart=True)


def test_on_the_command_line(tiny_folder, tmp_path):
    few = ("--model", tiny_folder("bert"), "--bank", tmp_path / "bank", "--epochs", 1, "--prompt-length", 2)
    write_jsonl(tmp_path / "pairs.jsonl", pair_rows(40))
    pairs = ("train", "--train", tmp_path / "pairs.jsonl", "--text", "first", "--text2", "second", "--label", "label")
    panda(*pairs, "--readout", "compare", *few)
    assert [card.readout for card in Bank(tmp_path / "bank").cards()] == ["compare"]
    write_jsonl(tmp_path / "single.jsonl", sentiment_rows(20))
    single = (
        "train",
        "--train",
        tmp_path / "single.jsonl",
        "--text",
        "text",
        "--label",
        "label",
        "--readout",
        "compare",
    )
    assert "compares the two texts of a pair" in refused(*single, *few)
