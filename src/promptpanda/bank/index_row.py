"""What the index keeps of one prompt, read from its folder without its model."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from promptpanda.bank.entry import Entry
from promptpanda.bank.index_file import Row
from promptpanda.bank.layout import SEEN_NAME, SIGNATURE_NAME
from promptpanda.bank.outside import check_ordinary
from promptpanda.errors import PandaError

if TYPE_CHECKING:
    import numpy as np

    from promptpanda.bank.card import Card

_NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
_MOST_LETTERS = 20_000  # of labels that are searched


def card_of(folder: Path) -> Card:
    """The card of a bank's folder. Raises PandaError if it cannot be read, or is another prompt's."""
    from promptpanda.bank.card import Card

    card = Card.read(folder)
    if card.id != folder.name:
        raise PandaError(f"The folder {folder} holds the prompt {card.id}; rename it back.")
    return card


def row_of(folder: Path, stamp: str) -> Row:
    """Read a prompt for the index. Raises PandaError if its card cannot be read.

    Args:
        stamp: of its card before it is read. Where another file is damaged the row is never up to date, so that it is
            read again when that is mended.
    """
    card = card_of(folder)
    vector, hashes = word_vector(folder, card), _halves(folder, card)
    whole = (vector is not None or card.prompt_kind is None) and (hashes is not None or SEEN_NAME not in card.files)
    return Row(
        card.id,
        stamp if whole else "",
        card.files.get(SEEN_NAME),
        Entry.of(card).written(),
        words_of(card),
        card.backbone.fingerprint,
        b"" if vector is None else vector.tobytes(),
        hashes,
    )


def word_vector(folder: Path, card: Card) -> np.ndarray | None:
    """The mean embedding of the words of a prompt's texts, before the first layer; None where that is not sound.

    No prompt changes it, so that sources can be compared by it with a target that was seen under none of them.

    *Shape:* (hidden,), float16.
    """
    import numpy as np

    found = _array(folder, card, SIGNATURE_NAME, "embeddings")
    if found is None or found.ndim != 3 or found.dtype.kind != "f" or 0 in found.shape:
        return None
    with np.errstate(over="ignore"):
        kept = found[0, 0].astype(np.float16)
    return kept if bool(np.isfinite(kept).all()) else None


def words_of(card: Card) -> tuple[str, str, str, str]:
    """What is searched: task, title, labels, and everything else in words."""
    task, classes = card.task, len(card.labels)
    spoken = _NUMBERS[classes] if classes < len(_NUMBERS) else ""
    facts = [task.kind.value, task.kind.words, *task.metrics, card.method, task.origin, card.id, card.backbone.name]
    if classes:
        facts.append(f"{classes} classes, {spoken} classes, {classes} labels, {spoken} labels")
    if classes == 2:
        facts.append("binary, yes or no")
    facts += [source.task for source in card.sources]
    return task.name, task.title, ", ".join(card.labels)[:_MOST_LETTERS], ", ".join(facts)


def _halves(folder: Path, card: Card) -> bytes | None:
    """The upper halves of the hashes of seen texts; None where they are not sound."""
    import numpy as np

    hashes = _array(folder, card, SEEN_NAME, "hashes") if SEEN_NAME in card.files else None
    if hashes is None or hashes.ndim != 1 or hashes.dtype != np.uint64:
        return None
    return (hashes >> np.uint64(32)).astype(np.uint32).tobytes()


def _array(folder: Path, card: Card, file: str, name: str) -> np.ndarray | None:
    """One array of a file with the checksum that its card tells; None where it is not sound."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    path = folder / file
    try:
        check_ordinary(path)
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != card.files.get(file):
            return None
        return load(content)[name]
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError, PandaError):
        return None
