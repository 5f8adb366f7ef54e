"""Which contestant to use: validation scores shrunk towards a prior, and whether a gain is more than noise.

A contestant i has the validation score s_i, with the noise variance v_i of a score of so few examples (bootstrap over
validation examples), and g_i, the gain over prompt tuning that is expected of it beforehand: for a method without a
source a constant, for the others a line in what the estimator says of the source less what it says of no transfer. Its
prior mean is g_i plus the mean of s - g over all contestants, its prior variance SPREAD squared.

    posterior mean = (s_i / v_i + m_i / t^2) / (1 / v_i + 1 / t^2),  standard error = (1 / v_i + 1 / t^2)^(-1/2)

This is the normal-normal model (Efron and Morris 1975, doi 10.1080/01621459.1975.10479864).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from promptpanda.tasks.metrics import compute_metrics
from promptpanda.training.distillation import Start
from promptpanda.training.inference import Data, predict_outputs
from promptpanda.transfers.method import Method
from promptpanda.transfers.trial import Trial

SPREAD = 0.03  # t, standard deviation of the prior
RESAMPLES = 400
LEVEL = 0.95  # of intervals

_MEANS = ("accuracy", "squad_f1", "squad_em")  # metrics that are means over examples


@dataclass(frozen=True)
class Prior:
    """The gain over prompt tuning that is expected of a method, as a fraction.

    Attributes:
        gain: where its source promises as much as no transfer.
        slope: for one unit of the probe's explained variance that its source is ahead of no transfer.
    """

    gain: float
    slope: float

    def of(self, lead: float) -> float:
        return self.gain + self.slope * lead


# From studies/choice.py on the 6-layer BERT's grid of docs/results, rounded. That gives PoT 0.9 points without a lead;
# here it gets none, so that transfer has to be promised by the estimator, or seen on validation data.
NO_SOURCE = Prior(0.0, 0.0)
HEAD = Prior(-0.015, 0.0)
FROM_SOURCE = Prior(0.0, 0.28)
DISTILLED = Prior(0.0, 0.035)


def prior_of(method: Method, student: Start = "fresh") -> Prior:
    """What is expected of a method beforehand; of a student that starts from the source as much as of PoT."""
    if method.teacher is not None and student == "fresh":
        return DISTILLED
    if method.needs_source:
        return FROM_SOURCE
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
        data = trial.validation_data
        objective = replace(trial.objective, threshold=trained.card.threshold)
        outputs = predict_outputs(trial.backbone, trained.prompt, trained.head, data.encoded)
        predictions = objective.predictions(outputs, data.encoded, data.split.texts)
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
        self.draws = [np.concatenate([members[unit] for unit in sample]) for sample in drawn]

    @cached_property
    def least_variance(self) -> float:
        """Of any score: p (1 - p) / n with p = (n + 1) / (n + 2), Laplace's estimate where n of n are right.

        A handful of examples that are all right, or all wrong, would otherwise seem to be without noise.
        """
        n = self.units
        return (n + 1) / (n + 2) ** 2 / n

    def scores(self, predictions: Any) -> np.ndarray:
        """The metric of every sample. *Shape:* (samples,)."""
        if self._spec.metric in _MEANS:
            values = self._each(predictions)
            return np.asarray([values[rows].mean() for rows in self.draws])
        return np.asarray([self._score(predictions, rows) for rows in self.draws])

    def variance(self, predictions: Any) -> float:
        """Of the score of a part of this size."""
        if self._spec.metric in _MEANS and self.units == len(self._data):
            found = float(self._each(predictions).var()) / self.units  # what infinitely many samples would give
        else:
            found = float(self.scores(predictions).var())
        return max(found, self.least_variance)

    def gain(self, one: Contestant, other: Contestant) -> Gain:
        """How much better one contestant is than another."""
        tail = (1 - LEVEL) / 2
        differences = self.scores(one.predictions) - self.scores(other.predictions)
        low, high = (float(value) for value in np.quantile(differences, [tail, 1 - tail]))
        return Gain(one.score - other.score, low, high)

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


def posteriors(contestants: Mapping[str, Contestant], resamples: Resamples) -> dict[str, Posterior]:
    """The expected score of every contestant (module docstring)."""
    if not contestants:
        return {}
    centre = float(np.mean([one.score - one.prior for one in contestants.values()]))
    found = {}
    for name, one in contestants.items():
        noise, spread = resamples.variance(one.predictions), SPREAD**2
        precision = 1 / noise + 1 / spread
        mean = (one.score / noise + (centre + one.prior) / spread) / precision
        found[name] = Posterior(mean, precision**-0.5)
    return found


def best_of(posterior: dict[str, float], losses: dict[str, float]) -> str:
    """The name with the highest expected score; equal ones are decided by the lower validation loss."""
    return max(posterior, key=lambda name: (round(posterior[name], 12), -losses[name]))
