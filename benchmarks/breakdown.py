"""Where the time of a training goes, by what is computed."""

from __future__ import annotations

from collections.abc import Callable

from torch.profiler import ProfilerActivity, profile

# The first that an operation's name contains is its part.
PARTS = {
    "matrix products": ("mm", "matmul", "linear"),
    "attention": ("attention", "flash"),
    "layer norm, activations": ("norm", "gelu", "tanh", "softmax"),
    "dropout's draws": ("random", "bernoulli", "::ge"),
    "copies and indexing": ("copy", "cat", "index", "gather", "contiguous", "clone", "::to", "fill", "zero", "pad"),
    "optimiser": ("adam", "foreach", "clip", "addcmul", "addcdiv", "lerp", "sqrt"),
}


def breakdown(run: Callable[[], object]) -> dict[str, float]:
    """Shares of CPU time, summing to 1."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        run()
    times = dict.fromkeys([*PARTS, "the rest"], 0.0)
    for event in profiler.key_averages():
        name = event.key.lower()
        part = next((part for part, words in PARTS.items() if any(word in name for word in words)), "the rest")
        times[part] += event.self_cpu_time_total
    total = sum(times.values())
    return {part: time / total for part, time in times.items()}
