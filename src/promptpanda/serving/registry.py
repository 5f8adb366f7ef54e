"""The prompts that can be asked for: what lies in the banks, looked at again every second."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from promptpanda.bank.card import Card
from promptpanda.bank.folder import TrainedPrompt, read_folder
from promptpanda.bank.layout import ID_LIMIT, is_id
from promptpanda.bank.ownership import check_owner
from promptpanda.errors import PandaError, suggest
from promptpanda.files import check_name
from promptpanda.serving.limits import RefusedError, outward
from promptpanda.serving.model import Model

_PAUSE = 1.0  # seconds between two looks
_SHARE = 5  # looking takes at most a sixth of the time

Stamp = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True)
class Entry:
    """One prompt in a bank.

    Attributes:
        bank: the name of its bank.
        stamp: what its files looked like: names, sizes, times of change, numbers on the disk.
        card: None where it cannot be read.
        problem: why it is not served, or None.
        trained: prompt and head, in memory; None where they are not served, or were let go.
        doubted: at the last look it was gone or damaged: that is believed at the second look, since whoever replaces a
            prompt removes it first.
    """

    id: str
    bank: str
    folder: Path
    stamp: Stamp
    card: Card | None = None
    problem: str | None = None
    trained: TrainedPrompt | None = None
    doubted: bool = False

    @property
    def served(self) -> bool:
        return self.problem is None

    @property
    def size(self) -> int:
        """Bytes on the disk."""
        return sum(size for _, size, _, _ in self.stamp)


class Registry:
    """What the banks hold, as it was a second ago.

    Args:
        banks: folders by name; where several hold an id, the first counts.
        model: whose prompts are served.
        tell: takes a sentence when something in the banks changes.
    """

    def __init__(self, banks: Mapping[str, Path], model: Model, tell: Callable[[str], None]) -> None:
        self.banks = dict(banks)
        self._model, self._tell = model, tell
        self._entries: dict[str, Entry] = {}
        self._gone: frozenset[str] = frozenset()
        self._looking = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="bank", daemon=True)

    def start(self) -> None:
        """Look once, and go on looking."""
        self.look()
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def entries(self) -> list[Entry]:
        """All prompts, served or not, by id."""
        known = self._entries
        return [known[name] for name in sorted(known)]

    @property
    def gone(self) -> frozenset[str]:
        """The banks whose folders are not there."""
        return self._gone

    def entry(self, prompt_id: str) -> Entry:
        """The prompt of an id, served or not. Raises RefusedError if there is none."""
        try:
            found = self._entries.get(check_name(prompt_id, "Prompt id", ID_LIMIT))
        except PandaError as error:
            raise RefusedError(404, "No prompt has such a name; GET /v1/prompts lists them.") from error
        if found is None:
            known = {name for entry in self._entries.values() for name in _names(entry)}
            raise RefusedError(404, f"No prompt '{prompt_id}' is served.{suggest(prompt_id, sorted(known))}")
        return found

    def find(self, reference: str) -> Entry:
        """The prompt that is served under an id, or the best of a task's name, as `Bank.resolve` has it.

        Raises:
            RefusedError: there is none, or it is not served.
        """
        found = None if reference in self._entries else self._of_task(reference)
        found = found or self.entry(reference)
        if not found.served:
            raise RefusedError(404, f"The prompt '{found.id}' is not served: {found.problem}")
        return found

    def _of_task(self, name: str) -> Entry | None:
        """The best prompt that is served of a task; where none is, one that is not, which tells why."""
        of_task = [(entry, card) for entry in self.entries() if (card := entry.card) and card.task.name == name]
        best = max(
            (
                (card.is_judged, card.score, card.n_train, -card.seed, card.id)
                for entry, card in of_task
                if entry.served and card.diverged is None and card.prompt_kind is not None
            ),
            default=None,
        )
        unserved = next((entry for entry, _ in of_task if not entry.served), None)
        return unserved if best is None else self._entries[best[-1]]

    def known(self, reference: str) -> Entry:
        """The prompt of an id, served or not, or the best that is served of a task's name. Raises RefusedError."""
        return self.entry(reference) if reference in self._entries else self.find(reference)

    def trained(self, entry: Entry) -> TrainedPrompt:
        """Prompt and head of an entry, read again where they were let go."""
        if entry.trained is not None:
            return entry.trained
        with self._looking:
            again = self._examined(entry.id, entry.bank, entry.folder, entry.stamp)
            if again.trained is None:
                raise RefusedError(404, f"The prompt '{entry.id}' is not served: {again.problem}")
            if self._entries.get(entry.id) == entry:
                self._entries = {**self._entries, entry.id: again}
        return again.trained

    def release(self) -> None:
        """Let the tensors of all prompts go; whoever asks for one has it read again."""
        with self._looking:
            self._entries = {name: replace(entry, trained=None) for name, entry in self._entries.items()}

    def look(self) -> None:
        """Look at the banks, and serve what is there now."""
        with self._looking:
            found, gone = self._found()
            before, after = self._entries, {}
            for name, (bank, folder, stamp) in found.items():
                after[name] = self._after(before.get(name), name, bank, folder, stamp)
            for name, entry in before.items():
                if name not in found and not entry.doubted:
                    after[name] = replace(entry, doubted=True)
            self._entries, gone_before, self._gone = after, self._gone, gone
        for bank in sorted(gone - gone_before):
            self._tell(f"The bank '{bank}' is gone: its folder was deleted or moved; its prompts are not served.")
        for sentence in _changes(before, after, first=not self._thread.is_alive()):
            self._tell(sentence)

    def _after(self, old: Entry | None, name: str, bank: str, folder: Path, stamp: Stamp) -> Entry:
        if old is not None and (old.folder, old.stamp) == (folder, stamp):
            return replace(old, doubted=False) if old.doubted else old
        new = self._examined(name, bank, folder, stamp)
        if new.problem is not None and old is not None and old.served and not old.doubted:
            return replace(old, doubted=True)
        return new

    def _found(self) -> tuple[dict[str, tuple[str, Path, Stamp]], frozenset[str]]:
        """The prompt folders that are there, by id, and the banks that are not."""
        found: dict[str, tuple[str, Path, Stamp]] = {}
        gone = set()
        for bank, folder in self.banks.items():
            try:
                names = sorted(name for name in os.listdir(folder) if is_id(name) and name not in found)
            except OSError:
                gone.add(bank)
                continue
            for name in names:
                stamp = _stamp(folder / name)
                if stamp is not None:
                    found[name] = bank, folder / name, stamp
        return found, frozenset(gone)

    def _examined(self, name: str, bank: str, folder: Path, stamp: Stamp) -> Entry:
        """What a folder holds, as far as the backbone can serve it."""
        entry = Entry(name, bank, folder, stamp)
        try:
            card = Card.read(folder)
            if card.id != name:
                return replace(entry, problem=f"Its folder holds the prompt {card.id}; rename it back.")
            entry = replace(entry, card=card)
            check_owner(card, self._model.backbone)
            if not card.weights_kept:
                return replace(entry, problem=f"Of {card.method} the bank keeps the scores and not the weights.")
            trained = read_folder(folder, self._model.backbone)
        except PandaError as error:
            return replace(entry, problem=outward(error))
        except OSError as error:
            return replace(entry, problem=f"Its files cannot be read ({error.strerror}).")
        # What estimators need is read from the disk when somebody ranks.
        return replace(entry, trained=replace(trained, signature=None, seen=None))

    def _watch(self) -> None:
        pause = _PAUSE
        while not self._stop.wait(pause):
            began = time.monotonic()
            self.look()
            pause = max(_PAUSE, _SHARE * (time.monotonic() - began))


def _stamp(folder: Path) -> Stamp | None:
    """None where there is no such folder, or where it went away meanwhile."""
    try:
        with os.scandir(folder) as files:
            found = [(file.name, file.stat()) for file in files]
    except OSError:
        return None
    return tuple(sorted((name, about.st_size, about.st_mtime_ns, about.st_ino) for name, about in found))


def _names(entry: Entry) -> Sequence[str]:
    if not entry.served or entry.card is None:
        return ()
    return entry.id, entry.card.task.name


def _changes(before: Mapping[str, Entry], after: Mapping[str, Entry], *, first: bool) -> list[str]:
    """One sentence for every prompt that came, changed, went, or cannot be served; at the first look for the last."""
    said = []
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if new is None:
            said.append(f"{name} is gone.")
        elif new.problem is not None and (old is None or old.problem != new.problem):
            said.append(f"{name} is not served: {new.problem}")
        elif new.served and (old is None or not old.served) and not first:
            said.append(f"{name} is served.")
        elif new.served and old is not None and old.stamp != new.stamp:
            said.append(f"{name} was replaced.")
    return said
