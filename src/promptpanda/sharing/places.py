"""Where prompts are sent to and fetched from: what a place can do, and which place a text means."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from promptpanda.bank.layout import ID_LIMIT, is_id
from promptpanda.bank.outside import MOST_BYTES
from promptpanda.errors import PandaError
from promptpanda.files import FULL, check_name
from promptpanda.sharing.parcel import Parcel

MOST_FILE = 1_000_000_000  # bytes: fifteen times a prompt of 100 tokens for a model of 70 billion parameters
MOST_PROMPTS = 100_000
_CHUNK = 4_000_000
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


class Place(Protocol):
    """A folder, an object store, or a repository with one folder a prompt.

    Whatever a place tells or gives may have been made by a stranger.

    Attributes:
        name: as sentences say it.
        parallel: how many prompts are worth sending or fetching at the same time.
    """

    name: str
    parallel: int

    def ids(self) -> list[str]:
        """The folders there whose names are formed as ids are, sorted; nothing else there is looked at."""

    def card(self, prompt_id: str) -> bytes | None:
        """The content of a prompt's card.json, of at most MOST_BYTES; None where there is none."""

    def fetch(self, prompt_id: str, name: str, target: Path) -> None:
        """Write one of a prompt's files, of at most MOST_FILE bytes, to `target`."""

    def send(self, parcels: Sequence[Parcel], *, kept: frozenset[str], done: Callable[[], None]) -> None:
        """Write prompts, each whole or not at all; what lies in their places is replaced.

        Args:
            kept: ids whose files lie there already, so that the card and the model card alone are sent.
            done: to be called after each.
        """


def only_ids(names: Sequence[str]) -> list[str]:
    """Those of these names that are ids and safe to make folders of."""
    found = []
    for name in set(names):
        try:
            if is_id(name) and check_name(name, "Prompt id", ID_LIMIT):
                found.append(name)
        except PandaError:
            continue
    if len(found) > MOST_PROMPTS:
        raise PandaError(f"There are {len(found):,} prompts, and at most {MOST_PROMPTS:,} are read.")
    return sorted(found)


def copied(source: BinaryIO, target: Path, limit: int, what: str) -> None:
    """Write what a stream gives to a file. Raises PandaError, which begins with `what`, if it gives more bytes."""
    left = limit
    with target.open("wb") as file:
        while block := source.read(min(_CHUNK, left + 1)):
            left -= len(block)
            if left < 0:
                raise too_large(what, limit)
            file.write(block)


def bounded(content: bytes, what: str) -> bytes:
    """A card's content. Raises PandaError if it has more bytes than a card may."""
    if len(content) > MOST_BYTES:
        raise too_large(what, MOST_BYTES)
    return content


def too_large(what: str, limit: int) -> PandaError:
    return PandaError(f"{what} has more than {limit // 1_000_000} MB, the most that is allowed.")


@contextmanager
def store_errors(name: str, *kinds: type[Exception]) -> Iterator[None]:
    """Turn a library's exceptions of these kinds into one sentence about the place."""
    try:
        yield
    except PandaError:
        raise
    except kinds as error:
        if isinstance(error, OSError) and error.errno in FULL:
            raise  # the disk here, which has a sentence of its own
        said = " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__
        raise PandaError(
            f"{name} cannot be used ({said}); check the address, your credentials and the network, and run the "
            "command again: what was finished is kept."
        ) from error


@contextmanager
def writable(target: Path) -> Iterator[None]:
    """Turn the system's refusal of a file or folder to write into one sentence about it."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise  # which has a sentence of its own
        raise PandaError(f"{target} cannot be written ({error.strerror or error}); choose another place.") from error


def is_tar(text: str) -> bool:
    """Whether TO or FROM means a tar file."""
    return text.lower().endswith((".tar", ".tar.gz", ".tgz"))


def place_of(text: str, *, public: bool = False) -> Place:
    """The place that TO or FROM means: a URL, `owner/name` of a Hub repository, or a folder.

    A folder that is there goes before a repository of the same name; where the owner's name is that of a folder, either
    has to be said.

    Args:
        public: a Hub repository that is made is for everyone to read.

    Raises:
        PandaError: it means none.
    """
    from promptpanda.sharing.folders import FolderPlace
    from promptpanda.sharing.hub import HubPlace
    from promptpanda.sharing.stores import StorePlace

    scheme, found, rest = text.partition("://")
    if is_tar(text) and found:
        raise PandaError(f"A tar file is written and read on this machine, not at {text}; name a file, then move it.")
    if scheme == "hf" and found:
        if not _REPOSITORY.fullmatch(rest):
            raise PandaError(f"A Hub repository is written hf://OWNER/NAME or hf://OWNER/NAME@REVISION, found {text}.")
        return HubPlace(rest, public=public)
    if scheme == "file" and found:
        return FolderPlace(Path(rest))
    if found:
        return StorePlace(text)
    if Path(text).is_dir() or text.startswith(("/", "./", "../", "~")) or text in (".", ".."):
        return FolderPlace(Path(text).expanduser())
    if _REPOSITORY.fullmatch(text):
        if Path(text).parent.is_dir():  # nobody's prompts go to the world by a folder's name
            raise PandaError(
                f"{text} may be a new folder in {Path(text).parent} or a Hub repository; write ./{text} or hf://{text}."
            )
        return HubPlace(text, public=public)
    raise PandaError(
        f"'{text}' is not an existing folder; write ./{text} for a new one, OWNER/NAME for a Hub repository, a URL "
        "(s3://BUCKET/PATH), or FILE.tar."
    )
