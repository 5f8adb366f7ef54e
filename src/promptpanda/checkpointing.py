"""Gradient checkpointing of a backbone: layers are computed again in the backward pass instead of being kept."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

_FUNCTION = "_gradient_checkpointing_func"  # of transformers, on every layer that can be checkpointed


def switch_checkpointing(model: PreTrainedModel, on: bool) -> None:
    """Turn it on or off for all layers.

    transformers checkpoints only modules in training mode; so the checkpointing layers alone are put in it, for as long
    as it is asked; while they run they are in the model's mode as all the rest (eval: no dropout).
    """
    if on:
        model.activation_checkpointing_enable({"use_reentrant": False})
        # transformers lets the embeddings require a gradient, as the reentrant kind needs, and leaves it so.
        model.disable_input_require_grads()
    else:
        model.activation_checkpointing_disable()
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            module.training = on
            if on:
                setattr(module, _FUNCTION, partial(_checkpointed, model, module, getattr(module, _FUNCTION)))


def _checkpointed(
    model: PreTrainedModel, layer: nn.Module, checkpoint: Callable[..., Any], run: Callable[..., Any], *args: Any
) -> Any:
    """Checkpoint a layer that runs, now and when it is computed again, in its model's mode."""

    def run_in_mode(*inputs: Any) -> Any:
        before, layer.training = layer.training, model.training
        try:
            return run(*inputs)
        finally:
            layer.training = before

    return checkpoint(run_in_mode, *args)
