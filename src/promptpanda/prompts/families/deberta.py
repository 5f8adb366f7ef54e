# mypy: disable-error-code="no-untyped-call, arg-type"
"""DeBERTa v1: disentangled attention. Virtual tokens have no relative position, as in `deberta_v2`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.models.deberta.modeling_deberta import DebertaLayer, DisentangledSelfAttention

from promptpanda.prompts import attention
from promptpanda.prompts.families.carrying import CarriesPrompt, carry, current_prompt


class _Attention(DisentangledSelfAttention):
    def forward(self, hidden_states: Tensor, attention_mask: Tensor, *args: Any, **kwargs: Any) -> Any:
        prompt = current_prompt()
        if prompt is None:
            return super().forward(hidden_states, attention_mask, *args, **kwargs)
        query, key, value = self.transpose_for_scores(self.in_proj(hidden_states)).chunk(3, dim=-1)
        query = query + self.transpose_for_scores(self.q_bias[None, None, :])
        value = value + self.transpose_for_scores(self.v_bias[None, None, :])
        terms = 1 + len(self.pos_att_type)
        query = query * (self.attention_head_size * terms) ** -0.5
        bias = torch.zeros((), dtype=query.dtype, device=query.device)
        if self.relative_attention:
            bias = self.disentangled_att_bias(query, key, kwargs["relative_pos"], kwargs["rel_embeddings"], terms)
        context = attention.attend(self, query, key, value, bias, attention_mask.bool(), prompt, 1.0)
        return context.flatten(2), None


class _Layer(CarriesPrompt, DebertaLayer):
    pass


def prepare(model: PreTrainedModel) -> None:
    """Let a loaded model take prompts. (Talking heads, which no published model has, the probe then refuses.)"""
    carry(model, {DisentangledSelfAttention: _Attention, DebertaLayer: _Layer})
    for module in model.modules():
        if isinstance(module, _Attention):  # transformers leaves these in float32, which then mixes with the rest
            for bias in (module.q_bias, module.v_bias):
                bias.data = bias.data.to(module.in_proj.weight.dtype)
