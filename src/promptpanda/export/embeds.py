"""A shallow prompt as the embeddings that vLLM's `prompt_embeds` takes."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from promptpanda.backbone import Backbone
from promptpanda.bank.folder import TrainedPrompt
from promptpanda.errors import PandaError
from promptpanda.export.onnx import check_target
from promptpanda.files import sync


def export_embeds(trained: TrainedPrompt, backbone: Backbone, target: Path, *, force: bool = False) -> tuple[int, int]:
    """Write the virtual tokens as torch.save writes a tensor, whole or not at all.

    Returns:
        The shape: virtual tokens, and the size of an embedding.

    Raises:
        PandaError: it is not a shallow prompt of a decoder, or `target` exists.
    """
    if trained.prompt is None or trained.prompt.kind != "shallow":
        raise PandaError(
            f"{trained.card.id} is not a shallow prompt, and vLLM's prompt_embeds takes nothing but embeddings before "
            "the "
            "text; train one with --prompt-kind shallow, or serve this one with --onnx."
        )
    if not backbone.causal:
        raise PandaError(f"{backbone.name} is not a decoder, and vLLM's prompt_embeds is for decoders; use --onnx.")
    check_target(target, force)
    target.parent.mkdir(parents=True, exist_ok=True)
    tensor = trained.prompt.tensor.contiguous().clone()
    staging = target.parent / f".{target.name}.{os.getpid()}"
    try:
        torch.save(tensor, staging)
        sync(staging)
        staging.replace(target)
    except BaseException:
        staging.unlink(missing_ok=True)
        raise
    return int(tensor.shape[0]), int(tensor.shape[1])
