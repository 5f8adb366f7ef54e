"""Logistic regression on frozen embeddings, which needs no prompt: told beside every transfer, never chosen."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

from promptpanda.backbone import Backbone
from promptpanda.tasks.encoding import encode
from promptpanda.tasks.grouping import blocks_of
from promptpanda.tasks.inputs import Split, Text
from promptpanda.tasks.metrics import compute_metrics
from promptpanda.tasks.protocol import Partition, capped
from promptpanda.tasks.spec import Kind
from promptpanda.training.heads import features
from promptpanda.training.inference import forward
from promptpanda.transfers.scores import OverSeeds
from promptpanda.transfers.setting import Setting

STRENGTHS = (1e-2, 1e-1, 1.0, 1e1, 1e2)  # C of the logistic regression; a ridge regression has alpha 1 / C
FOLDS = 5
KINDS = (Kind.SINGLE_CLASSIFICATION, Kind.PAIR_CLASSIFICATION, Kind.REGRESSION)  # where it is defined
MOST = 2000  # labelled examples that are learnt from: more would be noticed in the time that a transfer takes


@dataclass(frozen=True)
class FrozenEmbeddings(OverSeeds):
    """A linear model of the frozen embeddings over all seeds; every list has one entry a seed.

    Attributes:
        model: `logistic regression` or `ridge regression`.
        scores: test scores in the task's metric, or None where there is no test data.
        cross_validation: the task's metric of predictions for the labelled examples, each by a model that had not seen
            it, at the strength that was chosen by just this; so it flatters a little.
        examples: labelled ones that each was trained on, at most.
        seconds: wall time over all seeds, embeddings included.
    """

    model: str
    scores: tuple[float, ...] | None
    cross_validation: tuple[float, ...]
    examples: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            **self.scores_json(),
            "cross_validation": list(self.cross_validation),
            "examples": self.examples,
        }


@dataclass(frozen=True)
class Linear:
    """A linear model, and how its strength was chosen.

    Attributes:
        predict: vectors -> classes or values.
        strength: C.
        cross_validation: the score that it was chosen by.
    """

    predict: Callable[[np.ndarray], np.ndarray]
    strength: float
    cross_validation: float


def frozen_embeddings(setting: Setting) -> FrozenEmbeddings | None:
    """What a linear model makes of the same labelled and the same test examples.

    Test examples pass once through the model, for all seeds. None where it is not defined (multiple choice, tokens,
    questions), where there is too little to cross-validate, or where the model's output is not finite.
    """
    began = time.perf_counter()
    task, backbone, length = setting.request.task, setting.backbone, setting.options.max_length
    if task.kind not in KINDS:
        return None
    splits = [capped(_labelled(part), MOST) for part in setting.partitions]
    linear = []
    for seed, split in zip(setting.request.seeds, splits, strict=True):
        score = _scorer(setting, split)
        vectors = embeddings(backbone, split.texts, length)
        linear.append(fitted(vectors, split.labels, blocks_of(split), score, seed=seed))
    found = [one for one in linear if one is not None]
    if len(found) < len(linear):
        return None
    scores = None
    if setting.test is not None:
        vectors = embeddings(backbone, setting.test.texts, length)
        if not np.isfinite(vectors).all():
            return None
        scores = tuple(_scorer(setting, setting.test)(one.predict(vectors)) for one in found)
    return FrozenEmbeddings(
        "ridge regression" if task.kind == Kind.REGRESSION else "logistic regression",
        scores,
        tuple(one.cross_validation for one in found),
        max(map(len, splits)),
        time.perf_counter() - began,
    )


def _labelled(part: Partition) -> Split:
    """The whole budget; where the validation part is what is reported on (protocol `paper`), the training part."""
    return part.train if part.protocol == "paper" else part.train.joined(part.validation)


def _scorer(setting: Setting, split: Split) -> Callable[[np.ndarray], float]:
    task = setting.request.task
    return lambda predictions: compute_metrics(task.spec, task.labels, split, predictions)[task.spec.metric]


def embeddings(backbone: Backbone, texts: tuple[Any, ...], max_length: int) -> np.ndarray:
    """Mean-pooled last hidden states of unit length, without a prompt.

    The segments of a pair are embedded each by itself, as sentence embeddings are used, and compared: their absolute
    difference, and their product (as in InferSent, arXiv 1705.02364), which grows with the root of the width to be of
    about one size with it.

    *Shape:* (examples, hidden), of pairs (examples, 2 x hidden), float64.
    """
    sides = [_unit(backbone, [(text[side],) for text in texts], max_length) for side in range(len(texts[0]))]
    if len(sides) == 1:
        return sides[0]
    first, second = sides
    return np.concatenate([np.abs(first - second), first * second * np.sqrt(first.shape[1])], axis=1)


def _unit(backbone: Backbone, texts: list[Text], max_length: int) -> np.ndarray:
    encoded = encode(backbone, texts, max_length)
    pooled = forward(backbone, [], encoded, lambda batch, layout, _: features(backbone, batch, layout, None, "mean"))
    vectors = np.stack(pooled).astype(np.float64)
    lengths: np.ndarray = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: np.ndarray = vectors / np.maximum(lengths, 1e-12)
    return unit


def fitted(
    vectors: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    score: Callable[[np.ndarray], float],
    *,
    seed: int = 0,
) -> Linear | None:
    """A logistic regression, or a ridge regression of float labels, with the strength of the best cross-validation.

    Args:
        vectors: *Shape:* (vectors, width).
        labels: class indices, or values (float64). *Shape:* (vectors,).
        groups: which vectors are held out together. *Shape:* (vectors,).
        score: what predictions for all of them are worth.
        seed: fixes the folds.

    Returns:
        The model, of equally good ones the most regularised; None where there is nothing to hold out, or where not all
        is finite.
    """
    splits = _folds(labels, groups, seed)
    if len(splits) < 2 or not np.isfinite(vectors).all():
        return None
    scores = {}
    for strength in STRENGTHS:
        predictions = np.empty_like(labels)
        for train, held in splits:
            predictions[held] = linear_model(vectors[train], labels[train], strength).predict(vectors[held])
        scores[strength] = score(predictions)
    best = max(scores, key=lambda strength: scores[strength])
    return Linear(linear_model(vectors, labels, best).predict, best, scores[best])


def _folds(labels: np.ndarray, groups: np.ndarray, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Positions to train on and to hold out; none where there are no two folds."""
    classes = labels.dtype != np.float64
    count = min(FOLDS, len(np.unique(groups)))
    if classes:
        count = min(count, int(np.bincount(labels).max()))
    if count < 2:
        return []
    folds = (StratifiedGroupKFold if classes else GroupKFold)(count, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class of fewer examples than folds is ordinary here
        found = list(folds.split(labels, labels, groups))
    return [(train, held) for train, held in found if len(train) and len(held)]


def linear_model(vectors: np.ndarray, labels: np.ndarray, strength: float) -> Any:
    """scikit-learn's logistic regression, or ridge regression of float labels, fitted."""
    if labels.dtype == np.float64:
        return Ridge(alpha=1 / strength).fit(vectors, labels)
    if len(np.unique(labels)) < 2:  # all others of a rare class are held out
        return DummyClassifier().fit(vectors, labels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(C=strength, max_iter=1000).fit(vectors, labels)
