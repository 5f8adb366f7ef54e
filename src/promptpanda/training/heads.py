"""The head: a linear readout of hidden states, kept beside the prompt and separable from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from promptpanda.backbone import Backbone, TextBatch
from promptpanda.depth import Below
from promptpanda.names import HeadReadout, Readout
from promptpanda.prompts.prompt import PromptStack
from promptpanda.tasks.encoding import Layout


def features(
    backbone: Backbone,
    batch: TextBatch,
    layout: Layout,
    prompts: PromptStack | None,
    readout: HeadReadout,
    below: Below | None = None,
) -> Tensor:
    """Run the model, and give what a head reads: the tokens that the layout names, or one vector a row.

    Args:
        below: what enters the lowest of the layers that are run, of rows as `separated` makes them; None: all are run.

    *Shape:* (rows, units, hidden_size), or (rows, width of `width_of`).
    """
    batch, prompts = separated(batch, prompts)
    hidden = backbone.hidden(batch, prompts, first_only=readout in ("cls", "pooler"), below=below)
    return read_hidden(backbone, hidden, batch, layout, readout)


def read_hidden(backbone: Backbone, hidden: Tensor, batch: TextBatch, layout: Layout, readout: HeadReadout) -> Tensor:
    """What a head reads of hidden states that are there already.

    *Shape:* (rows, tokens, hidden_size) -> (rows, units, hidden_size), or (rows, width of `width_of`). Of pairs
    that are compared, hidden states are those of first texts and, behind them, of second ones (`TextBatch.apart`).
    """
    if readout != "token":
        return pooled(backbone, hidden, batch.attention_mask, readout)
    assert layout.units is not None
    return hidden.gather(1, layout.units[:, :, None].expand(-1, -1, hidden.shape[2]))


def separated(batch: TextBatch, prompts: PromptStack | None) -> tuple[TextBatch, PromptStack | None]:
    """What the model is run on: of pairs that are read apart each text as a row, under its pair's prompt."""
    if batch.second is None:
        return batch, prompts
    return batch.apart(), None if prompts is None else prompts.repeated(2)


def pooled(backbone: Backbone, hidden: Tensor, attention_mask: Tensor, readout: Readout | Literal["compare"]) -> Tensor:
    """One vector a row, or a pair of rows.

    *Shape:* (rows, tokens, hidden_size) -> (rows, hidden_size), or (rows / 2, width of `width_of`).
    """
    if readout != "compare":
        return backbone.read(hidden, attention_mask, readout)
    means = backbone.read(hidden, attention_mask, "mean")
    pairs = means.shape[0] // 2  # slices, since the ONNX exporter cannot write `chunk`
    return compared(means[:pairs], means[pairs:])


def compared(first: Tensor, second: Tensor) -> Tensor:
    """What a head reads of two texts that are read apart: |u - v| and u * v, of vectors with a mean square of one.

    The features of InferSent (Conneau et al. 2017, arXiv 1705.02364) without u and v themselves. The mean of the second
    half is the cosine.

    *Shape:* (rows, hidden_size) twice -> (rows, 2 x hidden_size).
    """
    root = first.shape[1] ** 0.5
    first, second = (nn.functional.normalize(vectors, dim=1) * root for vectors in (first, second))
    return torch.cat([(first - second).abs(), first * second], dim=1)


def width_of(readout: HeadReadout, hidden_size: int) -> int:
    """How many numbers a head reads."""
    return 2 * hidden_size if readout == "compare" else hidden_size


@dataclass(frozen=True)
class Head:
    """A trained readout whose outputs are logits, or values in the units of the labels.

    Attributes:
        weight: *Shape:* (outputs, width of `width_of`).
        bias: *Shape:* (outputs,), or None (readout `last`, as in transformers' sequence classifiers of decoders).
        readout: how hidden states become the vector that it reads; `token`: each token's own.
    """

    weight: Tensor
    bias: Tensor | None
    readout: HeadReadout

    def __call__(self, pooled: Tensor) -> Tensor:
        """*Shape:* (..., width) -> (..., outputs)."""
        return nn.functional.linear(pooled, self.weight.to(pooled), None if self.bias is None else self.bias.to(pooled))


def fresh_head(width: int, outputs: int, *, bias: bool, generator: torch.Generator) -> nn.Linear:
    """A new head: N(0, 0.02^2) weights and zero bias, as transformers initialises classifiers."""
    # Without torch's own first values: they would be drawn from a stream that is not ours.
    head: nn.Linear = nn.utils.skip_init(nn.Linear, width, outputs, bias=bias)
    with torch.no_grad():
        head.weight.copy_(torch.randn(head.weight.shape, generator=generator) * 0.02)
        if bias:
            head.bias.zero_()
    return head


@dataclass(frozen=True)
class HeadStart:
    """A kept head to go on from.

    Attributes:
        head: as it was kept.
        rows: of each output, the output of `head` whose numbers it takes; None: fresh ones.
    """

    head: Head
    rows: tuple[int | None, ...]


def started(fresh: nn.Linear, start: HeadStart, *, scale: float, shift: float) -> nn.Linear:
    """A fresh head with the numbers of a kept one, which had another scale and shift folded in (see `folded`).

    It has a bias where the kept head has one, also where a fresh head would have none.
    """
    taken = [place for place, row in enumerate(start.rows) if row is not None]
    known = [row for row in start.rows if row is not None]
    kept = start.head
    head: nn.Linear = nn.utils.skip_init(
        nn.Linear, fresh.in_features, fresh.out_features, bias=kept.bias is not None or shift != 0.0
    )
    with torch.no_grad():
        head.weight.copy_(fresh.weight)
        head.weight[taken] = kept.weight[known] / scale
        if head.bias is not None:
            head.bias.zero_()
            bias = torch.zeros(len(kept.weight)) if kept.bias is None else kept.bias
            head.bias[taken] = (bias[known] - shift) / scale
    return head


def no_head(width: int) -> nn.Linear:
    """A head that hands on what it reads, and does not learn."""
    head: nn.Linear = nn.utils.skip_init(nn.Linear, width, width, bias=False)
    with torch.no_grad():
        head.weight.copy_(torch.eye(width))
    return head.requires_grad_(False)


def folded(head: nn.Linear, *, scale: float, shift: float, readout: HeadReadout) -> Head:
    """The head with the objective's scale and shift folded into weight and bias.

    A head without bias cannot take a shift; it gets a bias then.
    """
    weight = head.weight.detach().clone() * scale
    bias = None if head.bias is None else head.bias.detach().clone() * scale
    if shift != 0.0:
        bias = (torch.zeros(weight.shape[0], device=weight.device) if bias is None else bias) + shift
    return Head(weight.cpu(), None if bias is None else bias.cpu(), readout)
