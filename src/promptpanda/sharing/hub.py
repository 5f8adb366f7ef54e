"""A repository of the Hugging Face Hub as a place: all prompts of one push are one commit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from hashlib import sha1, sha256
from pathlib import Path
from threading import Lock
from typing import Any

from promptpanda.bank.layout import CARD_NAME
from promptpanda.bank.outside import MOST_BYTES
from promptpanda.errors import PandaError
from promptpanda.sharing.model_card import MARK, bank_card
from promptpanda.sharing.parcel import README, Parcel
from promptpanda.sharing.places import MOST_FILE, MOST_PROMPTS, bounded, copied, only_ids, store_errors, too_large
from promptpanda.version import __version__


class HubPlace:
    """See `Place`. Token, endpoint and cache are huggingface_hub's affair (`hf auth login`, HF_TOKEN, HF_ENDPOINT)."""

    parallel = 8

    def __init__(self, reference: str, *, public: bool = False) -> None:
        """`reference` is OWNER/NAME or OWNER/NAME@REVISION."""
        from huggingface_hub import HfApi

        self.repository, _, revision = reference.partition("@")
        self.revision = revision or None
        self.name = f"hf://{reference}"
        self._public = public
        self._lock = Lock()
        self._api: Any = HfApi(library_name="promptpanda", library_version=__version__)

    @cached_property
    def _commit(self) -> str | None:
        """The commit that is read, one for the whole visit; None where there is no repository."""
        from huggingface_hub.errors import RepositoryNotFoundError

        with self._told():
            try:
                found: str = self._api.repo_info(self.repository, revision=self.revision).sha
            except RepositoryNotFoundError:
                return None
        return found

    @property
    def _tree(self) -> dict[str, Any]:
        """What the Hub tells of every file, by its path; asked for once, whichever thread comes first."""
        with self._lock:
            return self._files

    @cached_property
    def _files(self) -> dict[str, Any]:
        if self._commit is None:
            return {}
        tree: dict[str, Any] = {}
        with self._told():
            for entry in self._api.list_repo_tree(self.repository, recursive=True, revision=self._commit):
                if hasattr(entry, "size"):
                    tree[entry.path] = entry
                if len(tree) > 10 * MOST_PROMPTS:
                    raise PandaError(f"{self.name} has more than {10 * MOST_PROMPTS:,} files; it is no bank.")
        return tree

    def ids(self) -> list[str]:
        if self._commit is None:
            raise PandaError(
                f"There is no repository {self.repository} on the Hub, or it is private and your token may not read "
                "it; check the name, and log in with `hf auth login`."
            )
        return only_ids([path.split("/")[0] for path in self._tree if "/" in path])

    def card(self, prompt_id: str) -> bytes | None:
        path = f"{prompt_id}/{CARD_NAME}"
        if path not in self._tree:
            return None
        if self._tree[path].size > MOST_BYTES:
            raise too_large(path, MOST_BYTES)
        with self._downloaded(path).open("rb") as file:
            return bounded(file.read(MOST_BYTES + 1), path)

    def fetch(self, prompt_id: str, name: str, target: Path) -> None:
        path = f"{prompt_id}/{name}"
        if path not in self._tree:
            raise PandaError(f"{name} is missing there.")
        if self._tree[path].size > MOST_FILE:
            raise too_large(path, MOST_FILE)
        with self._downloaded(path).open("rb") as file:
            copied(file, target, MOST_FILE, path)

    def send(self, parcels: Sequence[Parcel], *, kept: frozenset[str], done: Callable[[], None]) -> None:
        if self._commit is None:
            with self._told():
                self._api.create_repo(self.repository, private=not self._public, exist_ok=True)
        contents: dict[str, bytes | Path] = {}
        for parcel in parcels:
            files = {} if parcel.id in kept else parcel.files
            texts = {} if parcel.readme is None else {README: parcel.readme.encode()}
            together: dict[str, bytes | Path] = {**files, **texts, CARD_NAME: parcel.content}
            contents |= {f"{parcel.id}/{name}": content for name, content in together.items()}
        contents |= self._readme(parcels)
        from huggingface_hub import CommitOperationAdd

        changed = [
            CommitOperationAdd(path, content if isinstance(content, bytes) else str(content))
            for path, content in contents.items()
            if not self._has(path, content)
        ]
        with self._told():
            self._api.create_commit(
                self.repository,
                changed,
                commit_message=f"Prompts {', '.join(parcel.id for parcel in parcels)}"[:100],
                revision=self.revision,
            )
        for _ in parcels:
            done()

    def _readme(self, parcels: Sequence[Parcel]) -> dict[str, bytes | Path]:
        """The repository's own model card, unless somebody wrote another."""
        if README in self._tree and MARK.encode() not in self._downloaded(README).read_bytes():
            return {}
        cards = {parcel.id: parcel.content for parcel in parcels}
        for prompt_id in only_ids([path.split("/")[0] for path in self._tree if "/" in path]):
            if prompt_id not in cards and (content := self.card(prompt_id)) is not None:
                cards[prompt_id] = content
        return {
            README: bank_card(self.repository, [cards[name] for name in sorted(cards)], parcels[0].licence).encode()
        }

    def _has(self, path: str, content: bytes | Path) -> bool:
        """Whether the repository has this very content there."""
        entry = self._tree.get(path)
        if entry is None:
            return False
        data = content if isinstance(content, bytes) else content.read_bytes()
        if entry.lfs is not None:
            return bool(entry.lfs.sha256 == sha256(data).hexdigest())
        # git's name of a file: its content behind its kind and size
        return bool(entry.blob_id == sha1(f"blob {len(data)}\0".encode() + data).hexdigest())

    def _downloaded(self, path: str) -> Path:
        with self._told():
            return Path(self._api.hf_hub_download(self.repository, path, revision=self._commit))

    def _told(self) -> AbstractContextManager[None]:
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError

        return store_errors(self.name, HfHubHTTPError, HFValidationError, OSError, ValueError)
