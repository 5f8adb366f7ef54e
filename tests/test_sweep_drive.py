"""The driver: what it computes, what it keeps, and what it does when something goes wrong."""

from __future__ import annotations

import json
import shlex
import shutil
import sys

import pytest
import yaml
from conftest import write_jsonl
from filelock import FileLock
from sweeps import ALL, Counting, essence, litter
from typer.testing import CliRunner

from promptpanda.backbone import Backbone
from promptpanda.bank.card import Card
from promptpanda.cli.main import app
from promptpanda.errors import PandaError
from promptpanda.sweep.cache import identify
from promptpanda.sweep.estimate import Work
from promptpanda.sweep.executors import workers_named, workers_of
from promptpanda.sweep.filters import RunFilter, seconds_of
from promptpanda.sweep.plan import expand
from promptpanda.sweep.recipe import SweepRecipe
from promptpanda.sweep.session import export, preview
from promptpanda.sweep.store import STORE_NAME, Store
from promptpanda.tasks.catalog import load_task
from promptpanda.training.options import TrainingOptions
from promptpanda.transfers.transfer import train, transfer

pytestmark = pytest.mark.usefixtures("one_thread")


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


def test_sources_alone_build_a_bank_and_are_scored_later_without_being_trained_again(study):
    content = study.content(targets=None, methods=[])
    study.run(recipe=SweepRecipe.parse(content, "a test"))
    trained = {row.task: row.checksum for row in study.rows()}
    assert sorted(trained) == ["books", "films"]
    assert all(row.test is None for row in study.rows())
    content["sources"]["tested"] = True
    outcome = study.run(recipe=SweepRecipe.parse(content, "a test"))
    scored = {row.task: row for row in study.rows() if row.test is not None}
    assert outcome.finished == 2
    assert {task: row.checksum for task, row in scored.items()} == trained
    for row in scored.values():
        card = Card.read(study.bank().folder / row.prompt)
        assert card.test.scores == row.test
        assert card.test.n_test == 20


def test_a_sweep_in_bfloat16_trains_on_the_model_in_that_format(study):
    exact = study.run("exact")
    half = study.run("half", recipe=study.recipe(dtype="bfloat16"))
    assert exact.finished == half.finished == ALL
    cards = {out: Card.read(study.bank(out).folder / study.bank(out).ids()[0]) for out in ("exact", "half")}
    assert [cards[out].backbone.precision for out in ("exact", "half")] == ["float32", "bfloat16"]
    assert cards["exact"].backbone.fingerprint != cards["half"].backbone.fingerprint


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
    for seed in (0, 1):  # by itself: of several seeds the mean lead says what the contrastive contestant starts from
        result = transfer(target, "auto", backbone, bank=bank, options=options, train_examples=24, seeds=(seed,))
        said = result.selection[0].to_json()
        assert rows[seed].selection == said
        assert rows[seed].prompt == result.auto.outcomes[0].card.id
        assert rows[seed].test["accuracy"] == result.auto.scores[0]
        unit = rows[seed].n_train * 1
        assert rows[seed].example_steps == round(said["cost"] * unit)
    assert preview(recipe, study.places()).to_json()["left"] == 0


def test_a_changed_way_to_select_makes_another_run(study, monkeypatch):
    recipe = study.recipe(methods=["auto"])

    def key():
        planned = identify(expand(recipe, study.folder), "clean", study.folder / "data")
        return next(planned.keys[spec].key for spec in planned.plan.runs if spec.method == "auto")

    before = key()
    assert key() == before
    monkeypatch.setattr("promptpanda.transfers.selection.SPREAD", 7.0)
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
    with Store.create(out / STORE_NAME) as store:
        store._connection.execute("DELETE FROM runs WHERE key = ?", (victim.key,))
    assert litter(out) == [victim.prompt]
    outcome = swept.run()
    assert outcome.begun == 1
    assert (swept.bank().folder / victim.prompt / "card.json").read_bytes() == card, "it was not trained again"
    assert essence(out) == before
    assert litter(out) == []


def test_what_cannot_be_measured_is_run_all_the_same(study):
    """A rate that diverges fails the runs, and not the forecast."""
    recipe = study.recipe(targets=study.content()["targets"] | {"options": {"epochs": 1, "lr": 1e30}})
    assert preview(recipe, study.places()).seconds is None
    outcome = study.run(recipe=recipe, run_filter=RunFilter(time_limit=600))
    assert outcome.left == 0
    assert {row.method for row in outcome.failed} >= {"prompt_tuning", "pot"}


def test_sentences_of_words_are_work_too(study):
    rows = [{"tokens": [f"w{n}", "good", "w2"], "tags": ["O", "B-NICE", "O"]} for n in range(30)]
    write_jsonl(study.folder / "data" / "tags" / "train.jsonl", rows)
    spec = {"name": "tags", "kind": "token_classification", "segments": ["{tokens}"], "label": "tags"}
    (study.folder / "tags.yaml").write_text(yaml.safe_dump(spec | {"metrics": ["span_f1"]}))
    recipe = study.recipe(targets=study.content()["targets"] | {"tasks": ["tags.yaml"]})
    planned = identify(expand(recipe, study.folder), "clean", study.folder / "data")
    (tuned,) = [spec for spec in planned.plan.runs if spec.task == "tags" and spec.method == "prompt_tuning"]
    assert Work(planned).tokens(tuned) == 5, "three words, and what the model puts around them"
    found = preview(recipe, study.places())
    assert next(group.seconds for group in found.groups if group.method == "panda") > 0


def test_a_dry_run_counts_what_imported_rows_leave_to_do(swept):
    export(swept.folder / "out", swept.folder / "rows.csv")
    recipe = swept.recipe(seeds=[0, 1])
    found = preview(recipe, swept.places("other"), imported=swept.folder / "rows.csv").to_json()
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
    swept.run(
        "new", recipe=swept.recipe(variants=half), run_filter=RunFilter(only="half books"), workers=counting.workers
    )
    assert [label.split(",")[0] for label in counting.seen] == [
        "source prompt of books",
        "pot of mood from books",
        "panda (half) of mood from books",
    ]
    assert essence(swept.folder / "new")[0].items() >= essence(swept.folder / "out")[0].items()


def test_only_limit_and_time_limit(study):
    outcome = study.run(run_filter=RunFilter(only="pot books"))
    assert {(row.kind, row.task) for row in study.rows()} == {("source", "books"), ("target", "mood")}
    assert (outcome.total, outcome.finished) == (2, 2)
    outcome = study.run(run_filter=RunFilter(limit=3))
    assert (outcome.begun, outcome.stopped, outcome.left) == (3, "limit", ALL - 5)
    assert outcome.seconds_left > 0
    assert study.run(run_filter=RunFilter(limit=0)).begun == 0
    outcome = study.run(run_filter=RunFilter(time_limit=0.0))
    assert (outcome.begun, outcome.stopped, outcome.left) == (0, "time-limit", ALL - 5)
    outcome = study.run(run_filter=RunFilter(time_limit=600))
    assert (outcome.begun, outcome.stopped, outcome.left) == (ALL - 5, None, 0)
    for only, message in (
        ("potts", "Did you mean 'pot'?"),
        ("pot s7", "no run has the word 's7'"),
        ("", "matches no run"),
    ):
        with pytest.raises(PandaError) as error:
            study.run(run_filter=RunFilter(only=only))
        assert message in str(error.value)


def test_no_run_is_begun_that_would_not_end_in_time(swept):
    """By what finished runs took: here made long by hand."""
    with Store.create(swept.folder / "out" / STORE_NAME) as store:
        for row in store.rows():
            store.write(row.model_copy(update={"seconds": 50.0}))
        store._connection.execute("DELETE FROM runs WHERE method = 'pot'")
    assert swept.run(run_filter=RunFilter(time_limit=40)).begun == 0
    assert swept.run(run_filter=RunFilter(time_limit=90)).begun == 2, "the first tells that they are quick"


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
    with FileLock(lock), pytest.raises(PandaError, match="Another sweep is running"):
        swept.run()


def test_a_dry_run_counts_and_writes_nothing(study):
    found = preview(study.recipe(), study.places())
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
    assert outcome.left == preview(study.recipe(), study.places()).to_json()["left"] == 0
    shutil.rmtree(study.folder / "data")
    (study.folder / "data").mkdir()
    blind = preview(study.recipe(), study.places()).to_json()
    assert (blind["runs"], blind["seconds"]) == (ALL, None)
    assert "was not found; give --data-dir" in blind["why_not"]


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
    assert "Stopped by --time-limit; the same command resumes with the 5 that are left" in stopped.stdout
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
