"""The upper layers of a model alone: what the lower ones make of a text is kept, and put in where they end.

Where the prefixes of the lower layers do not learn, the hidden states behind them are constants, and neither pass needs
to enter those layers again. For the time of a call a lower layer hands on what it gets, and the first layer above takes
what was kept instead.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from promptpanda.prompts.attention import LayerIndex


@dataclass(frozen=True)
class Below:
    """What enters a layer of the model; all layers before it are left out.

    Attributes:
        layer: the first layer that is run.
        states: *Shape:* (batch, tokens, hidden_size); what stands at padding is not read.
    """

    layer: int
    states: Tensor


class Layers:
    """The layers of a model, which can be listened to and left out."""

    def __init__(self, blocks: tuple[nn.Module, ...]) -> None:
        self._blocks = blocks
        self._parts = 0  # of the tuple that a layer gives; 0: hidden states alone

    @classmethod
    def of(cls, model: nn.Module, index: LayerIndex) -> Layers | None:
        """None where layers share their weights, or are no plain list of modules."""
        for modules in () if index.shared else model.modules():
            if isinstance(modules, nn.ModuleList) and len(modules) == index.layers:
                own = [set(map(id, block.modules())) for block in modules]
                if all(id(module) in found for module, found in zip(index.modules, own, strict=True)):
                    return cls(tuple(modules))
        return None

    @contextlib.contextmanager
    def recorded(self, layer: int) -> Iterator[list[Tensor]]:
        """Within, what enters a layer is added to the list, pass by pass."""
        found: list[Tensor] = []

        def enters(_: nn.Module, inputs: tuple[Any, ...], others: dict[str, Any]) -> None:
            found.append(inputs[0] if inputs else others["hidden_states"])

        def leaves(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            self._parts = len(output) if isinstance(output, tuple) else 0

        with contextlib.ExitStack() as scope:
            block = self._blocks[layer]
            scope.callback(block.register_forward_pre_hook(enters, with_kwargs=True).remove)
            scope.callback(block.register_forward_hook(leaves).remove)
            yield found

    @contextlib.contextmanager
    def continued(self, layer: int, states: Tensor) -> Iterator[None]:
        """Within, the layers below `layer` do nothing, and `layer` takes `states`. Something was recorded before."""

        def enter(_: nn.Module, inputs: tuple[Any, ...], others: dict[str, Any]) -> Any:
            return ((states, *inputs[1:]), others) if inputs else (inputs, others | {"hidden_states": states})

        with contextlib.ExitStack() as scope:
            for block in self._blocks[:layer]:
                scope.enter_context(self._idle(block))
            scope.callback(self._blocks[layer].register_forward_pre_hook(enter, with_kwargs=True).remove)
            yield

    @contextlib.contextmanager
    def _idle(self, block: nn.Module) -> Iterator[None]:
        own = block.__dict__.get("forward")  # accelerate sets one on models that are spread over devices

        def forward(*inputs: Any, **others: Any) -> Any:
            hidden = inputs[0] if inputs else others["hidden_states"]
            return (hidden, *[None] * (self._parts - 1)) if self._parts else hidden

        block.forward = forward
        try:
            yield
        finally:
            del block.forward
            if own is not None:
                block.forward = own
