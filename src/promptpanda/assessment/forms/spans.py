"""Token classification: spans of words, each with a type."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy import sparse

from promptpanda.assessment.classes import ByClass
from promptpanda.assessment.evaluated import Answers, Evaluated
from promptpanda.assessment.forms.form import Confusion, Form, Written
from promptpanda.tasks.inputs import Words
from promptpanda.tasks.tags import Span, spans_of
from promptpanda.transfers.outputs import softmax

OUTSIDE = "O"  # what a span is taken for that is missed, and what one is that is made up
_NOTE = (
    "A predicted span stands with the right one that it overlaps: equal ones first, then those that share most words. "
    "On the diagonal the type is right; {limits} of these begin or end elsewhere. Column O: missed; row O: made up."
)


class TypedSpans(Form):
    """Spans; one is right if start, end and type are."""

    answers_are = "sentences"

    def answers(self, evaluated: Evaluated, temperature: float = 1.0) -> Answers:
        """A sentence is as sure as the least sure of its tags, and right if all its spans are and no other is said."""
        assert evaluated.encoded.places is not None
        confidence = np.ones(len(evaluated))
        for example in range(len(evaluated)):
            for row in evaluated.encoded.rows_of(example):
                scores = evaluated.outputs[row, : len(evaluated.encoded.places[row])] / temperature
                confidence[example] = min([confidence[example], *softmax(scores).max(axis=1)])
        return Answers(np.arange(len(evaluated)), confidence, self.right(evaluated))

    def by_class(self, evaluated: Evaluated) -> ByClass:
        names = _types(evaluated)
        gold, said = _spans(evaluated)
        both = [set(one) & set(other) for one, other in zip(gold, said, strict=True)]
        right, gold_counts, said_counts = (_counts(names, spans) for spans in (both, gold, said))
        return ByClass(names, right, gold_counts, said_counts)

    def confusion(self, evaluated: Evaluated) -> Confusion:
        labels = (*_types(evaluated), OUTSIDE)
        place = {name: at for at, name in enumerate(labels)}
        matrix, limits = np.zeros((len(labels), len(labels)), dtype=np.int64), 0
        for gold, said in zip(*_spans(evaluated), strict=True):
            for one, other in matched(gold, said):
                matrix[place[OUTSIDE if one is None else one[2]], place[OUTSIDE if other is None else other[2]]] += 1
                limits += one is not None and other is not None and one[2] == other[2] and one != other
        return Confusion(labels, matrix, _NOTE.format(limits=limits))

    def right(self, evaluated: Evaluated) -> np.ndarray:
        return np.asarray([set(gold) == set(said) for gold, said in zip(*_spans(evaluated), strict=True)])

    def written(self, evaluated: Evaluated, example: int) -> Written:
        text = evaluated.split.texts[example]
        assert isinstance(text, Words)
        gold, said = (_read(evaluated, side[example]) for side in (evaluated.split.labels, evaluated.predictions))
        return Written(_listed(gold, text.words), _listed(said, text.words))


def matched(gold: Sequence[Span], said: Sequence[Span]) -> list[tuple[Span | None, Span | None]]:
    """Pairs of spans that overlap, each span in one pair at most; None stands where a span has no partner.

    Equal spans go together first, then those with equal limits, then those that share most words; of equal overlaps
    those of one type, then the first.
    """

    def shared(one: Span, other: Span) -> int:
        return min(one[1], other[1]) - max(one[0], other[0])

    candidates = [(one, other) for one in gold for other in said if shared(one, other) > 0]
    candidates.sort(
        key=lambda pair: (pair[0] != pair[1], pair[0][:2] != pair[1][:2], -shared(*pair), pair[0][2] != pair[1][2])
    )
    free_gold, free_said = dict.fromkeys(gold), dict.fromkeys(said)
    pairs: list[tuple[Span | None, Span | None]] = []
    for one, other in candidates:
        if one in free_gold and other in free_said:
            del free_gold[one], free_said[other]
            pairs.append((one, other))
    return [*pairs, *((one, None) for one in free_gold), *((None, other) for other in free_said)]


def _spans(evaluated: Evaluated) -> tuple[list[list[Span]], list[list[Span]]]:
    """Of every example the right spans, and those that are predicted."""
    gold, said = ([_read(evaluated, tags) for tags in side] for side in (evaluated.split.labels, evaluated.predictions))
    return gold, said


def _read(evaluated: Evaluated, tags: Sequence[int]) -> list[Span]:
    return spans_of([evaluated.names[tag] for tag in tags])


def _types(evaluated: Evaluated) -> tuple[str, ...]:
    return tuple(dict.fromkeys(tag.partition("-")[2] for tag in evaluated.names if tag != OUTSIDE))


def _counts(names: Sequence[str], spans: Sequence[set[Span] | list[Span]]) -> sparse.csr_array:
    """How many spans of each type every example has. *Shape:* (examples, types)."""
    place = {name: at for at, name in enumerate(names)}
    found = Counter((example, place[span[2]]) for example, own in enumerate(spans) for span in own)
    rows, columns = (np.asarray([key[side] for key in found], dtype=np.int64) for side in (0, 1))
    values = np.asarray(list(found.values()), dtype=np.float64)
    return sparse.csr_array((values, (rows, columns)), shape=(len(spans), len(names)))


def _listed(spans: Sequence[Span], words: Sequence[str]) -> str:
    return "; ".join(f"{' '.join(words[start:end])} [{name}]" for start, end, name in spans) or "(no span)"
