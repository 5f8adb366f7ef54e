"""A prompt as trainable parameters: directly, or through an MLP that is folded away when training ends."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from promptpanda.prompts.prompt import Prompt


class DirectPrompt(nn.Module):
    """The prompt tensor itself is the parameter; or of a prefix the part of the upper layers.

    Attributes:
        tensor: what learns. *Shape:* that of `Prompt.tensor`, with the layers that learn.
        fixed: the layers below, which do not. *Shape:* that of `Prompt.tensor`, with the other layers; None: all learn.
    """

    fixed: Tensor | None

    def __init__(self, start: Prompt, train_layers: int | None = None) -> None:
        super().__init__()
        self.kind = start.kind
        below = 0 if train_layers is None else len(start.tensor) - train_layers
        self.tensor = nn.Parameter(start.tensor[below:].clone())
        self.register_buffer("fixed", start.tensor[:below].clone() if below else None)

    @property
    def learning(self) -> Tensor:
        """What learns, of a prefix with the layers that do. *Shape:* that of `Prompt.tensor`, with these layers."""
        return self.tensor

    def forward(self) -> Tensor:
        """The prompt tensor, with `Prompt.tensor`'s shape."""
        return self.tensor if self.fixed is None else torch.cat([self.fixed, self.tensor])


class ReparameterizedPrompt(nn.Module):
    """V embeddings through an MLP of two layers give the prompt (prefix tuning, Li and Liang, arXiv 2101.00190, 4.3).

    A training device only: what is kept is the folded tensor. It cannot start from a trained prompt, since the MLP has
    no inverse.

    Attributes:
        fixed: None: all layers learn.
    """

    fixed: Tensor | None = None

    def __init__(self, start: Prompt, embedding_dim: int, hidden: int, generator: torch.Generator) -> None:
        """`start` gives kind and shape; its values are not used."""
        super().__init__()
        self.kind = start.kind
        # V to the front, everything that belongs to one virtual token behind it.
        self._token_shape = start.tensor.movedim(-2, 0).shape
        width = start.tensor.numel() // start.length
        self.embedding = nn.Parameter(torch.randn(start.length, embedding_dim, generator=generator))
        self.mlp = nn.Sequential(nn.Linear(embedding_dim, hidden), nn.Tanh(), nn.Linear(hidden, width))
        with torch.no_grad():
            for parameter in self.mlp.parameters():
                bound = parameter.shape[-1] ** -0.5 if parameter.ndim == 2 else 0.0
                parameter.copy_((torch.rand(parameter.shape, generator=generator) * 2 - 1) * bound)

    @property
    def learning(self) -> Tensor:
        """The prompt tensor, all of which learns."""
        return self()  # type: ignore[no-any-return]

    def forward(self) -> Tensor:
        """The prompt tensor, with `Prompt.tensor`'s shape."""
        folded: Tensor = self.mlp(self.embedding)
        return folded.view(self._token_shape).movedim(0, -2)
