"""The record of the texts that a prompt's training and validation saw, by which a later target knows its own rows.

Without it a prompt that was trained on a copy of the target under another name looks like the best of all sources.

What is kept of a text is 8 bytes of a BLAKE2b hash of its letters and digits. Spelling in upper or lower case,
punctuation, white space and the forms that Unicode counts as compatible (NFKC) make no difference. Texts of fewer than
four words are not kept: they stand in many sets by chance. The texts of an example are its segments, one by one, so
that a premise is known again beside another hypothesis.

Two different texts have one hash with a probability of 2^-64: a target of 20,000 texts meets a record of a million by
chance about once in 10^9 such pairs.

Privacy: no text can be read from a record, but a record tells whoever has a text already whether it was seen. The key
is public (records of different banks are compared), so texts that can be guessed, such as a form with a number in it,
can be found by trying all of them. Whoever may not tell that much must not give the record away.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from unicodedata import normalize

import numpy as np
from safetensors.numpy import save

from promptpanda.bank.layout import SEEN_NAME as SEEN_NAME
from promptpanda.bank.tensors import read_arrays
from promptpanda.errors import PandaError
from promptpanda.tasks.inputs import Choices, Input, Passage, Words

VERSION = "1"
FEWEST_WORDS = 4

_KEY = b"promptpanda seen texts 1"
_BYTES = 8
_TENSOR = "hashes"
_BETWEEN = re.compile(r"[\W_]+")
# Written without spaces, each of these counts as a word: ideographs, kana.
_ALONE = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")


class OtherVersionError(PandaError):
    """A record of a version that this one cannot compare."""


@dataclass(frozen=True, eq=False)
class SeenTexts:
    """Hashes of texts, each once.

    Attributes:
        hashes: sorted, uint64. *Shape:* (texts,).
    """

    hashes: np.ndarray

    @classmethod
    def of(cls, inputs: Iterable[Input]) -> SeenTexts:
        """The record of these examples."""
        return cls(np.unique(np.asarray(list(_hashed(inputs).values()), dtype=np.uint64)))

    def joined(self, *others: SeenTexts) -> SeenTexts:
        """The record of all that these and this one saw."""
        return SeenTexts(np.unique(np.concatenate([self.hashes, *(other.hashes for other in others)])))

    def saved(self) -> bytes:
        """The file of the record; equal records give equal bytes."""
        return save({_TENSOR: self.hashes}, {"version": VERSION})

    @classmethod
    def read(cls, path: Path) -> SeenTexts:
        """Read a record.

        Raises:
            OtherVersionError: it is of another version.
            PandaError: it is cut, changed, or no record.
        """
        arrays, metadata = read_arrays(path)
        if metadata.get("version") != VERSION:
            raise OtherVersionError(
                f"{path} is of version {str(metadata.get('version'))[:20]}, this promptpanda compares version "
                f"{VERSION}; until the prompt is trained again it is judged by the names of its tasks."
            )
        hashes = arrays.get(_TENSOR)
        if hashes is None or len(arrays) > 1 or hashes.dtype != np.uint64 or hashes.ndim != 1:
            raise PandaError(
                f"{path} is not a record of seen texts: one row of unsigned 64-bit numbers is expected; train the "
                "prompt "
                "again."
            )
        if bool((hashes[1:] <= hashes[:-1]).any()):
            raise PandaError(f"{path} is not in order: it was changed; train the prompt again.")
        return cls(hashes)


@dataclass(frozen=True, eq=False)
class KnownRows:
    """Rows of a target, to be found again in records.

    Attributes:
        hashes: of all their texts that count, uint64. *Shape:* (texts,).
        rows: whose text each is. *Shape:* (texts,).
        count: of all rows, those whose texts are too short included.
    """

    hashes: np.ndarray
    rows: np.ndarray
    count: int

    @classmethod
    def of(cls, inputs: Iterable[Input]) -> KnownRows:
        given = tuple(inputs)
        known = _hashed(given)
        found = [(known[text], row) for row, one in enumerate(given) for text in segments(one) if text in known]
        hashes, rows = zip(*found, strict=True) if found else ((), ())
        return cls(np.asarray(hashes, dtype=np.uint64), np.asarray(rows, dtype=np.int64), len(given))

    def seen_by(self, record: SeenTexts) -> int:
        """How many of the rows have a text that the record holds."""
        if not len(record.hashes):
            return 0
        places = np.searchsorted(record.hashes, self.hashes)
        hits = record.hashes[np.minimum(places, len(record.hashes) - 1)] == self.hashes
        return len(np.unique(self.rows[hits]))


def segments(one: Input) -> Iterator[str]:
    """The texts of an example, each by itself."""
    if isinstance(one, Words):
        yield " ".join(one.words)
    elif isinstance(one, Choices):
        yield from (segment for text in one.texts for segment in text)
    elif isinstance(one, Passage):
        yield from (one.question, one.context)
    else:
        yield from one


def normalised(text: str) -> str | None:
    """The letters and digits of a text; None where there are fewer than four words."""
    folded = normalize("NFKC", normalize("NFKC", text).casefold())
    words = _BETWEEN.sub(" ", folded).split()
    if len(words) < FEWEST_WORDS and len(_ALONE.sub(" x ", " ".join(words)).split()) < FEWEST_WORDS:
        return None
    return "".join(words)


def _hashed(inputs: Iterable[Input]) -> dict[str, int]:
    """The hash of every text of these examples that counts; of texts that come again (a passage) computed once."""
    found = {}
    for text in dict.fromkeys(segment for one in inputs for segment in segments(one)):
        plain = normalised(text)
        if plain is not None:
            content = plain.encode("utf-8", "surrogatepass")
            found[text] = int.from_bytes(blake2b(content, digest_size=_BYTES, key=_KEY).digest(), "little")
    return found
