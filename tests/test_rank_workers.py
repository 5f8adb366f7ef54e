"""`panda rank --executor`: real workers give what this process gives, also when one of them is killed."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest
from test_sweep_killed import cluster, connected  # noqa: F401  # the fixture of a real Dask cluster
from typer.testing import CliRunner

from promptpanda.backbone import Backbone
from promptpanda.bank.bank import Bank
from promptpanda.cli.main import app
from promptpanda.errors import PandaError
from promptpanda.progress import Silent
from promptpanda.sweep import ranking as ranking_work
from promptpanda.sweep.executors import InProcess, Workers, workers_of
from promptpanda.sweep.ranking import RankTarget, rank_by
from promptpanda.tasks.protocol import partition
from promptpanda.training.defaults import settled
from promptpanda.training.options import TrainingOptions
from promptpanda.transfers.estimators import Cosine
from promptpanda.transfers.overlap import TargetRows
from promptpanda.transfers.ranking import rank
from promptpanda.transfers.transfer import train

OPTIONS = TrainingOptions(epochs=1, max_length=24, readout="mean", prompt_length=3)
NAMES = ("books", "films", "games", "songs", "tools", "plays")


@pytest.fixture
def world(tiny_folder, sentiment, tmp_path, monkeypatch):
    """A bank of six prompts and a target, with two prompts in every order."""
    monkeypatch.setattr(ranking_work, "PART", 2)
    backbone = Backbone.load(str(tiny_folder("bert")))
    bank = Bank(tmp_path / "bank", others={})
    for place, name in enumerate(NAMES):
        train(sentiment(name, seed=5 + place), backbone, bank=bank, options=OPTIONS)
    return World(backbone, bank, sentiment())


class World:
    def __init__(self, backbone, bank, task):
        self.backbone, self.bank, self.task = backbone, bank, task
        self.part = partition(task, seed=0)
        self.rows = TargetRows.of([self.part], task.test())
        self.settings = settled(OPTIONS, task.kind, self.part.train, backbone)

    def here(self, **options):
        return rank(self.task, self.backbone, self.bank, rows=self.rows, options=OPTIONS, **options)

    def by(self, workers, **options):
        target = RankTarget.of(self.backbone, self.task, self.part, self.settings, Cosine(), None)
        return rank_by(workers, target, self.task, self.backbone, self.bank, self.rows, **options)


def assert_same(found, expected):
    assert [one.prompt for one in found] == [one.prompt for one in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.scores == pytest.approx(other.scores, abs=1e-4)


def killing(workers, victim, at):
    """The workers, of which one is killed right after so many orders were given."""
    submit, given = workers.submit, []

    def submitting(function, *arguments):
        future = submit(function, *arguments)
        given.append(1)
        if len(given) == at:
            os.kill(victim(), signal.SIGKILL)
        return future

    workers.submit = submitting
    return workers


def test_two_processes_give_the_same_and_one_may_die(world):
    def victim():
        for _ in range(600):
            children = [child for child in multiprocessing.active_children() if child.pid is not None]
            if children:
                return children[0].pid
            time.sleep(0.1)
        raise AssertionError("no worker began")

    notes = []

    class Listener(Silent):
        def note(self, message):
            notes.append(message)

    workers = killing(workers_of("processes:2", world.bank.folder), victim, at=2)
    assert_same(world.by(workers, progress=Listener()), world.here())
    assert multiprocessing.active_children() == []


@pytest.mark.timeout(600)
def test_dask_and_the_death_of_a_worker(world, cluster, tmp_path):  # noqa: F811
    address, processes = cluster
    workers = connected(address, tmp_path)
    while workers.count() < 2:
        time.sleep(0.1)
    assert_same(world.by(killing(workers, lambda: processes[0].pid, at=2)), world.here())
    assert processes[0].wait(timeout=60) == -signal.SIGKILL


def test_a_worker_that_is_lost_again_and_again_is_told(world):
    class Losing(InProcess):
        def submit(self, function, /, *arguments, **keywords):
            def lost(*_):
                raise OSError("gone")

            return super().submit(lost)

    with pytest.raises(PandaError, match=r"was lost 3 times \(OSError\)"):
        world.by(Workers.around(Losing(), 2))


def test_damaged_prompts_are_told_and_left_out(world):
    first = world.here()[0].prompt
    weights = world.bank.folder / first / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    notes = []

    class Listener(Silent):
        def note(self, message):
            notes.append(message)

    found = world.by(Workers.around(InProcess(), 1), progress=Listener())
    assert len(found) == len(NAMES) - 1
    assert first not in {one.prompt for one in found}
    assert any(first in note for note in notes)


def test_fewer_passes_keep_the_nearest(world):
    found = world.here(passes=3)
    assert len(found) == 3
    assert_same(world.by(Workers.around(InProcess(), 1), passes=3), found)
    with pytest.raises(PandaError, match="--passes must be at least 1, found 0"):
        world.here(passes=0)


def test_the_command(world, tmp_path):
    data = str(tmp_path / "data" / "mood" / "train.jsonl")
    command = ["rank", "--train", data, "--text", "text", "--label", "label", "--model", world.backbone.name]
    command += ["--bank", str(world.bank.folder), "--max-length", "24", "--readout", "mean", "--json"]
    plain = CliRunner().invoke(app, command)
    assert plain.exit_code == 0, plain.output
    spread = subprocess.run(
        [
            sys.executable,
            "-c",
            "from promptpanda.cli.main import app; app()",
            *command,
            "--executor",
            "processes:2",
            "--passes",
            "4",
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert spread.returncode == 0, spread.stderr
    found = json.loads(spread.stdout)["ranking"]
    assert len(found) == 4
    assert [path.name for path in world.bank.folder.iterdir() if path.name.startswith(".panda-rank")] == []
    wrong = CliRunner().invoke(app, [*command, "--executor", "magic:3"])
    assert wrong.exit_code == 2
    assert "No executor 'magic:3'" in " ".join(wrong.output.split())
