# mypy: disable-error-code="no-untyped-call, arg-type"
"""MPNet: a bias by relative position beside absolute positions.

A virtual token has no relative position: the bias is zero there. The absolute positions of the text begin behind the
prompt, as in BERT.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import PreTrainedModel
from transformers.models.mpnet.modeling_mpnet import MPNetLayer, MPNetSelfAttention

from promptpanda.prompts import attention
from promptpanda.prompts.families.carrying import CarriesPrompt, carry, current_prompt


class _Attention(MPNetSelfAttention):
    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        position_bias: Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        prompt = current_prompt()
        if prompt is None or position_bias is None:
            return super().forward(hidden_states, attention_mask, position_bias, *args, **kwargs)
        query, key, value = (
            of(hidden_states).unflatten(-1, (-1, self.attention_head_size)).transpose(1, 2)
            for of in (self.q, self.k, self.v)
        )
        scaling = self.attention_head_size**-0.5
        context = attention.attend(self, query, key, value, position_bias, attention_mask, prompt, scaling)
        return (self.o(context.flatten(2)),)


class _Layer(CarriesPrompt, MPNetLayer):
    pass


def prepare(model: PreTrainedModel) -> None:
    """Let a loaded model take prompts."""
    carry(model, {MPNetSelfAttention: _Attention, MPNetLayer: _Layer})
