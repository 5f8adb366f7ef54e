"""Loading: what is recognised, what is refused, and that nothing of the backbone ever changes."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from conftest import CONFIGS, SIZES, save_tiny, text_batch, tiny_tokenizer
from transformers import (
    AutoModel,
    BertConfig,
    BertModel,
    DebertaV2Config,
    GPTJConfig,
    GPTNeoConfig,
    MPNetConfig,
    T5Config,
    XLNetConfig,
)

from promptpanda.backbone import Backbone, TextBatch
from promptpanda.errors import PandaError
from promptpanda.prompts.prompt import Prompt, PromptStack


def test_the_fingerprint_tells_weights_apart(tiny_folder, tmp_path):
    original = Backbone.load(str(tiny_folder("bert")))
    assert Backbone.load(str(tiny_folder("bert"))).fingerprint == original.fingerprint
    model = AutoModel.from_pretrained(tiny_folder("bert"))
    with torch.no_grad():
        model.encoder.layer[1].attention.self.key.weight[0, 0] += 1e-3
    shutil.copytree(tiny_folder("bert"), tmp_path / "changed")
    model.save_pretrained(tmp_path / "changed")
    assert Backbone.load(str(tmp_path / "changed")).fingerprint != original.fingerprint


def test_a_checkpoint_without_pooler_is_read_by_its_mean_and_has_a_stable_fingerprint(tmp_path):
    folder = save_tiny(CONFIGS["bert"], tmp_path / "bare", add_pooling_layer=False)
    first, second = Backbone.load(str(folder)), Backbone.load(str(folder))
    assert first.fingerprint == second.fingerprint
    assert first.auto_readout == "mean"
    with pytest.raises(PandaError, match=r"pooler.*--readout mean"):
        first.resolve_readout("pooler")


@pytest.mark.parametrize(
    ("family", "readout"), [("bert", "pooler"), ("albert", "pooler"), ("distilbert", "mean"), ("llama", "last")]
)
def test_auto_readout(family, readout, load_tiny):
    assert load_tiny(family).resolve_readout("auto") == readout


def test_auto_readout_follows_a_sentence_transformers_folder(tiny_folder, tmp_path):
    shutil.copytree(tiny_folder("bert"), tmp_path / "sentence")
    (tmp_path / "sentence" / "1_Pooling").mkdir()
    pooling = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    (tmp_path / "sentence" / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    assert Backbone.load(str(tmp_path / "sentence")).auto_readout == "cls"


def test_the_pooler_is_the_models_own(load_tiny):
    for family in ("bert", "albert"):
        backbone, batch = load_tiny(family), text_batch(family)
        with torch.no_grad():
            theirs = backbone.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).pooler_output
            ours = backbone.read(backbone.hidden(batch), batch.attention_mask, "pooler")
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("kind", ["prefix", "shallow"])
@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2"])
def test_the_longest_allowed_input_runs_and_one_more_is_refused(family, kind, load_tiny):
    backbone = load_tiny(family)
    prompt = Prompt.fresh(kind, backbone.shape, 4, 1.0, torch.Generator().manual_seed(0))
    assert backbone.positions == 64
    ids = torch.full((1, 60), 7)
    with torch.no_grad():
        hidden = backbone.hidden(TextBatch(ids, torch.ones_like(ids)), PromptStack.of([prompt]))
    assert hidden.shape == (1, 60, 32)
    with pytest.raises(PandaError, match="61 tokens and a prompt of 4 need 65 positions.*--max-length to 60"):
        backbone.check_length(61, 4)


REFUSED = {
    "deberta-v2": DebertaV2Config(**SIZES),
    "mpnet": MPNetConfig(**SIZES),
    "xlnet": XLNetConfig(d_model=32, n_layer=2, n_head=4, d_inner=64, vocab_size=120),
    "gptj": GPTJConfig(n_embd=32, n_layer=2, n_head=4, rotary_dim=4, vocab_size=120, n_positions=64),
    "gpt_neo": GPTNeoConfig(
        hidden_size=32, num_layers=2, num_heads=4, attention_types=[[["global"], 2]], vocab_size=120
    ),
    "t5": T5Config(d_model=32, num_layers=2, num_heads=4, d_ff=64, vocab_size=120, d_kv=8),
}


@pytest.mark.parametrize("family", REFUSED)
def test_families_off_the_seam_are_refused_by_name(family, tmp_path):
    AutoModel.from_config(REFUSED[family]).save_pretrained(tmp_path)
    tiny_tokenizer(False).save_pretrained(tmp_path)
    with pytest.raises(PandaError, match=f"'{family}'; families that work: BERT"):
        Backbone.load(str(tmp_path))


def test_the_probe_alone_refuses_a_family_that_does_not_call_the_seam(tmp_path, monkeypatch):
    """The list of known families only saves a download: without it the answer is the same."""
    monkeypatch.setattr("promptpanda.backbone._OFF_THE_SEAM", set())
    for family in ("mpnet", "deberta-v2", "gptj"):
        AutoModel.from_config(REFUSED[family]).save_pretrained(tmp_path / family)
        tiny_tokenizer(False).save_pretrained(tmp_path / family)
        with pytest.raises(PandaError, match=f"'{family}'; families that work"):
            Backbone.load(str(tmp_path / family))


def test_pickled_weights_are_not_read(tmp_path):
    BertModel(BertConfig(**SIZES)).save_pretrained(tmp_path)
    tiny_tokenizer(False).save_pretrained(tmp_path)
    torch.save({}, tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(PandaError, match=r"model\.safetensors"):
        Backbone.load(str(tmp_path))


def test_everything_is_frozen_and_in_eval_mode(load_tiny):
    for family in CONFIGS:
        model = load_tiny(family).model
        assert not any(parameter.requires_grad for parameter in model.parameters())
        assert not any(module.training for module in model.modules())
