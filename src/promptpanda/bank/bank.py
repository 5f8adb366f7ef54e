"""The bank: a folder of prompts, searchable and verifiable."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from promptpanda.backbone import Backbone
from promptpanda.bank.card import CARD_NAME, Card, TestCard
from promptpanda.bank.folder import TrainedPrompt, check_files, read_folder, write_folder
from promptpanda.bank.peft_format import CONFIG_NAME
from promptpanda.errors import PandaError, suggest
from promptpanda.files import check_name

_ID = re.compile(r".+-s\d+-[0-9a-f]{8}")


@dataclass(frozen=True)
class Bank:
    """A folder of prompt folders, each named by its id. It need not exist before the first prompt is saved."""

    folder: Path

    def __init__(self, folder: Path | str) -> None:
        object.__setattr__(self, "folder", Path(folder))

    def ids(self) -> list[str]:
        """Ids of all prompts, sorted; other folders are not the bank's business."""
        if not self.folder.is_dir():
            return []
        return sorted(path.name for path in self.folder.iterdir() if _ID.fullmatch(path.name) and path.is_dir())

    def cards(self) -> Iterator[Card]:
        """Cards of all prompts, by id. A damaged card raises PandaError when its turn comes."""
        for prompt_id in self.ids():
            yield Card.read(self.folder / prompt_id)

    def readable_cards(self) -> tuple[list[Card], list[str]]:
        """The cards that can be read, and what is wrong with the others."""
        cards, problems = [], []
        for prompt_id in self.ids():
            try:
                cards.append(Card.read(self.folder / prompt_id))
            except PandaError as error:
                problems.append(str(error))
        return cards, problems

    def path(self, prompt_id: str) -> Path:
        """The folder of an id. Raises PandaError if the bank has no such prompt."""
        check_name(prompt_id, "Prompt id")
        if prompt_id not in self.ids():
            raise PandaError(f"No prompt '{prompt_id}' in the bank {self.folder}.{suggest(prompt_id, self.ids())}")
        return self.folder / prompt_id

    def resolve(self, reference: str) -> Path:
        """The folder that a PROMPT means: an id, a path, or a task's name (best validation score, then lowest seed)."""
        if reference in self.ids():
            return self.folder / reference
        path = Path(reference)
        if (path / CARD_NAME).is_file() or (path / CONFIG_NAME).is_file():
            return path
        cards = [card for card in self.readable_cards()[0] if card.task.name == reference and card.diverged is None]
        if cards:
            best = max(cards, key=lambda card: (card.score, -card.seed, card.id))
            return self.folder / best.id
        names = sorted({card.task.name for card in self.readable_cards()[0]} | set(self.ids()))
        what = f"holds {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}" if names else "is empty"
        raise PandaError(
            f"No prompt '{reference}': it is neither an id nor a task in the bank {self.folder}, which {what}, nor a "
            f"prompt folder.{suggest(reference, names)}"
        )

    def find(self, prompt_id: str, run: str) -> Path | None:
        """The folder of a run that is done already, or None."""
        path = self.folder / prompt_id
        if not (path / CARD_NAME).is_file():
            return None
        return path if Card.read(path).run == run else None

    def load(self, reference: str, backbone: Backbone) -> TrainedPrompt:
        """Load a prompt of ours by id, path or task name."""
        return read_folder(self.resolve(reference), backbone)

    def save(self, trained: TrainedPrompt, backbone: Backbone) -> TrainedPrompt:
        """Save a prompt under its id; returns it as it lies on disk."""
        path = write_folder(trained, self.folder / check_name(trained.card.id, "Prompt id"), backbone)
        return read_folder(path, backbone)

    def record_test(self, trained: TrainedPrompt, test: TestCard) -> TrainedPrompt:
        """Add test scores to a saved prompt's card."""
        assert trained.path is not None
        card = trained.card.model_copy(update={"test": test})
        card.write(trained.path)
        return TrainedPrompt(trained.prompt, trained.head, trained.signature, card, trained.path)

    def sibling(self, card: Card, seed: int) -> str:
        """The id of the prompt of the same series with this seed, else with the lowest."""
        series = [other for other in self.readable_cards()[0] if other.series == card.series]
        return min(series, key=lambda other: (other.seed != seed, other.seed)).id if series else card.id

    def verify(self, prompt_id: str) -> None:
        """Raises PandaError if a file is missing, cut or changed."""
        path = self.path(prompt_id)
        check_files(path, Card.read(path))

    def remove(self, prompt_id: str) -> None:
        """Delete a prompt for good."""
        shutil.rmtree(self.path(prompt_id))
