# mypy: disable-error-code="no-untyped-call, arg-type, override"
"""Falcon with rotary positions (7B, 40B, 180B): those of the text begin behind the prompt, as in PEFT.

The older models with ALiBi (Falcon-RW) are refused.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import PreTrainedModel
from transformers.models.falcon.modeling_falcon import FalconAttention, FalconDecoderLayer, apply_rotary_pos_emb

from promptpanda.models import refusal
from promptpanda.prompts import attention
from promptpanda.prompts.families.carrying import CarriesPrompt, carry, current_prompt


class _Attention(FalconAttention):
    @property
    def num_key_value_groups(self) -> int:
        return 1 if self.new_decoder_architecture else self.num_heads // int(self.num_kv_heads or 1)

    def forward(
        self, hidden_states: Tensor, alibi: None, attention_mask: Tensor | None, *args: Any, **kwargs: Any
    ) -> Any:
        prompt = current_prompt()
        if prompt is None:
            return super().forward(hidden_states, alibi, attention_mask, *args, **kwargs)
        sides = self._split_heads(self.query_key_value(hidden_states))
        query, key, value = (side.transpose(1, 2) for side in sides)
        query, key = apply_rotary_pos_emb(query, key, *kwargs["position_embeddings"])
        context = attention.attend(self, query, key, value, None, attention_mask, prompt, self.inv_norm_factor)
        return self.dense(context.flatten(2)), None


class _Layer(CarriesPrompt, FalconDecoderLayer):
    pass


def prepare(model: PreTrainedModel) -> None:
    """Let a loaded model take prompts. Raises PandaError if it has ALiBi."""
    if model.config.alibi:
        raise refusal(model.config)
    carry(model, {FalconAttention: _Attention, FalconDecoderLayer: _Layer})
