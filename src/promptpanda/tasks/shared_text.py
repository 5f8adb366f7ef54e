"""Which sets share texts, so that a transfer between them tells little: facts in shared_text.yaml, or handed in."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib.resources import files

import yaml

Pairs = frozenset[frozenset[str]]


@cache
def known_pairs() -> Pairs:
    """The pairs of catalog tasks that are known to share texts; the order within a pair does not matter."""
    content = yaml.safe_load((files("promptpanda.tasks") / "shared_text.yaml").read_text(encoding="utf-8"))
    return pairs_of(pair for listed in content.values() for pair in listed)


def pairs_of(pairs: Iterable[Iterable[str]]) -> Pairs:
    """Pairs in any order as one value that `share_text` takes."""
    return frozenset(frozenset(pair) for pair in pairs)


def share_text(one: str, other: str, more: Pairs = frozenset()) -> bool:
    """Whether two tasks are known to share texts.

    Args:
        more: pairs beside the known ones.
    """
    pair = frozenset((one, other))
    return pair in known_pairs() or pair in more
