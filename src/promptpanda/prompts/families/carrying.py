"""How a prompt reaches attention modules to which a model hands no further arguments.

A hook on the model keeps the `prompt` of a call for as long as the call takes, by thread; each layer takes it along as
an argument of its own, so that a layer which gradient checkpointing runs once more, in the backward pass, has it again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch import nn

from promptpanda.prompts.attention import PromptCall, RecordingCall

_CURRENT: ContextVar[PromptCall | RecordingCall | None] = ContextVar("prompt", default=None)


def current_prompt() -> PromptCall | RecordingCall | None:
    """The prompt of the layer that is running."""
    return _CURRENT.get()


class CarriesPrompt:
    """Stands before a layer's class: whoever calls the layer, the prompt comes along."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(*args, prompt=_CURRENT.get(), **kwargs)  # type: ignore[misc]

    def forward(self, *args: Any, prompt: PromptCall | RecordingCall | None = None, **kwargs: Any) -> Any:
        with _running_under(prompt):
            return super().forward(*args, **kwargs)  # type: ignore[misc]


@contextmanager
def _running_under(prompt: PromptCall | RecordingCall | None) -> Iterator[None]:
    token = _CURRENT.set(prompt)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def carry(model: nn.Module, classes: Mapping[type[nn.Module], type[nn.Module]]) -> None:
    """Let modules of some classes be of classes derived from them, and let the model's calls take a prompt."""
    for module in model.modules():
        if type(module) in classes:
            module.__class__ = classes[type(module)]
    model.register_forward_pre_hook(_take, with_kwargs=True)
    model.register_forward_hook(_give_back, always_call=True)


def _take(model: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    kwargs = dict(kwargs)
    _CURRENT.set(kwargs.pop("prompt", None))
    return args, kwargs


def _give_back(model: nn.Module, args: Any, output: Any) -> None:
    _CURRENT.set(None)
