"""Models by short name: their shapes are the published ones, and what is told of memory is what is measured."""

from __future__ import annotations

import inspect
import json

import pytest
import torch
from conftest import CONFIGS, FAMILIES, text_batch
from transformers import BertConfig, CLIPConfig, ConvBertConfig, GPTJConfig
from typer.testing import CliRunner

from promptpanda.backbone import TextBatch
from promptpanda.cli.main import app
from promptpanda.errors import PandaError
from promptpanda.footprint import Estimate, estimate, measure
from promptpanda.models import EMBEDDED, config_of, embedded_model, hub_id, model_names
from promptpanda.prompts.prompt import Prompt, PromptStack

SIZES = {"prompt_length": 20, "batch_size": 4, "length": 64}

# Vocabulary, width, layers; what google-research/bert published. Heads are 64 wide and the inner width is 4 times H.
BERT = {
    "bert-large": (28996, 1024, 24),
    "bert-base": (28996, 768, 12),
    "bert-medium": (30522, 512, 8),
    "bert-small": (30522, 512, 4),
    "bert-tiny": (30522, 128, 2),
}

# Parameters of the published base models (no head for language modelling).
PUBLISHED = {
    "bert-large": 333_579_264,
    "bert-base": 108_310_272,
    "bert-medium": 41_373_184,
    "bert-small": 28_763_648,
    "bert-tiny": 4_385_920,
    "roberta-base": 124_645_632,
    "roberta-large": 355_359_744,
    "electra-small": 13_483_008,
    "electra-base": 108_891_648,
    "electra-large": 334_092_288,
    "distilbert-base": 66_362_880,
    "albert-base": 11_683_584,
    "modernbert-base": 149_014_272,
    "modernbert-large": 394_781_696,
    "gpt2": 124_439_808,
    "gpt2-medium": 354_823_168,
    "llama-3.2-1b": 1_235_814_400,
    "qwen3-0.6b": 596_049_920,
}

# Layers, key/value heads and head size of every model, from its paper or model card.
PREFIX = {
    "bert-large": (24, 16, 64),
    "bert-base": (12, 12, 64),
    "bert-medium": (8, 8, 64),
    "bert-small": (4, 8, 64),
    "bert-tiny": (2, 2, 64),
    "roberta-base": (12, 12, 64),
    "roberta-large": (24, 16, 64),
    "electra-small": (12, 4, 64),
    "electra-base": (12, 12, 64),
    "electra-large": (24, 16, 64),
    "distilbert-base": (6, 12, 64),
    "albert-base": (12, 12, 64),
    "modernbert-base": (22, 12, 64),
    "modernbert-large": (28, 16, 64),
    "gpt2": (12, 12, 64),
    "gpt2-medium": (24, 16, 64),
    "llama-3.2-1b": (16, 8, 64),
    "qwen3-0.6b": (28, 8, 128),
}
POSITIONS = {"roberta": 512, "modernbert": 8192, "gpt2": 1024, "llama": 131072, "qwen3": 40960}


def told(name: str, **changes: int) -> Estimate:
    return estimate(config_of(name), **SIZES | changes)


def bert_parameters(vocabulary: int, hidden: int, layers: int) -> int:
    norm = 2 * hidden
    embeddings = (vocabulary + 512 + 2) * hidden + norm
    attention = 4 * (hidden * hidden + hidden) + norm
    inner = hidden * 4 * hidden + 4 * hidden + 4 * hidden * hidden + hidden + norm
    pooler = hidden * hidden + hidden
    return embeddings + layers * (attention + inner) + pooler


def test_names():
    assert set(model_names()) == set(PUBLISHED)
    ids = [hub_id(name) for name in model_names()]
    assert len(set(ids)) == len(ids)
    assert all(identity is not None and identity.count("/") == 1 for identity in ids)
    assert hub_id("bert-tiny") == "google/bert_uncased_L-2_H-128_A-2"
    assert hub_id("google/bert_uncased_L-2_H-128_A-2") is None
    assert hub_id("BERT") is hub_id("") is None


@pytest.mark.parametrize("name", list(BERT))
def test_bert_has_the_parameters_of_its_shape(name):
    assert told(name).parameters == bert_parameters(*BERT[name]) == PUBLISHED[name]


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_every_size_has_its_published_shape(name):
    found = told(name)
    layers, heads, head_dim = PREFIX[name]
    assert found.parameters == PUBLISHED[name]
    assert found.weights == 4 * PUBLISHED[name]
    assert found.prompt_parameters == layers * 2 * heads * 20 * head_dim
    assert found.prompt == 4 * found.prompt_parameters
    assert found.positions == POSITIONS.get(config_of(name).model_type, 512)
    assert found.fits
    assert found.weights < found.prompt_tuning < found.model_tuning


def kept_bytes(backbone, prompt, run):
    """Bytes that autograd keeps of a pass for the way back, beyond the prompt and the model."""
    given = [prompt, *backbone.model.parameters(), *backbone.model.buffers()]
    known = {tensor.untyped_storage().data_ptr() for tensor in given}
    kept: dict[int, torch.UntypedStorage] = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        run()
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_an_estimate_agrees_with_the_backbone(family, load_tiny):
    """Parameters, prompt shape and positions; and activations, with those that a real pass keeps: as many where a batch
    goes through padded, fewer where it goes through packed."""
    backbone = load_tiny(family)
    mask = torch.ones(3, 9, dtype=torch.long)
    mask[1, 5:] = 0
    batch = TextBatch(text_batch(family).input_ids, mask)
    prompt = Prompt.fresh("prefix", backbone.shape, 4, 1.0, torch.Generator().manual_seed(0)).tensor.requires_grad_()
    stack = PromptStack("prefix", prompt[None], None, 0.1, (torch.Generator().manual_seed(0),))
    padded = kept_bytes(backbone, prompt, lambda: backbone.all_hidden(batch, stack))
    found = estimate(CONFIGS[family], prompt_length=4, batch_size=3, length=9)
    assert found.parameters == sum(parameter.numel() for parameter in backbone.model.parameters())
    assert found.prompt_parameters == prompt.numel()
    assert found.positions == backbone.positions
    assert found.activations == padded
    assert 0.75 * padded < kept_bytes(backbone, prompt, lambda: backbone.hidden(batch, stack)) <= padded


def test_activations_grow_with_batch_and_length():
    one = told("bert-small")
    assert told("bert-small", batch_size=8).activations == 2 * one.activations
    assert told("bert-small", length=128).activations > 1.9 * one.activations
    assert told("bert-small", prompt_length=40).prompt == 2 * one.prompt


@pytest.mark.parametrize(
    ("name", "batch_size", "length"),
    [("bert-tiny", 16, 128), ("bert-medium", 4, 64), ("electra-small", 8, 64), ("gpt2", 4, 32)],
)
def test_the_estimate_is_what_is_measured(name, batch_size, length):
    sizes = {"prompt_length": 20, "batch_size": batch_size, "length": length}
    found, measured = estimate(config_of(name), **sizes), measure(config_of(name), **sizes)
    assert found.prompt_tuning / 1.4 < measured.prompt_tuning < found.prompt_tuning * 1.4
    assert measured.prompt_tuning > found.weights + found.activations
    assert 0 < measured.seconds < 120


def test_too_long_a_text_does_not_fit():
    assert told("bert-tiny", length=492).fits
    assert not told("bert-tiny", length=493).fits
    assert not told("gpt2", length=1020).fits
    assert not told("roberta-base", length=500).fits
    with pytest.raises(PandaError, match=r"493 tokens .* 513 positions.* has 512; lower --max-length to 492"):
        measure(config_of("bert-tiny"), prompt_length=20, batch_size=1, length=493)


@pytest.mark.parametrize("wrong", [{"prompt_length": 0}, {"batch_size": -1}, {"length": 0}])
def test_numbers_below_one_are_refused(wrong):
    for call in (estimate, measure):
        with pytest.raises(PandaError, match=r"must be at least 1, found (0|-1)"):
            call(config_of("bert-tiny"), **SIZES | wrong)


def test_numbers_beyond_all_machines_are_refused():
    assert told("llama-3.2-1b", length=131_072).activations > 10**12
    for wrong in ({"prompt_length": 10**9}, {"batch_size": 10**30}, {"length": 2**62}):
        with pytest.raises(PandaError, match="more than any machine holds; lower --batch-size"):
            told("bert-tiny", **wrong)


@pytest.mark.parametrize("config", [ConvBertConfig(), GPTJConfig(n_layer=2), CLIPConfig()], ids=lambda c: c.model_type)
def test_other_families_are_refused(config):
    with pytest.raises(PandaError, match=rf"family '{config.model_type}'.*; families that work: BERT"):
        estimate(config, **SIZES)


def test_a_measurement_that_cannot_run_says_so():
    config = BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=2**48)
    with pytest.raises(PandaError, match="ended early .*most likely for lack of memory"):
        measure(config, **SIZES)


def test_configurations_of_folders_and_of_the_embedded_model(tiny_folder):
    assert config_of(str(tiny_folder("gpt2"))).n_embd == 32
    if embedded_model() is not None:
        assert config_of(EMBEDDED).hidden_size == 384


def test_a_configuration_is_a_new_one_each_time():
    config_of("llama-3.2-1b").rope_parameters["factor"] = 1.0
    assert config_of("llama-3.2-1b").rope_parameters["factor"] == 32.0


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"model_type": "nothing"}', '{"model_type": 3}'])
def test_a_folder_without_a_sound_configuration(content, tmp_path):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(PandaError, match=r"no sound config\.json; give"):
        config_of(str(tmp_path))


def test_unknown_names():
    with pytest.raises(PandaError, match=r"No model 'bert-bass' was found; .* Did you mean 'bert-base'\?$"):
        config_of("bert-bass")
    with pytest.raises(PandaError, match=r"No model 'zzz/yyy' was found; .*bert-large, .*qwen3-0.6b\)\.$"):
        config_of("zzz/yyy")
    for strange in ("", "a b", "../..", "a/b/c", "x" * 500):
        with pytest.raises(PandaError, match="give a hub id"):
            config_of(strange)


def doctor(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["doctor", *arguments])
    assert result.exit_code == code, f"{result.stdout}\n{result.stderr}\n{result.exception!r}"
    return result.stdout if code == 0 else result.stderr


def test_doctor_tells_of_a_model():
    table = doctor("--model", "bert-base")
    assert "google-bert/bert-base-cased" in table
    assert "108,310,272" in table
    assert "148 (fits)" in table
    assert "measured" not in table
    assert "620 (too many)" in doctor("--model", "bert-tiny", "--max-length", "600")
    facts = json.loads(doctor("--model", "bert-tiny", "--prompt-length", "8", "--batch-size", "2", "--json"))
    assert set(facts) == {
        "model", "hub_id", "family", "prompt_length", "batch_size", "length", "dtype", "estimated", "measured"
    }  # fmt: skip
    assert set(facts["estimated"]) == set(inspect.signature(Estimate).parameters)
    assert facts["estimated"]["prompt_parameters"] == 2 * 2 * 2 * 8 * 64
    assert facts["measured"] is None


def test_half_the_bytes_of_a_number_are_half_the_weights():
    whole, half = (told("bert-base", dtype=dtype) for dtype in ("float32", "bfloat16"))
    assert (half.parameters, half.prompt, half.model_tuning) == (whole.parameters, whole.prompt, whole.model_tuning)
    assert half.weights == whole.weights / 2
    assert 0.45 < half.activations / whole.activations < 0.75
    facts = json.loads(doctor("--model", "bert-base", "--dtype", "bfloat16", "--json"))
    assert (facts["dtype"], facts["estimated"]["weights"]) == ("bfloat16", half.weights)
    assert "estimated for float32, bfloat16, float16; found --dtype int8" in doctor(
        "--model", "bert-tiny", "--dtype", "int8", code=2
    )
    assert "measured only in float32" in doctor("--model", "bert-tiny", "--dtype", "float16", "--measure", code=2)
    assert "--dtype was given without --model" in doctor("--dtype", "float16", code=2)


def test_doctor_measures():
    options = ["--model", "bert-tiny", "--batch-size", "2", "--max-length", "16", "--measure"]
    measured = json.loads(doctor(*options, "--json"))["measured"]
    assert set(measured) == {"prompt_tuning", "seconds"}
    table = doctor(*options)
    assert "measured" in table
    assert "one step, seconds" in table


def test_doctor_refuses_in_one_sentence():
    assert "Did you mean 'bert-tiny'?" in doctor("--model", "bert-tinny", code=2)
    assert "--measure was given without --model" in doctor("--measure", code=2)
    assert "--batch-size was given without --model" in doctor("--batch-size", "4", code=2)
    assert "max-length" in doctor("--model", "bert-tiny", "--max-length", "600", "--measure", code=2)
    assert doctor("--model", "x", code=2).count("\n") == 1
