"""`--log-to`: trackers' own packages and local stores where they are installed, and trackers that fail anywhere."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from conftest import sentiment_rows, write_jsonl
from typer.testing import CliRunner

from promptpanda import Bank
from promptpanda.cli.main import app
from promptpanda.progress import Silent
from promptpanda.tracking.record import Record
from promptpanda.tracking.tracker import Recorder, recorder

TRACKERS = ("mlflow", "trackio", "wandb")

pytestmark = pytest.mark.usefixtures("one_thread")


def installed(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(
        find_spec(name) is None, reason=f"{name} is not installed: pip install promptpanda[{name}]"
    )


class Notes(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, message: str) -> None:
        self.said.append(message)


@pytest.fixture(autouse=True)
def stores(tmp_path, monkeypatch):
    """All trackers keep to this folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_EXPERIMENT_NAME", "TRACKIO_PROJECT", "TRACKIO_SPACE_ID", "WANDB_PROJECT", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path}/mlruns")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def train(tiny_folder, tmp_path):
    """Run `panda train` on a small file; returns its JSON and what it said."""
    write_jsonl(tmp_path / "mood.jsonl", sentiment_rows(40))

    def run(*more: str, code: int = 0) -> tuple[dict[str, Any], str]:
        line = ["train", "--train", "mood.jsonl", "--text", "text", "--label", "label", "--epochs", "2", "--json"]
        line += ["--prompt-length", "4", "--max-length", "24", "--model", str(tiny_folder("bert")), "--no-starter"]
        result = CliRunner().invoke(app, [*line, *more])
        assert result.exit_code == code, f"{result.stdout}\n{result.stderr}\n{result.exception!r}"
        return json.loads(result.stdout) if code == 0 else {}, result.stderr

    return run


def card_of(found: dict[str, Any]) -> Any:
    (card,) = [card for card in Bank("bank", others={}).cards() if card.id == Path(found["prompts"][0]).name]
    return card


@installed("mlflow")
def test_mlflow_has_parameters_curve_and_scores(train):
    found, _ = train("--log-to", "mlflow")
    from mlflow import MlflowClient

    client, card = MlflowClient(), card_of(found)
    (run,) = client.search_runs([client.get_experiment_by_name("promptpanda").experiment_id])
    assert (run.info.run_name, run.info.status) == (card.id, "FINISHED")
    assert (
        run.data.params.items()
        >= {"task": "mood", "method": "prompt_tuning", "seed": "0", "options/epochs": "2"}.items()
    )
    assert run.data.metrics["final/validation/accuracy"] == pytest.approx(card.score)
    losses = sorted(client.get_metric_history(run.info.run_id, "train/loss"), key=lambda one: one.step)
    assert [one.step for one in losses] == [1, 2]
    assert [one.value for one in losses] == pytest.approx([epoch.train_loss for epoch in card.curve])


@installed("mlflow")
def test_mlflow_that_is_lost_costs_no_training(train):
    notes = Notes()
    tell = recorder("mlflow", "promptpanda", notes)
    shutil.rmtree("mlruns")
    Path("mlruns").write_text("a file")
    found, _ = train()
    tell(Record.of_card(card_of(found)))
    assert "MLflow did not take" in notes.said[0]
    assert "the training is not affected" in notes.said[0]
    assert "MLflow cannot be used" in train("--log-to", "mlflow", "--seeds", "1", code=2)[1]
    assert len(Bank("bank", others={}).ids()) == 1  # told before the training


@installed("mlflow")
def test_mlflow_has_the_runs_of_a_sweep_once(study):
    path = study.write_recipe(seeds=[0])
    line = ["sweep", str(path), "--out", "out", "--log-to", "mlflow"]
    for _ in range(2):
        assert CliRunner().invoke(app, line).exit_code == 0
    from mlflow import MlflowClient

    client = MlflowClient()
    runs = client.search_runs([client.get_experiment_by_name("study").experiment_id])
    assert sorted(run.info.run_name for run in runs) == sorted(Record.of_row(row).name for row in study.rows())
    assert all(
        "final/validation/accuracy" in run.data.metrics for run in runs if run.data.params["kind"] != "estimates"
    )


@installed("trackio")
def test_trackio_has_parameters_curve_and_scores(train):
    found, _ = train("--log-to", "trackio")
    import sqlite3

    import trackio

    card = card_of(found)
    (run,) = trackio.Api().runs("promptpanda")
    assert run.name == card.id
    assert run.config.items() >= {"task": "mood", "method": "prompt_tuning", "seed": 0, "options/epochs": 2}.items()
    with sqlite3.connect(Path("trackio", "promptpanda.db")) as store:
        kept = [json.loads(row) for (row,) in store.execute("SELECT metrics FROM metrics ORDER BY step, id")]
    assert [one["train/loss"] for one in kept[:2]] == pytest.approx([epoch.train_loss for epoch in card.curve])
    assert kept[-1]["final/validation/accuracy"] == pytest.approx(card.score)


@installed("wandb")
def test_wandb_keeps_an_offline_run(train):
    found, _ = train("--log-to", "wandb")
    (kept,) = Path("wandb").glob("offline-run-*/*.wandb")
    content = kept.read_bytes()
    for part in (card_of(found).id, "train/loss", "final/validation/accuracy", "options/epochs"):
        assert part.encode() in content


@installed("wandb")
def test_wandb_without_a_key_is_told_before_the_training(train, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "online")
    assert "No key for Weights & Biases" in train("--log-to", "wandb", code=2)[1]
    assert not Path("bank").exists() or not Bank("bank", others={}).ids()


@pytest.mark.parametrize("name", TRACKERS)
def test_a_package_that_is_missing_is_told_before_the_training(train, name):
    if find_spec(name) is not None:
        pytest.skip(f"{name} is installed")
    told = train("--log-to", name, code=2)[1].splitlines()
    assert told[-1].endswith(f"which is not installed; run `pip install 'promptpanda[{name}]'`.")
    assert not Path("bank").exists() or not Bank("bank", others={}).ids()


def test_a_tracker_that_fails_is_told_and_left_alone_after_three_times():
    class Broken:
        asked = 0
        works = False

        def record(self, record: Record) -> None:
            self.asked += 1
            print("hello")
            if not self.works:
                raise RuntimeError("the disk is full\nTraceback ...")

    tracker, notes = Broken(), Notes()
    tell = Recorder(tracker, "trackio", notes)
    one = Record("mood-s0-00000000", {}, (), {})
    tell(one)
    tracker.works = True
    tell(one)
    tracker.works = False
    for _ in range(5):
        tell(one)
    assert tracker.asked == 5
    assert len(notes.said) == 4
    assert notes.said[0] == "Trackio did not take mood-s0-00000000 (the disk is full); the training is not affected."
    assert "nothing more is told to it" in notes.said[-1]


def test_rows_of_a_sweep_are_recorded_as_they_are_written_and_failures_too(study):
    """With what the store says of them: numbers that are none are left out."""
    taken: list[Any] = []
    study.run(record=taken.append)
    assert {row.key for row in taken} == {row.key for row in study.rows()}
    trained = next(row for row in taken if row.method == "panda")
    record = Record.of_row(trained)
    assert record.scores["final/test/accuracy"] == trained.test["accuracy"]
    assert record.parameters["source"] == trained.source
    assert record.parameters["options/prompt_length"] == 4
    assert [one["train/loss"] for one in record.curve] == [epoch.train_loss for epoch in trained.curve]
    estimate = Record.of_row(next(row for row in taken if row.kind == "estimates"))
    assert "final/estimate/cosine" in estimate.scores
    failed = trained.model_copy(update={"validation": {"loss": float("nan")}, "reason": "no memory"})
    assert Record.of_row(failed).failure == "no memory"
    assert "final/validation/loss" not in Record.of_row(failed).scores
