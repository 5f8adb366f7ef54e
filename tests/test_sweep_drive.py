"""The driver: what it computes, what it keeps, and what it does when something goes wrong."""

from __future__ import annotations

import functools
import json
import resource
import shlex
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
from filelock import FileLock
from sweeps import Study, essence, litter
from typer.testing import CliRunner

from promptpanda.backbone import Backbone
from promptpanda.bank.card import Card
from promptpanda.cli.main import app
from promptpanda.errors import PandaError
from promptpanda.sweep.estimate import Work
from promptpanda.sweep.executors import InProcess, Workers, workers_named, workers_of
from promptpanda.sweep.material import MATERIAL, identify
from promptpanda.sweep.plan import expand
from promptpanda.sweep.session import Places, export, look_ahead, sweep
from promptpanda.sweep.store import Store
from promptpanda.sweep.wishes import Wishes, seconds_of
from promptpanda.sweep.work import Result, failed_row
from promptpanda.tasks.catalog import load_task
from promptpanda.training.options import TrainingOptions
from promptpanda.transfers.transfer import train, transfer

pytestmark = pytest.mark.usefixtures("one_thread")

ALL = 2 + 1 + 2 * 3  # sources, prompt tuning, and from each source PoT, PANDA and estimates


@pytest.fixture
def study(tmp_path, tiny_folder):
    return Study(tmp_path, tiny_folder("bert"))


@pytest.fixture(scope="session")
def finished(tmp_path_factory, tiny_folder):
    """A study that was swept once, to be copied."""
    import torch

    study = Study(tmp_path_factory.mktemp("finished"), tiny_folder("bert"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    study.run()
    torch.set_num_threads(threads)
    return study


@pytest.fixture
def swept(finished, tmp_path):
    """A finished study of the test's own."""
    shutil.copytree(finished.folder, tmp_path / "copy", dirs_exist_ok=True)
    copy = object.__new__(Study)
    copy.folder, copy.model = tmp_path / "copy", finished.model
    return copy


class Counting(InProcess):
    """Says which runs it was given."""

    def __init__(self):
        self.seen = []

    def submit(self, function, /, *arguments):
        self.seen.append(arguments[0].spec.label)
        return super().submit(function, *arguments)

    @property
    def workers(self):
        return Workers.around(self, 1)


def test_a_sweep_gives_what_train_and_transfer_give(study, tiny_folder):
    """The same prompts by the same names, so that one bank serves both; and the same scores."""
    study.run(recipe=study.recipe(methods=["prompt_tuning", "pot", "panda", "head_only", "model_tuning"], seeds=[0, 1]))
    backbone = Backbone.load(str(study.model))
    bank, data = study.bank("other"), study.folder / "data"
    options = TrainingOptions(epochs=1, max_length=24, prompt_length=4)
    source = train(
        load_task(study.folder / "books.yaml", data_dir=data), backbone, bank=bank, options=options, train_examples=40
    )
    result = transfer(
        load_task(study.folder / "mood.yaml", data_dir=data),
        source,
        backbone,
        bank=bank,
        options=TrainingOptions(epochs=1, max_length=24),
        methods=("prompt_tuning", "pot", "panda", "head_only", "model_tuning"),
        train_examples=24,
        seeds=(0, 1),
    )
    rows = {(row.method, row.seed): row for row in study.rows() if row.kind == "target" and row.source != "films"}
    assert len(rows) == 10
    for name, method in result.methods.items():
        for seed, outcome in enumerate(method.outcomes):
            row = rows[name, seed]
            assert row.prompt == outcome.card.id
            assert row.test["accuracy"] == method.scores[seed]
            assert row.validation == outcome.card.validation
            assert (row.n_train, row.n_val, row.n_test) == (16, 8, 20)
            ours = Card.read(study.bank().folder / row.prompt)
            weights = {name: sums for name, sums in ours.files.items() if not name.startswith("signature")}
            assert weights.items() <= outcome.card.files.items()
            assert ours.test.scores == outcome.card.test.scores
    constants = [rows["pot", seed].constant for seed in (0, 1)]
    assert sum(constants) / 2 == result.constant
    estimated = [row for row in study.rows() if row.kind == "estimates" and row.source == "books"]
    assert sum(row.estimates["cosine"] for row in estimated) / 2 == pytest.approx(result.transferability["cosine"])


def test_auto_in_a_sweep_is_what_transfer_selects(study):
    """The same choice, prompt, scores and cost; what it chose may be another run's prompt too, and is kept once."""
    recipe = study.recipe(methods=["prompt_tuning", "pot", "auto"], seeds=[0, 1])
    study.run(recipe=recipe)
    assert litter(study.folder / "out") == []
    rows = {row.seed: row for row in study.rows() if row.method == "auto"}
    options = TrainingOptions(epochs=1, max_length=24)
    bank = study.bank("other")
    backbone, data = Backbone.load(str(study.model)), study.folder / "data"
    for name in ("books", "films"):
        task = load_task(study.folder / f"{name}.yaml", data_dir=data)
        four = TrainingOptions(epochs=1, max_length=24, prompt_length=4)
        train(task, backbone, bank=bank, options=four, train_examples=40)
    target = load_task(study.folder / "mood.yaml", data_dir=data)
    result = transfer(target, "auto", backbone, bank=bank, options=options, train_examples=24, seeds=(0, 1))
    for seed, selection in enumerate(result.selection):
        said = selection.to_json()
        assert rows[seed].selection == said
        assert rows[seed].prompt == result.auto.outcomes[seed].card.id
        assert rows[seed].test["accuracy"] == result.auto.scores[seed]
        unit = rows[seed].n_train * 1
        assert rows[seed].example_steps == round(said["cost"] * unit)
    assert look_ahead(recipe, study.places()).to_json()["left"] == 0


def test_a_changed_way_to_select_makes_another_run(study, monkeypatch):
    recipe = study.recipe(methods=["auto"])

    def key():
        planned = identify(expand(recipe, study.folder), "clean", study.folder / "data")
        return next(planned.keys[spec].key for spec in planned.plan.runs if spec.method == "auto")

    before = key()
    assert key() == before
    monkeypatch.setattr("promptpanda.transfers.selection.SLOPE", 7.0)
    assert key() != before


def test_rows_say_all_that_a_report_needs(swept):
    rows = swept.rows()
    assert len(rows) == ALL
    with Store.open(swept.folder / "out") as store:
        (answers,) = store.answers()
        assert store.facts()["name"] == "study"
    for row in rows:
        assert row.status == "finished"
        assert row.attempts == 1
        assert row.seconds > 0
        assert row.finished is not None
        assert {"torch", "threads", "promptpanda"} <= set(row.environment)
        if row.kind == "target":
            assert row.test_fingerprint == answers.test_fingerprint
            right = [label == said for label, said in zip(answers.labels, row.predictions, strict=True)]
            assert sum(right) / len(right) == row.test["accuracy"]
            assert len(row.curve) == 1
        else:
            assert row.test is None
        assert (row.estimates is not None) == (row.kind == "estimates")
        assert (row.prompt is not None) == (row.kind != "estimates")
    assert set(swept.bank().ids()) == {row.prompt for row in rows if row.prompt}


def test_what_is_finished_is_not_computed_again(swept):
    before = essence(swept.folder / "out"), [row.finished for row in swept.rows()]
    counting = Counting()
    outcome = swept.run(workers=counting.workers)
    assert counting.seen == []
    assert (outcome.begun, outcome.left, outcome.finished, outcome.total) == (0, 0, ALL, ALL)
    assert (essence(swept.folder / "out"), [row.finished for row in swept.rows()]) == before
    more = swept.recipe(seeds=[0, 1])
    outcome = swept.run(recipe=more, workers=counting.workers)
    assert all(label.endswith("seed 1") for label in counting.seen)
    assert outcome.begun == len(counting.seen) == ALL - 2


def test_another_cap_of_the_test_data_trains_nothing(swept):
    created = {name: Card.read(swept.bank().folder / name).created for name in swept.bank().ids()}
    before = swept.rows()
    targets = swept.content()["targets"] | {"test_examples": 7}
    outcome = swept.run(recipe=swept.recipe(targets=targets))
    assert outcome.begun == 5, "prompt tuning, and twice PoT and PANDA"
    new = swept.rows()[len(before) :]
    assert {row.n_test for row in new} == {7}
    assert {row.prompt for row in new} == {row.prompt for row in before if row.kind == "target"}
    assert {name: Card.read(swept.bank().folder / name).created for name in swept.bank().ids()} == created


def test_a_prompt_without_a_row_is_taken_up(swept):
    """As a driver leaves it that is killed between the two."""
    out = swept.folder / "out"
    before = essence(out)
    (victim,) = [row for row in swept.rows() if row.method == "pot" and row.source == "books"]
    card = (swept.bank().folder / victim.prompt / "card.json").read_bytes()
    with Store.open(out) as store:
        store._connection.execute("DELETE FROM runs WHERE key = ?", (victim.key,))
    assert litter(out) == [victim.prompt]
    outcome = swept.run()
    assert outcome.begun == 1
    assert (swept.bank().folder / victim.prompt / "card.json").read_bytes() == card, "it was not trained again"
    assert essence(out) == before
    assert litter(out) == []


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
    tried = study.run(recipe=study.recipe(variants=mad), wishes=Wishes(retry_failed=True))
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
    with Store.open(out) as store:
        store._connection.execute("DELETE FROM runs WHERE method IN ('pot', 'panda')")
    outcome = swept.run()
    assert {(row.method, row.source) for row in outcome.failed} == {("pot", "books"), ("panda", "books")}
    assert f"Prompt {books.prompt} is damaged" in outcome.failed[0].reason
    assert outcome.finished == ALL - 2
    outcome = swept.run(wishes=Wishes(retry_failed=True))
    assert outcome.failed == ()
    assert essence(out) == before


def test_a_prompt_that_was_removed_is_made_again_where_it_is_needed(swept):
    out = swept.folder / "out"
    before = essence(out)
    for row in swept.rows():
        if row.kind == "source":
            shutil.rmtree(swept.bank().folder / row.prompt)
    assert swept.run().begun == 0
    with Store.open(out) as store:
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
    facts = MATERIAL.facts(str(study.folder / "mood.yaml"), data, "clean")
    for number in range(7):
        study.write_task(f"other{number}", number)
        MATERIAL.facts(str(study.folder / f"other{number}.yaml"), data, "clean")
    write_jsonl(study.folder / "data" / "mood" / "train.jsonl", sentiment_rows(40, 77))
    with pytest.raises(PandaError, match="is not what it was when the sweep was planned"):
        MATERIAL.expected(str(study.folder / "mood.yaml"), data, "clean", facts)


def test_what_cannot_be_measured_is_run_all_the_same(study):
    """A rate that diverges fails the runs, and not the forecast."""
    recipe = study.recipe(targets=study.content()["targets"] | {"options": {"epochs": 1, "lr": 1e30}})
    assert look_ahead(recipe, study.places()).seconds is None
    outcome = study.run(recipe=recipe, wishes=Wishes(time_limit=600))
    assert outcome.left == 0
    assert {row.method for row in outcome.failed} >= {"prompt_tuning", "pot"}


def test_sentences_of_words_are_work_too(study):
    rows = [{"tokens": ["w1", "good", "w2"], "tags": ["O", "B-NICE", "O"]} for _ in range(30)]
    write_jsonl(study.folder / "data" / "tags" / "train.jsonl", rows)
    spec = {"name": "tags", "kind": "token_classification", "segments": ["{tokens}"], "label": "tags"}
    (study.folder / "tags.yaml").write_text(yaml.safe_dump(spec | {"metrics": ["span_f1"]}))
    recipe = study.recipe(targets=study.content()["targets"] | {"tasks": ["tags.yaml"]})
    planned = identify(expand(recipe, study.folder), "clean", study.folder / "data")
    (tuned,) = [spec for spec in planned.plan.runs if spec.task == "tags" and spec.method == "prompt_tuning"]
    assert Work(planned).tokens(tuned) == 5, "three words, and what the model puts around them"
    found = look_ahead(recipe, study.places())
    assert next(group.seconds for group in found.groups if group.method == "panda") > 0


def test_a_dry_run_counts_what_imported_rows_leave_to_do(swept):
    export(swept.folder / "out", swept.folder / "rows.csv")
    recipe = swept.recipe(seeds=[0, 1])
    found = look_ahead(recipe, swept.places("other"), imported=swept.folder / "rows.csv").to_json()
    # Of seed 1: prompt tuning, and from two sources PoT, PANDA, estimates; and the sources, whose prompts did not come.
    assert (found["finished"], found["left"]) == (ALL, 7 + 2)
    outcome = swept.run("other", recipe, imported=swept.folder / "rows.csv")
    assert outcome.begun == 9


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_imported_rows_are_finished(swept, kind):
    file = swept.folder / f"rows.{kind}"
    assert export(swept.folder / "out" / "store.sqlite", file) == ALL
    counting = Counting()
    outcome = swept.run("new", imported=file, workers=counting.workers)
    assert counting.seen == []
    assert (outcome.finished, outcome.begun) == (ALL, 0)
    assert swept.rows("new") == swept.rows()
    with Store.open(swept.folder / "new") as new, Store.open(swept.folder / "out") as old:
        assert new.answers() == old.answers()
    # A new run that starts from an imported source needs the prompt itself; nothing else is computed.
    half = {"half": {"method": "panda", "distillation": {"coefficient": 0.5}}}
    swept.run("new", recipe=swept.recipe(variants=half), wishes=Wishes(only="half books"), workers=counting.workers)
    assert [label.split(",")[0] for label in counting.seen] == [
        "source prompt of books",
        "pot of mood from books",
        "panda (half) of mood from books",
    ]
    assert essence(swept.folder / "new")[0].items() >= essence(swept.folder / "out")[0].items()


def test_only_limit_and_time_limit(study):
    outcome = study.run(wishes=Wishes(only="pot books"))
    assert {(row.kind, row.task) for row in study.rows()} == {("source", "books"), ("target", "mood")}
    assert (outcome.total, outcome.finished) == (2, 2)
    outcome = study.run(wishes=Wishes(limit=3))
    assert (outcome.begun, outcome.stopped, outcome.left) == (3, "limit", ALL - 5)
    assert outcome.seconds_left > 0
    assert study.run(wishes=Wishes(limit=0)).begun == 0
    outcome = study.run(wishes=Wishes(time_limit=0.0))
    assert (outcome.begun, outcome.stopped, outcome.left) == (0, "time-limit", ALL - 5)
    outcome = study.run(wishes=Wishes(time_limit=600))
    assert (outcome.begun, outcome.stopped, outcome.left) == (ALL - 5, None, 0)
    for only, message in (
        ("potts", "Did you mean 'pot'?"),
        ("pot s7", "no run has the word 's7'"),
        ("", "fits no run"),
    ):
        with pytest.raises(PandaError) as error:
            study.run(wishes=Wishes(only=only))
        assert message in str(error.value)


def test_no_run_is_begun_that_would_not_end_in_time(swept):
    """By what finished runs took: here made long by hand."""
    with Store.open(swept.folder / "out") as store:
        for row in store.rows():
            store.write(row.model_copy(update={"seconds": 50.0}))
        store._connection.execute("DELETE FROM runs WHERE method = 'pot'")
    assert swept.run(wishes=Wishes(time_limit=40)).begun == 0
    assert swept.run(wishes=Wishes(time_limit=90)).begun == 2, "the first tells that they are quick"


@pytest.mark.parametrize(
    ("text", "seconds"), [("50m", 3000), ("1h30m", 5400), ("90s", 90), ("90", 90), ("1.5h", 5400), ("2min", 120)]
)
def test_times(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "soon", "-5m", "5 m 3", "1m1h"])
def test_times_that_are_none(text):
    if text == "m":
        text = "hm"
    with pytest.raises(PandaError, match="--time-limit must be a time such as 50m"):
        seconds_of(text)


def test_a_second_driver_is_told_so(swept):
    lock = swept.folder / "out" / "store.sqlite.lock"
    with FileLock(lock), pytest.raises(PandaError, match="Another sweep is at work"):
        swept.run()


def test_a_dry_run_counts_and_writes_nothing(study):
    found = look_ahead(study.recipe(), study.places())
    assert not (study.folder / "out").exists()
    content = found.to_json()
    assert (content["runs"], content["left"], content["finished"]) == (ALL, ALL, 0)
    assert 0 < content["seconds"] < 120
    assert {(group["kind"], group["method"]): group["runs"] for group in content["groups"]} == {
        ("source", "prompt_tuning"): 2,
        ("target", "prompt_tuning"): 1,
        ("target", "pot"): 2,
        ("target", "panda"): 2,
        ("estimates", None): 2,
    }
    outcome = study.run()
    taken = sum(row.seconds for row in study.rows())
    assert content["seconds"] == pytest.approx(taken, abs=0.4 + 3 * taken)
    written = sum(path.stat().st_size for path in (study.folder / "out").rglob("*") if path.is_file())
    assert written / 2 < content["bytes"] < 2 * written
    assert outcome.left == look_ahead(study.recipe(), study.places()).to_json()["left"] == 0
    shutil.rmtree(study.folder / "data")
    (study.folder / "data").mkdir()
    blind = look_ahead(study.recipe(), study.places()).to_json()
    assert (blind["runs"], blind["seconds"]) == (ALL, None)
    assert "was not found; give --data-dir" in blind["why_not"]


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process are POSIX")
def test_a_store_that_cannot_grow_stops_the_sweep_with_one_sentence(study):
    study.run(wishes=Wishes(limit=3))
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
    outcome = sweep(study.recipe(), places, wishes=Wishes(retry_failed=True))
    if outcome.failed:
        subprocess.run(["mount", "-o", "remount,size=4m", small_disk], check=True)
        outcome = sweep(study.recipe(), places, wishes=Wishes(retry_failed=True))
    assert outcome.failed == ()
    shutil.copytree(small_disk / "bank", study.folder / "out" / "bank")
    assert essence(study.folder / "out") == essence(study.folder / "whole")


def test_a_full_disk_under_the_store_stops_with_one_sentence(study, small_disk):
    places = Places(small_disk / "out", bank=study.folder / "bank", base=study.folder)
    sweep(study.recipe(), places, wishes=Wishes(limit=2))
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
                MATERIAL.forget()
            return super().submit(function, *arguments)

    shutil.copytree(study.model, study.folder / "model")
    recipe = study.recipe(models=["./model"])
    outcome = study.run(recipe=recipe, workers=Workers.around(Meddling(), 1))
    assert outcome.finished == 3
    assert "put the same model in both places" in outcome.failed[0].reason


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("clouds", "No executor 'clouds'; there are in-process, processes:N"),
        ("processes", "needs a number of workers, such as processes:2"),
        ("processes:0", "needs a number of workers"),
        ("processes:two", "needs a number of workers"),
        ("dask:9", "No executor 'dask:9'"),
        ("slurm:x", "needs a number of workers, such as slurm:2"),
    ],
)
def test_executors_that_are_none(tmp_path, name, message):
    with pytest.raises(PandaError) as error:
        workers_of(name, tmp_path)
    assert message in str(error.value)


def test_workers_by_name():
    assert [workers_named(name) for name in ("in-process", "processes:3", "slurm:8", "dask://h:1")] == [1, 3, 8, 1]


def test_the_command(study, monkeypatch):
    monkeypatch.chdir(study.folder)
    recipe = study.write_recipe()

    def panda(*arguments):
        monkeypatch.setattr(sys, "argv", ["/usr/bin/panda", "sweep", str(recipe), *arguments])
        result = CliRunner().invoke(app, sys.argv[1:])
        assert result.exit_code == 0, result.stderr
        return result

    dry = json.loads(panda("--dry-run", "--json").stdout)
    assert (dry["name"], dry["runs"]) == ("study", ALL)
    assert "runs to do" in panda("--dry-run").stdout
    first = json.loads(panda("--limit", "4", "--json").stdout)
    assert (first["begun"], first["left"], first["stopped"]) == (4, ALL - 4, "limit")
    stopped = panda("--time-limit", "0s")
    assert "Stopped by --time-limit; the same command goes on with the 5 that are left" in stopped.stdout
    rest = panda()
    assert f"{ALL} of {ALL} runs finished, 0 failed, 0 left" in rest.stdout
    assert f"[{ALL}/{ALL}]" in rest.stderr
    assert " left" in rest.stderr
    store = study.folder / "runs" / "study" / "store.sqlite"
    assert json.loads(panda("--export", "rows.csv", "--json").stdout) == {
        "store": "runs/study/store.sqlite",
        "exported": ALL,
        "file": "rows.csv",
        "imported": None,
    }
    assert store.is_file()
    other = json.loads(panda("--out", "elsewhere", "--import", "rows.csv", "--json").stdout)
    assert (other["finished"], other["begun"]) == (ALL, 0)
    with Store.open(store) as opened:
        assert opened.facts()["command"] == shlex.join(["panda", "sweep", str(recipe)])


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
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 130, errors
    assert errors.splitlines()[-1] == "Interrupted; what was finished is kept."
    assert "Traceback" not in errors
    assert len(study.rows()) >= 3
    assert set(litter(out)) <= set(study.bank().ids())
