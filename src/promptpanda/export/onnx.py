"""Folders with an ONNX graph, its tokenizer, and what a reader of the outputs must know. Checked before they appear."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from promptpanda.backbone import Backbone, TextBatch
from promptpanda.bank.folder import TrainedPrompt
from promptpanda.errors import PandaError
from promptpanda.export.graph import FoldedGraph, SharedGraph, example_inputs, read_all, run_graph, write_graph
from promptpanda.files import remove_folder, whole_folder
from promptpanda.prompts.prompt import PromptStack
from promptpanda.training.heads import Head

GRAPH_NAME = "model.onnx"
TOLERANCE = 1e-4
_LENGTHS = ((7, 4, 5, 2), (3, 3), (6, 11))  # of the texts that graph and model are compared on


def export_folded(trained: TrainedPrompt, backbone: Backbone, target: Path, *, force: bool = False) -> float:
    """Write the graph of one prompt with its head.

    Returns:
        The largest difference between ONNX Runtime's outputs and ours, on random tokens.

    Raises:
        PandaError: a package is missing, the outputs differ, or `target` exists.
    """
    check_target(target, force)
    graph = FoldedGraph(backbone, trained.prompt, trained.head)
    with whole_folder(target) as staging:
        write_graph(graph, example_inputs(backbone), staging / GRAPH_NAME)
        worst = 0.0
        for seed, lengths in enumerate(_LENGTHS):
            inputs = example_inputs(backbone, lengths, seed)
            ours = _outputs(backbone, trained, inputs)
            worst = max(worst, _difference(run_graph(staging / GRAPH_NAME, inputs)[0], ours, inputs, trained.head))
        _check_equal(worst)
        _write_beside(staging, backbone, _facts(trained))
        _make_room(target)
    return worst


def export_shared(prompts: Sequence[TrainedPrompt], backbone: Backbone, target: Path, *, force: bool = False) -> float:
    """Write one graph of the backbone, and each prompt as prompts/ID.npz: keys, values, weight, bias, labels, readout.

    Returns and raises: as `export_folded`; also PandaError for prompts that are no prefixes.
    """
    check_target(target, force)
    for trained in prompts:
        if trained.prompt is None or trained.prompt.kind != "prefix":
            raise PandaError(
                f"{trained.card.id} is not a prefix, and a shared graph takes prefixes alone; leave out --shared."
            )
    graph = SharedGraph(backbone)
    with whole_folder(target) as staging:
        (staging / "prompts").mkdir()
        for trained in prompts:
            np.savez(staging / "prompts" / f"{trained.card.id}.npz", **_arrays(trained))
        inputs = example_inputs(backbone)
        inputs |= _prefixes(prompts[:1], len(inputs["input_ids"]))
        write_graph(graph, inputs, staging / GRAPH_NAME)
        worst = max(_compared(staging, graph, backbone, trained) for trained in prompts)
        _check_equal(worst)
        _write_beside(staging, backbone, {"backbone": backbone.name, "fingerprint": backbone.fingerprint})
        _make_room(target)
    return worst


def check_target(target: Path, force: bool) -> None:
    """Raises PandaError if something is there that was not to be replaced."""
    if (target.exists() or target.is_symlink()) and not force:
        raise PandaError(f"{target} already exists; replace it with --force, or choose another name.")


def _make_room(target: Path) -> None:
    if target.is_dir() or target.is_symlink():
        remove_folder(target)
    elif target.exists():
        target.unlink()


def _outputs(backbone: Backbone, trained: TrainedPrompt, inputs: dict[str, torch.Tensor]) -> np.ndarray:
    """What we make of tokens, in the ordinary way. *Shape:* (rows, outputs), or (rows, tokens, outputs)."""
    batch = TextBatch(inputs["input_ids"], inputs["attention_mask"], inputs.get("token_type_ids")).to(backbone.device)
    head = trained.head
    stack = None
    if trained.prompt is not None:
        stack = PromptStack(trained.prompt.kind, trained.prompt.tensor[None].to(backbone.device))
    with torch.inference_mode():
        hidden = backbone.hidden(batch, stack)
        outputs: np.ndarray = head(read_all(backbone, hidden, batch.attention_mask, head.readout)).float().cpu().numpy()
    return outputs


def _difference(theirs: np.ndarray, ours: np.ndarray, inputs: dict[str, torch.Tensor], head: Head) -> float:
    """The largest, measured by the size of the outputs where that is above 1."""
    if head.readout == "token":
        there = inputs["attention_mask"].bool().numpy()
        theirs, ours = theirs[there], ours[there]
    return float(np.max(np.abs(theirs - ours)) / max(1.0, float(np.max(np.abs(ours)))))


def _compared(folder: Path, graph: SharedGraph, backbone: Backbone, trained: TrainedPrompt) -> float:
    """As whoever uses the folder: the prompt from its file, the head in NumPy."""
    stored = np.load(folder / "prompts" / f"{trained.card.id}.npz", allow_pickle=False)
    worst = 0.0
    for seed, lengths in enumerate(_LENGTHS):
        inputs = example_inputs(backbone, lengths, seed)
        found = run_graph(folder / GRAPH_NAME, inputs | _prefixes([trained], len(lengths)))
        read = _read_by(stored["readout"], graph, found)
        ours = _outputs(backbone, trained, inputs)
        worst = max(worst, _difference(read @ stored["weight"].T + stored["bias"], ours, inputs, trained.head))
    return worst


def _read_by(readout: str, graph: SharedGraph, found: list[np.ndarray]) -> np.ndarray:
    """What a head takes of the graph's outputs; pairs are compared in NumPy (training/heads.py)."""
    if readout != "compare":
        return found[graph.outputs.index(f"read_{readout}")]
    mean = found[graph.outputs.index("read_mean")]
    scaled = mean / np.sqrt((mean**2).mean(axis=1, keepdims=True))
    first, second = np.split(scaled, 2)
    return np.concatenate([np.abs(first - second), first * second], axis=1)


def _check_equal(worst: float) -> None:
    if not worst <= TOLERANCE:
        raise PandaError(
            f"ONNX Runtime's outputs differ from ours by {worst:.1e}, and {TOLERANCE:.0e} is the most that is let "
            "pass; nothing was written."
        )


def _prefixes(prompts: Sequence[TrainedPrompt], rows: int) -> dict[str, torch.Tensor]:
    """The graph's inputs of prompts, of which every row uses the first."""
    tensors = torch.stack([trained.prompt.tensor for trained in prompts if trained.prompt is not None])
    keys, values = tensors[:, :, 0].contiguous(), tensors[:, :, 1].contiguous()
    return {"keys": keys, "values": values, "rows": torch.zeros(rows, dtype=torch.long)}


def _arrays(trained: TrainedPrompt) -> dict[str, Any]:
    assert trained.prompt is not None
    head = trained.head
    bias = torch.zeros(head.weight.shape[0]) if head.bias is None else head.bias
    return {
        "keys": trained.prompt.tensor[:, 0].numpy(),
        "values": trained.prompt.tensor[:, 1].numpy(),
        "weight": head.weight.numpy(),
        "bias": bias.numpy(),
        "labels": np.array(trained.card.labels, dtype=np.str_),
        "readout": np.array(head.readout),
        "facts": np.array(json.dumps(_facts(trained), ensure_ascii=False)),
    }


def _facts(trained: TrainedPrompt) -> dict[str, Any]:
    card = trained.card
    return {
        "id": card.id,
        "task": card.task.name,
        "kind": card.task.kind.value,
        "segments": card.task.segments,
        "labels": card.labels,
        "readout": card.readout,
        "max_length": card.options.max_length,
        "prompt_length": card.prompt_length,
        "threshold": card.threshold,
        "backbone": card.backbone.name,
        "fingerprint": card.backbone.fingerprint,
    }


def _write_beside(folder: Path, backbone: Backbone, facts: dict[str, Any]) -> None:
    backbone.tokenizer.save_pretrained(folder)
    (folder / "promptpanda.json").write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
