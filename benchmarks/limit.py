"""The speed limit: what prompt tuning must compute, and how fast this machine multiplies matrices.

Useful work is forward plus input gradients of all linear and attention products over real tokens and prompt. No weight
gradients; nothing below the first layer's prefix; the last layer only for the rows that the head reads.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Shape:
    """A BERT-like encoder: layers, width, width of the feed-forward layers."""

    layers: int
    hidden: int
    intermediate: int


def gemm_rate(size: int = 2048, repetitions: int = 5) -> float:
    """Best of five fp32 products of two square matrices, in floating-point operations a second."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    seconds = []
    for _ in range(repetitions):
        began = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - began)
    return 2 * size**3 / min(seconds)


def useful_work(shape: Shape, tokens: int, prompt: int, read: int) -> float:
    """Operations of one training step on one example of so many tokens, of which the head reads `read` rows."""
    work = 0.0
    for layer in range(shape.layers):
        rows = read if layer == shape.layers - 1 else tokens
        square, feed_forward = 2 * shape.hidden**2, 2 * shape.hidden * shape.intermediate
        keys_and_values = 2 * square * tokens
        behind = (square + 2 * feed_forward) * rows  # output projection and feed-forward layer
        queries = square * rows
        product = 2 * rows * (tokens + prompt) * shape.hidden  # queries x keys, or weights x values
        work += keys_and_values + queries + 2 * product + behind
        if layer > 0:
            work += behind + 4 * product + queries + keys_and_values
        else:
            # Gradients of the attention weights, then of the prefix's keys and values alone.
            work += behind + product + 2 * (2 * rows * prompt * shape.hidden)
    return work


def full_count(shape: Shape, tokens: int, prompt: int) -> float:
    """The naive count: forward and input gradients of everything over real tokens."""
    linear = (4 * 2 * shape.hidden**2 + 2 * 2 * shape.hidden * shape.intermediate) * tokens
    attention = 2 * 2 * tokens * (tokens + prompt) * shape.hidden
    return shape.layers * (2 * linear + 3 * attention)


def mean_work(shape: Shape, lengths: np.ndarray, prompt: int, readout: str) -> tuple[float, float]:
    """Useful work and naive count of an example, mean over examples of these lengths."""
    useful = [useful_work(shape, int(n), prompt, int(n) if readout == "mean" else 1) for n in lengths]
    return float(np.mean(useful)), float(np.mean([full_count(shape, int(n), prompt) for n in lengths]))
