"""Token classification: a tag for the first sub-word of every word."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from promptpanda.tasks.encoding import Encoded, Layout
from promptpanda.tasks.inputs import Input, Words
from promptpanda.training.objectives.objective import Objective

_NO_TAG = -100  # padding among the targets


@dataclass(frozen=True)
class TokenClassification(Objective):
    """Cross-entropy over `outputs` tags, mean over words. Targets: tag indices. *Shape:* (rows, units)."""

    reads_tokens: ClassVar[bool] = True

    def targets(self, encoded: Encoded, labels: np.ndarray) -> Tensor:
        assert encoded.places is not None
        width = max(map(len, encoded.places))
        targets = torch.full((len(encoded.places), max(1, width)), _NO_TAG)
        for example, tags in enumerate(labels):
            for row in encoded.rows_of(example):
                words = encoded.places[row]
                targets[row, : len(words)] = torch.from_numpy(np.asarray(tags, dtype=np.int64)[words])
        return targets

    def loss(self, outputs: Tensor, targets: Tensor, layout: Layout) -> Tensor:
        chosen = targets[layout.rows, : outputs.shape[1]][layout.real]
        # A batch may hold no word: of some control characters tokenizers leave nothing.
        return F.cross_entropy(self.unpadded(outputs, layout).float(), chosen, reduction="sum") / max(1, len(chosen))

    def logits(self, outputs: Tensor, layout: Layout) -> Tensor:
        return self.unpadded(outputs, layout)

    def predictions(self, outputs: np.ndarray, encoded: Encoded, texts: tuple[Input, ...]) -> list[tuple[int, ...]]:
        """Tag indices, one a word; 0 (O) for a word that the tokenizer leaves nothing of."""
        assert encoded.places is not None
        tagged = []
        for example, text in enumerate(texts):
            assert isinstance(text, Words)
            tags = np.zeros(len(text.words), dtype=np.int64)
            for row in encoded.rows_of(example):
                words = encoded.places[row]
                tags[words] = outputs[row, : len(words)].argmax(axis=1)
            tagged.append(tuple(map(int, tags)))
        return tagged
