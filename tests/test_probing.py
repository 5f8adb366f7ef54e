"""Families out of the common run: what is refused when it is loaded, and what is accepted works to its end."""

from __future__ import annotations

import inspect

import pytest
import torch
from banks import CLASSES, OPTIONS, trained_in
from conftest import CONFIGS, FAMILIES, SIZES, SPECIAL, save_tiny, sentiment_rows, task_of, text_batch, tiny_tokenizer
from transformers import (
    AutoModel,
    BertModel,
    DeepseekV3Config,
    EsmConfig,
    GptOssConfig,
    JambaConfig,
    Lfm2Config,
    MixtralConfig,
    MobileBertConfig,
    OPTConfig,
    Qwen3MoeConfig,
)

from promptpanda.backbone import Backbone
from promptpanda.bank.bank import Bank
from promptpanda.bank.folder import SourcePrompt
from promptpanda.bank.signature import Signature
from promptpanda.errors import PandaError
from promptpanda.footprint import estimate
from promptpanda.progress import Silent
from promptpanda.prompts import attention
from promptpanda.prompts.attention import RecordingCall
from promptpanda.prompts.prompt import Prompt, PromptStack
from promptpanda.tasks.encoding import encode
from promptpanda.tasks.protocol import partition
from promptpanda.transfers.estimators import ESTIMATORS, IncomparableError, TargetFeatures
from promptpanda.transfers.ranking import rank

DECODER = SIZES | SPECIAL | {"pad_token_id": 0, "num_key_value_heads": 2}
JAMBA = DECODER | {"num_hidden_layers": 4, "attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 4}
JAMBA |= {"mamba_d_conv": 2, "use_mamba_kernels": False}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 24}
LATENT = {"kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "v_head_dim": 8}
UNSEEN = {
    "mixtral": MixtralConfig(**DECODER, num_local_experts=4, num_experts_per_tok=2),
    "one of two experts": MixtralConfig(**DECODER, num_local_experts=2, num_experts_per_tok=1),
    "qwen3_moe": Qwen3MoeConfig(**DECODER, head_dim=8, num_experts=4, **EXPERTS),
    "jamba": JambaConfig(**JAMBA, num_experts=2, expert_layer_period=2, expert_layer_offset=1),
    "esm": EsmConfig(**SIZES, pad_token_id=0, mask_token_id=4, position_embedding_type="rotary"),
    "lfm2": Lfm2Config(**DECODER, full_attn_idxs=[1], conv_L_cache=2, block_multiple_of=8),
    "mobilebert": MobileBertConfig(**SIZES, embedding_size=32, intra_bottleneck_size=16),
}
SEEN = {
    # It lays its tokens in one row before the feed-forward layers.
    "opt": OPTConfig(
        hidden_size=32, word_embed_proj_dim=32, num_hidden_layers=2, num_attention_heads=4, ffn_dim=64, vocab_size=120,
        max_position_embeddings=64,
    ),
    # Every second layer is no attention.
    "jamba without experts": JambaConfig(**JAMBA, num_experts=1),
}  # fmt: skip
REFUSED = {
    "gpt_oss": GptOssConfig(**DECODER, head_dim=8, num_local_experts=4, num_experts_per_tok=2),
    "deepseek_v3": DeepseekV3Config(
        **DECODER | {"num_key_value_heads": 4}, **EXPERTS, **LATENT, n_routed_experts=4, n_group=1, topk_group=1,
        first_k_dense_replace=1,
    ),
}  # fmt: skip

pytestmark = pytest.mark.usefixtures("one_thread")


class Notes(Silent):
    def __init__(self):
        self.said = []

    def note(self, text):
        self.said.append(text)


@pytest.mark.parametrize("family", REFUSED)
def test_attention_with_sinks_or_narrower_values_is_refused_by_name_everywhere(family, tmp_path):
    folder = save_tiny(REFUSED[family], tmp_path)
    with pytest.raises(PandaError, match=f"^Prompts cannot be attached to the family '{family}'; families.*BERT.*$"):
        Backbone.load(str(folder))
    with pytest.raises(PandaError, match=f"'{family}'; families that work: BERT"):
        estimate(REFUSED[family], prompt_length=4, batch_size=2, length=8)


def test_the_sinks_are_found_by_what_they_change_too(tmp_path, monkeypatch):
    """Hidden states with our attention are compared with the model's own."""
    original = RecordingCall.note
    monkeypatch.setattr(
        RecordingCall, "note", lambda self, module, key, value, _: original(self, module, key, value, {})
    )
    with pytest.raises(PandaError, match="'gpt_oss'; families that work: BERT"):
        Backbone.load(str(save_tiny(REFUSED["gpt_oss"], tmp_path)))


@pytest.mark.parametrize("family", FAMILIES)
def test_attention_that_is_not_the_models_own_is_refused(family, tiny_folder, monkeypatch):
    stock = attention.sdpa_attention_forward

    def hotter(*inputs, **options):
        options["scaling"] = 1.05 * (options.get("scaling") or inputs[1].shape[-1] ** -0.5)
        return stock(*inputs, **options)

    monkeypatch.setattr(attention, "sdpa_attention_forward", hotter)
    with pytest.raises(PandaError, match="Prompts cannot be attached"):
        Backbone.load(str(tiny_folder(family)))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_loaded_model_is_left_with_our_attention_and_no_hooks(family, load_tiny):
    model = load_tiny(family).model
    assert model.config._attn_implementation == attention.NAME
    assert not any(module._forward_hooks for name, module in model.named_modules() if "activation" in name)


@pytest.mark.parametrize("family", UNSEEN)
def test_a_family_that_does_not_show_its_neurons_is_trained_saved_and_ranked(family, tmp_path):
    backbone = Backbone.load(str(save_tiny(UNSEEN[family], tmp_path / "model")))
    trained = trained_in(tmp_path / "bank", backbone)
    bank = Bank(tmp_path / "bank")
    (card,) = bank.cards()
    bank.verify(card.id)
    source = SourcePrompt.of(bank.load("books", backbone))
    assert source.signature is not None
    assert source.signature.activated_neurons is None
    torch.testing.assert_close(source.signature.embeddings, trained.signature.embeddings)

    target, notes = task_of(sentiment_rows(24), tmp_path / "data", "mood", **CLASSES), Notes()
    view = TargetFeatures.of(backbone, target, partition(target), OPTIONS)
    (ranked,) = rank(target, backbone, bank, view, progress=notes)
    assert "on" not in ranked.scores
    assert {"cosine", "logme", "same_format"} <= set(ranked.scores)
    assert any("does not expose the neurons of every layer, so `on` is left out" in note for note in notes.said)
    with pytest.raises(IncomparableError, match=r"does not expose the neurons.*cosine\.$"):
        ESTIMATORS["on"].score(source, view)


def in_order_of_calls(backbone, prompt, encoded, position):
    """Neurons as hooks without layers see them, all calls of a pass in their order; right where no layer is hidden."""
    outputs = []
    hooks = [
        module.register_forward_hook(lambda _, __, output: outputs.append(output))
        for name, module in backbone.model.named_modules()
        if type(module).__module__ in ("transformers.activations", "torch.nn.modules.activation")
        and "pooler" not in name
    ]
    rows = len(encoded.input_ids)
    with torch.no_grad():
        backbone.all_hidden(encoded.batch(range(rows)), PromptStack.of([prompt]))
    for hook in hooks:
        hook.remove()
    return torch.cat([output.reshape(rows, -1, output.shape[-1])[:, position].sum(0) > 0 for output in outputs])


@pytest.mark.parametrize("kind", ["prefix", "shallow"])
@pytest.mark.parametrize("family", [*FAMILIES, *SEEN])
def test_dense_families_keep_their_neurons(family, kind, tiny_folder, tmp_path):
    folder = tiny_folder(family) if family in CONFIGS else save_tiny(SEEN[family], tmp_path / "model")
    backbone = Backbone.load(str(folder))
    prompt = Prompt.fresh(kind, backbone.shape, 3, 1.0, torch.Generator().manual_seed(0))
    encoded = encode(backbone, task_of(sentiment_rows(8), tmp_path, **CLASSES).train().texts, 24)
    expected = in_order_of_calls(backbone, prompt, encoded, 3 if kind == "shallow" else 0)
    found = Signature.of(backbone, prompt, encoded).activated_neurons
    assert found is not None
    assert torch.equal(found, expected)
    layers = len(backbone.all_hidden(text_batch(family))) - 1
    assert len(found) == layers * (128 if family == "gpt2" else 64)


def test_a_trainable_copy_knows_its_own_neurons(load_tiny):
    backbone = load_tiny("bert")
    other = backbone.trainable_copy()
    modules = set(map(id, other.model.modules()))
    assert other.neurons is not None
    assert all(id(module) in modules for module in other.neurons.modules)


def test_weights_that_are_not_finite_are_no_reason_to_refuse_the_family(tmp_path, tiny_folder):
    model = AutoModel.from_pretrained(tiny_folder("bert"))
    with torch.no_grad():
        model.encoder.layer[1].output.dense.weight[0, 0] = float("nan")
    model.save_pretrained(tmp_path)
    tiny_tokenizer(False).save_pretrained(tmp_path)
    assert Backbone.load(str(tmp_path)).shape.layers == 2


def test_a_family_whose_last_layer_is_not_its_output_is_refused(tmp_path, monkeypatch):
    """Estimators and readouts of one pass read the layers, training the output."""
    forward = BertModel.forward

    def shifted(self, *inputs, **options):
        output = forward(self, *inputs, **options)
        output.last_hidden_state = output.last_hidden_state + 1.0
        return output

    shifted.__signature__ = inspect.signature(forward)
    folder = save_tiny(CONFIGS["bert"], tmp_path)
    monkeypatch.setattr(BertModel, "forward", shifted)
    with pytest.raises(PandaError, match="'bert'; families that work"):
        Backbone.load(str(folder))
