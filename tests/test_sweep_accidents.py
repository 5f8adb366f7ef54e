"""Sweeps when something goes wrong: runs that fail, damaged prompts, full disks, lost workers, Ctrl-C."""

from __future__ import annotations

import functools
import resource
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import BrokenExecutor, Future
from dataclasses import replace

import pytest
import yaml
from conftest import CONFIGS, save_tiny, sentiment_rows, write_jsonl
from sweeps import ALL, Counting, essence, litter

from promptpanda.errors import PandaError
from promptpanda.sweep.cache import CACHE
from promptpanda.sweep.executors import InProcess, Workers
from promptpanda.sweep.filters import RunFilter
from promptpanda.sweep.session import Places, export, sweep
from promptpanda.sweep.store import STORE_NAME, Store
from promptpanda.sweep.work import Result, failed_row

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_run_that_diverges_fails_and_the_others_go_on(study):
    mad = {"mad": {"method": "pot", "options": {"lr": 1e30}}, "madder": {"method": "panda", "options": {"lr": 1e30}}}
    outcome = study.run(recipe=study.recipe(variants=mad))
    assert len(outcome.failed) == 4
    assert outcome.finished == ALL
    by_method = {row.method: row for row in outcome.failed}
    assert by_method["pot"].reason.startswith("Training ")
    assert "lower --lr" in by_method["pot"].reason
    assert by_method["panda"].reason.startswith("It starts from a run that failed (pot (mad) of mood from")
    assert all(row.reason.count("\n") == 0 and row.test is None for row in outcome.failed)
    assert litter(study.folder / "out") == []
    again = study.run(recipe=study.recipe(variants=mad))
    assert again.begun == 0, "failed runs are not tried again by themselves"
    tried = study.run(recipe=study.recipe(variants=mad), run_filter=RunFilter(retry_failed=True))
    assert tried.begun == 2, "those that start from them are not begun"
    assert {row.attempts for row in tried.failed if row.method == "pot"} == {2}


def test_a_source_that_fails_takes_what_starts_from_it_along(study):
    bad = study.content()["sources"] | {"per_task": {"books.yaml": {"lr": 1e30}}}
    outcome = study.run(recipe=study.recipe(sources=bad))
    assert {(row.kind, row.method) for row in outcome.failed} == {
        ("source", "prompt_tuning"),
        ("target", "pot"),
        ("target", "panda"),
        ("estimates", None),
    }
    reasons = {row.reason for row in outcome.failed if row.kind != "source"}
    assert len(reasons) == 1
    assert reasons.pop().startswith("It starts from a run that failed (source prompt of books")


def test_a_run_that_raises_fails_with_one_sentence(study):
    """kl on a regression is refused by the trial itself."""
    rows = [{"text": row["text"], "label": float(number)} for number, row in enumerate(sentiment_rows(40))]
    write_jsonl(study.folder / "data" / "mood" / "train.jsonl", rows)
    write_jsonl(study.folder / "data" / "mood" / "test.jsonl", rows[:20])
    spec = {"name": "mood", "kind": "regression", "segments": ["{text}"], "metrics": ["pearson"]}
    (study.folder / "mood.yaml").write_text(yaml.safe_dump(spec))
    outcome = study.run(recipe=study.recipe(distillation={"distance": "kl"}))
    assert {row.method for row in outcome.failed} == {"panda"}
    assert "a regression has none" in outcome.failed[0].reason
    assert outcome.finished == ALL - 2


def test_a_damaged_source_fails_what_needs_it_and_is_mended_on_demand(swept):
    out = swept.folder / "out"
    before = essence(out)
    (books,) = [row for row in swept.rows() if row.kind == "source" and row.task == "books"]
    weights = swept.bank().folder / books.prompt / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    with Store.create(out / STORE_NAME) as store:
        store._connection.execute("DELETE FROM runs WHERE method IN ('pot', 'panda')")
    outcome = swept.run()
    assert {(row.method, row.source) for row in outcome.failed} == {("pot", "books"), ("panda", "books")}
    assert f"Prompt {books.prompt} is damaged" in outcome.failed[0].reason
    assert outcome.finished == ALL - 2
    outcome = swept.run(run_filter=RunFilter(retry_failed=True))
    assert outcome.failed == ()
    assert essence(out) == before


@pytest.mark.parametrize("left", ["nothing", "an empty folder"])
def test_a_prompt_that_was_removed_is_made_again_where_it_is_needed(swept, left):
    """An empty folder is what a loss of power can leave beside a finished row."""
    out = swept.folder / "out"
    before = essence(out)
    for row in swept.rows():
        if row.kind == "source":
            shutil.rmtree(swept.bank().folder / row.prompt)
            if left == "an empty folder" and row.task == "books":
                (swept.bank().folder / row.prompt).mkdir()
    assert swept.run().begun == 0
    with Store.create(out / STORE_NAME) as store:
        store._connection.execute("DELETE FROM runs WHERE method = 'pot' AND source = 'books'")
    counting = Counting()
    swept.run(workers=counting.workers)
    assert [label.split(",")[0] for label in counting.seen] == ["source prompt of books", "pot of mood from books"]
    swept.bank().verify(next(row.prompt for row in swept.rows() if row.kind == "source" and row.task == "books"))
    assert essence(out)[0] == before[0]


def test_what_was_finished_is_not_lost_when_its_prompt_cannot_be_made_again(swept):
    """An imported study goes on, and its source's training fails: rows that were earned stand, the new one fails."""
    export(swept.folder / "out", swept.folder / "rows.parquet")
    before = {row.key: row for row in swept.rows()}

    class Refusing(InProcess):
        def submit(self, function, /, *arguments):
            order = arguments[0]
            if order.spec.kind == "source" and order.spec.task == "books":
                future = Future()
                future.set_result(Result(failed_row(order, "It has no room.")))
                return future
            return super().submit(function, *arguments)

    recipe = swept.recipe(variants={"kl": {"method": "panda", "distillation": {"distance": "kl"}}})
    outcome = swept.run("other", recipe, workers=Workers.around(Refusing(), 1), imported=swept.folder / "rows.parquet")
    after = {row.key: row for row in swept.rows("other")}
    assert {key: row.status for key, row in after.items() if key in before} == dict.fromkeys(before, "finished")
    assert all(after[key].test == before[key].test for key in before)
    (failed,) = outcome.failed
    assert (failed.variant, failed.source) == ("kl", "books")
    assert "It has no room." in failed.reason


def test_a_source_may_take_any_number_of_runs_along(study):
    """More than Python's stack is deep."""
    seeds = list(range(180))
    recipe = study.recipe(seeds=seeds, sources=study.content()["sources"] | {"tasks": ["books.yaml"]})

    class Failing(InProcess):
        def submit(self, function, /, *arguments):
            future = Future()
            future.set_result(Result(failed_row(arguments[0], "No.")))
            return future

    outcome = study.run(recipe=recipe, workers=Workers.around(Failing(), 1))
    assert len(outcome.failed) == outcome.total == 1 + len(seeds) * 4
    assert outcome.left == 0


def test_files_that_are_not_the_prompt_s_do_no_harm(swept):
    for prompt_id in swept.bank().ids():
        (swept.bank().folder / prompt_id / ".DS_Store").write_bytes(b"?")
    outcome = swept.run(recipe=swept.recipe(seeds=[0, 1]))
    assert outcome.failed == ()


def test_data_that_changes_under_way_is_seen_even_after_many_other_tasks(study):
    study.run()
    data = str((study.folder / "data").resolve())
    facts = CACHE.facts(str(study.folder / "mood.yaml"), data, "clean")
    for number in range(7):
        study.write_task(f"other{number}", number)
        CACHE.facts(str(study.folder / f"other{number}.yaml"), data, "clean")
    write_jsonl(study.folder / "data" / "mood" / "train.jsonl", sentiment_rows(40, 77))
    with pytest.raises(PandaError, match="is not what it was when the sweep was planned"):
        CACHE.expected(str(study.folder / "mood.yaml"), data, "clean", facts)


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process are POSIX")
def test_a_store_that_cannot_grow_stops_the_sweep_with_one_sentence(study):
    study.run(run_filter=RunFilter(limit=3))
    before = study.rows()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))  # Python ignores the signal that comes with it
    try:
        with pytest.raises(PandaError, match="The store .* cannot be .*, what was finished is kept."):
            study.run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert study.rows() == before
    assert litter(study.folder / "out") == []
    assert study.run().finished == ALL


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 300 kB for the bank."""
    place = tmp_path / "small"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", place], capture_output=True)
    if made.returncode != 0:
        pytest.skip("mounting a small file system needs root")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk_fails_runs_with_the_reason_and_loses_nothing(study, small_disk):
    whole = study.run("whole")
    assert whole.failed == ()
    places = replace(study.places(), bank=small_disk / "bank")
    (small_disk / "fill").write_bytes(b"x" * 200_000)
    outcome = sweep(study.recipe(), places)
    assert outcome.failed
    assert outcome.left == 0
    full = [row for row in outcome.failed if not row.reason.startswith("It starts from")]
    assert all(row.reason.startswith("Its prompt could not be written: The disk is full") for row in full)
    kept = {row.prompt for row in study.rows() if row.status == "finished" and row.prompt}
    assert set((small_disk / "bank").iterdir()) == {small_disk / "bank" / name for name in kept}
    (small_disk / "fill").unlink()
    outcome = sweep(study.recipe(), places, run_filter=RunFilter(retry_failed=True))
    if outcome.failed:
        subprocess.run(["mount", "-o", "remount,size=4m", small_disk], check=True)
        outcome = sweep(study.recipe(), places, run_filter=RunFilter(retry_failed=True))
    assert outcome.failed == ()
    shutil.copytree(small_disk / "bank", study.folder / "out" / "bank")
    assert essence(study.folder / "out") == essence(study.folder / "whole")


def test_a_full_disk_under_the_store_stops_with_one_sentence(study, small_disk):
    places = Places(small_disk / "out", bank=study.folder / "bank", base=study.folder)
    sweep(study.recipe(), places, run_filter=RunFilter(limit=2))
    with Store.open(small_disk / "out") as store:
        before = store.rows()
    room = shutil.disk_usage(small_disk).free
    (small_disk / "fill").write_bytes(b"x" * room)
    with pytest.raises(PandaError, match="cannot be (written|opened|read).*what was finished is kept"):
        sweep(study.recipe(), places)
    (small_disk / "fill").unlink()
    with Store.open(small_disk / "out") as store:
        assert store.rows() == before
    outcome = sweep(study.recipe(), places)
    assert (outcome.finished, outcome.failed) == (ALL, ())


class Unlucky(InProcess):
    """Loses the worker of some runs."""

    def __init__(self, word, times):
        self.word, self.times = word, times

    def submit(self, function, /, *arguments):
        if self.word in arguments[0].spec.label and self.times > 0:
            self.times -= 1
            future: Future = Future()
            future.set_exception(ConnectionError("gone"))
            return future
        return super().submit(function, *arguments)


def test_a_lost_worker_s_run_is_begun_again_a_few_times(study):
    outcome = study.run(workers=Workers.around(Unlucky("pot of mood from books", 2), 1))
    assert (outcome.failed, outcome.finished) == ((), ALL)
    assert {row.attempts for row in study.rows() if row.method == "pot"} == {1, 3}
    outcome = study.run("other", workers=Workers.around(Unlucky("pot of mood from books", 99), 1))
    assert {row.method for row in outcome.failed} == {"pot", "panda"}
    assert outcome.failed[0].reason == "Its worker was lost 3 times (ConnectionError); it may need too much memory."


class Fragile(InProcess):
    """A pool that breaks with a certain run: all that is under way is lost with it."""

    def __init__(self):
        self.waiting, self.begun = [], []

    def submit(self, function, /, *arguments):
        future: Future = Future()
        self.waiting.append((future, function, arguments))
        self.begun.append(arguments[0].spec.label)
        if len(self.waiting) == 2 or "pot of mood from books" in self.begun[-1] or len(self.begun) > 3:
            broken = any("pot of mood from books" in order.spec.label for _, _, (order,) in self.waiting)
            for waiting, call, parts in self.waiting:
                if broken:
                    waiting.set_exception(BrokenExecutor("a process died"))
                else:
                    waiting.set_result(call(*parts))
            self.waiting = []
        return future


def test_of_runs_that_are_lost_together_only_the_guilty_one_fails(study):
    fragile = Fragile()
    outcome = study.run(workers=Workers.around(fragile, 2))
    assert {row.method for row in outcome.failed} == {"pot", "panda"}
    assert {row.source for row in outcome.failed} == {"books"}
    assert outcome.failed[0].reason.startswith("Its worker was lost 3 times (BrokenExecutor)")
    assert outcome.finished == ALL - 2


def test_workers_that_see_other_weights_or_data_say_so(study):
    """The model or the data changes between the plan and the run."""

    class Meddling(InProcess):
        def submit(self, function, /, *arguments):
            if arguments[0].spec.method == "pot":
                save_tiny(CONFIGS["bert"], study.folder / "model", seed=5)
                CACHE.forget()
            return super().submit(function, *arguments)

    shutil.copytree(study.model, study.folder / "model")
    recipe = study.recipe(models=["./model"])
    outcome = study.run(recipe=recipe, workers=Workers.around(Meddling(), 1))
    assert outcome.finished == 3
    assert "put the same model in both places" in outcome.failed[0].reason


def test_ctrl_c_keeps_what_is_finished(study):
    recipe = study.write_recipe(seeds=list(range(40)))
    script = "import sys; from promptpanda.cli.main import main; sys.argv = ['panda', *sys.argv[1:]]; main()"
    out = study.folder / "out"
    command = [sys.executable, "-c", script, "sweep", str(recipe), "--out", str(out)]
    # A shell that put the tests into the background lets its children ignore Ctrl-C.
    heard = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    running = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=heard)
    for line in running.stderr:
        if line.startswith("[3/"):
            break
    time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=1000)
    assert running.returncode == 130, errors
    assert errors.splitlines()[-1] == "Interrupted; what was finished is kept."
    assert "Traceback" not in errors
    assert len(study.rows()) >= 3
    assert set(litter(out)) <= set(study.bank().ids())


@pytest.mark.skipif(sys.platform != "linux", reason="other C libraries do as they like")
def test_memory_that_a_run_has_freed_goes_back_to_the_system():
    """Every second of many small tensors stays, so that the freed ones lie between blocks in use."""
    script = """
import torch
from promptpanda.sweep.work import return_memory

def resident():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1])

tensors = [torch.ones(12_000) for _ in range(12_000)]
kept = tensors[::40]
before = resident()
del tensors
freed = resident()
return_memory()
print(before, freed, resident())
"""
    before, freed, after = map(
        int, subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    )
    assert freed > before - 50_000, "else this shows nothing"
    assert after < before - 400_000
