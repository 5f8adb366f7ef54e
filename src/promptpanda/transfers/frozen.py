"""Logistic regression on frozen embeddings, which needs no prompt: told beside every transfer, never chosen."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from promptpanda.backbone import Backbone
from promptpanda.tasks.encoding import encode
from promptpanda.tasks.grouping import blocks_of
from promptpanda.tasks.inputs import Split
from promptpanda.tasks.metrics import scorer
from promptpanda.tasks.protocol import Partition, capped
from promptpanda.tasks.spec import Kind
from promptpanda.training.inference import read_rows
from promptpanda.transfers.linear import fitted
from promptpanda.transfers.scores import OverSeeds
from promptpanda.transfers.setting import Setting

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
        score = scorer(task.spec, task.labels, split)
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
        score = scorer(task.spec, task.labels, setting.test)
        scores = tuple(score(one.predict(vectors)) for one in found)
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


def embeddings(backbone: Backbone, texts: tuple[Any, ...], max_length: int) -> np.ndarray:
    """Mean-pooled last hidden states of unit length, without a prompt.

    The segments of a pair are embedded each by itself, as sentence embeddings are used, and compared: their absolute
    difference, and their product (as in InferSent, arXiv 1705.02364), which grows with the root of the width to be of
    about one size with it.

    *Shape:* (examples, hidden), of pairs (examples, 2 x hidden), float64.
    """
    apart = len(texts[0]) == 2
    encoded = encode(backbone, texts, max_length, apart=apart)
    vectors = np.stack(read_rows(backbone, encoded, "compare" if apart else "mean")).astype(np.float64)
    # What `compare` reads is of vectors as long as the root of the width.
    lengths = backbone.hidden_size**0.5 if apart else np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: np.ndarray = vectors / np.maximum(lengths, 1e-12)
    return unit
