"""Extractive question answering: where the answer starts and ends, over windows of a long context."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from promptpanda.tasks.answers import best_threshold, token_f1
from promptpanda.tasks.encoding import Encoded, Layout
from promptpanda.tasks.inputs import Input, Passage
from promptpanda.training.objectives.objective import Objective

N_BEST = 20
_LONGEST = 30  # tokens of an answer, as in the official BERT scripts


class Candidate(NamedTuple):
    """A span of the context that may be the answer. `start` is -1 and `text` empty for no answer."""

    text: str
    start: int
    score: float


@dataclass(frozen=True)
class Spans(Objective):
    """Cross-entropy of start and of end over the tokens of a window; unit 0 means "no answer here".

    Targets: the units where the first answer starts and ends, 0 in windows that do not hold it whole. *Shape:* (rows,
    2). The official scripts take a window's loss likewise, and its no-answer score as the lowest over the windows.

    Attributes:
        threshold: None where every question has an answer.
    """

    outputs: int = 2
    threshold: float | None = None
    reads_tokens: ClassVar[bool] = True

    def targets(self, encoded: Encoded, labels: np.ndarray) -> Tensor:
        assert encoded.places is not None
        targets = torch.zeros((len(encoded.places), 2), dtype=torch.int64)
        for example, answers in enumerate(labels):
            for row in encoded.rows_of(example) if answers else ():
                first, last = answers[0].start, answers[0].start + len(answers[0].text)
                begins, ends = encoded.places[row][1:].T
                # The tokens that hold the answer's first and last character.
                start = np.flatnonzero((begins <= first) & (first < ends))
                end = np.flatnonzero((begins < last) & (last <= ends))
                if len(start) and len(end):
                    targets[row] = torch.tensor([1 + int(start[0]), 1 + int(end[0])])
        return targets

    def loss(self, outputs: Tensor, targets: Tensor, layout: Layout) -> Tensor:
        return F.cross_entropy(self.logits(outputs, layout), targets[layout.rows].flatten())

    def logits(self, outputs: Tensor, layout: Layout) -> Tensor:
        """*Shape:* (rows x 2, units): of each row the start, then the end."""
        assert layout.real is not None
        masked = outputs.float().masked_fill(~layout.real[:, :, None], -torch.inf)
        return masked.transpose(1, 2).flatten(0, 1)

    def predictions(self, outputs: np.ndarray, encoded: Encoded, texts: tuple[Input, ...]) -> list[str]:
        """The text of the best answer, or "" for none."""
        return [self.answer(candidates).text for candidates in self.candidates(outputs, encoded, texts)]

    def answer(self, candidates: list[Candidate]) -> Candidate:
        """The candidate that counts: the best span, or none where it beats "no answer" by too little."""
        best, none = candidates[0], candidates[-1]
        if self.threshold is not None and best.score - none.score <= self.threshold:
            return none
        return best

    def candidates(self, outputs: np.ndarray, encoded: Encoded, texts: tuple[Input, ...]) -> list[list[Candidate]]:
        """The best spans of every example over all its windows, best first, and last "no answer"."""
        return [self._candidates(outputs, encoded, text, example) for example, text in enumerate(texts)]

    def _candidates(self, outputs: np.ndarray, encoded: Encoded, text: Input, example: int) -> list[Candidate]:
        assert encoded.places is not None and isinstance(text, Passage)
        found: dict[tuple[int, int], float] = {}
        none = np.inf
        for row in encoded.rows_of(example):
            places = encoded.places[row]
            scores = outputs[row, : len(places)].astype(np.float64)
            none = min(none, float(scores[0].sum()))
            starts, ends = (1 + np.argsort(-scores[1:, side], kind="stable")[:N_BEST] for side in (0, 1))
            for start in starts:
                for end in ends:
                    if start <= end < start + _LONGEST:
                        key = _trimmed(text.context, int(places[start, 0]), int(places[end, 1]))
                        found[key] = max(found.get(key, -np.inf), float(scores[start, 0] + scores[end, 1]))
        spoken = [(key, score) for key, score in found.items() if key[0] < key[1]]
        best = sorted(spoken, key=lambda entry: (-entry[1], entry[0]))[:N_BEST]
        spans = [Candidate(text.context[start:end], start, score) for (start, end), score in best]
        return [*spans, Candidate("", -1, none)]

    def calibrated(self, outputs: np.ndarray, encoded: Encoded, texts: tuple[Input, ...], labels: np.ndarray) -> Spans:
        """With the threshold that gives the best F1 on these examples."""
        if self.threshold is None:
            return self
        candidates = self.candidates(outputs, encoded, texts)
        margins = [found[0].score - found[-1].score for found in candidates]
        golds = [[answer.text for answer in answers] for answers in labels]
        scores = [token_f1(found[0].text, gold) for found, gold in zip(candidates, golds, strict=True)]
        threshold = best_threshold(np.asarray(margins), np.asarray(scores), np.asarray([not gold for gold in golds]))
        return replace(self, threshold=threshold)


def _trimmed(context: str, start: int, end: int) -> tuple[int, int]:
    """The place without white space around it: tokens of byte-level tokenizers hold the space before a word."""
    text = context[start:end]
    return end - len(text.lstrip()), start + len(text.rstrip())
