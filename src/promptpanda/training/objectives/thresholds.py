"""From which probability on a label is given: chosen on held-out examples, and on what the model itself expects.

A dozen validation examples hold a rare label once or not at all, so that the threshold with the best F1 on them is an
accident. So as many examples again as EXPECTED are counted the way the model itself expects them: an example with the
probability p counts as p of one that has the label. That alone gives the threshold F*/2 of Lipton et al. 2014 (arXiv
1402.1892); with hundreds of validation examples these decide.
"""

from __future__ import annotations

import numpy as np

EXPECTED = 40.0  # from studies/multi_label.py on conll03, wikigold and conll04


def label_thresholds(probabilities: np.ndarray, labels: np.ndarray, expected: float = EXPECTED) -> tuple[float, ...]:
    """For every label the threshold with the best F1 (module docstring); of equally good ones that nearest to 1/2.

    Args:
        probabilities: of a model that was not trained on these examples. *Shape:* (examples, labels).
        labels: 0 or 1. *Shape:* (examples, labels).
        expected: examples that are counted as the model expects them.
    """
    share = expected / (expected + len(labels))
    return tuple(_threshold(*pair, share) for pair in zip(probabilities.T, labels.T, strict=True))


def _threshold(probabilities: np.ndarray, labels: np.ndarray, share: float) -> float:
    order = np.argsort(-probabilities, kind="stable")
    falling = probabilities[order]
    believed = (1 - share) * labels[order] + share * falling
    right = believed.cumsum()
    scores = 2 * right / (np.arange(1, len(labels) + 1) + right[-1])
    lower = np.append(falling[1:], 0.0)  # what is just not given
    cuts = falling > lower  # equal probabilities are given together
    if not cuts.any() or scores[cuts].max() <= 0:
        return 0.5
    best = cuts & (scores >= scores[cuts].max() - 1e-12)
    found = [
        0.5 if low < 0.5 <= high else (low + high) / 2 for low, high in zip(lower[best], falling[best], strict=True)
    ]
    return float(min(found, key=lambda threshold: abs(threshold - 0.5)))
