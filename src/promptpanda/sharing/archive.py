"""Prompts in one tar file: ID/FILE, nothing else. What is read from one is a stranger's until it is checked."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from promptpanda.bank.bank import Bank
from promptpanda.bank.layout import CARD_NAME
from promptpanda.bank.outside import MOST_BYTES
from promptpanda.errors import PandaError
from promptpanda.files import staging_prefix, sync, told_where
from promptpanda.sharing.folders import FolderPlace
from promptpanda.sharing.parcel import README, Parcel
from promptpanda.sharing.places import MOST_FILE, MOST_PROMPTS, copied, only_ids, writable

_MOST_ALL = 20_000_000_000  # bytes of all files of an archive


def write_archive(parcels: Sequence[Parcel], target: Path, done: Callable[[], None] = lambda: None) -> None:
    """Write a tar file, whole or not at all. Equal prompts give equal bytes."""
    staging = target.parent / f".{target.name}.{os.getpid()}"
    with writable(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        staging.touch()
    try:
        with told_where(target), tarfile.open(staging, "w", format=tarfile.PAX_FORMAT) as archive:
            for parcel in parcels:
                archive.addfile(_member(parcel, CARD_NAME, len(parcel.content)), io.BytesIO(parcel.content))
                if parcel.readme is not None:
                    text = parcel.readme.encode()
                    archive.addfile(_member(parcel, README, len(text)), io.BytesIO(text))
                for name, path in parcel.files.items():
                    with path.open("rb") as file:
                        archive.addfile(_member(parcel, name, path.stat().st_size), file)
                done()
        sync(staging)
        staging.replace(target)
        sync(target.parent)
    except BaseException:
        staging.unlink(missing_ok=True)
        raise


def _member(parcel: Parcel, name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(f"{parcel.id}/{name}")
    member.size, member.mode = size, 0o644
    return member


@contextmanager
def opened_archive(path: Path, bank: Bank) -> Iterator[FolderPlace]:
    """A tar file's prompts as a place, laid out beside the bank until they are checked.

    Raises:
        PandaError: it is no tar file, or holds what no archive of prompts holds: links, devices, other paths than
            ID/FILE, the same file twice, or too much.
    """
    if not path.is_file():
        raise PandaError(f"There is no file {path}; name a tar file that `panda bank export` wrote.")
    bank.prepare()
    with TemporaryDirectory(prefix=staging_prefix(), dir=bank.folder) as folder:
        try:
            with told_where(bank.folder), tarfile.open(path, "r:") as archive:
                _check_end(path)
                _unpack(archive, Path(folder), path)
        except (tarfile.TarError, EOFError, ValueError) as error:
            if isinstance(error, PandaError):
                raise
            raise PandaError(
                f"{path} is not a complete tar file ({str(error)[:200]}); it was truncated, or packed by another "
                "program (.tar.gz "
                "must be unpacked to .tar)."
            ) from error
        place = FolderPlace(Path(folder))
        place.name = str(path)  # for sentences
        yield place


def _check_end(path: Path) -> None:
    """tarfile takes a file that was cut between two members for a whole one; whole ones end in two empty blocks."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 2 * tarfile.BLOCKSIZE))
        if file.read().strip(b"\0"):
            raise tarfile.ReadError("its end is missing")


def _unpack(archive: tarfile.TarFile, folder: Path, path: Path) -> None:
    """Write every member to a place that its checked name means; nothing is left to tarfile's own extraction."""
    total, seen = 0, set()
    for member in archive:
        if member.isdir():
            continue
        prompt_id, name = _checked(member, path)
        total += member.size
        if member.size > (MOST_BYTES if name == CARD_NAME else MOST_FILE) or total > _MOST_ALL:
            raise PandaError(
                f"{path} holds {total:,} bytes up to {member.name}, more than is allowed; nothing was imported."
            )
        if member.name in seen:
            raise PandaError(f"{path} holds {member.name} twice; nothing was imported.")
        seen.add(member.name)
        if len(seen) > 10 * MOST_PROMPTS:
            raise PandaError(f"{path} holds more than {10 * MOST_PROMPTS:,} files; nothing was imported.")
        content = archive.extractfile(member)
        assert content is not None
        (folder / prompt_id).mkdir(exist_ok=True)
        with content:
            copied(content, folder / prompt_id / name, member.size, member.name)  # type: ignore[arg-type]


def _checked(member: tarfile.TarInfo, path: Path) -> tuple[str, str]:
    """Which prompt's which file a member is."""
    from promptpanda.bank.folder import PARTS

    shown = repr(member.name[:200])
    if not member.isreg() or member.issparse():
        raise PandaError(f"{path} holds {shown}, which is a link or no ordinary file; nothing was imported.")
    parts = member.name.split("/")
    if len(parts) != 2 or only_ids(parts[:1]) != parts[:1] or parts[1] not in {CARD_NAME, README, *PARTS}:
        raise PandaError(
            f"{path} holds {shown}, and archives of prompts hold ID/FILE alone, of the files that prompts have; "
            "nothing was imported."
        )
    return parts[0], parts[1]
