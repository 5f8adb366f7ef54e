"""Logistic regression on frozen embeddings, beside transformers and scikit-learn written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import sentiment_rows, task_of, write_jsonl
from kinds import NEW, kind_task, pair_rows, value_rows
from scipy import stats
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold, cross_val_predict
from transformers import AutoModel

from promptpanda.tasks.protocol import partition
from promptpanda.training.options import TrainingOptions
from promptpanda.transfers import frozen
from promptpanda.transfers.frozen import fitted
from promptpanda.transfers.transfer import transfer

STRENGTHS = [0.01, 0.1, 1, 10, 100]
SEEDS = (0, 3)
BUDGET = 40

pytestmark = pytest.mark.usefixtures("one_thread")


def told(task, backbone, **options):
    """What a transfer tells of the frozen embeddings."""
    few = TrainingOptions(epochs=1, max_length=24, prompt_length=2)
    settings = {"methods": ["head_only"], "train_examples": BUDGET, "seeds": SEEDS} | options
    return transfer(task, "auto", backbone, options=few, **settings).frozen_embeddings


def embedded(folder, tokenizer, texts):
    """Every text alone through the model as transformers loads it, the mean of its tokens at unit length."""
    model = AutoModel.from_pretrained(folder).eval()
    vectors = []
    for text in texts:
        with torch.inference_mode():
            pooled = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].double().mean(0)
        vectors.append((pooled / pooled.norm()).numpy())
    return np.stack(vectors)


@pytest.fixture
def vectors_of(tiny_folder, tiny_backbone):
    def vectors(texts):
        sides = [
            embedded(tiny_folder("bert"), tiny_backbone.tokenizer, [text[side] for text in texts])
            for side in range(len(texts[0]))
        ]
        if len(sides) == 1:
            return sides[0]
        return np.hstack([abs(sides[0] - sides[1]), sides[0] * sides[1] * 32**0.5])

    return vectors


def labelled(task, seed):
    part = partition(task, train_examples=BUDGET, seed=seed)
    split = part.train.joined(part.validation)
    first = {text: place for place, text in reversed(list(enumerate(split.texts)))}
    return split, np.asarray([first[text] for text in split.texts])


def accuracy(labels, predictions):
    return np.mean(labels == predictions)


def agreement(labels, predictions):
    pearson = stats.pearsonr(labels, predictions).statistic
    return (pearson + stats.spearmanr(labels, predictions).statistic) / 2


@pytest.mark.parametrize(("rows", "segments"), [(sentiment_rows, ["{text}"]), (pair_rows, ["{first}", "{second}"])])
def test_classes_and_pairs_of_texts_equal_scikit_learn(rows, segments, tiny_backbone, vectors_of, tmp_path):
    kind = "single_classification" if len(segments) == 1 else "pair_classification"
    task = task_of(rows(80), tmp_path, kind=kind, segments=segments)
    write_jsonl(tmp_path / "own" / "test.jsonl", rows(16, seed=9))
    found = told(task, tiny_backbone)
    test = task.test()
    assert (found.model, found.examples) == ("logistic regression", BUDGET)
    for place, seed in enumerate(SEEDS):
        split, groups = labelled(task, seed)
        vectors = vectors_of(split.texts)
        folds = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
        scores = []
        for strength in STRENGTHS:
            model = LogisticRegression(C=strength, max_iter=1000)
            held = cross_val_predict(model, vectors, split.labels, cv=folds, groups=groups)
            scores.append(accuracy(split.labels, held))
        best = LogisticRegression(C=STRENGTHS[int(np.argmax(scores))], max_iter=1000).fit(vectors, split.labels)
        assert found.cross_validation[place] == pytest.approx(max(scores))
        assert found.scores[place] == pytest.approx(accuracy(test.labels, best.predict(vectors_of(test.texts))))
    assert found.mean == pytest.approx(np.mean(found.scores))
    assert found.std == pytest.approx(np.std(found.scores, ddof=1))


def test_values_equal_scikit_learns_ridge_regression(tiny_backbone, vectors_of, tmp_path):
    task = task_of(value_rows(80), tmp_path, kind="regression", metrics=["pearson_spearman"])
    write_jsonl(tmp_path / "own" / "test.jsonl", value_rows(16, seed=9))
    found = told(task, tiny_backbone)
    test = task.test()
    assert found.model == "ridge regression"
    for place, seed in enumerate(SEEDS):
        split, groups = labelled(task, seed)
        vectors = vectors_of(split.texts)
        folds = GroupKFold(5, shuffle=True, random_state=seed)
        scores = [
            agreement(split.labels, cross_val_predict(Ridge(alpha), vectors, split.labels, cv=folds, groups=groups))
            for alpha in (100, 10, 1, 0.1, 0.01)
        ]
        best = Ridge((100, 10, 1, 0.1, 0.01)[int(np.argmax(scores))]).fit(vectors, split.labels)
        assert found.cross_validation[place] == pytest.approx(max(scores), abs=1e-4)
        expected = agreement(test.labels, best.predict(vectors_of(test.texts)))
        assert found.scores[place] == pytest.approx(expected, abs=1e-4)


def test_test_rows_are_read_once_and_never_trained_on(sentiment, tiny_backbone, monkeypatch, tmp_path):
    read = []

    def reading(backbone, texts, max_length, *, apart, through=frozen.encode):
        read.append(tuple(texts))
        return through(backbone, texts, max_length, apart=apart)

    monkeypatch.setattr(frozen, "encode", reading)
    task = sentiment()
    found = told(task, tiny_backbone)
    assert read.count(task.test().texts) == 1
    assert len(read) == 1 + len(SEEDS)
    assert all(len(texts) == BUDGET and not set(texts) - set(task.train().texts) for texts in read[:-1])

    swapped = [row | {"label": {"good": "bad", "bad": "good"}[row["label"]]} for row in sentiment_rows(40, 1000)]
    write_jsonl(tmp_path / "data" / "mood" / "test.jsonl", swapped)
    other = told(type(task)(task.spec, task.data_dir), tiny_backbone)
    assert other.cross_validation == found.cross_validation
    assert other.scores == pytest.approx([1 - score for score in found.scores])


def test_without_test_data_it_is_cross_validated_alone(sentiment, tiny_backbone):
    with_test, without = (told(sentiment(name, test=test), tiny_backbone) for name, test in (("a", 40), ("b", None)))
    assert (without.scores, without.mean, without.std) == (None, None, None)
    assert without.cross_validation == with_test.cross_validation


def test_under_the_paper_protocol_it_learns_from_the_training_part_alone(sentiment, tiny_backbone, tmp_path):
    task = sentiment()
    write_jsonl(tmp_path / "data" / "mood" / "validation.jsonl", sentiment_rows(30, 77))
    found = told(task, tiny_backbone, protocol="paper")
    assert found.examples == BUDGET
    assert len(found.scores) == len(SEEDS)


@pytest.mark.parametrize("kind", NEW)
def test_it_is_not_defined_for_choices_tokens_and_questions(kind, tiny_backbone, tmp_path):
    task = kind_task(kind, tmp_path)
    assert told(task, tiny_backbone, train_examples=None, seeds=(0,)) is None


def test_it_decides_nothing(sentiment, tiny_backbone):
    few = TrainingOptions(epochs=1, max_length=24, prompt_length=2)
    result = transfer(sentiment(), "auto", tiny_backbone, options=few, methods=["prompt_tuning", "head_only"])
    assert result.chosen in result.methods
    assert set(result.methods) == {"prompt_tuning", "head_only"}
    assert result.to_json()["frozen_embeddings"] == result.frozen_embeddings.to_json()


def test_rare_classes_hold_out_what_they_can():
    draws = np.random.default_rng(0)
    vectors, labels = draws.normal(size=(30, 4)), np.asarray([0] * 29 + [1])
    found = fitted(vectors, labels, np.arange(30), lambda predictions: accuracy(labels, predictions))
    assert found.cross_validation == pytest.approx(29 / 30)
    assert fitted(vectors, labels, np.zeros(30), lambda predictions: 0.0) is None
    assert fitted(vectors, np.arange(30), np.arange(30), lambda predictions: 0.0) is None
    assert fitted(vectors * np.nan, labels, np.arange(30), lambda predictions: 0.0) is None
