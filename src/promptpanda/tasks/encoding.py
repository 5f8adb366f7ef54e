"""Inputs to token ids, once a run, and ids to padded batches."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from promptpanda.backbone import Backbone, TextBatch
from promptpanda.errors import PandaError
from promptpanda.tasks.inputs import Choices, Input, Passage, Text, Words


@dataclass(frozen=True)
class Layout:
    """How the rows of a batch, as a model reads them, belong to examples, and which of their tokens a head reads.

    Attributes:
        examples: which examples the batch holds. *Shape:* (examples,).
        rows: which rows of the data it holds. *Shape:* (rows,).
        owner: the place of each row's example in `examples`. *Shape:* (rows,).
        units: positions of the tokens that a head reads one by one; None where it reads one vector a row.
            *Shape:* (rows, units).
        real: False where `units` is padding. *Shape:* (rows, units), bool.
    """

    examples: Tensor
    rows: Tensor
    owner: Tensor
    units: Tensor | None = None
    real: Tensor | None = None

    def to(self, device: torch.device) -> Layout:
        units = None if self.units is None else self.units.to(device)
        real = None if self.real is None else self.real.to(device)
        return Layout(self.examples.to(device), self.rows.to(device), self.owner.to(device), units, real)


@dataclass(frozen=True)
class Encoded:
    """Tokenised examples without padding. An example is one row or several: choices, or windows over a long context.

    Attributes:
        input_ids: one array of token ids a row. *Shape:* (tokens,) each.
        token_type_ids: likewise, or None where the tokenizer has no segments.
        pad_id: the id that fills the right of a batch.
        starts: the first row of every example, and at the end the number of rows. *Shape:* (examples + 1,). None: every
            example is one row.
        units: of every row the positions of the tokens that a head reads one by one. *Shape:* (units,) each. None: it
            reads one vector a row.
        places: what each unit is: the number of the word that it begins (*shape:* (units,)), or where it stands in the
            context, in characters (*shape:* (units, 2); -1 for the unit that means no answer).
        second: where the second text of every row begins, if rows are pairs that are read apart. *Shape:* (rows,).
    """

    input_ids: tuple[np.ndarray, ...]
    token_type_ids: tuple[np.ndarray, ...] | None
    pad_id: int
    starts: np.ndarray | None = None
    units: tuple[np.ndarray, ...] | None = None
    places: tuple[np.ndarray, ...] | None = None
    second: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.input_ids) if self.starts is None else len(self.starts) - 1

    def first(self, count: int) -> Encoded:
        """The first `count` rows, or all if there are fewer, as texts alone."""
        types = None if self.token_type_ids is None else self.token_type_ids[:count]
        second = None if self.second is None else self.second[:count]
        return Encoded(self.input_ids[:count], types, self.pad_id, second=second)

    def take_rows(self, rows: Sequence[int] | np.ndarray) -> Encoded:
        """These rows, for a forward pass that does not ask which example they are of."""
        types = None if self.token_type_ids is None else tuple(self.token_type_ids[row] for row in rows)
        units = None if self.units is None else tuple(self.units[row] for row in rows)
        second = None if self.second is None else self.second[np.asarray(rows)]
        return Encoded(tuple(self.input_ids[row] for row in rows), types, self.pad_id, units=units, second=second)

    def times(self, count: int) -> Encoded:
        """All rows, so many times over, for a forward pass of the same rows under several prompts."""
        types = None if self.token_type_ids is None else self.token_type_ids * count
        units = None if self.units is None else self.units * count
        second = None if self.second is None else np.tile(self.second, count)
        return Encoded(self.input_ids * count, types, self.pad_id, units=units, second=second)

    @cached_property
    def row_lengths(self) -> np.ndarray:
        """Tokens of each row. *Shape:* (rows,)."""
        return np.asarray([len(ids) for ids in self.input_ids])

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of the longest row of each example. *Shape:* (examples,)."""
        if self.starts is None:
            return self.row_lengths
        return np.maximum.reduceat(self.row_lengths, self.starts[:-1])

    def rows_of(self, example: int) -> range:
        """The rows of an example."""
        if self.starts is None:
            return range(example, example + 1)
        return range(int(self.starts[example]), int(self.starts[example + 1]))

    def batch(self, rows: Sequence[int] | np.ndarray) -> TextBatch:
        """These rows, padded to the longest of them."""
        width = max(len(self.input_ids[row]) for row in rows)
        ids = np.full((len(rows), width), self.pad_id, dtype=np.int64)
        mask = np.zeros((len(rows), width), dtype=np.int64)
        types = None if self.token_type_ids is None else np.zeros((len(rows), width), dtype=np.int64)
        for place, row in enumerate(rows):
            length = len(self.input_ids[row])
            ids[place, :length] = self.input_ids[row]
            mask[place, :length] = 1
            if types is not None and self.token_type_ids is not None:
                types[place, :length] = self.token_type_ids[row]
        second = None if self.second is None else torch.from_numpy(self.second[np.asarray(rows)])
        return TextBatch(
            torch.from_numpy(ids), torch.from_numpy(mask), None if types is None else torch.from_numpy(types), second
        )

    def layout(self, examples: Sequence[int] | np.ndarray) -> Layout:
        """The rows of these examples, in order, and how they belong together."""
        indices = np.asarray(examples, dtype=np.int64)
        if self.starts is None:
            rows, owner = indices, np.arange(len(indices))
        else:
            counts = self.starts[indices + 1] - self.starts[indices]
            owner = np.repeat(np.arange(len(indices)), counts)
            rows = np.concatenate([np.asarray(self.rows_of(int(index))) for index in indices])
        return self._layout(indices, rows, owner)

    def row_layout(self, rows: np.ndarray) -> Layout:
        """Rows alone, for forward passes that do not ask which example they are of."""
        return self._layout(rows, rows, np.arange(len(rows)))

    def _layout(self, examples: np.ndarray, rows: np.ndarray, owner: np.ndarray) -> Layout:
        alone = Layout(torch.from_numpy(examples), torch.from_numpy(rows), torch.from_numpy(owner))
        if self.units is None:
            return alone
        width = max([1, *(len(self.units[row]) for row in rows)])
        units = np.zeros((len(rows), width), dtype=np.int64)
        real = np.zeros((len(rows), width), dtype=bool)
        for place, row in enumerate(rows):
            count = len(self.units[row])
            units[place, :count] = self.units[row]
            real[place, :count] = True
        return replace(alone, units=torch.from_numpy(units), real=torch.from_numpy(real))


def encode(backbone: Backbone, inputs: Sequence[Input], max_length: int, *, apart: bool = False) -> Encoded:
    """Tokenise inputs of one kind, cut to rows of `max_length` tokens.

    Whole texts and choices are cut (the longer segment of a pair first). Sentences of words and contexts of questions
    that are longer go on in further rows: words in rows that follow each other, contexts in rows that overlap by a
    quarter of `max_length`. Whatever sides the tokenizer is set to, the end of a text is cut, and rows begin at its
    beginning.

    Args:
        apart: the two texts of a pair are tokenised, and cut, each by itself (readout `compare`).

    Raises:
        PandaError: a question leaves no room for its context; `apart`, and an input is no pair of texts.
    """
    with _cutting_the_end(backbone.tokenizer):
        if inputs and isinstance(inputs[0], Choices):
            return _choices(backbone, [one for one in inputs if isinstance(one, Choices)], max_length)
        if inputs and isinstance(inputs[0], Words):
            return _words(backbone, [one for one in inputs if isinstance(one, Words)], max_length)
        if inputs and isinstance(inputs[0], Passage):
            return _passages(backbone, [one for one in inputs if isinstance(one, Passage)], max_length)
        if apart:
            return _pairs_apart(backbone, inputs, max_length)  # type: ignore[arg-type]
        return _texts(backbone, inputs, max_length)  # type: ignore[arg-type]


@contextmanager
def _cutting_the_end(tokenizer: PreTrainedTokenizerBase) -> Iterator[None]:
    """Set the side of truncation, which is no argument of a call, for a time: the tokenizer is not ours alone.

    The side of padding needs no setting, since tokenizers are never asked to pad here.
    """
    side = tokenizer.truncation_side
    tokenizer.truncation_side = "right"
    try:
        yield
    finally:
        tokenizer.truncation_side = side


def joined(parts: Sequence[Encoded]) -> Encoded:
    """The rows of all, one part after the other, for a forward pass that does not ask which example they are of."""
    if len(parts) == 1:
        return parts[0]
    types = [part.token_type_ids for part in parts if part.token_type_ids is not None]
    units = [part.units for part in parts if part.units is not None]
    second = [part.second for part in parts if part.second is not None]
    return Encoded(
        tuple(chain.from_iterable(part.input_ids for part in parts)),
        tuple(chain.from_iterable(types)) if types else None,
        parts[0].pad_id,
        units=tuple(chain.from_iterable(units)) if units else None,
        second=np.concatenate(second) if second else None,
    )


def token_lengths(backbone: Backbone, inputs: Sequence[Input]) -> np.ndarray:
    """Tokens of whole texts and of choices, uncut. *Shape:* (rows,); empty where long inputs go on in further rows."""
    if not inputs or isinstance(inputs[0], (Words, Passage)):
        return np.empty(0)
    return encode(backbone, inputs, sys.maxsize >> 32).row_lengths


def _texts(backbone: Backbone, texts: Sequence[Text], max_length: int) -> Encoded:
    """Decoders' tokenizers put nothing between the segments of a pair, so there a line break joins them."""
    tokenizer = backbone.tokenizer
    first = [text[0] for text in texts]
    second = [text[1] for text in texts] if texts and len(texts[0]) == 2 else None
    if second is not None and tokenizer.sep_token is None:
        first = ["\n".join(text) for text in texts]
        second = None
    encoded = tokenizer(first, second, truncation="longest_first", max_length=max_length, return_attention_mask=False)
    types = encoded.get("token_type_ids")
    return Encoded(
        tuple(np.asarray(ids, dtype=np.int64) for ids in encoded["input_ids"]),
        None if types is None else tuple(np.asarray(row, dtype=np.int64) for row in types),
        _pad_id(backbone),
    )


def _pairs_apart(backbone: Backbone, texts: Sequence[Text], max_length: int) -> Encoded:
    """Rows of two texts, one behind the other, each with its own special tokens; `second` tells where they meet."""
    for text in texts:
        if len(text) != 2:
            raise PandaError(
                f"The readout 'compare' compares the two texts of a pair, and {text[0][:40]!r} has none beside it; "
                "give both texts, or another --readout."
            )
    first, second = (_texts(backbone, [(text[side],) for text in texts], max_length) for side in (0, 1))
    rows = tuple(np.concatenate(pair) for pair in zip(first.input_ids, second.input_ids, strict=True))
    types = None if first.token_type_ids is None else tuple(np.zeros_like(row) for row in rows)
    return Encoded(rows, types, first.pad_id, second=first.row_lengths)


def _choices(backbone: Backbone, inputs: Sequence[Choices], max_length: int) -> Encoded:
    rows = _texts(backbone, [text for one in inputs for text in one.texts], max_length)
    counts = [len(one.texts) for one in inputs]
    return Encoded(rows.input_ids, rows.token_type_ids, rows.pad_id, np.concatenate([[0], np.cumsum(counts)]))


def _words(backbone: Backbone, inputs: Sequence[Words], max_length: int) -> Encoded:
    """The unit of a word is its first sub-word; a word without any (some control characters) has no unit.

    A predicate is set between asterisks, which are no words: the same word may stand twice in a sentence.
    """
    texts: list[str] = []
    places: list[list[tuple[int, int]]] = []  # of the words of each text, in characters
    for one in inputs:
        parts: list[str] = []
        begins: list[tuple[int, int]] = []
        length = 0
        for number, spelled in enumerate(one.words):
            before = "* " if number == one.predicate else ""
            part = f"{before}{spelled} *" if number == one.predicate else spelled
            begins.append((length + len(before), length + len(before) + len(spelled)))
            parts.append(part)
            length += len(part) + 1
        texts.append(" ".join(parts))
        places.append(begins)
    windows = _windows(backbone, None, texts, max_length, stride=0)
    units, numbers = [], []
    last = -1, -1  # example and word of the last unit: a word that goes on in the next row has its unit already
    for example, positions, offsets in windows.contexts:
        words, word = places[example], 0
        found: list[tuple[int, int]] = []
        for position, (start, end) in zip(positions, offsets, strict=True):
            while word < len(words) and words[word][1] <= start:
                word += 1
            if word < len(words) and start < end and words[word][0] < end and (example, word) > last:
                found.append((position, word))
                last = example, word
        units.append(np.asarray([position for position, _ in found], dtype=np.int64))
        numbers.append(np.asarray([word for _, word in found], dtype=np.int64))
    return Encoded(*windows.rows, windows.starts, tuple(units), tuple(numbers))


def _passages(backbone: Backbone, inputs: Sequence[Passage], max_length: int) -> Encoded:
    """Units are the context's tokens, and before them one that means no answer: [CLS], wherever it stands.

    Where tokenizers set none, and in decoders, which see nothing at the first position, one token more at the end
    stands for it.
    """
    questions = [one.question for one in inputs]
    stride = max_length // 4
    tokenizer = backbone.tokenizer
    at_end = backbone.causal or tokenizer.cls_token_id not in tokenizer("", "")["input_ids"]
    for number, length in enumerate(_lengths(backbone, questions), 1):
        if max_length - at_end - length <= 2 * stride:
            raise PandaError(
                f"Question {number} ({questions[number - 1][:40]!r}) has {length} tokens, which leaves no room for its "
                f"context in {max_length}; raise --max-length, or shorten the question."
            )
    contexts = [one.context for one in inputs]
    windows = _windows(backbone, questions, contexts, max_length - at_end, stride=stride)
    ids, types, pad = windows.rows
    if at_end:
        end = np.asarray([pad if tokenizer.eos_token_id is None else tokenizer.eos_token_id], dtype=np.int64)
        ids = tuple(np.concatenate([row, end]) for row in ids)
        types = None if types is None else tuple(np.concatenate([row, row[-1:]]) for row in types)
    units, places = [], []
    for row, (_, positions, offsets) in enumerate(windows.contexts):
        cls = windows.cls[row]
        none = len(ids[row]) - 1 if at_end or cls is None else cls
        units.append(np.asarray([none, *positions], dtype=np.int64))
        places.append(np.asarray([(-1, -1), *offsets], dtype=np.int64))
    return Encoded(ids, types, pad, windows.starts, tuple(units), tuple(places))


@dataclass(frozen=True)
class _Windows:
    """Rows over long contexts: ids, types and pad id; first rows of examples; of every row its example, and the
    positions and character offsets of the context's tokens; and where [CLS] stands in it."""

    rows: tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...] | None, int]
    starts: np.ndarray
    contexts: list[tuple[int, list[int], list[tuple[int, int]]]]
    cls: list[int | None]


def _windows(
    backbone: Backbone, questions: list[str] | None, contexts: list[str], max_length: int, stride: int
) -> _Windows:
    tokenizer = backbone.tokenizer
    if questions is not None and tokenizer.sep_token is None:
        questions = [f"{question}\n" for question in questions]
    encoded = tokenizer(
        *([contexts] if questions is None else [questions, contexts]),
        truncation=True if questions is None else "only_second",
        max_length=max_length,
        stride=stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        return_attention_mask=False,
    )
    side = 0 if questions is None else 1
    owners = encoded["overflow_to_sample_mapping"]
    found, cls = [], []
    for row, (owner, offsets) in enumerate(zip(owners, encoded["offset_mapping"], strict=True)):
        parts, ids = encoded.sequence_ids(row), encoded["input_ids"][row]
        positions = [place for place, part in enumerate(parts) if part == side]
        added = (place for place, part in enumerate(parts) if part is None)  # a text may spell [CLS] too
        cls.append(next((place for place in added if ids[place] == tokenizer.cls_token_id), None))
        found.append((int(owner), positions, [offsets[place] for place in positions]))
    types = encoded.get("token_type_ids")
    rows = (
        tuple(np.asarray(ids, dtype=np.int64) for ids in encoded["input_ids"]),
        None if types is None else tuple(np.asarray(row, dtype=np.int64) for row in types),
        _pad_id(backbone),
    )
    return _Windows(rows, np.searchsorted(owners, np.arange(len(contexts) + 1)), found, cls)


def _lengths(backbone: Backbone, texts: list[str]) -> list[int]:
    """Tokens of each text, with the special tokens of a pair."""
    special = backbone.tokenizer.num_special_tokens_to_add(pair=True)
    return [len(ids) + special for ids in backbone.tokenizer(texts, add_special_tokens=False)["input_ids"]]


def _pad_id(backbone: Backbone) -> int:
    tokenizer = backbone.tokenizer
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    return int(pad or 0)
