"""What a linear readout of the target's features has to predict, for every kind of task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from promptpanda.tasks.encoding import Encoded
from promptpanda.tasks.metrics import scorer
from promptpanda.tasks.spec import Kind
from promptpanda.training.inference import Data
from promptpanda.training.objectives.spans import Spans
from promptpanda.training.objectives.thresholds import label_thresholds

MOST = 256  # examples of the target whose labels count: about what a low-resource target has
WORDS = 2000  # of token classification, at most, in whole sentences


@dataclass(frozen=True)
class Readings:
    """Which feature vectors of the target count, and what is true of them.

    Classification, regression and several labels have one vector an example. Multiple choice has one a choice, labelled
    right or wrong, relative to the mean of the question's choices, since only differences decide. Token classification
    has one a word. Questions have as many other tokens of the context (drawn with a fixed seed) as tokens of the first
    answer, labelled within or without the answer: whether a token starts an answer is true of too few to learn from.

    Attributes:
        encoded: the target's rows; of the tokens that heads read only those that count.
        labels: class indices (int64) or values (float64), *shape:* (vectors,); of several labels 0 or 1 for each
            (int64), *shape:* (vectors, labels).
        owner: whose they are; what is left out is left out together. *Shape:* (vectors,).
        rows: the row of each. *Shape:* (vectors,).
        units: its place among the row's units, or None where a row has one vector. *Shape:* (vectors,).
        relative: whether vectors are taken relative to the mean of their owner's.
        score: what such predictions are worth, in the task's own metric: class indices or values -> fraction; of
            several labels how much each seems there, *shape:* (vectors, labels); of multiple choice how right each
            choice seems; of questions how many tokens are told right.
    """

    encoded: Encoded
    labels: np.ndarray
    owner: np.ndarray
    rows: np.ndarray
    units: np.ndarray | None
    relative: bool
    score: Callable[[np.ndarray], float]

    @property
    def classifies(self) -> bool:
        return self.labels.dtype != np.float64

    @property
    def several(self) -> bool:
        """Whether a vector may have several labels."""
        return self.labels.ndim == 2

    @property
    def varied(self) -> bool:
        """Whether there is anything to learn: labels that differ, of different owners."""
        return len(np.unique(self.labels, axis=0)) > 1 and len(np.unique(self.owner)) > 1

    def of(self, chosen: np.ndarray) -> Readings:
        """Some of the vectors, all of an owner's or none, with the rows that they need and no others.

        What predictions of them are worth in the task's metric is not known.

        Args:
            chosen: *Shape:* (vectors,), bool.
        """
        rows, places = np.unique(self.rows[chosen], return_inverse=True)
        units = None if self.units is None else self.units[chosen]
        return replace(
            self,
            encoded=self.encoded.take_rows(rows),
            labels=self.labels[chosen],
            owner=self.owner[chosen],
            rows=places,
            units=units,
            score=lambda _: float("nan"),
        )

    def vectors(self, features: list[np.ndarray]) -> np.ndarray:
        """The feature vectors that count, of the features of all rows. *Shape:* (vectors, hidden), float64."""
        if self.units is None:
            found = np.stack([features[row] for row in self.rows])
        else:
            found = np.stack([features[row][unit] for row, unit in zip(self.rows, self.units, strict=True)])
        found = found.astype(np.float64)
        if self.relative:
            _, place = np.unique(self.owner, return_inverse=True)
            totals = np.zeros((place.max() + 1, found.shape[1]))
            np.add.at(totals, place, found)
            found -= (totals / np.bincount(place)[:, None])[place]
        return found


def readings_of(data: Data, sample: np.ndarray) -> Readings:
    """What a readout would learn from these examples of the target.

    Args:
        sample: positions of the examples whose labels may be looked at.
    """
    kind = data.spec.kind
    if kind == Kind.MULTIPLE_CHOICE:
        return _choices(data, sample)
    if kind == Kind.TOKEN_CLASSIFICATION:
        return _words(data, sample)
    if kind == Kind.EXTRACTIVE_QA:
        return _answers(data, sample)
    if kind == Kind.MULTI_LABEL:
        return _label_sets(data, sample)
    part = data.split.take(sample)
    groups = part.groups if part.groups is not None else sample
    return Readings(data.encoded, part.labels, groups, sample, None, False, scorer(data.spec, data.class_names, part))


def _label_sets(data: Data, sample: np.ndarray) -> Readings:
    part = data.split.take(sample)
    in_task_terms = scorer(data.spec, data.class_names, part)

    def score(estimated: np.ndarray) -> float:
        # A head gets its thresholds likewise, from examples that it was not trained on.
        thresholds = label_thresholds(estimated.clip(0, 1), part.labels)
        return in_task_terms((estimated.clip(0, 1) >= np.asarray(thresholds)).astype(np.int64))

    groups = part.groups if part.groups is not None else sample
    return Readings(data.encoded, part.labels, groups, sample, None, False, score)


def _choices(data: Data, sample: np.ndarray) -> Readings:
    spans = [data.encoded.rows_of(int(example)) for example in sample]
    rows = np.concatenate([np.asarray(span) for span in spans])
    owner = np.repeat(sample, [len(span) for span in spans])
    right = np.concatenate(
        [np.isin(np.arange(len(span)), labels) for span, labels in zip(spans, data.split.labels[sample], strict=True)]
    )
    in_task_terms = scorer(data.spec, data.class_names, data.split.take(sample))

    def score(rightness: np.ndarray) -> float:
        cuts = np.cumsum([len(span) for span in spans])[:-1]
        return in_task_terms(np.asarray([int(values.argmax()) for values in np.split(rightness, cuts)]))

    return Readings(data.encoded, right.astype(np.int64), owner, rows, None, True, score)


def _words(data: Data, sample: np.ndarray) -> Readings:
    encoded = data.encoded
    assert encoded.units is not None and encoded.places is not None
    kept, count = [], 0
    for example in np.random.default_rng(0).permutation(sample):
        length = len(data.split.labels[example])
        if count and count + length > WORDS:
            continue
        kept.append(int(example))
        count += length
    kept.sort()
    found = [
        (example, row, unit, int(data.split.labels[example][word]))
        for example in kept
        for row in encoded.rows_of(example)
        for unit, word in enumerate(encoded.places[row])
    ]
    owner, rows, units, labels = _columns(found)
    part = data.split.take(np.asarray(kept))
    in_task_terms = scorer(data.spec, data.class_names, part)
    place = {example: position for position, example in enumerate(kept)}

    def score(predictions: np.ndarray) -> float:
        tagged = [np.zeros(len(tags), dtype=np.int64) for tags in part.labels]
        for example, row, unit, tag in zip(owner, rows, units, predictions, strict=True):
            tagged[place[int(example)]][encoded.places[row][unit]] = tag  # type: ignore[index]
        return in_task_terms([tuple(map(int, tags)) for tags in tagged])

    read = set(rows.tolist())
    thin = tuple(units if row in read else units[:0] for row, units in enumerate(encoded.units))
    return Readings(replace(encoded, units=thin), labels, owner, rows, units, False, score)


def _answers(data: Data, sample: np.ndarray) -> Readings:
    encoded = data.encoded
    assert encoded.units is not None
    targets = Spans().targets(encoded, data.split.labels).numpy()
    draws = np.random.default_rng(0)
    thin = [units[:0] for units in encoded.units]
    found: list[tuple[int, int, int, int]] = []
    for example in sample:
        held = [row for row in encoded.rows_of(int(example)) if targets[row, 0] > 0]
        for row in held[:1]:  # windows overlap, so several may hold the answer
            first, last = targets[row]
            within = np.arange(first, last + 1)
            outside = np.setdiff1d(np.arange(1, len(encoded.units[row])), within)
            others = draws.permutation(outside)[: len(within)]
            chosen = np.concatenate([within, others])
            thin[row] = encoded.units[row][chosen]
            found += [(int(example), row, unit, int(unit < len(within))) for unit in range(len(chosen))]
    owner, rows, units, labels = _columns(found)

    def score(predictions: np.ndarray) -> float:
        return float(np.mean(predictions == labels))

    return Readings(replace(encoded, units=tuple(thin)), labels, owner, rows, units, False, score)


def _columns(found: list[tuple[int, int, int, int]]) -> tuple[np.ndarray, ...]:
    """Owner, row, unit and label of every vector. *Shape:* (vectors,) each."""
    return tuple(np.asarray(found, dtype=np.int64).reshape(-1, 4).T)
