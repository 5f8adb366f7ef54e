"""All prompts in force, by what their cards tell: of small banks read from the folders, of large ones from an index."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from promptpanda.bank.entry import Entry
from promptpanda.bank.index import Index, Keep
from promptpanda.bank.index_row import word_vector
from promptpanda.progress import Progress

if TYPE_CHECKING:
    import numpy as np

    from promptpanda.bank.bank import Bank
    from promptpanda.bank.card import Card

SMALL = 48
"""Banks of no more prompts are read from their folders each time, and need no index."""


@dataclass
class BankContents:
    """The prompts of one bank.

    Attributes:
        name: of an installed bank; None of the user's own.
        index: None where the bank is small.
    """

    folder: Path
    name: str | None
    index: Index | None
    _cards: list[Card] = field(default_factory=list)
    _problems: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self._cards) if self.index is None else len(self.index)

    def holds(self, prompt_id: str) -> bool:
        """Whether there is a readable prompt of this id."""
        if self.index is None:
            return any(card.id == prompt_id for card in self._cards)
        return self.index.holds(prompt_id)

    def entries(self, limit: int | None = None) -> list[Entry]:
        """By id, the first `limit`."""
        if self.index is None:
            return [Entry.of(card) for card in self._cards[:limit]]
        return self.index.entries(limit)

    @property
    def problems(self) -> list[str]:
        """What is wrong with prompts that cannot be read."""
        found = self._problems if self.index is None else list(self.index.problems.values())
        return found if self.name is None else [f"In the installed bank '{self.name}': {one}" for one in found]

    def vectors(self, ids: Collection[str]) -> dict[str, bytes]:
        """Mean word embeddings of these prompts, by id; not all have one. Each is the bytes of (hidden,) float16."""
        if self.index is not None:
            return self.index.vectors(ids)
        found = {card.id: word_vector(self.folder / card.id, card) for card in self._cards if card.id in ids}
        return {name: vector.tobytes() for name, vector in found.items() if vector is not None}

    def possible_records(self, entries: Sequence[Entry], hashes: np.ndarray) -> list[Entry]:
        """Which of its prompts may have seen texts with these hashes; all of whom that cannot be denied."""
        if self.index is None:
            return list(entries)
        found, known = self.index.possible_records(hashes)
        return [one for one in entries if one.record in found or (one.record is not None and one.record not in known)]

    def search(self, query: str, limit: int) -> list[tuple[Entry, float]]:
        """Prompts that match a query of FTS5, best first."""
        if not len(self):
            return []
        index = self.index or Index(self.folder, keep="memory")
        try:
            return index.search(query, limit)
        finally:
            if self.index is None:
                index.close()


class Catalogue:
    """The prompts of a bank and of those beside it, each id once; a bank that stands before others counts."""

    def __init__(self, shelves: Sequence[BankContents]) -> None:
        self.shelves = tuple(shelves)

    @cached_property
    def by_id(self) -> dict[str, tuple[Entry, BankContents]]:
        return self._by_id(None)

    @property
    def entries(self) -> list[Entry]:
        """All readable prompts, by bank and id."""
        return [entry for entry, _ in self.by_id.values()]

    def first(self, limit: int) -> list[tuple[Entry, BankContents]]:
        """The first of them, without reading the others."""
        if "by_id" in self.__dict__:
            return list(self.by_id.values())[:limit]
        return list(self._by_id(limit).values())[:limit]

    def _by_id(self, limit: int | None) -> dict[str, tuple[Entry, BankContents]]:
        found: dict[str, tuple[Entry, BankContents]] = {}
        with _no_collection():
            for shelf in self.shelves:
                for entry in shelf.entries(limit) if limit is None or len(found) < limit else ():
                    found.setdefault(entry.id, (entry, shelf))
        return found

    @property
    def problems(self) -> list[str]:
        """What is wrong with prompts that cannot be read."""
        return list(chain.from_iterable(shelf.problems for shelf in self.shelves))

    def vectors(self, entries: Sequence[Entry]) -> np.ndarray:
        """Mean word embeddings, NaN where one is missing or of another width than most.

        *Shape:* (entries, hidden), float16.
        """
        import numpy as np

        ids, by_id = {one.id for one in entries}, dict[str, bytes]()
        for shelf in reversed(self.shelves):  # of the banks that have an id the first counts
            by_id |= shelf.vectors(ids)
        widths = Counter(map(len, by_id.values())).most_common(1)
        width = widths[0][0] // 2 if widths else 0
        missing = np.full(width, np.nan, np.float16).tobytes()
        found = (by_id.get(one.id, missing) for one in entries)
        whole = bytearray().join(one if len(one) == len(missing) else missing for one in found)
        return np.frombuffer(whole, np.float16).reshape(len(entries), width)

    def possible_records(self, entries: Iterable[Entry], hashes: np.ndarray) -> set[str]:
        """Ids of those of these prompts that may have seen texts with these hashes; none that did is missing."""
        by_shelf: dict[int, list[Entry]] = {}
        for entry in entries:
            by_shelf.setdefault(id(self.by_id[entry.id][1]), []).append(entry)
        return {
            one.id
            for shelf in self.shelves
            if id(shelf) in by_shelf
            for one in shelf.possible_records(by_shelf[id(shelf)], hashes)
        }

    def search(self, query: str, limit: int) -> list[tuple[Entry, BankContents]]:
        """Prompts that match a query of FTS5, best first."""
        found: dict[str, tuple[float, Entry, BankContents]] = {}
        for place, shelf in enumerate(self.shelves):
            for entry, points in shelf.search(query, limit):
                if not any(earlier.holds(entry.id) for earlier in self.shelves[:place]):
                    found[entry.id] = (points, entry, shelf)
        ordered = sorted(found.values(), key=lambda one: (one[0], one[1].id))
        return [(entry, shelf) for _, entry, shelf in ordered][:limit]


@contextmanager
def _no_collection() -> Iterator[None]:
    """While many objects are made that all stay: half the time would go into looking for garbage among them."""
    paused = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if paused:
            gc.enable()


@contextmanager
def opened(bank: Bank, progress: Progress | None = None) -> Iterator[Catalogue]:
    """The prompts in force, as of now.

    Args:
        progress: told how far the reading of many folders has come.
    """
    with ExitStack() as stack:
        banks: list[tuple[str | None, Bank]] = [(None, bank), *bank.others.items()]
        large = any(one.has_more_than(SMALL) for _, one in banks)
        shelves = []
        for name, one in banks:
            # Beside a large bank installed ones are indexed whatever their size: no card is read again then.
            if one.has_more_than(0 if large and name is not None else SMALL):
                keep: Keep = "beside" if name is None else "cache"
                index = stack.enter_context(Index(one.folder, keep=keep, progress=progress))
                shelves.append(BankContents(one.folder, name, index))
            else:
                shelves.append(BankContents(one.folder, name, None, *one.readable_cards()))
        yield Catalogue(shelves)
