"""A backbone under prompts as an ONNX graph, cut out of the very code that runs it here."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from promptpanda.backbone import Backbone, TextBatch
from promptpanda.errors import PandaError
from promptpanda.names import HeadReadout, Readout
from promptpanda.prompts.prompt import Prompt, PromptStack
from promptpanda.training.heads import Head, pooled

_OPSET = 20
_DYNAMIC = torch.export.Dim.DYNAMIC


class FoldedGraph(nn.Module):
    """Tokens to the outputs of one prompt's head; prompt and head are constants of the graph.

    The output `logits` is of *shape:* (batch, outputs), of a head that reads tokens (batch, tokens, outputs). Pairs
    that are compared stand in twice as many rows, first texts before second ones, with one row of outputs a pair.
    """

    outputs = ("logits",)

    def __init__(self, backbone: Backbone, prompt: Prompt | None, head: Head) -> None:
        super().__init__()
        self.model = backbone.model
        self._backbone, self._head = backbone.padded(), head
        self._stack = None if prompt is None else PromptStack(prompt.kind, prompt.tensor[None])

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        hidden = self._backbone.hidden(TextBatch(input_ids, attention_mask, token_type_ids), self._stack)
        return self._head(read_all(self._backbone, hidden, attention_mask, self._head.readout))


class SharedGraph(nn.Module):
    """Tokens and prefixes to what heads read; every row names its prefix.

    Inputs beside the tokens: `keys` and `values`, *shape:* (prompts, layers, heads, V, head_dim), and `rows`, which
    prompt each row of the batch uses, *shape:* (batch,). Each output is what heads of the readout of its name read:
    `read_token`, *shape:* (batch, tokens, hidden), the others (batch, hidden).
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.model = backbone.model
        self._backbone = backbone.padded()
        self._readouts: tuple[Readout, ...] = ("mean", "cls", "last", *(("pooler",) if backbone.has_pooler else ()))
        # `mean` alone would be a name that the exporter gives to values inside the graph too.
        self.outputs = tuple(f"read_{name}" for name in ("token", *self._readouts))

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        keys: Tensor,
        values: Tensor,
        rows: Tensor,
        token_type_ids: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        stack = PromptStack("prefix", torch.stack([keys, values], dim=2), rows)
        hidden = self._backbone.hidden(TextBatch(input_ids, attention_mask, token_type_ids), stack)
        read = [self._backbone.read(hidden, attention_mask, name) for name in self._readouts]
        return (hidden, *read)


def read_all(backbone: Backbone, hidden: Tensor, attention_mask: Tensor, readout: HeadReadout) -> Tensor:
    """What a head reads, of a head of tokens every token. *Shape:* (rows, ..., width); of pairs (rows / 2, width)."""
    return hidden if readout == "token" else pooled(backbone, hidden, attention_mask, readout)


def example_inputs(backbone: Backbone, lengths: tuple[int, ...] = (7, 4, 5, 2), seed: int = 0) -> dict[str, Tensor]:
    """Random tokens, to trace a graph with and to compare with: as many rows as lengths, padded on the right."""
    generator = torch.Generator().manual_seed(seed)
    mask = (torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]).long()
    words = int(backbone.config.vocab_size)
    ids = torch.randint(words // 2, words, mask.shape, generator=generator)
    inputs = {"input_ids": torch.where(mask.bool(), ids, backbone.tokenizer.pad_token_id or 0), "attention_mask": mask}
    if _takes_segments(backbone):
        inputs["token_type_ids"] = torch.zeros_like(mask)
    return inputs


def write_graph(graph: FoldedGraph | SharedGraph, inputs: dict[str, Tensor], path: Path) -> None:
    """Trace a graph with examples of its inputs, and write it; batch, tokens and virtual tokens may be of any number.

    Raises:
        PandaError: a package is missing, or torch cannot trace the family.
    """
    shapes = {name: _dynamic(name, tensor) for name, tensor in inputs.items()}
    with _quiet(), torch.no_grad():
        try:
            program: Any = torch.onnx.export(
                graph.eval(),
                (),
                kwargs=inputs,
                input_names=list(inputs),
                output_names=list(graph.outputs),
                dynamic_shapes=shapes,
                opset_version=_OPSET,
                dynamo=True,
                verbose=False,
            )
        except ImportError as error:
            raise missing(error) from error
        except torch.onnx.OnnxExporterError as error:
            raise PandaError(
                "torch cannot write this model's family as an ONNX graph with batches and texts of any size; serve it "
                "with `panda serve`."
            ) from error
        program.save(str(path))


def run_graph(path: Path, inputs: dict[str, Tensor]) -> list[Any]:
    """What ONNX Runtime makes of inputs, as arrays in the order of the graph's outputs."""
    try:
        import onnxruntime
    except ImportError as error:
        raise missing(error) from error
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found: list[Any] = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
    return found


def missing(error: ImportError) -> PandaError:
    """For an installation without the extra."""
    return PandaError(f"ONNX needs packages that are not installed ({error}); pip install 'promptpanda[onnx]'.")


def _takes_segments(backbone: Backbone) -> bool:
    named = "token_type_ids" in backbone.tokenizer.model_input_names
    return named and "token_type_ids" in inspect.signature(backbone.model.forward).parameters


def _dynamic(name: str, tensor: Tensor) -> dict[int, Any]:
    if name in ("keys", "values"):
        return {0: _DYNAMIC, 3: _DYNAMIC}
    return {place: _DYNAMIC for place in range(tensor.ndim)}


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns of packages that nobody needs here, and of its own inner workings."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
