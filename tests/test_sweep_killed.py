"""Real processes, really killed: drivers and workers; and executors of other machines, on this one."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sweeps import essence, litter

from promptpanda.errors import PandaError
from promptpanda.sweep.executors import Jobs, Workers, workers_of
from promptpanda.sweep.filters import RunFilter

pytestmark = pytest.mark.usefixtures("one_thread")

KILLS = 10
ALL = 2 + 2 * (1 + 2 * 3)


def grid(study):
    """A dozen and a half short runs."""
    return study.recipe(seeds=[0, 1])


# One process imports everything, warms up, and forks a driver for every kill, so that ten do not import ten times. A
# driver is killed some moment after it has begun or after a number of its runs; the first before it begins.
DRIVERS = """
import os, signal, time
import torch
torch.set_num_threads(1)
from pathlib import Path
from promptpanda.progress import Silent
from promptpanda.sweep.recipe import SweepRecipe
from promptpanda.sweep.session import Places, sweep
from promptpanda.sweep.filters import RunFilter

recipe, folder = SweepRecipe.from_yaml({recipe!r}), Path({folder!r})
sweep(recipe, Places(folder / "warm", base=folder), run_filter=RunFilter(only="s0 books"))

for runs, moment in {moments!r}:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        class Telling(Silent):
            def begin(self, label, total):
                os.write(write, b".")

            def advance(self, units):
                os.write(write, b".")

        try:
            sweep(recipe, Places(folder / "killed", base=folder), progress=Telling())
        finally:
            os._exit(0)
    os.close(write)
    for _ in range(runs + 1):
        os.read(read, 1)
    time.sleep(moment)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    print(os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0, flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks the drivers that it kills")
@pytest.mark.timeout(1500)
def test_a_driver_killed_ten_times_leaves_what_an_uninterrupted_one_leaves(study):
    study.run("whole", grid(study))
    a_run = statistics.median(row.seconds for row in study.rows("whole"))
    draw = random.Random(7)
    moments = [(-1, 0.05), *((draw.randint(0, 1), draw.uniform(0.0, 2.0) * a_run) for _ in range(KILLS - 1))]
    recipe = study.folder / "grid.yaml"
    recipe.write_text(grid(study).to_yaml())
    script = DRIVERS.format(recipe=str(recipe), folder=str(study.folder), moments=moments)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=1000)
    assert done.returncode == 0, done.stderr
    assert [int(line) for line in done.stdout.split()] == [signal.SIGKILL] * KILLS
    kept = {row.key: row for row in study.rows("killed")}
    assert 3 < len(kept) < ALL, "drivers must be killed at work"
    outcome = study.run("killed", grid(study))
    assert outcome.failed == ()
    assert outcome.begun == ALL - len(kept), "what was finished is not computed again"
    assert {row.key: row for row in study.rows("killed") if row.key in kept} == kept
    assert essence(study.folder / "killed") == essence(study.folder / "whole")
    assert litter(study.folder / "killed") == litter(study.folder / "whole") == []


def test_a_worker_process_and_its_death(study):
    """It is killed while it computes; its run is done again, and the rows equal those of the driver's own process."""
    study.run("whole", grid(study))
    workers = workers_of("processes:1", study.folder)
    victims: list[int] = []
    submit = workers.submit

    def killing(function, order):
        future = submit(function, order)
        if not victims and order.spec.kind == "target":
            children = [child for child in multiprocessing.active_children() if child.pid is not None]
            victims.append(children[0].pid)
            os.kill(victims[0], signal.SIGKILL)
        return future

    workers.submit = killing  # type: ignore[method-assign]
    outcome = study.run("other", grid(study), workers=workers)
    assert len(victims) == 1
    assert outcome.failed == ()
    assert essence(study.folder / "other") == essence(study.folder / "whole")
    assert litter(study.folder / "other") == []
    assert multiprocessing.active_children() == []


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture
def cluster(tmp_path):
    """A real Dask scheduler and two real workers of one thread each, on loopback; yields address and workers."""
    pytest.importorskip("distributed", reason="needs the extra dask")
    port = free_port()
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": environment, "cwd": tmp_path}
    dask = [sys.executable, "-m", "dask"]
    command = [*dask, "scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard", "--no-jupyter"]
    processes = [subprocess.Popen(command, **quiet)]
    for number in range(2):
        command = [*dask, "worker", f"tcp://127.0.0.1:{port}", "--nthreads", "1", "--no-nanny", "--no-dashboard"]
        processes.append(
            subprocess.Popen(
                [*command, "--name", f"w{number}", "--local-directory", str(tmp_path / f"w{number}")], **quiet
            )
        )
    yield f"dask://127.0.0.1:{port}", processes[1:]
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.timeout(1200)
def test_dask_and_the_death_of_a_worker(study, cluster, tmp_path):
    address, processes = cluster
    study.run("whole", grid(study))
    workers = connected(address, tmp_path)
    while workers.count() < 2:
        time.sleep(0.1)
    seen: list[str] = []
    submit = workers.submit

    def killing(function, order):
        future = submit(function, order)
        seen.append(order.key)
        if len(seen) == 7:
            os.kill(processes[0].pid, signal.SIGKILL)
        return future

    workers.submit = killing  # type: ignore[method-assign]
    outcome = study.run("clustered", grid(study), workers=workers)
    assert processes[0].wait(timeout=60) == -signal.SIGKILL
    assert (outcome.failed, outcome.finished) == ((), ALL)
    assert essence(study.folder / "clustered") == essence(study.folder / "whole")
    keys = [row.key for row in study.rows("clustered")]
    assert len(keys) == len(set(keys)) == ALL
    assert litter(study.folder / "clustered") == []


def connected(address: str, folder: Path) -> Workers:
    """The scheduler takes some seconds to come up."""
    for _ in range(8):
        try:
            return workers_of(address, folder)
        except PandaError:
            time.sleep(1)
    return workers_of(address, folder)


def test_a_scheduler_that_is_not_there_is_named(tmp_path):
    pytest.importorskip("distributed", reason="needs the extra dask")
    address = f"tcp://127.0.0.1:{free_port()}"
    import dask

    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(PandaError, match=f"No Dask scheduler answers at {address}"),
    ):
        workers_of(address, tmp_path)


def test_jobs_of_submitit(study):
    """The same adapter that Slurm's jobs go through, with submitit's processes of this machine."""
    pytest.importorskip("submitit", reason="needs the extra slurm")
    study.run("whole", run_filter=RunFilter(only="source books"))
    jobs = Jobs(study.folder / "jobs", "local")
    outcome = study.run("jobs-out", run_filter=RunFilter(only="source books"), workers=Workers.around(jobs, 1))
    assert (outcome.failed, outcome.finished) == ((), 1)
    assert essence(study.folder / "jobs-out") == essence(study.folder / "whole")


def test_slurm_where_there_is_none(tmp_path):
    pytest.importorskip("submitit", reason="needs the extra slurm")
    if shutil.which("srun"):
        pytest.skip("Slurm is here")
    with pytest.raises(PandaError, match="Slurm cannot be used here"):
        workers_of("slurm:2", tmp_path)


@pytest.mark.parametrize(
    ("module", "name"), [("distributed", "dask://127.0.0.1:1"), ("submitit", "slurm:1")], ids=["dask", "slurm"]
)
def test_a_missing_extra_is_named(tmp_path, monkeypatch, module, name):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(PandaError, match=r"needs the extra: pip install 'promptpanda\[(dask|slurm)\]'"):
        workers_of(name, tmp_path)
