"""Families of which the attention is written out compute what the formula says, token by token, head by head."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import save_tiny
from families import BLOCKS, DEBERTA, FAMILIES, batch_of
from test_attention import V, prompts
from transformers import DebertaV2Config, FalconConfig
from transformers.models.bloom.modeling_bloom import _get_alibi_slopes
from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position
from transformers.models.falcon.modeling_falcon import apply_rotary_pos_emb
from transformers.models.mpnet.modeling_mpnet import MPNetEncoder
from transformers.models.t5.modeling_t5 import T5Attention

from promptpanda.backbone import Backbone
from promptpanda.prompts.attention import _attention
from promptpanda.prompts.prompt import PromptStack

pytestmark = pytest.mark.usefixtures("one_thread")


def heads(states, count=4):
    """(tokens, size) -> (heads, tokens, head_dim)."""
    return states.unflatten(-1, (count, -1)).transpose(0, 1)


def slowly(query, key, value, prefix, score, before):
    """Attention of one text under a prefix, one product at a time. *Shape:* -> (tokens, heads * head_dim)."""
    count, tokens, size = query.shape
    answers = torch.zeros(tokens, count, size)
    for head in range(count):
        for place in range(tokens):
            own = query[head, place]
            weights = [before(head, place, number, own @ prefix[0, head, number]) for number in range(V)]
            weights += [score(head, place, other, own @ key[head, other]) for other in range(tokens)]
            shares = torch.stack(weights).softmax(0)
            answers[place, head] = shares[:V] @ prefix[1, head] + shares[V:] @ value[head]
    return answers.flatten(1)


def deberta_v2(model, module, text, prefix):
    span, size, terms = module.pos_ebd_size, module.attention_head_size, 3
    query, key, value = (heads(of(text)) for of in (module.query_proj, module.key_proj, module.value_proj))
    table = model.encoder.get_rel_embedding()
    keys_of = module.key_proj if module.share_att_key else module.pos_key_proj
    queries_of = module.query_proj if module.share_att_key else module.pos_query_proj
    pos_key, pos_query = heads(keys_of(table)), heads(queries_of(table))

    def distance(place, other):
        found = torch.tensor([place - other])
        if module.position_buckets > 0:
            found = make_log_bucket_position(found, module.position_buckets, module.max_relative_positions)
        return int((found + span).clamp(0, 2 * span - 1))

    def score(head, place, other, product):
        at = distance(place, other)
        content_to_position = query[head, place] @ pos_key[head, at]
        position_to_content = key[head, other] @ pos_query[head, at]
        return (product + content_to_position + position_to_content) / math.sqrt(terms * size)

    return slowly(query, key, value, prefix, score, lambda h, i, j, product: product / math.sqrt(terms * size))


def deberta(model, module, text, prefix):
    size, terms = module.attention_head_size, 3
    query, key, value = heads(module.in_proj(text)).chunk(3, dim=-1)
    query, value = query + heads(module.q_bias[None]), value + heads(module.v_bias[None])
    most = module.max_relative_positions
    table = model.encoder.rel_embeddings.weight
    pos_key, pos_query = heads(module.pos_proj(table)), heads(module.pos_q_proj(table))

    def score(head, place, other, product):
        span = min(int(widest), most)  # of the batch's longest text; positions further away share the last row
        at = most + max(-span, min(span - 1, place - other))
        content_to_position = query[head, place] @ pos_key[head, at]
        position_to_content = key[head, other] @ pos_query[head, at]
        return (product + content_to_position + position_to_content) / math.sqrt(terms * size)

    widest = LONGEST
    return slowly(query, key, value, prefix, score, lambda h, i, j, product: product / math.sqrt(terms * size))


def mpnet(model, module, text, prefix):
    query, key, value = (heads(of(text)) for of in (module.q, module.k, module.v))
    table, root = model.encoder.relative_attention_bias.weight, math.sqrt(module.attention_head_size)

    def score(head, place, other, product):
        bucket = MPNetEncoder.relative_position_bucket(torch.tensor(other - place), num_buckets=32)
        return product / root + table[bucket, head]

    return module.o(slowly(query, key, value, prefix, score, lambda h, i, j, product: product / root))


def t5(model, module, text, prefix):
    query, key, value = (heads(of(text)) for of in (module.q, module.k, module.v))
    table = model.block[0].layer[0].SelfAttention.relative_attention_bias.weight

    def score(head, place, other, product):
        bucket = T5Attention._relative_position_bucket(torch.tensor(other - place), True, 32, 128)
        return product + table[bucket, head]

    return module.o(slowly(query, key, value, prefix, score, lambda h, i, j, product: product))


def bloom(model, module, text, prefix):
    query, key, value = module._reshape(module.query_key_value(text[None]))
    slopes, root = _get_alibi_slopes(4, text.device), math.sqrt(module.head_dim)

    def score(head, place, other, product):
        return product / root + (slopes[head] * (other - place) if other <= place else -math.inf)

    def before(head, place, number, product):
        return product / root + slopes[head] * (number - V - place)

    return module.dense(slowly(query[0], key[0], value[0], prefix, score, before))


def falcon(model, module, text, prefix):
    query, key, value = (side.transpose(1, 2) for side in module._split_heads(module.query_key_value(text[None])))
    cos, sin = model.rotary_emb(text, torch.arange(V, V + len(text))[None])
    query, key = apply_rotary_pos_emb(query, key, cos, sin)
    key, value = (side[0].expand(4, -1, -1) for side in (key, value))
    root = math.sqrt(module.head_dim)

    def score(head, place, other, product):
        return product / root if other <= place else torch.tensor(-math.inf)

    prefix = prefix.expand(2, 4, V, -1)
    return module.dense(slowly(query[0], key, value, prefix, score, lambda h, i, j, product: product / root))


LONGEST = 7
REFERENCES = {
    "DeBERTa": (FAMILIES["DeBERTa"], deberta),
    "DeBERTa v2/v3": (FAMILIES["DeBERTa v2/v3"], deberta_v2),
    "DeBERTa v2 with convolution": (
        DebertaV2Config(**DEBERTA, max_relative_positions=5, conv_kernel_size=3, position_biased_input=True),
        deberta_v2,
    ),
    "MPNet": (FAMILIES["MPNet"], mpnet),
    "T5": (FAMILIES["T5 (encoder)"], t5),
    "BLOOM": (FAMILIES["BLOOM"], bloom),
    "Falcon 7B": (FAMILIES["Falcon"], falcon),
    "Falcon 40B": (
        FalconConfig(
            **BLOCKS, num_hidden_layers=2, num_attention_heads=4, num_kv_heads=2, new_decoder_architecture=True
        ),
        falcon,
    ),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_the_second_layers_attention_written_out(name, tmp_path):
    config, reference = REFERENCES[name]
    backbone = Backbone.load(str(save_tiny(config, tmp_path)))
    batch, (prompt,) = batch_of(backbone, (LONGEST, 4)), prompts(backbone, "prefix")
    module = backbone._layers.modules[1]
    seen = {}

    def note(module, args, kwargs, output):
        seen["text"] = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
        seen["output"] = output[0]
        seen["residual"] = args[1] if name == "BLOOM" else 0.0

    module.register_forward_hook(note, with_kwargs=True)
    with torch.no_grad():
        backbone.hidden(batch, PromptStack.of([prompt]))
        for row, length in enumerate((LONGEST, 4)):
            expected = reference(backbone.model, module, seen["text"][row, :length], prompt.tensor[1])
            residual = seen["residual"][row, :length] if name == "BLOOM" else 0.0
            torch.testing.assert_close(seen["output"][row, :length], expected + residual, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("groups", [1, 2])
def test_capped_scores_written_out(groups):
    """Gemma 2: softmax(cap * tanh(scores / cap)) over prefix and past."""
    torch.manual_seed(0)
    from promptpanda.prompts.attention import LayerIndex, PromptCall

    query, prefix = torch.randn(1, 4, 5, 8), torch.randn(1, 1, 2, 4 // groups, V, 8)
    key, value = torch.randn(2, 1, 4 // groups, 5, 8)
    module = torch.nn.Identity()
    module.is_causal, module.num_key_value_groups = True, groups
    call = PromptCall(LayerIndex([module]), 1, PromptStack("prefix", prefix))
    ours, _ = _attention(module, query, key, value, None, prompt=call, scaling=0.5, softcap=1.5)
    repeated = [
        side[0].repeat_interleave(groups, 0) for side in (key, value, prefix[0, 0, 0][None], prefix[0, 0, 1][None])
    ]

    def score(head, place, other, product):
        return 1.5 * torch.tanh(product * 0.5 / 1.5) if other <= place else torch.tensor(-math.inf)

    def before(head, place, number, product):
        return 1.5 * torch.tanh(product * 0.5 / 1.5)

    expected = slowly(query[0], repeated[0], repeated[1], torch.stack(repeated[2:]), score, before)
    torch.testing.assert_close(ours[0].flatten(1), expected, atol=1e-5, rtol=1e-4)
