"""One prompt as it is sent: its files, all of them checked, and its model card."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from promptpanda.bank.card import Card
from promptpanda.bank.layout import CARD_NAME
from promptpanda.bank.seen_texts import SEEN_NAME
from promptpanda.sharing.model_card import model_card

README = "README.md"


@dataclass(frozen=True)
class Parcel:
    """A prompt to be sent.

    Attributes:
        card: as it is sent.
        content: of card.json, which is written last: a folder with a card is whole.
        files: the other files of the folder, by name.
        readme: the model card, or None.
        licence: under which the prompt is given away, as the Hub writes it.
    """

    card: Card
    content: bytes
    files: dict[str, Path]
    readme: str | None = None
    licence: str = "unknown"

    @property
    def id(self) -> str:
        return self.card.id

    @classmethod
    def of(cls, folder: Path, *, seen_texts: bool = True, with_readme: bool = True, licence: str = "unknown") -> Parcel:
        """Read and check a prompt's folder.

        Args:
            seen_texts: send the record of the texts that the prompt saw; without it the card names none.
            with_readme: make a model card.

        Raises:
            PandaError: a file is missing, cut or changed.
        """
        from promptpanda.bank.folder import read_contents

        card = read_contents(folder).card
        content = (folder / CARD_NAME).read_bytes()
        names = set(card.files)
        if not seen_texts and SEEN_NAME in names:
            names.remove(SEEN_NAME)
            card = card.model_copy(update={"files": {name: card.files[name] for name in sorted(names)}})
            content = (card.model_dump_json(indent=2) + "\n").encode()
        readme = model_card(card, licence) if with_readme else None
        return cls(card, content, {name: folder / name for name in sorted(names)}, readme, licence)
