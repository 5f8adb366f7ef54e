"""How many positions a model has, and which table holds them."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel


def position_limit(model: PreTrainedModel) -> int | None:
    """How many positions inputs and prompt may take together, or None if there is no limit."""
    table = position_table(model)
    if table is not None:
        return table.num_embeddings - (0 if table.padding_idx is None else int(table.padding_idx) + 1)
    limit = getattr(model.config, "max_position_embeddings", None)
    return None if limit is None else int(limit)


def position_table(model: PreTrainedModel) -> nn.Embedding | None:
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and name.rsplit(".", 1)[-1] in ("position_embeddings", "wpe"):
            return module
    return None
