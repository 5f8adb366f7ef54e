"""Tensors of prompt folders, which strangers may have made: checked when they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from promptpanda.bank.outside import check_ordinary
from promptpanda.errors import PandaError

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file: finite float32 (made from the other common types), or bool.

    Raises:
        PandaError: it is not a safetensors file, or holds other numbers.
    """
    found, metadata = _read(path, "pt")
    return {name: _numbers(tensor, name, path) for name, tensor in found.items()}, metadata


def read_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays of any type and metadata of a safetensors file. Raises PandaError if it is none."""
    return _read(path, "numpy")


def _read(path: Path, framework: str) -> tuple[dict[str, Any], dict[str, str]]:
    try:
        check_ordinary(path)
        with safe_open(path, framework=framework) as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}
    except FileNotFoundError as error:
        raise PandaError(f"{path} is missing; only safetensors files are read.") from error
    except (SafetensorError, OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        if isinstance(error, PandaError):
            raise
        # Types that this torch does not know are no SafetensorError.
        raise PandaError(
            f"{path} is not a complete safetensors file ({error}); it was truncated or changed."
        ) from error


def _numbers(tensor: Tensor, name: str, path: Path) -> Tensor:
    if tensor.dtype == torch.bool:
        return tensor
    if tensor.dtype not in _FLOATS:
        known = ", ".join(str(kind).removeprefix("torch.") for kind in _FLOATS)
        raise PandaError(
            f"The tensor '{name[:80]}' of {path} is of type {str(tensor.dtype).removeprefix('torch.')}; expected one "
            f"of {known}."
        )
    # A copy: arithmetic on a file in memory differs in the last bits by where its tensors happen to begin.
    numbers = tensor.to(torch.float32, copy=True)  # of float64, the largest become infinite
    if not bool(torch.isfinite(numbers).all()):
        raise PandaError(
            f"The tensor '{name[:80]}' of {path} holds values that are not finite; train the prompt again."
        )
    return numbers


def check_shapes(tensors: dict[str, Tensor], expected: dict[str, tuple[int | None, ...]], where: Path) -> None:
    """Refuse other keys, shapes or types than expected.

    Args:
        expected: the shape of every tensor; None stands for any size but 0. Of one named `activated_neurons` booleans
            are expected, else numbers.

    Raises:
        PandaError: they are others.
    """
    if set(tensors) != set(expected):
        found = ", ".join(sorted(tensors))[:200] or "none"
        raise PandaError(f"{where} holds the tensors {found}; expected {', '.join(sorted(expected))}.")
    for name, shape in expected.items():
        tensor = tensors[name]
        fits = tensor.ndim == len(shape) and all(
            size > 0 and wanted in (None, size) for size, wanted in zip(tensor.shape, shape, strict=True)
        )
        if not fits:
            wanted = ", ".join("any" if size is None else str(size) for size in shape)
            raise PandaError(f"The tensor '{name}' of {where} is of shape {tuple(tensor.shape)}; expected ({wanted}).")
        if (tensor.dtype == torch.bool) != (name == "activated_neurons"):
            raise PandaError(f"The tensor '{name}' of {where} is of type {tensor.dtype}, which is not what it holds.")
