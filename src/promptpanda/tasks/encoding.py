"""Texts to token ids, once a run, and ids to padded batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from promptpanda.backbone import Backbone, TextBatch


@dataclass(frozen=True)
class Encoded:
    """Tokenised examples without padding.

    Attributes:
        input_ids: one array of token ids an example. *Shape:* (tokens,) each.
        token_type_ids: likewise, or None where the tokenizer has no segments.
        pad_id: the id that fills the right of a batch.
    """

    input_ids: tuple[np.ndarray, ...]
    token_type_ids: tuple[np.ndarray, ...] | None
    pad_id: int

    def __len__(self) -> int:
        return len(self.input_ids)

    def first(self, count: int) -> Encoded:
        """The first `count` examples, or all if there are fewer."""
        types = None if self.token_type_ids is None else self.token_type_ids[:count]
        return Encoded(self.input_ids[:count], types, self.pad_id)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each example. *Shape:* (examples,)."""
        return np.asarray([len(ids) for ids in self.input_ids])

    def batch(self, indices: Sequence[int] | np.ndarray) -> TextBatch:
        """The examples at these positions, padded to the longest of them."""
        width = max(len(self.input_ids[index]) for index in indices)
        ids = np.full((len(indices), width), self.pad_id, dtype=np.int64)
        mask = np.zeros((len(indices), width), dtype=np.int64)
        types = None if self.token_type_ids is None else np.zeros((len(indices), width), dtype=np.int64)
        for row, index in enumerate(indices):
            length = len(self.input_ids[index])
            ids[row, :length] = self.input_ids[index]
            mask[row, :length] = 1
            if types is not None and self.token_type_ids is not None:
                types[row, :length] = self.token_type_ids[index]
        return TextBatch(
            torch.from_numpy(ids), torch.from_numpy(mask), None if types is None else torch.from_numpy(types)
        )


def encode(backbone: Backbone, texts: Sequence[tuple[str, ...]], max_length: int) -> Encoded:
    """Tokenise texts of one or two segments, cut to `max_length` tokens (the longer segment of a pair first).

    Decoders' tokenizers put nothing between the segments of a pair, so there a line break joins them.
    """
    tokenizer = backbone.tokenizer
    first = [text[0] for text in texts]
    second = [text[1] for text in texts] if texts and len(texts[0]) == 2 else None
    if second is not None and tokenizer.sep_token is None:
        first = ["\n".join(text) for text in texts]
        second = None
    encoded = tokenizer(first, second, truncation="longest_first", max_length=max_length, return_attention_mask=False)
    types = encoded.get("token_type_ids")
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    return Encoded(
        tuple(np.asarray(ids, dtype=np.int64) for ids in encoded["input_ids"]),
        None if types is None else tuple(np.asarray(row, dtype=np.int64) for row in types),
        int(pad or 0),
    )
