"""An object store, or whatever else fsspec reaches by a URL, as a place: s3://, gs://, abfs://, sftp:// and others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from promptpanda.bank.layout import CARD_NAME
from promptpanda.bank.outside import MOST_BYTES
from promptpanda.errors import PandaError
from promptpanda.sharing.parallel import in_parallel
from promptpanda.sharing.parcel import README, Parcel
from promptpanda.sharing.places import MOST_FILE, bounded, copied, only_ids, store_errors, too_large


class StorePlace:
    """See `Place`. Keys are URL/ID/FILE; credentials and endpoints are the library's own affair (AWS_..., say)."""

    parallel = 8

    def __init__(self, url: str) -> None:
        self.name = url.rstrip("/")
        try:
            from fsspec.core import url_to_fs

            self._fs: Any
            with store_errors(url, Exception):
                self._fs, root = url_to_fs(self.name, use_listings_cache=False)
            self._root = str(root).rstrip("/")
        except PandaError as error:
            if isinstance(error.__cause__, ImportError):
                scheme = url.split("://")[0]
                raise PandaError(
                    f"{scheme}:// needs another package ({error.__cause__}); pip install 'promptpanda[share]' brings "
                    "that of s3://."
                ) from error
            raise

    def ids(self) -> list[str]:
        with self._told():
            try:
                found = self._fs.ls(self._root, detail=False)
            except FileNotFoundError as error:
                raise PandaError(f"There is nothing at {self.name}; check the address.") from error
        return only_ids([str(path).rstrip("/").rsplit("/", 1)[-1] for path in found])

    def card(self, prompt_id: str) -> bytes | None:
        path = self._path(prompt_id, CARD_NAME)
        with self._told():
            try:
                return bounded(self._fs.cat_file(path, start=0, end=MOST_BYTES + 1), path)
            except FileNotFoundError:
                return None

    def fetch(self, prompt_id: str, name: str, target: Path) -> None:
        path = self._path(prompt_id, name)
        with self._told():
            try:
                file = self._fs.open(path, "rb", cache_type="readahead")
            except FileNotFoundError as error:
                raise PandaError(f"{name} is missing there.") from error
        with file:
            if file.size is not None and file.size > MOST_FILE:
                raise too_large(path, MOST_FILE)
            copied(_RemoteFile(file, self.name), target, MOST_FILE, path)  # type: ignore[arg-type]

    def send(self, parcels: Sequence[Parcel], *, kept: frozenset[str], done: Callable[[], None]) -> None:
        in_parallel(lambda parcel: self._send(parcel, parcel.id in kept), parcels, self.parallel, done, strict=True)

    def _send(self, parcel: Parcel, kept: bool) -> None:
        """The card goes last, and that of an older prompt away first: what has a card is whole at any time."""
        with self._told():
            card = self._path(parcel.id, CARD_NAME)
            if not kept:
                if self._fs.exists(card):
                    self._fs.rm_file(card)
                for name, path in parcel.files.items():
                    self._fs.put_file(str(path), self._path(parcel.id, name))
            if parcel.readme is not None:
                self._fs.pipe_file(self._path(parcel.id, README), parcel.readme.encode())
            self._fs.pipe_file(card, parcel.content)

    def _path(self, prompt_id: str, name: str) -> str:
        return f"{self._root}/{prompt_id}/{name}"

    def _told(self) -> Any:
        # Each of fsspec's libraries has exceptions of its own, without a common parent.
        return store_errors(self.name, Exception)


class _RemoteFile:
    """A remote file whose failures are one sentence, unlike those of the local file it is written to."""

    def __init__(self, file: Any, name: str) -> None:
        self._file, self._name = file, name

    def read(self, size: int) -> bytes:
        with store_errors(self._name, Exception):
            content: bytes = self._file.read(size)
            return content
