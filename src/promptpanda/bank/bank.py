"""The bank: a folder of prompts, searchable and verifiable."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from promptpanda.backbone import Backbone
from promptpanda.bank.card import CARD_NAME, Card, TestCard
from promptpanda.bank.folder import TrainedPrompt, check_files, read_folder, write_folder
from promptpanda.bank.peft_format import CONFIG_NAME
from promptpanda.errors import PandaError, suggest
from promptpanda.files import check_name, staging_prefix

_ID = re.compile(r".+-s\d+-[0-9a-f]{8}")
_ID_LIMIT = 150  # a task's name, and seed and hash behind it


@dataclass(frozen=True)
class Bank:
    """A folder of prompt folders, each named by its id. It need not exist before the first prompt is saved."""

    folder: Path

    def __init__(self, folder: Path | str) -> None:
        object.__setattr__(self, "folder", Path(folder))

    def ids(self) -> list[str]:
        """Ids of all prompts, sorted; other folders are not the bank's business."""
        if not self.folder.is_dir():
            if self.folder.exists():
                raise PandaError(f"The bank {self.folder} is a file, not a folder; choose another place (--bank).")
            return []
        return sorted(path.name for path in self.folder.iterdir() if _ID.fullmatch(path.name) and path.is_dir())

    def cards(self) -> Iterator[Card]:
        """Cards of all prompts, by id. A damaged card raises PandaError when its turn comes."""
        for prompt_id in self.ids():
            yield self._card(prompt_id)

    def readable_cards(self) -> tuple[list[Card], list[str]]:
        """The cards that can be read, and what is wrong with the others."""
        cards, problems = [], []
        for prompt_id in self.ids():
            try:
                cards.append(self._card(prompt_id))
            except PandaError as error:
                problems.append(str(error))
        return cards, problems

    def _card(self, prompt_id: str) -> Card:
        card = Card.read(self.folder / prompt_id)
        if card.id != prompt_id:
            raise PandaError(f"The folder {self.folder / prompt_id} holds the prompt {card.id}; rename it back.")
        return card

    def path(self, prompt_id: str) -> Path:
        """The folder of an id. Raises PandaError if the bank has no such prompt."""
        check_name(prompt_id, "Prompt id", _ID_LIMIT)
        if prompt_id not in self.ids():
            raise PandaError(f"No prompt '{prompt_id}' in the bank {self.folder}.{suggest(prompt_id, self.ids())}")
        return self.folder / prompt_id

    def resolve(self, reference: str) -> Path:
        """The folder that a PROMPT means: an id, a path, or a task's name (best validation score, then lowest seed).

        A score on validation examples that were trained on stands behind all others.
        """
        if reference in self.ids():
            return self.folder / reference
        path = Path(reference)
        if (path / CARD_NAME).is_file() or (path / CONFIG_NAME).is_file():
            return path
        cards = [
            card
            for card in self.readable_cards()[0]
            if card.task.name == reference and card.diverged is None and card.prompt_kind is not None
        ]
        if cards:
            best = max(cards, key=lambda card: (not card.validation_seen, card.score, -card.seed, card.id))
            return self.folder / best.id
        cards = [card for card in self.readable_cards()[0] if card.prompt_kind is not None]
        names = sorted({card.task.name for card in cards} | set(self.ids()))
        what = f"holds {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}" if names else "is empty"
        raise PandaError(
            f"No prompt '{reference}': it is neither an id nor a task in the bank {self.folder}, which {what}, nor a "
            f"prompt folder.{suggest(reference, names)}"
        )

    def find(self, prompt_id: str, run: str) -> Path | None:
        """The folder of a run that is done already, or None."""
        path = self.folder / prompt_id
        if not path.exists():
            return None
        if Card.read(path).run != run:
            raise PandaError(f"{path} holds another run of the same name; remove it (panda bank rm {prompt_id}).")
        return path

    def load(self, reference: str, backbone: Backbone) -> TrainedPrompt:
        """Load a prompt of ours by id, path or task name."""
        return read_folder(self.resolve(reference), backbone)

    def prepare(self) -> None:
        """Make sure that a prompt can be written: better found out before a training than after it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=staging_prefix(), dir=self.folder):
            pass

    def save(self, trained: TrainedPrompt, backbone: Backbone) -> TrainedPrompt:
        """Save a prompt under its id; returns it as it lies on disk."""
        path = write_folder(trained, self.folder / check_name(trained.card.id, "Prompt id", _ID_LIMIT), backbone)
        return replace(read_folder(path, backbone), backbone=trained.backbone)

    def record_test(self, trained: TrainedPrompt, test: TestCard) -> TrainedPrompt:
        """Add test scores to a saved prompt's card."""
        assert trained.path is not None
        card = trained.card.model_copy(update={"test": test})
        card.write(trained.path)
        return replace(trained, card=card)

    def sibling(self, card: Card, seed: int) -> str:
        """The id of the prompt of the same series with this seed, else with the lowest."""
        series = [other for other in self.readable_cards()[0] if other.series == card.series and other.diverged is None]
        return min(series, key=lambda other: (other.seed != seed, other.seed)).id if series else card.id

    def verify(self, prompt_id: str) -> None:
        """Raises PandaError if a file is missing, cut or changed."""
        path = self.path(prompt_id)
        check_files(path, Card.read(path))

    def remove(self, prompt_id: str) -> None:
        """Delete a prompt for good."""
        shutil.rmtree(self.path(prompt_id))
