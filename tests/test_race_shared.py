"""Races of several processes: two in one race, and processes that are killed at each of their file operations."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch
from test_race import equal, outcomes

from promptpanda.bank.bank import Bank
from promptpanda.bank.folder import SourcePrompt
from promptpanda.progress import Silent
from promptpanda.tasks.protocol import partition
from promptpanda.training.options import TrainingOptions
from promptpanda.transfers.race import RaceResult, race
from promptpanda.transfers.trial import Trial

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="forks the processes that race"),
]

OPTIONS = TrainingOptions(epochs=4, max_length=24, readout="mean", prompt_length=3, lr=3e-2)  # 4 steps of 16 examples
OF_FILES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir")


@pytest.fixture
def trial_of(tiny_backbone, sentiment, tmp_path):
    """A trial of 16 training and 4 validation examples with three sources, and a bank."""
    from promptpanda.transfers.transfer import train

    bank = Bank(tmp_path / "sources")
    options = OPTIONS.model_copy(update={"epochs": 1})
    sources = tuple(
        SourcePrompt.of(train(sentiment(name, seed=5 + place), tiny_backbone, bank=bank, options=options))
        for place, name in enumerate(("books", "films", "games"))
    )
    task = sentiment()
    part = partition(task, train_examples=20, seed=1)

    def trial(folder: Path, progress: Silent | None = None) -> Trial:
        return Trial(tiny_backbone, task, part, OPTIONS, 1, sources, bank=Bank(folder), progress=progress or Silent())

    return trial


def forked(work) -> int:
    """Start a process for some work; its exit code is 0 if that came to its end."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return child


def ended(child: int) -> int:
    """How a process ended: its exit code, or the number of the signal below zero."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def at_file_operations(act) -> None:
    """Call `act` with the number of each change of files that this process is about to make, from 1."""
    seen = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if event in OF_FILES or writes:
            seen += 1
            act(seen)

    sys.addaudithook(hook)


def assert_same(trial: Trial, result: RaceResult, expected: RaceResult, whole: Trial) -> None:
    assert (result.rungs, result.runs, result.work) == (expected.rungs, expected.runs, expected.work)
    found, same = outcomes(trial.bank, trial.backbone), outcomes(whole.bank, whole.backbone)
    assert set(found) == set(same)
    assert all(equal(found[name], same[name]) for name in same)
    assert sorted(path.name for path in trial.bank.folder.iterdir()) == trial.bank.ids(), "nothing else is left"


@pytest.mark.timeout(300)
def test_a_race_killed_at_each_of_its_file_operations_ends_as_an_undisturbed_one(trial_of, tmp_path):
    whole = trial_of(tmp_path / "whole")
    expected = race(whole)
    read, write = os.pipe()

    def counted():
        at_file_operations(lambda number: os.write(write, b"."))
        race(trial_of(tmp_path / "counted"))

    assert ended(forked(counted)) == 0
    operations = len(os.read(read, 1 << 16))
    assert operations > 30, "a race puts down states at its rungs and saves prompts"

    def killed(number):
        def kill(at):
            if at == number:
                os.kill(os.getpid(), signal.SIGKILL)

        at_file_operations(kill)
        race(trial_of(tmp_path / "killed"))

    rungs = set()
    for number in range(1, operations + 1):
        assert ended(forked(lambda number=number: killed(number))) == -signal.SIGKILL
        rungs |= {path.name for path in (tmp_path / "killed").glob(".races/*/rung-*")}
        trial = trial_of(tmp_path / "killed")
        assert_same(trial, race(trial), expected, whole)
        shutil.rmtree(tmp_path / "killed")
    assert len(rungs) == 2, "kills at every rung"
    print(f"{operations} kills")


class Meeting(Silent):
    """Waits before its first step until all who race have got there, or are seen to wait for one another."""

    def __init__(self, arrived, notes):
        self._arrived, self._notes, self._met = arrived, notes, False

    def note(self, message):
        self._notes.put(message)
        if "waiting until it is done" in message:
            self._arrived.release()

    def advance(self, units):
        if not self._met:
            self._met = True
            self._arrived.acquire()


def test_two_processes_in_one_race_both_end_right_and_train_each_prompt_once(trial_of, tmp_path):
    whole = trial_of(tmp_path / "whole")
    expected = race(whole)
    context = multiprocessing.get_context("fork")
    arrived, notes, steps = context.Semaphore(0), context.Queue(), context.Queue()

    class Counting(Meeting):
        count = 0

        def advance(self, units):
            super().advance(units)
            self.count += units

    def racing():
        torch.set_num_threads(1)
        trial = trial_of(tmp_path / "shared", Counting(arrived, notes))
        result = race(trial)
        same = (result.rungs, result.runs, result.work) == (expected.rungs, expected.runs, expected.work)
        steps.put((same, trial.progress.count))

    children = [context.Process(target=racing) for _ in range(2)]
    for child in children:
        child.start()
    arrived.release()  # the second finds its own step free; without a lock nobody releases the other
    found = sorted(steps.get(timeout=60) for _ in children)
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0]
    assert [same for same, _ in found] == [True, True]
    assert found[0][1] < found[1][1], "who waited did not train what the bank has by then"
    trial = trial_of(tmp_path / "shared")
    assert_same(trial, race(trial), expected, whole)
    assert any("Another process runs the same race" in notes.get(timeout=10) for _ in range(2))


def test_who_waits_for_a_race_goes_on_from_what_a_killed_one_put_down(trial_of, tmp_path):
    whole = trial_of(tmp_path / "whole")
    expected = race(whole)
    read, write = os.pipe()

    class Stopping(Silent):
        """Stands still after the second rung, and is killed there."""

        steps = 0

        def advance(self, units):
            self.steps += units
            if self.steps == 7:
                os.write(write, b".")
                signal.pause()

    child = forked(lambda: race(trial_of(tmp_path / "shared", Stopping())))
    assert os.read(read, 1) == b"."

    class Killing(Silent):
        steps = 0

        def note(self, message):
            if "waiting until it is done" in message:
                os.kill(child, signal.SIGKILL)

        def advance(self, units):
            self.steps += units

    killing = Killing()
    trial = trial_of(tmp_path / "shared", killing)
    result = race(trial)
    assert ended(child) == -signal.SIGKILL
    assert_same(trial, result, expected, whole)
    undisturbed = Killing()
    race(trial_of(tmp_path / "again", undisturbed))
    assert 0 < killing.steps < undisturbed.steps, "it did not begin anew"
