"""A folder as a place: another bank, or what was made to be one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from promptpanda.bank.bank import Bank
from promptpanda.bank.layout import CARD_NAME
from promptpanda.bank.outside import MOST_BYTES, check_ordinary
from promptpanda.errors import PandaError
from promptpanda.files import remove_folder, whole_folder
from promptpanda.sharing.parcel import README, Parcel
from promptpanda.sharing.places import MOST_FILE, bounded, copied, only_ids, writable


class FolderPlace:
    """See `Place`."""

    parallel = 1

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = str(folder)

    def ids(self) -> list[str]:
        if not self.folder.is_dir():
            raise PandaError(f"There is no folder {self.folder}; name one with prompts in it.")
        return only_ids([path.name for path in self.folder.iterdir() if path.is_dir() and not path.is_symlink()])

    def card(self, prompt_id: str) -> bytes | None:
        path = self.folder / prompt_id / CARD_NAME
        if path.is_symlink() or not path.exists():
            return None
        check_ordinary(path)
        with path.open("rb") as file:
            return bounded(file.read(MOST_BYTES + 1), f"{prompt_id}/{CARD_NAME}")

    def fetch(self, prompt_id: str, name: str, target: Path) -> None:
        path = self.folder / prompt_id / name
        if path.is_symlink() or not path.is_file():
            raise PandaError(f"{name} is missing, or is not an ordinary file.")
        with path.open("rb") as file:
            copied(file, target, MOST_FILE, name)

    def send(self, parcels: Sequence[Parcel], *, kept: frozenset[str], done: Callable[[], None]) -> None:
        with writable(self.folder):
            Bank(self.folder, others={}).prepare()
        for parcel in parcels:
            target = self.folder / parcel.id
            with whole_folder(target) as staging:
                write_parcel(parcel, staging)
                if target.exists() or target.is_symlink():
                    remove_folder(target)
            done()


def write_parcel(parcel: Parcel, folder: Path) -> None:
    """Write all files of a parcel into a folder, the card last."""
    for name, path in parcel.files.items():
        with path.open("rb") as file:  # shutil would name the source where the target's disk is full
            copied(file, folder / name, MOST_FILE, name)
    if parcel.readme is not None:
        (folder / README).write_text(parcel.readme, encoding="utf-8")
    (folder / CARD_NAME).write_bytes(parcel.content)
