"""Sending prompts to a place: what lies there already is not sent again, and nothing is replaced unasked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from promptpanda.bank.card import Card
from promptpanda.bank.layout import CARD_NAME
from promptpanda.errors import PandaError
from promptpanda.sharing.parallel import in_parallel
from promptpanda.sharing.parcel import Parcel
from promptpanda.sharing.places import Place


@dataclass
class Sent:
    """What became of prompts that were to be sent.

    Attributes:
        new: ids of those that were sent.
        updated: ids of those whose card alone differed (test scores were added, say).
        unchanged: ids of those that lay there already.
    """

    new: list[str] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)


def send(
    place: Place, parcels: Sequence[Parcel], *, force: bool = False, done: Callable[[], None] = lambda: None
) -> Sent:
    """Send prompts.

    Args:
        force: send all files again, also in place of other prompts of the same id.

    Raises:
        PandaError: the place cannot be used, or has another prompt of the same id; nothing was sent then.
    """
    there = in_parallel(lambda parcel: place.card(parcel.id), parcels, place.parallel, lambda: None, strict=True)
    sent = Sent()
    for parcel, content in zip(parcels, there, strict=True):
        assert not isinstance(content, PandaError)
        if content is None or force:
            sent.new.append(parcel.id)
        elif content == parcel.content:
            sent.unchanged.append(parcel.id)
            done()
        else:
            _check_same(parcel, content, place)
            sent.updated.append(parcel.id)
    rest = [parcel for parcel in parcels if parcel.id not in sent.unchanged]
    if rest:
        place.send(rest, kept=frozenset(sent.updated), done=done)
    return sent


def _check_same(parcel: Parcel, content: bytes, place: Place) -> None:
    """Raises PandaError unless what lies there is the same prompt, with another card."""
    with TemporaryDirectory() as folder:
        (Path(folder) / CARD_NAME).write_bytes(content)
        try:
            card = Card.read(Path(folder))
        except PandaError:
            card = None
    if card is None or (card.run, card.files) != (parcel.card.run, parcel.card.files):
        what = "something that is no sound prompt" if card is None else "another prompt, or the same with other files,"
        raise PandaError(f"{place.name} has {what} under the id {parcel.id}; replace it with --force.")
