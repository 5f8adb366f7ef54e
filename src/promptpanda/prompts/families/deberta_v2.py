# mypy: disable-error-code="no-untyped-call, arg-type"
"""DeBERTa v2 and v3: disentangled attention.

Relative positions: a virtual token has none. What attends to it weighs its content alone, by the same scale as the
content of the text; the terms content-to-position and position-to-content are zero there. So it is in the DeBERTa of
P-tuning v2, on which PANDA's code was built. Tokens of the text keep their distances from one another.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.models.deberta_v2.modeling_deberta_v2 import DebertaV2Layer, DisentangledSelfAttention

from promptpanda.prompts import attention
from promptpanda.prompts.families.carrying import CarriesPrompt, carry, current_prompt


class _Attention(DisentangledSelfAttention):
    def forward(self, hidden_states: Tensor, attention_mask: Tensor, *args: Any, **kwargs: Any) -> Any:
        prompt = current_prompt()
        if prompt is None:
            return super().forward(hidden_states, attention_mask, *args, **kwargs)
        heads = self.num_attention_heads
        states = (self.transpose_for_scores(of(hidden_states), heads) for of in (self.query_proj, self.key_proj))
        query, key = states
        value = self.transpose_for_scores(self.value_proj(hidden_states), heads)
        terms = 1 + ("c2p" in self.pos_att_type) + ("p2c" in self.pos_att_type)
        bias = torch.zeros((), dtype=query.dtype, device=query.device)
        if self.relative_attention:
            bias = self.disentangled_attention_bias(query, key, kwargs["relative_pos"], kwargs["rel_embeddings"], terms)
            bias = bias.unflatten(0, (-1, heads))
        query, key, value = (side.unflatten(0, (-1, heads)) for side in (query, key, value))
        scaling = (self.attention_head_size * terms) ** -0.5
        context = attention.attend(self, query, key, value, bias, attention_mask.bool(), prompt, scaling)
        return context.flatten(2), None


class _Layer(CarriesPrompt, DebertaV2Layer):
    pass


def prepare(model: PreTrainedModel) -> None:
    """Let a loaded model take prompts."""
    carry(model, {DisentangledSelfAttention: _Attention, DebertaV2Layer: _Layer})
