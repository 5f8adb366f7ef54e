"""Logistic regression on frozen embeddings: of texts, of pairs, and for tags of words."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import joblib
import numpy as np
from alternatives_work import Found, Seconds, Work, megabytes

from promptpanda.tasks.encoding import Encoded, encode
from promptpanda.tasks.grouping import blocks_of
from promptpanda.tasks.inputs import Split
from promptpanda.tasks.spec import Kind
from promptpanda.training.heads import features
from promptpanda.training.inference import forward
from promptpanda.transfers.frozen import KINDS, embeddings
from promptpanda.transfers.linear import fitted, linear_model


def logistic_regression(work: Work) -> Found | None:
    """Seconds of one training are those of the embeddings and of one fit."""
    if work.task.kind == Kind.TOKEN_CLASSIFICATION:
        return _of_words(work)
    if work.task.kind not in KINDS:
        return None
    began = Seconds.now()
    split, length = work.labelled, work.options.max_length
    vectors = embeddings(work.backbone, split.texts, length)
    embedded = began.passed
    test = embeddings(work.backbone, work.test.texts, length)
    return _found(
        (vectors, split.labels, blocks_of(split)),
        lambda predictions: work.score(split, predictions),
        lambda predict: work.score(work.test, predict(test)),
        embedded,
        work.seed,
    )


def _of_words(work: Work) -> Found:
    began = Seconds.now()
    words = _Words(work, work.labelled)
    embedded = began.passed
    test = _Words(work, work.test)
    return _found(
        (words.vectors, words.labels, words.owners),
        lambda tags: work.score(work.labelled, words.sentences(tags)),
        lambda predict: work.score(work.test, test.sentences(predict(test.vectors))),
        embedded,
        work.seed,
    )


def _found(learnt: Any, score: Any, tested: Any, embedded: Seconds, seed: int) -> Found:
    vectors, labels, groups = learnt
    began = Seconds.now()
    linear = fitted(vectors, labels, groups, score, seed=seed)
    if linear is None:
        raise ValueError("too little to cross-validate")
    searched = began.passed
    began = Seconds.now()
    model = linear_model(vectors, labels, linear.strength)
    one = began.passed
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.joblib"
        joblib.dump(model, path)
        size = megabytes(path)
    settings = {"C": linear.strength, "cross_validation": linear.cross_validation}
    return Found(tested(linear.predict), embedded + one, searched - one, size, settings)


class _Words:
    """The words of a split as single vectors.

    Attributes:
        vectors: of unit length. *Shape:* (words, hidden).
        labels: tags. *Shape:* (words,).
        owners: the sentence of each. *Shape:* (words,).
    """

    def __init__(self, work: Work, split: Split) -> None:
        encoded: Encoded = encode(work.backbone, split.texts, work.options.max_length)
        assert encoded.places is not None
        read = forward(
            work.backbone,
            [],
            encoded,
            lambda batch, layout, _: features(work.backbone, batch, layout, None, "token"),
        )
        self._split = split
        self._found = [
            (example, int(word), read[row][unit])
            for example in range(len(split))
            for row in encoded.rows_of(example)
            for unit, word in enumerate(encoded.places[row])
        ]
        vectors = np.stack([vector for _, _, vector in self._found]).astype(np.float64)
        self.vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        self.owners = np.asarray([example for example, _, _ in self._found])
        self.labels = np.asarray([split.labels[example][word] for example, word, _ in self._found], dtype=np.int64)

    def sentences(self, tags: np.ndarray) -> list[tuple[int, ...]]:
        """Tags of single words as those of sentences; O for a word that the tokenizer leaves nothing of."""
        tagged = [[0] * len(labels) for labels in self._split.labels]
        for (example, word, _), tag in zip(self._found, tags, strict=True):
            tagged[example][word] = int(tag)
        return [tuple(one) for one in tagged]
