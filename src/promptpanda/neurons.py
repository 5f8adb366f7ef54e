"""Where the neurons of the feed-forward layers can be seen: activation modules, each bound to its layer."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from promptpanda.prompts.attention import LayerIndex

_ACTIVATIONS = ("transformers.activations", "torch.nn.modules.activation")


@contextmanager
def recorded_activations(model: nn.Module) -> Iterator[list[tuple[nn.Module, tuple[int, ...]]]]:
    """Note every call of an activation module while the model runs: the module, and the shape of its output."""
    calls: list[tuple[nn.Module, tuple[int, ...]]] = []

    def note(module: nn.Module, inputs: object, output: Tensor) -> None:
        calls.append((module, tuple(output.shape)))

    modules = [module for module in model.modules() if type(module).__module__ in _ACTIVATIONS]
    handles = [module.register_forward_hook(note) for module in modules]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def neuron_layers(
    model: nn.Module,
    attending: Sequence[nn.Module],
    calls: Sequence[tuple[nn.Module, tuple[int, ...]]],
    batch: tuple[int, int],
) -> LayerIndex | None:
    """The layers of the activation modules, or None where the neurons of some layer cannot be seen.

    They can where every layer calls one activation module outside its attention, once, with a vector for every token.
    They cannot where activations are no modules, where tokens are routed to experts, or where a layer that is no
    attention (of a hybrid model) has an activation of its own.

    Args:
        attending: the attention modules in the order in which one forward pass called them.
        calls: of activation modules in the same pass, as `recorded_activations` notes them.
        batch: rows and tokens of that pass.
    """
    names = {id(module): name for name, module in model.named_modules()}
    lists = dict.fromkeys(_list_around(model, names[id(module)]) for module in attending)
    inside: dict[str, list[nn.Module]] = {
        f"{path}.{number}.": [] for path in lists for number in range(_length(model, path))
    }
    attentions = tuple(f"{names[id(module)]}." for module in attending)
    for module, shape in calls:
        name = names[id(module)]
        block = next((block for block in inside if name.startswith(block)), None)
        if block is None or name.startswith(attentions):
            continue
        if shape[:-1] not in (batch, (math.prod(batch),)) or _of_experts(model, name, lists):
            return None
        inside[block].append(module)
    if len(set(map(id, attending))) < len(attending):
        found = {id(module) for modules in inside.values() for module in modules}
        ordered = [module for module, _ in calls if id(module) in found]
        return LayerIndex(ordered) if len(ordered) == len(attending) else None
    if any(len(modules) != 1 for modules in inside.values()):
        return None
    return LayerIndex([module for (module,) in inside.values()]) if inside else None


def _list_around(model: nn.Module, name: str) -> str:
    """The path of the innermost list that a module is in, or an empty one."""
    parts = name.split(".")
    paths = [".".join(parts[:end]) for end in range(len(parts) - 1, 0, -1)]
    return next((path for path in paths if _length(model, path)), "")


def _length(model: nn.Module, path: str) -> int:
    modules = model.get_submodule(path) if path else None
    return len(modules) if isinstance(modules, nn.ModuleList) else 0


def _of_experts(model: nn.Module, name: str, layers: Collection[str]) -> bool:
    """Whether an activation is one of several in its layer, or beside weights that are stacked, of several experts."""
    owner = model.get_submodule(name.rpartition(".")[0])
    stacked = any(parameter.ndim > 2 for parameter in owner.parameters(recurse=False))
    return stacked or _list_around(model, name) not in layers
