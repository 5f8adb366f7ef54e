"""The bank: a folder of prompts, searchable and verifiable."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, overload

from promptpanda.bank.catalogue import opened
from promptpanda.bank.entry import of_seed
from promptpanda.bank.index_row import card_of
from promptpanda.bank.installed import installed_banks
from promptpanda.bank.layout import ID_LIMIT, check_id, is_id, is_prompt_folder
from promptpanda.errors import PandaError, suggest
from promptpanda.files import check_name, remove_folder, staging_prefix, sweep_staging

if TYPE_CHECKING:
    from promptpanda.backbone import Backbone
    from promptpanda.bank.card import Card, TestCard
    from promptpanda.bank.folder import TrainedPrompt

_COMPARED = 1000  # prompts whose ids are looked through for the one that was meant


@dataclass(frozen=True)
class Bank:
    """A folder of trained prompts, one folder each, named by the prompt's id.

    The folder need not exist before the first prompt is saved. If it is deleted or moved while a program works with it,
    the next access raises PandaError.

    Prompts of installed banks (packages such as the starter bank) can be used like the bank's own. Installed banks are
    read and never written to. If two banks have a prompt of the same id, that of this bank counts.

    Attributes:
        folder: the bank's folder.
        others: other banks whose prompts can be used, by name; by default all installed banks, `{}` for none.
    """

    folder: Path
    others: Mapping[str, Bank]
    _seen: list[bool] = field(default_factory=list, init=False, repr=False, compare=False)

    def __init__(self, folder: Path | str, *, others: Mapping[str, Bank] | None = None) -> None:
        if others is None:
            others = {name: Bank(place, others={}) for name, place in installed_banks()[0].items()}
        object.__setattr__(self, "folder", Path(folder))
        object.__setattr__(self, "others", others)
        object.__setattr__(self, "_seen", [])

    def ids(self) -> list[str]:
        """The ids of all prompts of this bank, sorted. Folders that are not named like a prompt are ignored.

        Raises:
            PandaError: the bank is a file, or was deleted meanwhile.
        """
        if not self.folder.is_dir():
            if self.folder.exists():
                raise PandaError(f"The bank {self.folder} is a file, not a folder; choose another place (--bank).")
            self.check_there()
            return []
        self._seen[:] = [True]
        return sorted(self._names())

    def has_more_than(self, count: int) -> bool:
        """Whether the bank has more than `count` prompts; a large bank is not listed to the end."""
        if not self.folder.is_dir():
            return False
        self._seen[:] = [True]
        return sum(1 for _ in islice(self._names(), count + 1)) > count

    def _names(self) -> Iterator[str]:
        with os.scandir(self.folder) as found:
            yield from (one.name for one in found if is_id(one.name) and one.is_dir())

    def cards(self) -> Iterator[Card]:
        """The cards of all prompts of this bank, in the order of their ids.

        Raises:
            PandaError: a card is damaged; raised when its turn comes.
        """
        for prompt_id in self.ids():
            yield self._card(prompt_id)

    def readable_cards(self) -> tuple[list[Card], list[str]]:
        """The cards that can be read, and one sentence for each that cannot."""
        cards, problems = [], []
        for prompt_id in self.ids():
            try:
                cards.append(self._card(prompt_id))
            except PandaError as error:
                problems.append(str(error))
        return cards, problems

    def folder_of(self, prompt_id: str) -> Path:
        """The folder of a prompt in this bank or an installed one; it is not checked that it exists."""
        for bank in (self, *self.others.values()):
            if (bank.folder / prompt_id).is_dir():
                return bank.folder / prompt_id
        return self.folder / prompt_id

    def _card(self, prompt_id: str) -> Card:
        return card_of(self.folder / prompt_id)

    def path(self, prompt_id: str) -> Path:
        """The folder of a prompt of this bank.

        Raises:
            PandaError: the bank has no prompt of this id.
        """
        check_name(prompt_id, "Prompt id", ID_LIMIT)
        if not self.holds(prompt_id):
            raise PandaError(f"No prompt '{prompt_id}' in the bank {self.folder}.{suggest(prompt_id, self.ids())}")
        return self.folder / prompt_id

    def holds(self, prompt_id: str) -> bool:
        """Whether this bank has a prompt of this id."""
        return is_id(prompt_id) and Path(prompt_id).name == prompt_id and (self.folder / prompt_id).is_dir()

    def resolve(self, reference: str) -> Path:
        """The folder of a prompt that is named in one of three ways.

        Args:
            reference: a prompt's id, the path of a prompt's folder, or a task's name. A task's name means its prompt
                with the best validation score (ties: the most training examples, so that a refit goes before what it
                repeats; then the lowest seed). Prompts whose score is of examples that they were trained on are taken
                only if there are no others.

        Raises:
            PandaError: there is no such prompt.
        """
        if any(bank.holds(reference) for bank in (self, *self.others.values())):
            return self.folder_of(reference)
        path = Path(reference)
        if is_prompt_folder(path):
            return path
        with opened(self) as catalogue:
            prompts = [entry for entry in catalogue.entries if entry.prompt_kind is not None]
        named = [entry for entry in prompts if entry.task == reference and not entry.diverged]
        if named:
            best = max(named, key=lambda one: (one.is_judged, one.validation, one.n_train, -one.seed, one.id))
            return self.folder_of(best.id)
        names = sorted({entry.task for entry in prompts})
        if len(prompts) <= _COMPARED:
            ids = {*self.ids(), *(prompt_id for bank in self.others.values() for prompt_id in bank.ids())}
            names = sorted({*names, *ids})
        what = f"holds {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}" if names else "is empty"
        raise PandaError(
            f"No prompt '{reference}': it is neither an id nor a task in the bank {self.folder}, which {what}, nor a "
            f"prompt folder.{suggest(reference, names)}"
        )

    def find(self, prompt_id: str, run: str) -> Path | None:
        """The folder of a run that is finished already; None if there is none, or only an incomplete one.

        Args:
            prompt_id: the id that the run's prompt would have.
            run: the run's hash (`Card.run`).

        Raises:
            PandaError: the folder holds another run.
        """
        from promptpanda.bank.card import Card
        from promptpanda.bank.folder import is_incomplete

        path = self.folder / prompt_id
        if not path.exists() or is_incomplete(path):
            return None
        if Card.read(path).run != run:
            raise PandaError(f"{path} holds another run of the same name; remove it (panda bank rm {prompt_id}).")
        return path

    def load(self, reference: str, backbone: Backbone) -> TrainedPrompt:
        """Load a prompt.

        Args:
            reference: its id, the path of its folder, or a task's name (see `resolve`).
            backbone: the model that it was trained on.

        Raises:
            PandaError: there is no such prompt, it is damaged, or it belongs to another model.
        """
        from promptpanda.bank.folder import read_folder

        return read_folder(self.resolve(reference), backbone)

    def prepare(self) -> None:
        """Create the folder and check that it can be written to, so that a problem shows before a training."""
        with self._still_there():
            self.folder.mkdir(parents=True, exist_ok=True)
            self._seen[:] = [True]
            sweep_staging(self.folder)
            with TemporaryDirectory(prefix=staging_prefix(), dir=self.folder):
                pass

    def save(self, trained: TrainedPrompt, backbone: Backbone) -> TrainedPrompt:
        """Save a prompt under its id, whole or not at all.

        A finished folder of the same id is left as it is; an incomplete one is replaced.

        Args:
            trained: the prompt.
            backbone: the model that it was trained on.

        Returns:
            The prompt as it was read back from disk, with its `path`.

        Raises:
            PandaError: it cannot be written, or holds numbers that are not finite.
        """
        from promptpanda.bank.folder import is_incomplete, read_folder, write_folder

        path = self.folder / check_id(trained.card.id)
        with self._still_there():
            if is_incomplete(path):
                remove_folder(path)
            write_folder(trained, path, backbone)
            return replace(read_folder(path, backbone), backbone=trained.backbone)

    def record_test(self, trained: TrainedPrompt, test: TestCard) -> TrainedPrompt:
        """Add test scores to a saved prompt's card. Returns the prompt with its new card."""
        return self._record(trained, test=test)

    def record_temperature(self, trained: TrainedPrompt, temperature: float) -> TrainedPrompt:
        """Add a temperature that was fitted later to a saved prompt's card. Returns the prompt with its new card."""
        return self._record(trained, temperature=temperature)

    def _record(self, trained: TrainedPrompt, **changes: object) -> TrainedPrompt:
        assert trained.path is not None
        card = trained.card.model_copy(update=changes)
        with self._still_there():
            card.write(trained.path)
        return replace(trained, card=card)

    def check_there(self) -> None:
        """Raises PandaError if the bank existed when it was first used, and is gone now."""
        if self._seen and not self.folder.is_dir():
            raise PandaError(
                f"The bank {self.folder} is gone: it was deleted or moved while this run worked with it; run the "
                "command again, which makes a new one."
            )

    @contextmanager
    def _still_there(self) -> Iterator[None]:
        self.check_there()
        try:
            yield
        except (FileNotFoundError, PandaError):
            self.check_there()
            raise

    def siblings(self, card: Card, seeds: Sequence[int]) -> list[str]:
        """For every seed the id of the prompt of the same series with it, else with the lowest."""
        with opened(self) as catalogue:
            series = [one for one in catalogue.entries if one.series == card.series and not one.diverged]
        return [of_seed(series, seed).id if series else card.id for seed in seeds]

    def verify(self, prompt_id: str) -> None:
        """Check a prompt's files against the checksums in its card.

        Raises:
            PandaError: a file is missing, truncated or changed, or the files do not match each other.
        """
        from promptpanda.bank.folder import read_contents

        self._card(prompt_id)
        read_contents(self.path(prompt_id))

    def remove(self, prompt_id: str) -> None:
        """Delete a prompt permanently. If its folder is a link, only the link is deleted.

        Raises:
            PandaError: the bank has no prompt of this id.
        """
        remove_folder(self.path(prompt_id))
        sweep_staging(self.folder)


def as_trained(
    prompt: TrainedPrompt | Path | str, backbone: Backbone, bank: Bank | Path | str | None = None
) -> TrainedPrompt:
    """A trained prompt, from itself, its folder, or what the bank knows it by (an id, or a task's name).

    Raises:
        PandaError: there is none, it is damaged, or it belongs to another backbone.
    """
    if not isinstance(prompt, (str, Path)):
        return prompt
    from promptpanda.bank.folder import read_folder

    found = as_bank(bank)
    return read_folder(Path(prompt) if found is None else found.resolve(str(prompt)), backbone)


@overload
def as_bank(bank: Bank | Path | str) -> Bank: ...
@overload
def as_bank(bank: None) -> None: ...
def as_bank(bank: Bank | Path | str | None) -> Bank | None:
    """A bank, from a bank or its folder."""
    return Bank(bank) if isinstance(bank, (str, Path)) else bank
