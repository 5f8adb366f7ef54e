"""The prompt: a typed value around one tensor, and stacks of prompts from which every row of a batch picks its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from promptpanda.errors import PandaError
from promptpanda.names import PromptKind
from promptpanda.prompts.dropout import keep_mask_of_rows


@dataclass(frozen=True)
class PromptShape:
    """The shape of a backbone's prompts, read from the model itself by `Backbone.load`.

    Attributes:
        layers: attention layers, in the order in which they are called.
        heads: key/value heads (fewer than query heads in grouped-query models).
        head_dim: size of one head.
        embedding_dim: size of an input embedding.
    """

    layers: int
    heads: int
    head_dim: int
    embedding_dim: int

    def of(self, kind: PromptKind, length: int) -> tuple[int, ...]:
        """The tensor shape of a prompt with `length` virtual tokens."""
        if kind == "prefix":
            return (self.layers, 2, self.heads, length, self.head_dim)
        return (length, self.embedding_dim)


@dataclass(frozen=True)
class Prompt:
    """A soft prompt: trained numbers that are put in front of every input of a frozen model.

    V is its number of virtual tokens.

    Attributes:
        kind: `prefix` (keys and values for every layer: P-tuning v2, arXiv 2110.07602; prefix tuning, arXiv 2101.00190)
            or `shallow` (input embeddings: Lester et al., arXiv 2104.08691).
        tensor: the numbers. Of a prefix, keys first, *Shape:* (layers, 2, heads, V, head_dim); of a shallow prompt
            *Shape:* (V, embedding_dim).

    Raises:
        PandaError: the tensor does not have the shape of its kind, or no virtual token.
    """

    kind: PromptKind
    tensor: Tensor

    def __post_init__(self) -> None:
        expected = 5 if self.kind == "prefix" else 2
        if self.tensor.ndim != expected or (self.kind == "prefix" and self.tensor.shape[1] != 2):
            raise PandaError(
                f"A {self.kind} prompt needs a tensor of {expected} dimensions"
                f"{' with keys and values in the second' if self.kind == 'prefix' else ''}, found shape "
                f"{tuple(self.tensor.shape)}."
            )
        if self.length == 0:
            raise PandaError("A prompt needs at least one virtual token, found none.")

    @property
    def length(self) -> int:
        """V, the number of virtual tokens."""
        return int(self.tensor.shape[-2])

    def fits(self, shape: PromptShape) -> bool:
        """Whether a backbone with this shape (`Backbone.shape`) can use the prompt."""
        return tuple(self.tensor.shape) == shape.of(self.kind, self.length)

    @classmethod
    def fresh(cls, kind: PromptKind, shape: PromptShape, length: int, std: float, generator: torch.Generator) -> Prompt:
        """A new prompt with normally distributed values of mean 0.

        Args:
            kind: `prefix` or `shallow`.
            shape: the backbone's (`Backbone.shape`).
            length: V, virtual tokens, at least 1.
            std: standard deviation of the values.
            generator: the random generator; one on the CPU gives the same prompt for every device.
        """
        return cls(kind, torch.randn(shape.of(kind, length), generator=generator) * std)

    def permuted(self, rng: np.random.Generator) -> Prompt:
        """The same values in random order; of a prefix, the keys and the values of each layer among themselves.

        Only the scale of the prompt is left.
        """
        groups = self.tensor.flatten(0, 1).flatten(1) if self.kind == "prefix" else self.tensor.reshape(1, -1)
        mixed = [group[torch.from_numpy(rng.permutation(len(group))).to(group.device)] for group in groups]
        return Prompt(self.kind, torch.stack(mixed).reshape(self.tensor.shape))


@dataclass(frozen=True)
class PromptStack:
    """K prompts of one kind and length, and which of them each row of a batch uses.

    Attributes:
        kind: the kind all prompts share.
        tensor: *Shape:* (K, ...) with the prompt shape of `Prompt.tensor`; a gradient flows back into it.
        rows: *Shape:* (batch,), values in 0..K-1; None lets every row use prompt 0.
        dropout: probability with which an element of a row's prompt is zeroed (the rest is scaled up), 0 for none.
        generators: sources of the dropout masks, one a prompt, on the tensor's device; none for torch's own.
    """

    kind: PromptKind
    tensor: Tensor
    rows: Tensor | None = None
    dropout: float = 0.0
    generators: tuple[torch.Generator, ...] = ()

    @property
    def length(self) -> int:
        """V, the number of virtual tokens."""
        return int(self.tensor.shape[-2])

    @classmethod
    def of(cls, prompts: Sequence[Prompt], rows: Tensor | None = None) -> PromptStack:
        """Stack prompts. Raises PandaError if they differ in kind or shape."""
        if len({(prompt.kind, tuple(prompt.tensor.shape)) for prompt in prompts}) != 1:
            found = ", ".join(f"{prompt.kind} {tuple(prompt.tensor.shape)}" for prompt in prompts)
            raise PandaError(f"Prompts of one batch must share kind and shape, found: {found}.")
        return cls(prompts[0].kind, torch.stack([prompt.tensor for prompt in prompts]), rows)

    def repeated(self, times: int) -> PromptStack:
        """For a batch that holds its rows so many times, one repetition after the other."""
        return self if self.rows is None else replace(self, rows=self.rows.repeat(times))

    def for_batch(self, size: int) -> Tensor:
        """The prompt of every row, dropout applied. *Shape:* (size, ...)."""
        if self.rows is None:
            tensor = self.tensor[:1].expand(size, *self.tensor.shape[1:])
        else:
            tensor = self.tensor[self.rows]
        if self.dropout == 0.0:
            return tensor
        keep = keep_mask_of_rows(tensor.shape, self.dropout, tensor.device, self.generators, self.rows, 0)
        return tensor * keep.div_(1.0 - self.dropout)
