"""What a place gives is a stranger's until it is checked: fetched within bounds, judged whole, then kept."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from promptpanda.bank.bank import Bank
from promptpanda.bank.card import Card
from promptpanda.bank.layout import CARD_NAME
from promptpanda.bank.seen_texts import SEEN_NAME
from promptpanda.errors import PandaError
from promptpanda.files import remove_folder, whole_folder
from promptpanda.sharing.parallel import in_parallel
from promptpanda.sharing.places import Place

if TYPE_CHECKING:
    from promptpanda.backbone import Backbone


_OF_OUR_OWN = re.compile(r"remove (it|the prompt) \(panda bank rm\) and train it again")


class OtherModelError(PandaError):
    """A sound prompt of another backbone."""


@dataclass
class Received:
    """What became of the prompts of a place.

    Attributes:
        new: ids that were taken.
        unchanged: ids that the bank had already.
        without_record: of both, those that bring no record of the texts that they saw.
        left_out: prompts of other models, and why, by id.
        problems: prompts that were not taken for another reason, by id.
    """

    new: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    without_record: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)


def receive(
    place: Place,
    bank: Bank,
    ids: Sequence[str],
    *,
    backbone: Backbone | None,
    force: bool = False,
    together: bool = False,
    done: Callable[[], None] = lambda: None,
) -> Received:
    """Take prompts into a bank, each whole or not at all.

    Args:
        ids: of the place.
        backbone: whose prompts are taken; None takes those of any model.
        force: replace other prompts of the same id.
        together: all or none.

    Raises:
        PandaError: the place or the bank cannot be used; with `together`, also if one prompt is not sound.
    """
    bank.prepare()
    with ExitStack() as waiting:

        def take(prompt_id: str) -> Card | None:
            return _take(place, bank, prompt_id, backbone, force, waiting if together else None)

        outcomes = in_parallel(take, ids, 1 if together else place.parallel, done)
        found = Received()
        for prompt_id, outcome in zip(ids, outcomes, strict=True):
            if isinstance(outcome, OtherModelError):
                found.left_out[prompt_id] = str(outcome)
            elif isinstance(outcome, PandaError):
                found.problems[prompt_id] = str(outcome)
                if together:
                    raise outcome
            else:
                (found.unchanged if outcome is None else found.new).append(prompt_id)
                card = outcome or Card.read(bank.folder / prompt_id)
                if card.prompt_kind is not None and SEEN_NAME not in card.files:
                    found.without_record.append(prompt_id)
    return found


def _take(
    place: Place, bank: Bank, prompt_id: str, backbone: Backbone | None, force: bool, waiting: ExitStack | None
) -> Card | None:
    """The card of a prompt that was taken; None where the bank has it already."""
    content = place.card(prompt_id)
    if content is None:
        raise PandaError(f"{prompt_id} at {place.name} has no {CARD_NAME}: it is not a prompt, or is still being sent.")
    target = bank.folder / prompt_id
    card = _card(content, prompt_id, place)
    if not force and _is_there(target, card):
        return None
    with ExitStack() as stack:
        staging = stack.enter_context(_replacing(target))
        (staging / CARD_NAME).write_bytes(content)
        try:
            for name in sorted(card.files):
                place.fetch(prompt_id, name, staging / name)
            _check_contents(staging, backbone)
        except OtherModelError:
            raise
        except PandaError as error:
            raise _refused(error, staging, prompt_id, place) from error
        if waiting is not None:
            waiting.push(stack.pop_all())
    return card


@contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """As `whole_folder`, and what stands in place goes when the new one is whole."""
    with whole_folder(target) as staging:
        yield staging
        if target.exists() or target.is_symlink():
            remove_folder(target)


def _card(content: bytes, prompt_id: str, place: Place) -> Card:
    """The card, judged by itself: of this prompt, and of files that prompts have."""
    from promptpanda.bank.folder import PARTS

    with TemporaryDirectory() as folder:
        (Path(folder) / CARD_NAME).write_bytes(content)
        try:
            card = Card.read(Path(folder))
            if card.id != prompt_id:
                raise PandaError(f"its card is that of {card.id}")
            others = sorted(set(card.files) - PARTS)
            if others:
                raise PandaError(f"its card names {others[0][:80]!r}, and no prompt has such a file")
        except PandaError as error:
            raise _refused(error, Path(folder), prompt_id, place) from error
    return card


def _is_there(target: Path, card: Card) -> bool:
    """Whether the bank has this very prompt. Raises PandaError if it has another of the same id."""
    from promptpanda.bank.folder import is_incomplete

    if not target.exists() or is_incomplete(target):
        return False
    own = Card.read(target)
    known = {name: checksum for name, checksum in own.files.items() if name in card.files}
    if own.run != card.run or known != card.files:
        raise PandaError(
            f"The bank has another prompt of the id {card.id}; remove it (panda bank rm {card.id}), or replace it with "
            "--force."
        )
    return True


def _check_contents(folder: Path, backbone: Backbone | None) -> None:
    """Every checksum and shape; and, of a backbone, that the prompt is its."""
    from promptpanda.bank.folder import read_contents, read_folder
    from promptpanda.bank.ownership import check_owner

    if backbone is None:
        read_contents(folder)
        return
    try:
        check_owner(Card.read(folder), backbone)
    except PandaError as error:
        raise OtherModelError(str(error)) from error
    read_folder(folder, backbone)


def _refused(error: PandaError, folder: Path, prompt_id: str, place: Place) -> PandaError:
    said = str(error).replace(str(folder), prompt_id).rstrip(".")
    said = _OF_OUR_OWN.sub("whoever keeps it there can send it again (panda bank push --force)", said)
    return PandaError(f"{prompt_id} of {place.name} was not taken: {said}.")
