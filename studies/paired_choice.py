"""What is lost by a choice that takes the noise of contestants for independent? (docs/log.md)

    python studies/paired_choice.py

Prompt tuning and a method compete. What is expected of the method's gain beforehand is drawn from N(0, .02), its gain
is that with an error of N(0, .03), and both scores on n validation examples are of an accuracy of .8, with noise that
correlates. Of the two is chosen by noise that is taken for independent, by its covariance, and by validation scores
alone. One JSON object for every n and SPREAD: the mean regret in points against who is truly better. SPREAD is the
deviation of one contestant; of the gain, a difference of two, it is more by the square root of 2.
"""

from __future__ import annotations

import argparse
import json

import numpy as np

from promptpanda.transfers.choice import conditional

EXPECTED, ERROR, RIGHT = 0.02, 0.03, 0.8
SPREADS = (0.02, ERROR / np.sqrt(2), 0.03)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--correlation", type=float, default=0.87)
    parser.add_argument("--cases", type=int, default=1_000_000)
    arguments = parser.parse_args()
    for spread in SPREADS:
        for examples in (13, 51, 100):
            found = regrets(examples, spread, arguments.correlation, arguments.cases)
            print(json.dumps({"spread": round(spread, 4), "n": examples} | found))


def regrets(examples: int, spread: float, correlation: float, cases: int) -> dict[str, float]:
    """Of every way to choose, in points."""
    rng = np.random.default_rng(0)
    independent = RIGHT * (1 - RIGHT) / examples * np.eye(2)
    covariance = independent[0, 0] * np.asarray([[1, correlation], [correlation, 1]])
    expected = rng.normal(0, EXPECTED, cases)
    gain = expected + rng.normal(0, ERROR, cases)
    noise = rng.multivariate_normal([0, 0], covariance, cases)
    measured = gain + noise[:, 1] - noise[:, 0]
    ways = {
        "independent": posterior_gain(measured, expected, independent, spread),
        "covariance": posterior_gain(measured, expected, covariance, spread),
        "validation": measured,
    }
    best = np.maximum(gain, 0).mean()
    return {name: round(float(100 * (best - np.where(ahead > 0, gain, 0).mean())), 2) for name, ahead in ways.items()}


def posterior_gain(measured: np.ndarray, expected: np.ndarray, noise: np.ndarray, spread: float) -> np.ndarray:
    """Of every case, as `conditional` gives it; it is linear in what is measured and in what is expected."""

    def at(score: float, prior: float) -> float:
        mean, _ = conditional(np.asarray([0.0, score]), np.asarray([0.0, prior]), noise, spread)
        return float(mean[1] - mean[0])

    return at(1.0, 0.0) * measured + at(0.0, 1.0) * expected


if __name__ == "__main__":
    main()
