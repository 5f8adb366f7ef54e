"""Which contestant to use: validation scores shrunk towards a prior, and whether a gain is more than noise.

Contestants have the validation scores s = theta + noise. All are scored on the same examples, so that their noise is
correlated: its covariance V is that of shared bootstrap samples of the validation examples. Beforehand theta is normal
around c + g with the covariance SPREAD squared times the identity. g is the gain over prompt tuning that is expected of
each: for a method without a source a constant, for the others a line in what the estimator says of the source less what
it says of no transfer. The centre c is unknown (a flat prior), so that differences alone decide.

This is the normal-normal model (Efron and Morris 1975, doi 10.1080/01621459.1975.10479864) of several variables with an
unknown mean (Lindley and Smith 1972, Bayes estimates for the linear model).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from promptpanda.tasks.metrics import compute_metrics
from promptpanda.training.distillation import Start
from promptpanda.training.inference import Data
from promptpanda.transfers.method import Method
from promptpanda.transfers.trial import Trial

SPREAD = 0.02  # standard deviation of the prior of a score; of a gain, which is a difference of two, .028
NOISE = "shared draws"  # how the noise of contestants belongs together; another rule gets another name
RESAMPLES = 400
LEVEL = 0.95  # of intervals

_MEANS = ("accuracy", "squad_f1", "squad_em")  # metrics that are means over examples


@dataclass(frozen=True)
class Prior:
    """The gain over prompt tuning that is expected of a method, as a fraction.

    Attributes:
        gain: where its source promises as much as no transfer.
        slope: for one unit of explained variance (`probe_shrunk`) that its source is ahead of no transfer.
    """

    gain: float
    slope: float

    def of(self, lead: float) -> float:
        return self.gain + self.slope * lead


# From studies/choice.py on the 6-layer BERT's grid of docs/results, rounded. That gives PoT 0.9 points without a lead;
# here it gets none, so that transfer has to be promised by the estimator, or seen on validation data. The slopes were
# fitted to `probe_r2`; a unit of `probe_shrunk` is worth 1.375 of it (docs/log.md, 2026-11-27).
NO_SOURCE = Prior(0.0, 0.0)
HEAD = Prior(-0.015, 0.0)
FROM_SOURCE = Prior(0.0, 0.385)
DISTILLED = Prior(0.0, 0.048)


def prior_of(method: Method, student: Start = "fresh") -> Prior:
    """What is expected of a method beforehand; of a student that starts from the source as much as of PoT."""
    if method.teacher is not None and student == "fresh":
        return DISTILLED
    if method.needs_source:
        probe = method.trainings == 0 and not method.warm_up
        return replace(FROM_SOURCE, gain=HEAD.gain) if probe else FROM_SOURCE
    return HEAD if method.trained == "head" else NO_SOURCE


@dataclass(frozen=True)
class Contestant:
    """A trained method as the choice sees it.

    Attributes:
        predictions: on the validation part, one entry an example, as metrics take them.
        score, loss: on the validation part.
        prior: the gain over prompt tuning that was expected of it beforehand, as a fraction.
    """

    predictions: Any
    score: float
    loss: float
    prior: float = 0.0

    @classmethod
    def of(cls, trial: Trial, method: Method, lead: float) -> Contestant:
        """A method's outcome on a trial, with one pass over the validation part.

        Args:
            lead: by how much the estimator puts its source above no transfer; 0 for a method without a source, and
                where the estimator cannot compare.
        """
        trained = trial.outcome(method)
        predictions = trial.predict(trained, trial.validation_data).predictions
        prior = prior_of(method, trial.distillation.student).of(lead)
        return cls(predictions, trained.card.score, trained.card.validation["loss"], prior)


@dataclass(frozen=True)
class Posterior:
    """The expected score of a contestant, as a fraction, and its standard error."""

    mean: float
    se: float


@dataclass(frozen=True)
class Gain:
    """A difference of two validation scores, and the interval of the paired bootstrap around it."""

    mean: float
    low: float
    high: float

    @property
    def distinguishable(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0


class Resamples:
    """Bootstrap samples of a validation part, the same for all contestants; what belongs together is drawn together."""

    def __init__(self, data: Data, count: int = RESAMPLES) -> None:
        self._data = data
        self._spec = data.spec.model_copy(update={"metrics": (data.spec.metric,)})
        groups = np.arange(len(data)) if data.split.groups is None else data.split.groups
        members = [np.flatnonzero(groups == name) for name in np.unique(groups)]
        drawn = np.random.default_rng([0, 4]).integers(0, len(members), (count, len(members)))
        self.units = len(members)
        self._scores: dict[int, tuple[Any, np.ndarray]] = {}
        self.draws = [np.concatenate([members[unit] for unit in sample]) for sample in drawn]

    @cached_property
    def least_variance(self) -> float:
        """Of any score, and of any difference of two: p (1 - p) / n with p = (n + 1) / (n + 2).

        This is Laplace's estimate where n of n are right, or n of n agree. A handful of examples that are all right, or
        on which two contestants agree, would otherwise seem to be without noise.
        """
        n = self.units
        return (n + 1) / (n + 2) ** 2 / n

    def scores(self, predictions: Any) -> np.ndarray:
        """The metric of every sample, computed once. *Shape:* (samples,)."""
        if id(predictions) not in self._scores:
            if self._spec.metric in _MEANS:
                values = self._each(predictions)
                found = np.asarray([values[rows].mean() for rows in self.draws])
            else:
                found = np.asarray([self._score(predictions, rows) for rows in self.draws])
            self._scores[id(predictions)] = predictions, found  # kept, so that nothing else gets its id
        return self._scores[id(predictions)][1]

    def covariance(self, predictions: Sequence[Any]) -> np.ndarray:
        """Of the scores of contestants on a part of this size; positive definite. *Shape:* (contestants, contestants).

        Args:
            predictions: of each contestant.
        """
        if self._spec.metric in _MEANS and self.units == len(self._data):
            values = np.stack([self._each(one) for one in predictions])
            found = np.cov(values, bias=True) / self.units  # what infinitely many samples would give
        else:
            found = np.cov(np.stack([self.scores(one) for one in predictions]), bias=True)
        found = np.atleast_2d(found)
        found += np.diag(np.maximum(self.least_variance - np.diag(found), 0))
        if len(found) == 1:
            return found
        # A unit vector's variance: of a difference, which is a vector of length sqrt(2), half of it.
        values, vectors = np.linalg.eigh(found)
        lifted: np.ndarray = (vectors * np.maximum(values, self.least_variance / 2)) @ vectors.T
        return lifted

    def gain(self, one: Contestant, other: Contestant, rivals: Sequence[Contestant] = ()) -> Gain:
        """How much better one contestant is than another.

        Args:
            rivals: those that `one` was chosen among. The interval is then one of those that hold for all of them at
                once, so that having chosen does not flatter.
        """
        base = self.scores(other.predictions)
        differences = np.stack([self.scores(each.predictions) - base for each in (one, *rivals)])
        mean, reach = one.score - other.score, float(reaches(differences)[0])
        return Gain(mean, mean - reach, mean + reach)

    def _each(self, predictions: Any) -> np.ndarray:
        """What each example counts in a metric that is a mean. *Shape:* (examples,)."""
        return np.asarray([self._score(predictions, np.asarray([row])) for row in range(len(self._data))])

    def _score(self, predictions: Any, rows: np.ndarray) -> float:
        if isinstance(predictions, np.ndarray):
            taken: Any = predictions[rows]
        else:
            taken = [predictions[row] for row in rows]
        data = self._data
        return compute_metrics(self._spec, data.class_names, data.split.take(rows), taken)[self._spec.metric]


def reaches(samples: np.ndarray) -> np.ndarray:
    """Half the widths of intervals that hold for all rows at once with the probability LEVEL. *Shape:* (rows,).

    They are as many standard errors wide as the largest deviation of any row in a sample seldom exceeds (max-t; Romano
    and Wolf 2005, Exact and approximate stepdown methods for multiple hypothesis testing).

    Args:
        samples: of bootstrap, shared by all rows. *Shape:* (rows, samples).
    """
    deviations = np.abs(samples - samples.mean(axis=1, keepdims=True))
    errors = samples.std(axis=1)
    varied = errors > 1e-12
    if not varied.any():
        return np.zeros(len(samples))
    largest = (deviations[varied] / errors[varied, None]).max(axis=0)
    return np.where(varied, float(np.quantile(largest, LEVEL)) * errors, 0.0)


def conditional(
    scores: np.ndarray, gains: np.ndarray, noise: np.ndarray, spread: float = SPREAD
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of what is scored, given the scores (module docstring).

    Args:
        scores, gains: s and g. *Shape:* (contestants,) each.
        noise: V, positive definite. *Shape:* (contestants, contestants).
    """
    prior = spread**2 * np.eye(len(scores))
    shrunk = np.linalg.solve(noise + prior, noise)  # of a deviation from the prior's mean, what is noise
    precision = np.linalg.inv(noise + prior)
    weights = precision.sum(axis=0) / precision.sum()
    centre = weights @ (scores - gains)
    mean = scores - shrunk.T @ (scores - gains - centre)
    moved = shrunk.T.sum(axis=1)  # by the centre
    return mean, prior @ shrunk + np.outer(moved, moved) / precision.sum()


def posteriors(contestants: Mapping[str, Contestant], resamples: Resamples) -> dict[str, Posterior]:
    """The expected score of every contestant (module docstring)."""
    if not contestants:
        return {}
    ones = list(contestants.values())
    noise = resamples.covariance([one.predictions for one in ones])
    scores, gains = (np.asarray(values) for values in zip(*((one.score, one.prior) for one in ones), strict=True))
    mean, covariance = conditional(scores, gains, noise)
    # The last bits of linear algebra depend on where its arrays lie in memory.
    mean, errors = mean.round(12), np.sqrt(np.diag(covariance)).round(12)
    return {name: Posterior(float(mean[at]), float(errors[at])) for at, name in enumerate(contestants)}


def best_of(posterior: dict[str, float], losses: dict[str, float]) -> str:
    """The name with the highest expected score; equal ones are decided by the lower validation loss."""
    return max(posterior, key=lambda name: (round(posterior[name], 12), -losses[name]))
