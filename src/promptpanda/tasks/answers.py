"""Scores of answers: SQuAD and ReCoRD by their text, MultiRC by groups. All are fractions."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from statistics import fmean

import numpy as np
from sklearn import metrics as sk

_ARTICLES = re.compile(r"\b(a|an|the)\b")
# Of ASCII only, as in SQuAD's evaluation: other quotation marks and dashes count as part of a word.
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise_answer(text: str) -> str:
    """Lower case, without ASCII punctuation and English articles, words one space apart.

    The definition of SQuAD's evaluation (Rajpurkar et al. 2016, section 6.1), which ReCoRD shares.
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def exact_match(prediction: str, golds: Sequence[str]) -> float:
    """1.0 if the prediction equals a gold answer after normalising, else 0.0; for `golds` see `token_f1`."""
    return _best(_same, prediction, _answers(golds))


def token_f1(prediction: str, golds: Sequence[str]) -> float:
    """F1 of the words that prediction and gold answer share, for the gold answer where it is highest.

    Args:
        prediction: "" stands for "no answer".
        golds: as SQuAD 2.0 has it, those that normalise to nothing do not count, and if none is left the question is
            unanswerable: then a prediction that normalises to nothing gets 1.0, any other 0.0.
    """
    return _best(_overlap, prediction, _answers(golds))


def squad_scores(predictions: Sequence[str], golds: Sequence[Sequence[str]]) -> dict[str, float]:
    """Means of `exact_match` and `token_f1` over questions, as squad_em and squad_f1."""
    pairs = list(zip(predictions, golds, strict=True))
    return {
        "squad_em": fmean(exact_match(prediction, answers) for prediction, answers in pairs),
        "squad_f1": fmean(token_f1(prediction, answers) for prediction, answers in pairs),
    }


def record_scores(predictions: Sequence[str], golds: Sequence[Sequence[str]]) -> dict[str, float]:
    """Exact match and word F1 with the nearest gold entity, means over queries, as record_em and record_f1.

    Every query has at least one gold entity, and unlike in SQuAD 2.0 one such as "A" counts though it normalises to
    nothing.
    """
    pairs = list(zip(predictions, golds, strict=True))
    return {
        "record_em": fmean(_best(_same, prediction, entities) for prediction, entities in pairs),
        "record_f1": fmean(_best(_overlap, prediction, entities) for prediction, entities in pairs),
    }


def best_threshold(margins: np.ndarray, answer_f1: np.ndarray, unanswerable: np.ndarray) -> float:
    """The threshold with the highest mean F1 if questions are answered where margin > threshold (SQuAD 2.0).

    Candidates are 0, the midpoints between neighbouring margins, and one below and one above all margins. Of equally
    good ones (within 1e-9 of the F1 of one question) it is the nearest to 0, and of two just as near the negative one.

    Args:
        margins: score of the best span less that of no answer; finite. *Shape:* (questions,).
        answer_f1: F1 of the best span; taken as 0 where unanswerable. *Shape:* (questions,).
        unanswerable: booleans. *Shape:* (questions,).
    """
    unanswerable = np.asarray(unanswerable, dtype=bool)
    order = np.argsort(margins, kind="stable")
    ordered = np.asarray(margins, dtype=np.float64)[order]
    distinct = np.unique(ordered)
    candidates = np.concatenate([[distinct[0] - 1, 0.0, distinct[-1] + 1], distinct[:-1] + np.diff(distinct) / 2])
    # What a question loses, or wins, when it is left without an answer.
    change = np.where(unanswerable, 1.0, -np.asarray(answer_f1, dtype=np.float64))[order]
    total = np.concatenate([[0.0], np.cumsum(change)])[np.searchsorted(ordered, candidates, side="right")]
    best = candidates[total >= total.max() - 1e-9]
    return float(min(best, key=lambda threshold: (abs(threshold), threshold)))


def multirc_scores(labels: np.ndarray, predictions: np.ndarray, groups: np.ndarray) -> dict[str, float]:
    """F1 of class 1 over all answers (f1a), and the share of questions with every answer right (question_em).

    Args:
        labels, predictions: 1 for a right answer, else 0. *Shape:* (answers,).
        groups: the question of each answer, as any integers. *Shape:* (answers,).
    """
    wrong = np.unique(groups[labels != predictions])
    return {
        "f1a": float(sk.f1_score(labels == 1, predictions == 1, zero_division=0.0)),
        "question_em": 1 - len(wrong) / len(np.unique(groups)),
    }


def _answers(golds: Sequence[str]) -> Sequence[str]:
    return [gold for gold in golds if normalise_answer(gold)] or [""]


def _best(score: Callable[[str, str], float], prediction: str, golds: Sequence[str]) -> float:
    return max(score(normalise_answer(prediction), normalise_answer(gold)) for gold in golds)


def _same(prediction: str, gold: str) -> float:
    return float(prediction == gold)


def _overlap(prediction: str, gold: str) -> float:
    words, gold_words = prediction.split(), gold.split()
    if not words or not gold_words:
        return float(words == gold_words)
    return 2 * (Counter(words) & Counter(gold_words)).total() / (len(words) + len(gold_words))
