"""Backbones in bfloat16, float16, int8 and nf4: told apart, trained on, and prompts that move between them."""

from __future__ import annotations

import importlib.util
import json

import pytest
import torch
from conftest import save_tiny, sentiment_rows, text_batch, write_jsonl
from test_attention import prompts
from transformers import BertConfig, BertModel
from typer.testing import CliRunner

from promptpanda.backbone import Backbone
from promptpanda.bank.card import Card
from promptpanda.bank.ownership import check_owner, moved
from promptpanda.cli.main import app
from promptpanda.errors import PandaError
from promptpanda.precision import check_computes
from promptpanda.prompts.prompt import PromptStack
from promptpanda.training.options import TrainingOptions
from promptpanda.transfers.transfer import train, transfer

pytestmark = pytest.mark.usefixtures("one_thread")

OPTIONS = TrainingOptions(epochs=2, prompt_length=4, max_length=24)
QUANTISED = [
    pytest.param(name, marks=pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"no {package} here"))
    for name, package in (("int8", "torchao"), ("nf4", "bitsandbytes"))
]
LESS = ["bfloat16", "float16", *QUANTISED]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny BERT, wide enough that quantisation has something to do."""
    config = BertConfig(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128, vocab_size=120,
        max_position_embeddings=64,
    )  # fmt: skip
    return save_tiny(config, tmp_path_factory.mktemp("precise") / "model")


def load(folder, dtype="float32"):
    return Backbone.load(str(folder), dtype=dtype)


@pytest.mark.parametrize("dtype", LESS)
def test_a_backbone_computes_nearly_the_same_and_gives_float32(dtype, folder):
    exact, less = load(folder), load(folder, dtype)
    batch, (prompt,) = text_batch("bert"), prompts(exact, "prefix")
    with torch.no_grad():
        states = [one.hidden(batch, PromptStack.of([prompt])) for one in (exact, less)]
        pooled = [one.read(two, batch.attention_mask, "pooler") for one, two in zip((exact, less), states, strict=True)]
    for known, found in (states, pooled):
        assert found.dtype == torch.float32
        assert float((known - found).abs().max()) > 1e-5
        near = torch.nn.functional.cosine_similarity(known[:, :5], found[:, :5], dim=-1).min()
        assert near > (0.9 if dtype == "nf4" else 0.97)
    assert all(one.dtype == torch.float32 for one in less.all_hidden(batch))
    assert less.precision == dtype


def test_formats_are_told_apart_by_fingerprint(folder):
    found = {load(folder, dtype).fingerprint for dtype in ("float32", "bfloat16", "float16")}
    assert len(found) == 3
    assert load(folder, "auto").fingerprint == load(folder).fingerprint in found
    half = BertModel.from_pretrained(folder, dtype=torch.bfloat16)
    again = folder.parent / "half"
    half.save_pretrained(again)
    load(folder).tokenizer.save_pretrained(again)
    assert load(again, "auto").precision == "bfloat16"
    assert load(again, "auto").weights_fingerprint == load(folder, "bfloat16").weights_fingerprint


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_model_knows_itself_in_other_formats(dtype, folder):
    exact, less = load(folder), load(folder, dtype)
    assert exact.fingerprint_in(dtype) == less.fingerprint
    assert less.fingerprint_in("float32") == exact.fingerprint
    assert exact.fingerprint_in("float32") is None
    other = {"bfloat16": "float16", "float16": "bfloat16"}[dtype]
    assert less.fingerprint_in(other) == load(folder, other).fingerprint


@pytest.mark.parametrize("dtype", LESS)
def test_prompts_are_trained_in_float32_and_move(dtype, folder, sentiment, tmp_path):
    exact, less = load(folder), load(folder, dtype)
    task = sentiment()
    on_exact, on_less = (
        train(task, one, bank=tmp_path / name, options=OPTIONS) for name, one in (("a", exact), ("b", less))
    )
    assert on_less.prompt.tensor.dtype == on_less.head.weight.dtype == torch.float32
    assert not torch.equal(on_exact.prompt.tensor, on_less.prompt.tensor)
    assert (on_exact.card.backbone.precision, on_less.card.backbone.precision) == ("float32", dtype)
    assert moved(on_exact.card, exact) is None
    assert f"in float32 and is used in {dtype}" in moved(on_exact.card, less)
    check_owner(on_exact.card, less)
    if dtype in ("int8", "nf4"):  # what rounding made of the weights is not told by the exact ones
        with pytest.raises(PandaError, match="was trained on"):
            check_owner(on_less.card, exact)
    else:
        assert f"in {dtype} and is used in float32" in moved(on_less.card, exact)


def test_a_prompt_of_another_model_does_not_move(folder, tiny_folder, sentiment, tmp_path):
    card = train(sentiment(), load(tiny_folder("bert")), bank=tmp_path / "bank", options=OPTIONS).card
    with pytest.raises(PandaError, match="was trained on"):
        check_owner(card, load(folder, "bfloat16"))


def test_a_transfer_in_bfloat16_with_a_source_of_float32(folder, sentiment, tmp_path):
    notes = []

    class Progress:
        def __getattr__(self, name):
            return lambda *args, **options: notes.append(str(args[0])) if name == "note" else None

    train(sentiment("books", train=40), load(folder), bank=tmp_path / "bank", options=OPTIONS)
    result = transfer(
        sentiment("films", train=40, seed=9),
        source="best",
        backbone=load(folder, "bfloat16"),
        bank=tmp_path / "bank",
        methods=["prompt_tuning", "pot", "model_tuning"],
        options=OPTIONS,
        progress=Progress(),
    )
    assert set(result.methods) == {"prompt_tuning", "pot", "model_tuning"}
    assert any("another number format than bfloat16" in note for note in notes)


def test_model_tuning_works_on_float32_weights(folder):
    copied = load(folder, "bfloat16").trainable_copy()
    assert {parameter.dtype for parameter in copied.model.parameters()} == {torch.float32}
    assert copied.hidden(text_batch("bert")).requires_grad


@pytest.mark.parametrize("dtype", QUANTISED)
def test_a_quantised_model_is_not_tuned(dtype, folder):
    less = load(folder, dtype)
    assert less.weights_fingerprint not in (load(folder).weights_fingerprint, less.fingerprint)
    assert less.fingerprint == load(folder, dtype).fingerprint
    with pytest.raises(PandaError, match="is quantised, and its weights cannot be trained; leave model_tuning out"):
        less.trainable_copy()


@pytest.mark.parametrize("dtype", QUANTISED)
def test_a_quantised_model_gives_gradients_after_a_pass_without(dtype, tmp_path):
    config = BertConfig(
        hidden_size=128, num_hidden_layers=2, num_attention_heads=4, intermediate_size=256, vocab_size=120,
        max_position_embeddings=64,
    )  # fmt: skip
    less, batch = load(save_tiny(config, tmp_path / "wide"), dtype), text_batch("bert")
    (prompt,) = prompts(less, "prefix")
    tensor = torch.nn.Parameter(prompt.tensor[None])
    with torch.no_grad():
        known = less.hidden(batch, PromptStack("prefix", tensor))
    found = less.hidden(batch, PromptStack("prefix", tensor))
    torch.testing.assert_close(found, known, atol=1e-5, rtol=1e-5)
    found.pow(2).sum().backward()
    assert tensor.grad.ne(0).flatten(2).any(-1).all()


def test_quantisation_without_its_package(folder, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PandaError, match=r"int8 needs torchao.*promptpanda\[int8\]"):
        load(folder, "int8")
    with pytest.raises(PandaError, match=r"nf4 needs bitsandbytes.*promptpanda\[nf4\]"):
        load(folder, "nf4")


def test_what_a_device_does_not_compute_is_one_sentence(folder):
    with pytest.raises(PandaError, match="must be auto, float32, bfloat16, float16, int8 or nf4; found 'int4'"):
        load(folder, "int4")
    with pytest.raises(PandaError, match="computes in float64, which takes no prompts; use --dtype float32"):
        check_computes(torch.float64, "cpu")
    with pytest.raises(PandaError, match="'nowhere:0' does not compute in float16.*use --dtype float32"):
        check_computes(torch.float16, "nowhere:0")


def test_a_model_may_be_spread_over_devices(folder):
    spread = Backbone.load(str(folder), device_map="auto")
    batch, (prompt,) = text_batch("bert"), prompts(spread, "prefix")
    with torch.no_grad():
        states = [one.hidden(batch, PromptStack.of([prompt])) for one in (spread, load(folder))]
    torch.testing.assert_close(*states)


def test_the_command_line_takes_a_format_and_remembers_it(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "mood.jsonl", sentiment_rows(40))

    def panda(*arguments):
        result = CliRunner().invoke(app, [*arguments])
        assert result.exit_code == 0, f"{result.stdout}\n{result.stderr}\n{result.exception!r}"
        return result

    own = ["--text", "text", "--label", "label"]
    small = ["--epochs", "1", "--prompt-length", "4", "--max-length", "24", "--model", str(folder)]
    made = json.loads(panda("train", "--train", "mood.jsonl", *own, *small, "--dtype", "bfloat16", "--json").stdout)
    (path,) = made["prompts"]
    assert Card.read(tmp_path / path).backbone.precision == "bfloat16"
    as_trained = panda("evaluate", path, "mood.jsonl", "--json")
    assert "is used in" not in as_trained.stderr
    exact = panda("evaluate", path, "mood.jsonl", "--dtype", "float32", "--json")
    assert "was trained on" in exact.stderr
    assert "in bfloat16 and is used in float32" in exact.stderr
    known, found = (json.loads(one.stdout)["score"] for one in (as_trained, exact))
    assert abs(known - found) <= 0.1
