"""Several sources at once: their weights, one prompt out of several (early), outputs of several teachers (late).

The PANDA paper (arXiv 2208.10160) names both fusions and leaves the details open. Related: SPoT (arXiv 2110.07904)
starts from a mean of prompts, ATTEMPT (arXiv 2205.11961) learns the weights of a mixture. Here the weights follow from
what an estimator says of the sources, before anything is trained.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from promptpanda.bank.folder import SourcePrompt
from promptpanda.errors import PandaError
from promptpanda.prompts.prompt import Prompt

_ROUNDED = 4  # digits of a score: its last bits depend on how texts were batched, and weights decide about identities
_SPREAD = 0.02  # scores nearer to each other than this are nearly the same


def fusion_weights(scores: Sequence[float | None]) -> np.ndarray:
    """Softmax of the standardised scores; they sum to 1.

    A score is measured from the mean in standard deviations, or in units of 0.02 where the deviation is smaller than
    that, so that a hair's breadth between two sources does not decide. Equal scores give equal weights, and so does a
    missing one (a foreign prompt brings no signature).

    Args:
        scores: of one estimator, higher is better.

    *Shape:* (sources,), float64.
    """
    if not scores:
        raise ValueError("there is no source to weigh")
    known = [score for score in scores if score is not None]
    if len(known) < len(scores):
        return np.full(len(scores), 1.0 / len(scores))
    values = np.round(np.asarray(known, dtype=np.float64), _ROUNDED)
    shifted = (values - values.max()) / max(float(values.std()), _SPREAD)
    shares: np.ndarray = np.exp(shifted) / np.exp(shifted).sum()
    return shares


def fused_prompt(sources: Sequence[SourcePrompt], weights: np.ndarray) -> Prompt:
    """Weighted mean of the sources' prompts; of one source, its prompt as it is.

    Raises:
        PandaError: they are not of one kind and shape.
    """
    first = sources[0]
    for other in sources[1:]:
        if (other.prompt.kind, other.prompt.tensor.shape) != (first.prompt.kind, first.prompt.tensor.shape):
            raise PandaError(
                f"The source {other.id} has a {other.prompt.kind} prompt of {other.prompt.length}, and {first.id} a "
                f"{first.prompt.kind} prompt of {first.prompt.length}; only prompts of one kind and length can be "
                "averaged, so leave one out."
            )
    if len(sources) == 1:
        return first.prompt
    mean = torch.zeros_like(first.prompt.tensor)
    for source, weight in zip(sources, weights, strict=True):
        mean += float(weight) * source.prompt.tensor
    return Prompt(first.prompt.kind, mean)


def fused_outputs(outputs: Sequence[np.ndarray], weights: np.ndarray) -> np.ndarray:
    """Weighted mean of what several teachers give for the same rows; of one teacher, its outputs as they are.

    *Shape:* (rows, outputs) or (rows, units, outputs), of each and of the mean.
    """
    if len(outputs) == 1:
        return outputs[0]
    mean = np.zeros_like(outputs[0])
    for one, weight in zip(outputs, weights, strict=True):
        mean += float(weight) * one
    return mean
