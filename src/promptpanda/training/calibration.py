"""Temperature scaling: one number that a model's outputs are divided by, so that its probabilities are about right.

Reference: Guo et al. 2017 (arXiv 1706.04599). It changes no prediction of a class.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from promptpanda.training.inference import Data
from promptpanda.training.objectives.objective import Objective

MOST = 20.0  # temperature, and one over the lowest
# Standard deviation of log T that is expected before any data. A dozen validation examples that are all right would
# else ask for a temperature of zero, which makes every answer certain.
_SPREAD = 0.5


def fit_temperature(outputs: np.ndarray, data: Data, objective: Objective) -> float | None:
    """The temperature with the lowest sum of task losses, and of log(T)^2 / (2 x 0.5^2), on held-out examples.

    Args:
        outputs: of a kept head on the rows of `data`. *Shape:* (rows, outputs) or (rows, units, outputs).
        data: examples that were not trained on, and not those that are reported on.

    Returns:
        A number between 1/20 and 20; None where outputs are no logits (a regression) or not finite.
    """
    from scipy.optimize import minimize_scalar

    if not objective.gives_logits or not np.isfinite(outputs).all():
        return None
    targets = objective.targets(data.encoded, data.split.labels)
    layout = data.encoded.layout(np.arange(len(data)))
    logits = torch.from_numpy(objective.unfold(outputs)).double()

    def badness(log_temperature: float) -> float:
        loss = float(objective.loss(logits / math.exp(log_temperature), targets, layout))
        return len(data) * loss + log_temperature**2 / (2 * _SPREAD**2)

    bound = math.log(MOST)
    with torch.no_grad():
        found = minimize_scalar(badness, bounds=(-bound, bound), method="bounded", options={"xatol": 1e-5})
    return round(math.exp(float(found.x)), 4)
