"""Families whose attention does not go through transformers' attention interface: one file each.

A file writes out the family's attention once more, up to the point where keys and values exist, and hands them to
`promptpanda.prompts.attention`; `prepare` gives that attention to a loaded model by changing the classes of its layers.
Weights, names and everything else of the model stay as they are, and without a prompt the family's own code runs.
"""

from __future__ import annotations

from importlib import import_module

from transformers import PreTrainedConfig, PreTrainedModel

from promptpanda.prompts import attention

_FILES = {
    "bloom": "bloom",
    "deberta": "deberta",
    "deberta-v2": "deberta_v2",
    "falcon": "falcon",
    "mpnet": "mpnet",
}


def implementation(config: PreTrainedConfig) -> str:
    """The attention that a model of this config is built with."""
    return "eager" if config.model_type in _FILES else attention.NAME


def prepare(model: PreTrainedModel) -> PreTrainedModel:
    """The model as it takes prompts: of an encoder-decoder its encoder; where need be, with layers that carry them."""
    if model.config.is_encoder_decoder:
        model = model.get_encoder()
    if model.config.model_type in _FILES:
        import_module(f"{__name__}.{_FILES[model.config.model_type]}").prepare(model)
    return model
