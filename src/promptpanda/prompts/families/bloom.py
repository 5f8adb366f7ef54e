# mypy: disable-error-code="no-untyped-call, arg-type"
"""BLOOM: attention that falls off with distance (ALiBi).

Virtual tokens stand before the text, the last one right before its first token, as in PEFT. Heads with a steep slope
see little of them from the end of a long text.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.models.bloom.modeling_bloom import BloomAttention, BloomBlock, _get_alibi_slopes, dropout_add

from promptpanda.prompts import attention
from promptpanda.prompts.attention import PromptCall
from promptpanda.prompts.families.carrying import CarriesPrompt, carry, current_prompt


class _Attention(BloomAttention):
    is_causal = True

    def forward(
        self,
        hidden_states: Tensor,
        residual: Tensor,
        alibi: Tensor,
        attention_mask: Tensor | None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        prompt = current_prompt()
        if prompt is None:
            return super().forward(hidden_states, residual, alibi, attention_mask, *args, **kwargs)
        query, key, value = self._reshape(self.query_key_value(hidden_states))
        bias = alibi.unflatten(0, (-1, self.num_heads))
        before = None
        if isinstance(prompt, PromptCall):
            places = torch.arange(-prompt.length, 0, device=bias.device)
            before = (_get_alibi_slopes(self.num_heads, bias.device)[:, None, None] * places).to(bias.dtype)
        context = attention.attend(
            self, query, key, value, bias, attention_mask, prompt, self.inv_norm_factor, before=before
        )
        return dropout_add(self.dense(context.flatten(2)), residual, self.hidden_dropout, self.training), None


class _Block(CarriesPrompt, BloomBlock):
    pass


def prepare(model: PreTrainedModel) -> None:
    """Let a loaded model take prompts."""
    carry(model, {BloomAttention: _Attention, BloomBlock: _Block})
