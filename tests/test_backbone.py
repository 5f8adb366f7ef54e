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
    CLIPConfig,
    ConvBertConfig,
    GPT2Config,
    GPTJConfig,
    GPTNeoConfig,
    MptConfig,
    XLNetConfig,
)

from promptpanda.backbone import Backbone, TextBatch
from promptpanda.errors import PandaError
from promptpanda.prompts.prompt import Prompt, PromptStack
from promptpanda.training.options import TrainingOptions
from promptpanda.transfers.transfer import train


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


@pytest.mark.parametrize(("mode", "readout"), [("cls_token", "cls"), ("mean_tokens", "mean"), ("lasttoken", "last")])
def test_auto_readout_follows_a_sentence_transformers_folder(mode, readout, tiny_folder, tmp_path):
    shutil.copytree(tiny_folder("bert"), tmp_path / "sentence")
    (tmp_path / "sentence" / "1_Pooling").mkdir()
    modes = ("cls_token", "mean_tokens", "lasttoken")
    pooling = {f"pooling_mode_{other}": other == mode for other in modes}
    (tmp_path / "sentence" / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    assert Backbone.load(str(tmp_path / "sentence")).auto_readout == readout


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
    "xlnet": XLNetConfig(d_model=32, n_layer=2, n_head=4, d_inner=64, vocab_size=120),
    "gptj": GPTJConfig(n_embd=32, n_layer=2, n_head=4, rotary_dim=4, vocab_size=120, n_positions=64),
    "gpt_neo": GPTNeoConfig(
        hidden_size=32, num_layers=2, num_heads=4, attention_types=[[["global"], 2]], vocab_size=120
    ),
    "convbert": ConvBertConfig(**SIZES),
}


@pytest.mark.parametrize("family", REFUSED)
def test_families_off_the_seam_are_refused_by_name(family, tmp_path):
    AutoModel.from_config(REFUSED[family]).save_pretrained(tmp_path)
    tiny_tokenizer(False).save_pretrained(tmp_path)
    with pytest.raises(PandaError, match=rf"'{family}' \(it.*; families that work: BERT"):
        Backbone.load(str(tmp_path))


def test_the_probe_alone_refuses_a_family_that_does_not_call_the_seam(tmp_path, monkeypatch):
    """The list of known families only saves a download: without it the answer is the same."""
    monkeypatch.setattr("promptpanda.backbone.refused", dict)
    for family in ("convbert", "gpt_neo", "gptj"):
        AutoModel.from_config(REFUSED[family]).save_pretrained(tmp_path / family)
        tiny_tokenizer(False).save_pretrained(tmp_path / family)
        with pytest.raises(PandaError, match=rf"'{family}' \(it.*; families that work"):
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


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_training_leaves_the_backbone_as_it_was(checkpointing, tiny_folder, sentiment):
    backbone = Backbone.load(str(tiny_folder("bert")))
    before = {name: tensor.clone() for name, tensor in backbone.model.state_dict().items()}
    options = TrainingOptions(epochs=1, prompt_length=4, max_length=24, gradient_checkpointing=checkpointing)
    train(sentiment(), backbone, options=options)
    assert all(torch.equal(before[name], tensor) for name, tensor in backbone.model.state_dict().items())
    assert not any(parameter.requires_grad for parameter in backbone.model.parameters())
    assert [name for name, module in backbone.model.named_modules() if module.training] == []


def test_a_model_that_is_nowhere_is_refused():
    with pytest.raises(PandaError, match="No model could be loaded from 'nobody/nothing'.*give a hub id, a folder"):
        Backbone.load("nobody/nothing")  # HF_HUB_OFFLINE=1, see conftest.py


def test_padding_may_be_the_last_id_of_the_vocabulary(tmp_path):
    """As in every GPT-2 that was saved with its end of text as padding."""
    config = GPT2Config(
        n_embd=32, n_layer=2, n_head=4, vocab_size=120, n_positions=64,
        bos_token_id=119, eos_token_id=119, pad_token_id=119,
    )  # fmt: skip
    assert Backbone.load(str(save_tiny(config, tmp_path))).shape.layers == 2


UNFIT = {
    # It passes an attention bias of its own and takes no keyword arguments.
    "mpt": MptConfig(d_model=32, n_heads=4, n_layers=2, vocab_size=120, max_seq_len=64),
    # It is no language model.
    "clip": CLIPConfig(
        text_config={"vocab_size": 120, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4},
        vision_config={"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "image_size": 8,
                       "patch_size": 4},
    ),
}  # fmt: skip


@pytest.mark.parametrize("family", UNFIT)
def test_a_family_on_which_the_probe_itself_fails_is_refused_by_name(family, tmp_path):
    AutoModel.from_config(UNFIT[family]).save_pretrained(tmp_path)
    tiny_tokenizer(True).save_pretrained(tmp_path)
    with pytest.raises(PandaError, match=f"'{family}'; families that work: BERT"):
        Backbone.load(str(tmp_path))
