"""Answer scores equal their published definitions, written out, degenerate answers included."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from sklearn.metrics import f1_score

from promptpanda.tasks.answers import (
    best_threshold,
    exact_match,
    multirc_scores,
    normalise_answer,
    record_scores,
    squad_scores,
    token_f1,
)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The  Cat, sat.\n", "cat sat"),
        ("A.B. an-archy", "ab anarchy"),
        ("Theatre of an Anthem", "theatre of anthem"),
        ("the a an", ""),
        ("!?.,;:'\"()[]{}-_/\\@#$%^&*+=<>|~`", ""),
        ("", ""),
        ("don't", "dont"),
        ("“The Wall”", "“ wall”"),
        ("1990\u2013the end", "1990\u2013 end"),
        ("Ünal\u2019s ÉCOLE", "ünal\u2019s école"),
        ("ten\u00a0 km", "ten km"),
    ],
)
def test_normalising(text, normal):
    assert normalise_answer(text) == normal
    assert normalise_answer(normal) == normal


@pytest.mark.parametrize(
    ("prediction", "golds", "em", "f1"),
    [
        ("the Eiffel Tower!", ["Eiffel tower"], 1, 1),
        ("Eiffel", ["London", "Eiffel Tower"], 0, 2 / 3),
        ("a b b c", ["b b d"], 0, 2 / 3),
        ("b", ["b b b"], 0, 1 / 2),
        ("tower eiffel", ["Eiffel Tower"], 0, 1),
        ("Paris", ["London"], 0, 0),
        ("", ["London"], 0, 0),
        ("the", ["London"], 0, 0),
        ("", [], 1, 1),
        ("The !", [], 1, 1),
        ("Paris", [], 0, 0),
        ("", ["the", "..."], 1, 1),
        ("", ["the", "London"], 0, 0),
        ("London", ["the", "London"], 1, 1),
        ("London", [""], 0, 0),
        ("“London”", ["London"], 0, 0),
    ],
)
def test_exact_match_and_f1(prediction, golds, em, f1):
    assert exact_match(prediction, golds) == em
    assert token_f1(prediction, golds) == pytest.approx(f1)


def precision_and_recall_f1(prediction, gold):
    left = list(gold)
    shared = 0
    for word in prediction:
        if word in left:
            left.remove(word)
            shared += 1
    if not shared:
        return 0.0
    precision, recall = shared / len(prediction), shared / len(gold)
    return 2 * precision * recall / (precision + recall)


def test_f1_is_that_of_precision_and_recall():
    rng = np.random.default_rng(0)
    for _ in range(200):
        prediction, *golds = (list(map(str, rng.choice(list("uvwxyz"), rng.integers(1, 6)))) for _ in range(3))
        expected = max(precision_and_recall_f1(prediction, gold) for gold in golds)
        assert token_f1(" ".join(prediction), [" ".join(gold) for gold in golds]) == pytest.approx(expected)


def test_squad_scores_are_means():
    predictions, golds = ["The cat", "dog", "", "x"], [["cat"], ["big dog"], [], []]
    assert squad_scores(predictions, golds) == pytest.approx({"squad_em": 2 / 4, "squad_f1": (1 + 2 / 3 + 1) / 4})
    assert squad_scores([""] * 4, golds) == pytest.approx({"squad_em": 2 / 4, "squad_f1": 2 / 4})
    with pytest.raises(ValueError, match="longer"):
        squad_scores(["x"], [["x"], ["y"]])


def test_record_scores_take_the_nearest_entity():
    predictions, golds = ["Barack Obama", "the U.S.", "A"], [["Obama", "Michelle Obama"], ["US"], ["B C", "A"]]
    assert record_scores(predictions, golds) == pytest.approx({"record_em": 2 / 3, "record_f1": (2 / 3 + 1 + 1) / 3})
    assert record_scores(["nobody"] * 3, golds) == {"record_em": 0.0, "record_f1": 0.0}


def mean_f1(threshold, margins, answer_f1, unanswerable):
    answered = [f1 * (not none) for f1, none in zip(answer_f1, unanswerable, strict=True)]
    return np.mean(
        [f1 if margin > threshold else none for margin, f1, none in zip(margins, answered, unanswerable, strict=True)]
    )


@pytest.mark.parametrize("seed", range(30))
def test_the_threshold_is_the_best_there_is(seed):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 12))
    margins = rng.normal(rng.normal(), 2, count).round(int(rng.integers(0, 3)))
    unanswerable = rng.random(count) < rng.random()
    answer_f1 = rng.choice([0, 0.1, 0.2, 0.3, 0.5, 2 / 3, 1], count)
    case = (margins, answer_f1, unanswerable)
    threshold = best_threshold(*case)
    ordered = sorted(set(margins))
    between = [(one + other) / 2 for one, other in pairwise(ordered)]
    candidates = [0.0, ordered[0] - 1, *between, ordered[-1] + 1]
    scores = [mean_f1(candidate, *case) for candidate in candidates]
    assert mean_f1(threshold, *case) == pytest.approx(max(scores), abs=1e-12)
    equals = [
        candidate for candidate, score in zip(candidates, scores, strict=True) if score == pytest.approx(max(scores))
    ]
    assert abs(threshold) == pytest.approx(min(map(abs, equals)))
    turned = rng.permutation(count)
    assert best_threshold(*(values[turned] for values in case)) == threshold


@pytest.mark.parametrize(
    ("margins", "answer_f1", "unanswerable", "threshold"),
    [
        ([-2, -1, 1, 2], [1, 1, 1, 1], [True, True, False, False], 0.0),
        ([1, 2, 3, 5], [0, 0, 1, 1], [True, True, False, False], 2.5),
        ([1, 2, 3, 5], [1, 1, 1, 1], [True, True, False, False], 2.5),
        ([-5, -4, 3], [1, 1, 1], [False, False, False], -6.0),
        ([-5, 4], [1, 1], [True, True], 5.0),
        ([1, 2], [0, 0], [False, False], 0.0),
        ([-2, 2], [1, 1], [False, True], -3.0),
        ([-3, -1, 1, 3], [0.5, 0.5, 1, 1], [False, True, False, True], 0.0),
        ([-1, 0, 0, 0, 1], [0, 1, 1, 1, 1], [False, True, False, False, True], -0.5),
        ([2, 2, 2], [1, 1, 1], [True, True, False], 3.0),
    ],
)
def test_thresholds_by_hand(margins, answer_f1, unanswerable, threshold):
    assert best_threshold(np.array(margins), np.array(answer_f1), np.array(unanswerable)) == threshold


def test_multirc_by_hand():
    labels = np.array([1, 0, 1, 1, 0, 0])
    predictions = np.array([1, 0, 1, 0, 1, 0])
    groups = np.array([7, 7, -2, -2, 9, 0])
    assert multirc_scores(labels, predictions, groups) == pytest.approx({"f1a": 4 / 6, "question_em": 2 / 4})


@pytest.mark.parametrize("kind", ["random", "zeros", "ones", "right", "wrong"])
def test_multirc_scores(kind):
    rng = np.random.default_rng(0)
    labels, groups = rng.integers(0, 2, 90), rng.integers(0, 30, 90)
    predictions = {
        "random": np.where(rng.random(90) < 0.8, labels, 1 - labels),
        "zeros": np.zeros(90, int),
        "ones": np.ones(90, int),
        "right": labels,
        "wrong": 1 - labels,
    }[kind]
    whole = [bool(np.all(labels[groups == group] == predictions[groups == group])) for group in set(groups)]
    scores = multirc_scores(labels, predictions, groups)
    assert scores["f1a"] == pytest.approx(f1_score(labels, predictions, zero_division=0.0))
    assert scores["question_em"] == pytest.approx(np.mean(whole))
