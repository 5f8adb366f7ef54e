"""A prompt reaches every layer of every family exactly as PEFT would bring it there, padded or not, mixed or not."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from conftest import FAMILIES, SIZES, SPECIAL, save_tiny, text_batch
from peft import PrefixTuningConfig, PromptTuningConfig, get_peft_model
from transformers import AutoModel, BertConfig, ModernBertConfig

from promptpanda.backbone import Backbone, TextBatch
from promptpanda.errors import PandaError
from promptpanda.prompts import attention
from promptpanda.prompts.attention import LayerIndex, PromptCall
from promptpanda.prompts.prompt import Prompt, PromptStack

V = 4
PEFT_PREFIX = ("bert", "roberta", "electra", "gpt2", "llama", "qwen3")
PEFT_SHALLOW = ("bert", "roberta", "modernbert", "gpt2", "llama", "qwen3")


def prompts(backbone, kind, count=1):
    return [Prompt.fresh(kind, backbone.shape, V, 1.0, torch.Generator().manual_seed(seed)) for seed in range(count)]


def with_peft(folder, prompt, batch):
    """Last hidden states of the text as PEFT computes them."""
    prefix = prompt.kind == "prefix"
    kind = PrefixTuningConfig if prefix else PromptTuningConfig
    base = AutoModel.from_pretrained(folder).eval()
    model = get_peft_model(base, kind(task_type="FEATURE_EXTRACTION", num_virtual_tokens=V)).eval()
    flat = prompt.tensor.permute(3, 0, 1, 2, 4).reshape(V, -1) if prefix else prompt.tensor
    model.prompt_encoder["default"].embedding.weight.data.copy_(flat)
    with torch.no_grad():
        hidden = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state
    return hidden if prefix else hidden[:, V:]


def at_tokens(difference, batch):
    return float((difference.abs() * batch.attention_mask[:, :, None]).max())


@pytest.mark.parametrize(
    ("family", "kind"), [(f, "prefix") for f in PEFT_PREFIX] + [(f, "shallow") for f in PEFT_SHALLOW]
)
def test_equals_peft(family, kind, load_tiny, tiny_folder):
    backbone, batch = load_tiny(family), text_batch(family)
    (prompt,) = prompts(backbone, kind)
    with torch.no_grad():
        ours = backbone.hidden(batch, PromptStack.of([prompt]))
        bare = backbone.hidden(batch)
    theirs = with_peft(tiny_folder(family), prompt, batch)
    assert at_tokens(ours - theirs, batch) < 1e-5
    assert at_tokens(ours - bare, batch) > 1e-2, "the prompt changes nothing, so the comparison shows nothing"


@pytest.mark.parametrize("kind", ["prefix", "shallow"])
@pytest.mark.parametrize("family", FAMILIES)
def test_padding_and_neighbours_change_nothing(family, kind, load_tiny):
    """Each row of a padded batch that mixes prompts equals the row alone under its own prompt, as do all readouts."""
    backbone, batch = load_tiny(family), text_batch(family)
    stack = prompts(backbone, kind, 3)
    rows = torch.tensor([2, 0, 2])
    with torch.no_grad():
        mixed = backbone.hidden(batch, PromptStack.of(stack, rows))
        for row, length in enumerate(batch.attention_mask.sum(1).tolist()):
            mask = batch.attention_mask[row : row + 1, :length]
            alone = backbone.hidden(
                TextBatch(batch.input_ids[row : row + 1, :length], mask), PromptStack.of([stack[int(rows[row])]])
            )
            torch.testing.assert_close(mixed[row, :length], alone[0], atol=1e-5, rtol=1e-4)
            for readout in ("mean", "cls", "last"):
                torch.testing.assert_close(
                    backbone.read(mixed, batch.attention_mask, readout)[row],
                    backbone.read(alone, mask, readout)[0],
                    atol=1e-5,
                    rtol=1e-4,
                )


@pytest.mark.parametrize("family", FAMILIES)
def test_unpadded_batches_take_the_maskless_path_to_the_same_result(family, load_tiny):
    backbone = load_tiny(family)
    batch = text_batch(family, (6, 6))
    padded = TextBatch(F.pad(batch.input_ids, (0, 2)), F.pad(batch.attention_mask, (0, 2)))
    stack = PromptStack.of(prompts(backbone, "prefix"))
    with torch.no_grad():
        plain, with_mask = backbone.hidden(batch, stack), backbone.hidden(padded, stack)[:, :6]
    torch.testing.assert_close(plain, with_mask, atol=1e-5, rtol=1e-4)


def gradient(backbone, batch, prompt, count=False):
    calls = 0
    original = PromptCall.lengthen

    def counted(self, *layer):
        nonlocal calls
        calls += 1
        return original(self, *layer)

    tensor = prompt.tensor.clone().requires_grad_()
    PromptCall.lengthen = counted
    try:
        hidden = backbone.hidden(batch, PromptStack("prefix", tensor[None]))
        (hidden * batch.attention_mask[:, :, None]).pow(2).sum().backward()
    finally:
        PromptCall.lengthen = original
    return (tensor.grad, calls) if count else tensor.grad


@pytest.mark.parametrize("family", FAMILIES)
def test_every_layer_receives_gradient(family, load_tiny):
    backbone = load_tiny(family)
    grad = gradient(backbone, text_batch(family), prompts(backbone, "prefix")[0])
    assert grad.shape[0] == backbone.shape.layers == (3 if family == "albert" else 2)
    per_part = grad.abs().sum(dim=(2, 3, 4))
    assert (per_part > 0).all(), f"keys and values of some layer got no gradient: {per_part}"


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "albert"])
def test_gradient_checkpointing_computes_layers_twice_and_gives_equal_gradients(family, load_tiny):
    backbone, batch = load_tiny(family), text_batch(family)
    (prompt,) = prompts(backbone, "prefix")
    plain, calls = gradient(backbone, batch, prompt, count=True)
    backbone.set_gradient_checkpointing(True)
    try:
        in_training = [module for module in backbone.model.modules() if module.training]
        assert len(in_training) == backbone.shape.layers
        saved, recomputed = gradient(backbone, batch, prompt, count=True)
    finally:
        backbone.set_gradient_checkpointing(False)
    assert (calls, recomputed) == (backbone.shape.layers, 2 * backbone.shape.layers)
    assert torch.equal(plain, saved)
    assert not any(module.training for module in backbone.model.modules())
    assert gradient(backbone, batch, prompt, count=True)[1] == calls


def test_albert_refuses_gradient_checkpointing(load_tiny):
    with pytest.raises(PandaError, match="albert"):
        load_tiny("albert").set_gradient_checkpointing(True)


@pytest.mark.parametrize("masked", [None, "bool", "float"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("groups", [1, 2])
def test_the_function_equals_the_formula(masked, causal, groups):
    """softmax(Q [P_k; K]^T / sqrt(d)) [P_v; V], the prefix visible to all, written out."""
    torch.manual_seed(0)
    batch, heads, tokens, size = 2, 4, 5, 8
    query = torch.randn(batch, heads, tokens, size)
    key, value = torch.randn(2, batch, heads // groups, tokens, size)
    prefix = torch.randn(batch, 1, 2, heads // groups, V, size)
    module = torch.nn.Identity()
    module.is_causal = causal
    module.num_key_value_groups = groups
    seen = torch.ones(tokens, tokens, dtype=torch.bool).tril() if causal else torch.ones(tokens, tokens).bool()
    seen = seen.expand(batch, 1, tokens, tokens).clone()
    mask = None
    if masked is not None:
        seen[1, :, :, 3:] = False
        seen |= torch.eye(tokens, dtype=torch.bool)
        mask = seen if masked == "bool" else torch.zeros(seen.shape).masked_fill(~seen, float("-inf"))
    ours, _ = attention._attention(
        module,
        query,
        key,
        value,
        mask,
        prompt=PromptCall(LayerIndex([module]), batch, PromptStack("prefix", prefix, torch.arange(batch))),
        scaling=size**-0.5,
    )
    keys = torch.cat([prefix[:, 0, 0], key], dim=2).repeat_interleave(groups, dim=1)
    values = torch.cat([prefix[:, 0, 1], value], dim=2).repeat_interleave(groups, dim=1)
    weights = query @ keys.transpose(2, 3) * size**-0.5
    weights = weights.masked_fill(~F.pad(seen, (V, 0), value=True), float("-inf")).softmax(dim=-1)
    torch.testing.assert_close(ours, (weights @ values).transpose(1, 2), atol=1e-5, rtol=1e-4)


def test_prompts_of_different_lengths_do_not_share_a_batch(tiny_backbone):
    short = Prompt.fresh("prefix", tiny_backbone.shape, 2, 1.0, torch.Generator().manual_seed(0))
    with pytest.raises(PandaError, match="share kind and shape"):
        PromptStack.of([short, *prompts(tiny_backbone, "prefix")])


def test_dropout_zeroes_each_row_on_its_own_and_keeps_the_mean():
    tensor = torch.ones(1, 1, 2, 4, V, 8)
    stack = PromptStack("prefix", tensor, None, 0.25, (torch.Generator().manual_seed(0),))
    dropped = stack.for_batch(200)
    torch.testing.assert_close(dropped.unique(), torch.tensor([0.0, 1 / 0.75]))
    assert dropped.mean() == pytest.approx(1.0, abs=0.02)
    assert not torch.equal(dropped[0], dropped[1])


@pytest.mark.parametrize("kind", ["prefix", "shallow"])
@pytest.mark.parametrize("family", FAMILIES)
def test_each_row_of_a_mixed_batch_is_under_its_own_prompt(family, kind, load_tiny):
    """The same batch run once under each prompt, and its rows picked: no other difference than the prompt."""
    backbone, batch = load_tiny(family), text_batch(family, (6, 6, 4, 6))
    stack, rows = prompts(backbone, kind, 3), [2, 0, 1, 0]
    with torch.no_grad():
        mixed = backbone.hidden(batch, PromptStack.of(stack, torch.tensor(rows)))
        each = [backbone.hidden(batch, PromptStack.of([prompt])) for prompt in stack]
    expected = torch.stack([each[prompt][row] for row, prompt in enumerate(rows)])
    assert at_tokens(mixed - expected, batch) < 1e-6
    assert at_tokens(each[0] - each[1], batch) > 1e-2


def test_a_layer_of_bert_written_out(tmp_path):
    """A one-layer BERT from embeddings to output by matrix products, the prefix before keys and values."""
    backbone = Backbone.load(str(save_tiny(BertConfig(**SIZES | {"num_hidden_layers": 1}), tmp_path)))
    batch, (prompt,) = text_batch("bert"), prompts(backbone, "prefix")
    with torch.no_grad():
        ours = backbone.hidden(batch, PromptStack.of([prompt]))
        embeddings, layer = backbone.model.embeddings, backbone.model.encoder.layer[0]
        rows, tokens = batch.input_ids.shape
        x = embeddings.word_embeddings(batch.input_ids) + embeddings.token_type_embeddings.weight[0]
        x = embeddings.LayerNorm(x + embeddings.position_embeddings.weight[V : V + tokens])

        def heads(linear):
            return linear(x).view(rows, tokens, 4, 8).transpose(1, 2)

        inner = layer.attention.self
        key = torch.cat([prompt.tensor[0, 0].expand(rows, 4, V, 8), heads(inner.key)], dim=2)
        value = torch.cat([prompt.tensor[0, 1].expand(rows, 4, V, 8), heads(inner.value)], dim=2)
        hidden_keys = F.pad(batch.attention_mask, (V, 0), value=1)[:, None, None] == 0
        scores = (heads(inner.query) @ key.transpose(2, 3) / 8**0.5).masked_fill(hidden_keys, float("-inf"))
        context = (scores.softmax(-1) @ value).transpose(1, 2).reshape(rows, tokens, 32)
        x = layer.attention.output.LayerNorm(layer.attention.output.dense(context) + x)
        x = layer.output.LayerNorm(layer.output.dense(F.gelu(layer.intermediate.dense(x))) + x)
    assert at_tokens(ours - x, batch) < 1e-5


@pytest.mark.parametrize("kind", ["prefix", "shallow"])
def test_segments_stay_with_their_tokens(kind, tiny_backbone):
    """Virtual tokens are of segment 0, and the text keeps its own (PEFT drops segments, so this is written out)."""
    batch, (prompt,) = text_batch("bert"), prompts(tiny_backbone, kind)
    types = (torch.arange(9) > 3).long() * batch.attention_mask
    words = tiny_backbone.model.get_input_embeddings()(batch.input_ids)
    with torch.no_grad():
        ours = tiny_backbone.hidden(TextBatch(batch.input_ids, batch.attention_mask, types), PromptStack.of([prompt]))
        if kind == "shallow":
            theirs = tiny_backbone.model(
                inputs_embeds=torch.cat([prompt.tensor.expand(3, V, 32), words], dim=1),
                attention_mask=F.pad(batch.attention_mask, (V, 0), value=1),
                token_type_ids=F.pad(types, (V, 0)),
            ).last_hidden_state[:, V:]
        else:  # the second segment's embedding put into the words by hand, all declared to be of the first
            difference = tiny_backbone.model.embeddings.token_type_embeddings.weight.diff(dim=0)
            stack = PromptCall(tiny_backbone._layers, 3, PromptStack.of([prompt]))
            theirs = tiny_backbone.model(
                inputs_embeds=words + types[:, :, None] * difference,
                attention_mask=batch.attention_mask,
                position_ids=torch.arange(V, V + 9)[None],
                prompt=stack,
            ).last_hidden_state
        without = tiny_backbone.hidden(batch, PromptStack.of([prompt]))
    assert at_tokens(ours - theirs, batch) < 1e-5
    assert at_tokens(ours - without, batch) > 1e-2


@pytest.mark.parametrize("padding", [0, 3])
def test_a_sliding_window_stays_as_narrow_and_the_prefix_is_seen_from_everywhere(padding, tmp_path):
    """Two local layers that see two tokens to each side: the first token depends on four others, and on the prefix."""
    config = ModernBertConfig(
        **SIZES, **SPECIAL, pad_token_id=0, cls_token_id=2, sep_token_id=3, local_attention=4,
        layer_types=["sliding_attention"] * 2,
    )  # fmt: skip
    backbone = Backbone.load(str(save_tiny(config, tmp_path)))
    ids = torch.arange(5, 17)[None]

    def hidden(ids, prompt):
        batch = TextBatch(F.pad(ids, (0, padding)), F.pad(torch.ones_like(ids), (0, padding)))
        with torch.no_grad():
            return backbone.hidden(batch, PromptStack.of([prompt]))[0, : ids.shape[1]]

    first, second = prompts(backbone, "prefix", 2)
    base = hidden(ids, first)
    for token in range(12):
        changed = (hidden(ids.clone().index_fill_(1, torch.tensor([token]), 50), first) - base).abs().amax(dim=1)
        reach = (torch.arange(12) - token).abs() <= 4
        assert torch.equal(changed > 1e-5, reach)
    assert ((hidden(ids, second) - base).abs().amax(dim=1) > 1e-2).all()
