"""Files appear whole or not at all, and names from outside never become paths unchecked."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from promptpanda.errors import PandaError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # a disk, a quota, or the limit of a file's size
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_STAGING = ".staging-"
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)  # which Windows takes for no files


def check_name(name: str, what: str, limit: int = 100) -> str:
    """Return `name` if it can serve as one component of a path on any system, else raise PandaError."""
    if _DEVICES.fullmatch(name):
        raise PandaError(f"{what} {name!r} is the name of a device on some systems; choose another.")
    if not _SAFE_NAME.fullmatch(name) or name.endswith(".") or len(name) > limit:
        raise PandaError(
            f"{what} {name!r} cannot be used as a file name; use up to {limit} letters, digits, '-', '_' and '.', "
            "beginning with a letter or a digit."
        )
    return name


def sha256_file(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(value: Any) -> str:
    """Hex SHA-256 of a value's canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def staging_prefix() -> str:
    """What names of this process's staging folders begin with, so that `sweep_staging` knows whose they are."""
    return f"{_STAGING}{socket.gethostname()}-{os.getpid()}-"


def write_whole(path: Path, text: str) -> None:
    """Write or replace a text file in UTF-8: it appears whole, after it is on the disk, or not at all."""
    staging = path.with_name(f".{path.name[:100]}.{os.getpid()}")
    try:
        with staging.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        staging.replace(path)
    finally:
        staging.unlink(missing_ok=True)


@contextmanager
def told_where(place: Path) -> Iterator[None]:
    """Have the system's errors name a place where they name none, as of a write for which the disk has no room."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(place)
        raise


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Fill a staging folder beside `target`; on success it is renamed into place, on any failure it is removed.

    What stands in place afterwards is on the disk, also after a loss of power. If `target` came into being meanwhile
    (another process saved the same thing), theirs is kept.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    sweep_staging(target.parent)
    staging = _staging_beside(target)
    staging.mkdir()
    try:
        with told_where(target.parent):
            yield staging
        for path in staging.iterdir():
            sync(path)
        sync(staging)
        try:
            staging.rename(target)
            sync(target.parent)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
            shutil.rmtree(staging)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def remove_folder(target: Path) -> None:
    """Delete a folder with all that it holds, or a link to one (the link alone).

    It goes out of sight first, by one rename: whoever is stopped midway leaves a staging folder, which is swept.
    """
    if target.is_symlink():
        target.unlink()
        return
    aside = _staging_beside(target)
    target.rename(aside)
    shutil.rmtree(aside)


def _staging_beside(target: Path) -> Path:
    return target.parent / f"{staging_prefix()}{uuid.uuid4().hex[:8]}"


def sweep_staging(folder: Path) -> None:
    """Remove staging folders that processes of this machine left behind when they were killed."""
    try:
        names = os.listdir(folder)  # quick, also where a bank holds 100,000 prompts
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in names:
        if not name.startswith(_STAGING) or name.count("-") < 3:
            continue
        host, owner, _ = name.removeprefix(_STAGING).rsplit("-", 2)
        if host == socket.gethostname() and owner.isdigit() and not _alive(int(owner)):
            shutil.rmtree(folder / name, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows opens no folder
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
