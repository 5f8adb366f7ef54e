"""A race put down: all that goes on from a rung, in one folder of the bank that appears whole or not at all.

`.races/KEY/rung-N` holds one safetensors file a runner and `race.json`; KEY is a hash of everything that determines the
race, so that another race never takes it up. The folder of the rung before is removed then, and KEY when the race ends.
Who races holds the lock of `.races/KEY.lock`: of two processes in one race the second waits, and then finds what the
first left, its prompts if it got to the end, or what it put down if it was killed.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from promptpanda.bank.bank import Bank
from promptpanda.files import digest, whole_folder
from promptpanda.training.loop import TrainingState

_FOLDER = ".races"
_STATE = "race.json"


@dataclass(frozen=True)
class Standing:
    """A runner at a rung or at the end.

    Attributes:
        prompt: id of the source; None for no transfer.
        score, loss: on the validation part; None where nothing was compared, or it diverged.
        expected: the score, shrunken towards what the estimator promises (transfers/choice.py); None as above, and of
            no transfer, which is compared with nobody.
        work: what its training took, in examples trained, of one who stays behind; else 0.
        goes_on: whether it goes on; at the end, whether it got there.
    """

    prompt: str | None
    score: float | None
    loss: float | None
    expected: float | None
    work: float
    goes_on: bool


Standings = tuple[Standing, ...]


class DamagedStateError(ValueError):
    """What was put down cannot be read."""


@dataclass(frozen=True)
class RaceState:
    """Where the states of one race are kept.

    Attributes:
        folder: its own in the bank.
    """

    folder: Path

    @classmethod
    def of(cls, bank: Bank, determined_by: list[Any]) -> RaceState:
        """The place of a race.

        Args:
            determined_by: everything that its outcome depends on, as JSON takes it.
        """
        return cls(bank.folder / _FOLDER / digest(determined_by)[:16])

    @contextmanager
    def locked(self, tell: Callable[[str], None]) -> Iterator[None]:
        """Be the only one in this race; wait while another process is. A killed one is not waited for.

        Args:
            tell: is called with a sentence if there is another.
        """
        lock = FileLock(self.folder.with_name(f"{self.folder.name}.lock"))
        try:
            _acquire(lock, timeout=0)
        except Timeout:
            tell(f"Another process runs the same race ({self.folder.name}); waiting until it is done.")
            _acquire(lock)
        try:
            yield
        finally:
            # Removed while it is held: who has opened it meanwhile sees that it is gone, and makes another.
            with suppress(OSError):
                Path(lock.lock_file).unlink()
            lock.release()
            self._remove_parent()

    def save_rung(self, rung: int, history: list[Standings], states: dict[int, TrainingState]) -> None:
        """Keep the states of all who go on from a rung, by their number."""
        with whole_folder(self.folder / f"rung-{rung}") as staging:
            for number, state in states.items():
                (staging / f"{number}.safetensors").write_bytes(save(state.tensors))
            content = {
                "history": [[asdict(one) for one in standings] for standings in history],
                "numbers": {str(number): state.numbers for number, state in states.items()},
            }
            (staging / _STATE).write_text(json.dumps(content), encoding="utf-8")
        for earlier in range(rung):
            shutil.rmtree(self.folder / f"rung-{earlier}", ignore_errors=True)

    def load_rungs(self, stops: int) -> tuple[list[Standings], dict[int, TrainingState]]:
        """What was put down at the last rung; nothing where there is none.

        Args:
            stops: rungs of the race.

        Raises:
            DamagedStateError: it cannot be read.
        """
        for rung in reversed(range(stops)):
            folder = self.folder / f"rung-{rung}"
            if not folder.is_dir():
                continue
            try:
                content = json.loads((folder / _STATE).read_text(encoding="utf-8"))
                history = [tuple(Standing(**one) for one in standings) for standings in content["history"]]
                states = {
                    int(number): TrainingState(load_file(folder / f"{int(number)}.safetensors"), numbers)
                    for number, numbers in content["numbers"].items()
                }
            except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
                raise DamagedStateError(str(folder)) from error
            if len(history) != rung + 1:
                raise DamagedStateError(str(folder))
            return history, states
        return [], {}

    def remove(self) -> None:
        """The race is over, or what was put down is of no use."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _remove_parent(self) -> None:
        with suppress(OSError):  # others may race
            self.folder.parent.rmdir()


def _acquire(lock: FileLock, timeout: float = -1) -> None:
    folder = Path(lock.lock_file).parent
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=timeout)
            return
        except FileNotFoundError:  # the last of another race has just removed the folder
            continue
