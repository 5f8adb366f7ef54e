"""Tags become BIO or are refused; spans and their scores equal those of seqeval."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from seqeval.metrics import f1_score, precision_score, recall_score
from seqeval.metrics.sequence_labeling import get_entities

from promptpanda.errors import PandaError
from promptpanda.tasks.tags import span_scores, spans_of, tag_names, to_bio

NAMES = tag_names(["PER", "LOC", "C-A1"])


def sentences(seed, count, share_of_o):
    rng = np.random.default_rng(seed)
    rest = (1 - share_of_o) / (len(NAMES) - 1)
    weights = [share_of_o] + [rest] * (len(NAMES) - 1)
    return [[str(tag) for tag in rng.choice(NAMES, length, p=weights)] for length in rng.integers(0, 9, count)]


def seqeval_scores(gold, predicted):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            "span_precision": precision_score(gold, predicted),
            "span_recall": recall_score(gold, predicted),
            "span_f1": f1_score(gold, predicted),
        }


def some_of(tags, seed):
    """Predictions that are right in part: two thirds of the tags stay, the others are drawn."""
    rng = np.random.default_rng(seed)
    return [[tag if rng.random() < 2 / 3 else str(rng.choice(NAMES)) for tag in sentence] for sentence in tags]


def test_names_are_in_the_hubs_order():
    assert tag_names(["PER", "ORG"]) == ("O", "B-PER", "I-PER", "B-ORG", "I-ORG")
    assert tag_names([]) == ("O",)


@pytest.mark.parametrize(
    ("scheme", "tags", "bio"),
    [
        (None, "O B-A I-A B-A O", "O B-A I-A B-A O"),
        ("bio", "B-A I-A I-A", "B-A I-A I-A"),
        (None, "S-A B-A I-A E-A O B-B E-B", "B-A B-A I-A I-A O B-B I-B"),
        (None, "U-A B-A I-A L-A O", "B-A B-A I-A I-A O"),
        ("bioes", "S-A S-A B-A E-A", "B-A B-A B-A I-A"),
        ("bioes", "B-A O", "B-A O"),
        ("iob1", "I-A I-A O I-B B-B I-B I-A", "B-A I-A O B-B B-B I-B B-A"),
        ("iob1", "B-A I-A", "B-A I-A"),
        (None, "B-C-A1 I-C-A1", "B-C-A1 I-C-A1"),
        (None, "", ""),
    ],
)
def test_to_bio(scheme, tags, bio):
    assert to_bio(tags.split(), "row 1", scheme) == tuple(bio.split())


@pytest.mark.parametrize("tags", ["O I-A", "I-A", "B-B I-A", "B-A O I-A", "S-A I-A", "B-A E-A I-A", "O E-A", "U-A L-A"])
def test_a_continuation_of_nothing_is_refused(tags):
    last = tags.split()[-1]
    with pytest.raises(PandaError, match=f"Word {len(tags.split())} of row 7 of x.jsonl has the tag '{last}'.*iob1"):
        to_bio(tags.split(), "row 7 of x.jsonl")


@pytest.mark.parametrize(
    ("scheme", "tags", "message"),
    [
        (None, ["O", "X-A"], "Word 2 of row 1 has the tag 'X-A'; expected 'O' or a type after B-, I-, E-"),
        (None, ["PER"], "'PER'; expected 'O'"),
        (None, ["b-PER"], "'b-PER'; expected 'O'"),
        (None, [""], "the tag ''; expected 'O'"),
        ("bio", ["S-A"], "'S-A'; expected 'O' or a type after B-, I-, so"),
        ("iob1", ["B-A", "E-A"], "'E-A'; expected"),
        (None, ["B-"], "'B-' without a type"),
        (None, ["B"], "'B' without a type"),
        (None, ["I- "], "'I- ' without a type"),
        (None, ["O", 3], r"Word 2 of row 1 has 3 \(int\) for a tag"),
        (None, [None], r"None \(NoneType\)"),
    ],
)
def test_other_tags_are_refused(scheme, tags, message):
    with pytest.raises(PandaError, match=message):
        to_bio(tags, "row 1", scheme)


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        ("", []),
        ("O O", []),
        ("B-A I-A O B-B", [(0, 2, "A"), (3, 4, "B")]),
        ("B-A B-A I-A", [(0, 1, "A"), (1, 3, "A")]),
        ("O I-A I-A", [(1, 3, "A")]),
        ("B-A I-B I-B I-A", [(0, 1, "A"), (1, 3, "B"), (3, 4, "A")]),
        ("I-A O I-A", [(0, 1, "A"), (2, 3, "A")]),
        ("B-C-A1 I-C-A1", [(0, 2, "C-A1")]),
    ],
)
def test_spans(tags, spans):
    assert spans_of(tags.split()) == spans


@pytest.mark.parametrize("share_of_o", [0.1, 0.5, 0.9])
def test_spans_equal_seqevals(share_of_o):
    for tags in sentences(0, 300, share_of_o):
        assert spans_of(tags) == [(start, last + 1, name) for name, start, last in get_entities(tags)]


@pytest.mark.parametrize("seed", range(6))
def test_scores_equal_seqevals(seed):
    gold = sentences(seed, 60, 0.5)
    predicted = some_of(gold, seed)
    scores = span_scores(gold, predicted)
    assert scores == pytest.approx(seqeval_scores(gold, predicted))
    assert 0 < scores["span_f1"] < 1


NOTHING, SPAN = [["O", "O"], []], [["B-PER", "O"], []]


@pytest.mark.parametrize(
    ("gold", "predicted"),
    [(NOTHING, NOTHING), (SPAN, NOTHING), (NOTHING, SPAN), (SPAN, SPAN), ([["B-PER", "I-PER"]], [["B-PER", "O"]])],
)
def test_scores_of_few_spans_equal_seqevals(gold, predicted):
    assert span_scores(gold, predicted) == pytest.approx(seqeval_scores(gold, predicted))


def test_scores_by_hand():
    gold = [["B-A", "I-A", "O", "B-B"], ["B-A"], []]
    predicted = [["B-A", "I-A", "O", "B-A"], ["O"], []]
    assert span_scores(gold, predicted) == pytest.approx(
        {"span_precision": 1 / 2, "span_recall": 1 / 3, "span_f1": 2 / 5}
    )
    assert span_scores([], []) == {"span_precision": 0.0, "span_recall": 0.0, "span_f1": 0.0}
