"""Prompts by words that describe them."""

from __future__ import annotations

import re

from promptpanda.bank.catalogue import BankContents, Catalogue
from promptpanda.bank.entry import Entry
from promptpanda.errors import PandaError

_WORD = re.compile(r"\w+")
_MOST_WORDS = 50
# Of English; other words count by how rare they are.
_EMPTY = frozenset(["a", "an", "and", "for", "in", "of", "on", "or", "the", "to", "with"])


def search(catalogue: Catalogue, words: str, limit: int) -> list[tuple[Entry, BankContents]]:
    """Prompts that match all words, best first, then those that match some.

    Words match whatever begins with them, whatever their ending (review, reviews), in titles, names of tasks, labels,
    kinds and metrics. The order is that of BM25.

    Raises:
        PandaError: there is no word to search for.
    """
    given = [word for word in _WORD.findall(words.replace("_", " ")) if word.lower() not in _EMPTY]
    if not given:
        raise PandaError(f"'{words}' holds no word to search for; describe a task, such as 'product reviews'.")
    terms = [f'"{word}" *' if len(word) > 3 else f'"{word}"' for word in dict.fromkeys(given[:_MOST_WORDS])]
    found = catalogue.search(" AND ".join(terms), limit)
    if len(found) < limit and len(terms) > 1:
        known = {entry.id for entry, _ in found}
        found += [one for one in catalogue.search(" OR ".join(terms), limit) if one[0].id not in known]
    return found[:limit]
