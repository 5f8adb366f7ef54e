"""Every wrong input: one clear sentence on stderr, exit code 2, no traceback, and nothing that was earned is lost."""

from __future__ import annotations

import gzip
import json
import os
import subprocess

import pytest
from conftest import sentiment_rows, write_jsonl
from test_bank import foreign
from typer.testing import CliRunner

from promptpanda.cli.main import app

FAST = ["--epochs", "1", "--max-length", "24"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with good files and a data root; the current folder of the test."""
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "good.jsonl", sentiment_rows(40))
    write_jsonl(tmp_path / "books.jsonl", sentiment_rows(40, 5))
    (tmp_path / "data").mkdir()
    return tmp_path


@pytest.fixture
def refused(folder, tiny_folder):
    """Run `panda`, expect a refusal, return its one sentence."""

    def run(*arguments: str, stdin: str | None = None, model: str | None = "bert", code: int = 2) -> str:
        options = [] if model is None else ["--model", str(tiny_folder(model))]
        result = CliRunner().invoke(app, [*arguments, *options], input=stdin)
        assert result.exit_code == code, f"{result.stdout}\n{result.stderr}\n{result.exception!r}"
        assert result.stdout == ""
        assert "Traceback" not in result.stderr
        lines = [line for line in result.stderr.splitlines() if line.startswith("panda: ")]
        assert len(lines) == 1, result.stderr
        assert result.stderr.splitlines()[-1] == lines[0], "the sentence comes last and is one line"
        assert lines[0].endswith((".", "?"))
        return lines[0]

    return run


def works(*arguments):
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.stderr
    return result.stdout


def own(path="good.jsonl", *more, text="text", label="label"):
    return ["--train", str(path), "--text", text, "--label", label, *more]


def test_unknown_names(refused):
    assert "Did you mean 'rte'?" in refused("train", "rtee")
    assert "give a hub id" in refused("train", *own(), "--model", "nobody/nothing", model=None)
    assert "is neither an id nor a task in the bank" in refused("evaluate", "nothing", *own())
    assert "Did you mean 'panda'?" in refused("transfer", *own(), "--methods", "pandas")
    assert "No task spec at none.yaml" in refused("train", "none.yaml")
    assert "not a folder" in refused("train", "rte", "--data-dir", "nowhere")


@pytest.mark.parametrize(
    ("options", "fragment"),
    [
        (["--epochs", "0"], "--epochs 0"),
        (["--lr", "-1"], "--lr -1"),
        (["--lr", "nan"], "--lr nan"),
        (["--dropout", "1"], "--dropout 1"),
        (["--batch-size", "0"], "--batch-size 0"),
        (["--prompt-length", "0"], "--prompt-length 0"),
        (["--seeds", "a,b"], "--seeds must be numbers"),
        (["--seeds", "1,1"], "each once"),
        (["--seeds=-1"], "numbers from 0"),
    ],
)
def test_option_values_out_of_range(options, fragment, refused):
    assert fragment in refused("train", *own(), *options)


@pytest.mark.parametrize(
    "option", [["--readout", "best"], ["--protocol", "dirty"], ["--epochs", "many"], ["--colour", "red"]]
)
def test_option_values_of_the_wrong_type(option, folder):
    result = CliRunner().invoke(app, ["train", *own(), *option])
    assert result.exit_code == 2
    assert option[0] in result.stderr
    assert "Traceback" not in result.stderr


def test_columns(refused):
    sentence = refused("train", *own(text="txt"))
    assert "Row 1 of train of task 'good' has no field 'txt'; it has 'text', 'label'. Did you mean 'text'?" in sentence
    assert "Did you mean 'label'?" in refused("train", *own(label="labl"))
    assert "--text COLUMN and --label COLUMN" in refused("train", "--train", "good.jsonl")


def test_a_field_missing_in_one_row(refused, folder):
    write_jsonl(folder / "gap.jsonl", [*sentiment_rows(20), {"text": "no label"}])
    assert "Row 21 of train of task 'gap' has no field 'label'" in refused("train", *own("gap.jsonl"))


def test_files(refused, folder):
    (folder / "empty.jsonl").write_text("")
    assert "empty.jsonl is empty" in refused("train", *own("empty.jsonl"))
    (folder / "head.csv").write_text("text,label\n")
    assert "head.csv is empty" in refused("train", *own("head.csv"))
    (folder / "broken.jsonl").write_text('{"text": "a", "label": "x"}\n{"text": \n')
    assert "Line 2 of broken.jsonl is not valid JSON" in refused("train", *own("broken.jsonl"))
    (folder / "list.jsonl").write_text("[1, 2]\n")
    assert "Line 1 of list.jsonl is not a JSON object" in refused("train", *own("list.jsonl"))
    (folder / "short.csv").write_text("text,label\na,x\nb\n")
    assert "Record 3 of short.csv has 1 cells, its header has 2" in refused("train", *own("short.csv"))
    (folder / "latin.csv").write_bytes("text,label\nplain,x\ncafé,y\n".encode("latin-1"))
    assert "latin.csv is not UTF-8: line 3 has byte 0xe9" in refused("train", *own("latin.csv"))
    (folder / "cut.jsonl.gz").write_bytes(gzip.compress(b'{"text": "a", "label": "x"}\n' * 99)[:-9])
    assert "cut.jsonl.gz is not a whole gzip file" in refused("train", *own("cut.jsonl.gz"))
    (folder / "not.parquet").write_bytes(b"PAR1 this is none")
    assert "not.parquet is not a readable Parquet file" in refused("train", *own("not.parquet"))
    (folder / "notes.txt").write_text("x")
    assert "notes.txt is of no known format" in refused("train", *own("notes.txt"))
    assert "No file missing.csv" in refused("train", *own("missing.csv"))
    (folder / "data" / "rte").mkdir()
    assert "data/rte is empty" in refused("train", "rte", "--data-dir", "data")


def test_specs(refused, folder):
    (folder / "bad.yaml").write_text("name: [unclosed")
    assert "bad.yaml is not valid YAML" in refused("train", "bad.yaml")
    (folder / "list.yaml").write_text("- a\n")
    assert "holds no task spec" in refused("train", "list.yaml")
    (folder / "kind.yaml").write_text("name: x\nkind: poem\nsegments: ['{t}']\nmetrics: [accuracy]\n")
    assert "kind.yaml is not valid at kind" in refused("train", "kind.yaml")


def test_labels(refused, folder):
    write_jsonl(folder / "one.jsonl", [{"text": f"w{n}", "label": "good"} for n in range(30)])
    assert "Every training example of task 'one' has the label 'good'" in refused("train", *own("one.jsonl"))
    write_jsonl(folder / "gaps.jsonl", [*sentiment_rows(20), {"text": "x", "label": None}, {"text": "y", "label": ""}])
    assert "Row 21 of train of task 'gaps' has the label None, but train has only 'bad', 'good'" in refused(
        "train", *own("gaps.jsonl")
    )
    write_jsonl(folder / "ids.jsonl", [{"text": f"w{n}", "label": n / 7} for n in range(80)])
    assert "say --kind regression" in refused("train", *own("ids.jsonl"))
    write_jsonl(folder / "many.jsonl", [{"text": f"w{n}", "label": f"c{n % 30}"} for n in range(90)])
    sentence = refused("train", *own("many.jsonl"), "--train-examples", "20")
    assert "20 training examples" in sentence
    assert "30 classes" in sentence
    assert "at least 38 are needed" in sentence
    assert "at least 10 are needed" in refused("train", *own(), "--train-examples", "9")
    assert "more than task 'good' has (40)" in refused("train", *own(), "--train-examples", "41")


@pytest.mark.parametrize("value", ["much", "nan", None, "", "inf"])
def test_a_regression_target_that_is_no_number(value, refused, folder):
    rows = [{"text": f"w{n}", "label": n} for n in range(20)]
    rows[6]["label"] = value
    write_jsonl(folder / "price.jsonl", rows)
    sentence = refused("train", *own("price.jsonl"), "--kind", "regression")
    assert "Row 7 of train of task 'price' has the target" in sentence


@pytest.mark.parametrize("value", ["", "   ", None])
def test_an_empty_text(value, refused, folder):
    rows = sentiment_rows(20)
    rows[4]["text"] = value
    write_jsonl(folder / "holes.jsonl", rows)
    assert "Row 5 of train of task 'holes' has an empty text in 'text'" in refused("train", *own("holes.jsonl"))


def test_a_label_in_test_that_train_lacks_is_found_before_training(refused, folder, tiny_folder):
    write_jsonl(folder / "test.jsonl", [{"text": "a", "label": "good"}, {"text": "b", "label": "odd"}])
    works("train", *own("books.jsonl"), *FAST, "--model", str(tiny_folder("bert")))
    before = sorted(os.listdir("bank"))
    sentence = refused("transfer", *own(), "--test", "test.jsonl", *FAST, "--source", "books")
    assert "Row 2 of test of task 'good' has the label 'odd', but train has only 'bad', 'good'" in sentence
    assert sorted(os.listdir("bank")) == before


def test_lengths(refused):
    sentence = refused("train", *own(), "--max-length", "60", "--prompt-length", "5")
    assert "60 tokens and a prompt of 5 need 65 positions" in sentence
    assert "lower --max-length to 59" in sentence
    assert "lower the prompt length." in refused("train", *own(), "--max-length", "10", "--prompt-length", "70")


def test_prompts_that_do_not_fit(refused, folder, tiny_folder):
    works("train", *own("books.jsonl"), *FAST, "--prompt-length", "4", "--model", str(tiny_folder("bert")))
    (prompt,) = os.listdir("bank")
    assert "--prompt-length 6 differs" in refused(
        "transfer", *own(), *FAST, "--prompt-length", "6", "--source", "books"
    )
    sentence = refused("transfer", *own(), *FAST, "--source", "books", model="roberta")
    assert "was trained on" in sentence
    assert "--model" in sentence
    assert "holds no prompt of" in refused("transfer", *own(), *FAST, model="roberta")
    assert "was trained on" in refused("evaluate", prompt, *own("good.jsonl", "--test", "good.jsonl"), model="roberta")
    weights = folder / "bank" / prompt / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5])
    assert "is damaged: adapter_model.safetensors" in refused("transfer", *own(), *FAST, "--source", "books")
    assert "is damaged" in refused("predict", prompt, "good.jsonl")


def test_distillation_that_cannot_be(refused, folder, tiny_folder):
    works("train", *own("books.jsonl"), *FAST, "--prompt-length", "4", "--model", str(tiny_folder("bert")))
    write_jsonl(folder / "price.jsonl", [{"text": f"w{n}", "label": n} for n in range(20)])
    regression = [*own("price.jsonl"), "--kind", "regression", *FAST, "--source", "books"]
    assert "--distance mse" in refused("transfer", *regression, "--distance", "kl")
    assert "--coefficient must be" in refused("transfer", *own(), *FAST, "--source", "books", "--coefficient", "much")
    foreign(tiny_folder("bert"), folder / "theirs")
    assert "it can be a --source" in refused("predict", "theirs", "good.jsonl")
    sentence = refused("transfer", *own(), *FAST, "--source", "theirs")
    assert "signature" in sentence
    assert "give a number, or published" in sentence


def test_a_loss_that_is_not_finite(refused, folder):
    sentence = refused("train", *own(), *FAST, "--epochs", "3", "--lr", "1e30")
    assert "stopped" in sentence
    assert "lower --lr" in sentence


def test_contradictions(refused):
    assert "Both the task 'rte' and own files" in refused("train", "rte", *own())
    assert "No task was given" in refused("train")
    assert "no labelled test data" not in refused("evaluate", "none", *own())


def test_a_task_that_cannot_be_tested(refused, folder, tiny_folder):
    works("train", *own(), *FAST, "--model", str(tiny_folder("bert")))
    assert "no labelled test data; give --test FILE" in refused("evaluate", "good", *own())
    write_jsonl(folder / "other.jsonl", [{"text": "a", "label": "yes"}, {"text": "b", "label": "no"}])
    assert "has the label 'yes'" in refused(
        "evaluate", "good", "--test", "other.jsonl", "--text", "text", "--label", "label"
    )
    (folder / "columns.csv").write_text("body\nx\n")
    assert "has no field 'text'" in refused("predict", "good", "columns.csv")


def test_names_cannot_leave_their_folder(refused, folder):
    (folder / "keep").mkdir()
    assert "cannot be used as a file name" in refused("train", *own(), "--name", "../x")
    assert "cannot be used as a file name" in refused("bank", "rm", "../keep", model=None)
    assert "No prompt 'keep'" in refused("bank", "rm", "keep", "--bank", ".", model=None)
    assert "No task '../rte'" in refused("tasks", "show", "../rte", model=None)
    assert (folder / "keep").is_dir()


def test_a_bank_that_cannot_be_written(refused, folder):
    (folder / "file").write_text("in the way")
    assert "file" in refused("train", *own(), *FAST, "--bank", "file/bank")
    assert "file" in refused("train", *own(), *FAST, "--bank", "file")


@pytest.fixture
def small_disk(folder):
    """A disk of 1 MiB, mounted for the test."""
    disk = folder / "disk"
    disk.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_loses_nothing(refused, folder, small_disk, tiny_folder):
    bank = ["--bank", str(small_disk / "bank")]
    works("train", *own("books.jsonl"), *FAST, *bank, "--model", str(tiny_folder("bert")))
    (small_disk / "filler").write_bytes(b"x" * (os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize))
    sentence = refused("train", *own(), *FAST, *bank)
    assert "disk is full" in sentence
    (small_disk / "filler").unlink()
    assert json.loads(works("bank", "verify", *bank, "--json"))["problems"] == {}
    assert [path.name.split("-s0")[0] for path in (small_disk / "bank").iterdir()] == ["books"]


def test_a_read_only_disk(refused, small_disk):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert "another place (--bank)" in refused("train", *own(), *FAST, "--bank", str(small_disk / "bank"))


def test_predictions_need_text(refused, folder, tiny_folder):
    works("train", *own(), *FAST, "--model", str(tiny_folder("bert")))
    assert "Row 2 of holes.jsonl has an empty text" in refused(
        "predict", "good", str(write_jsonl(folder / "holes.jsonl", [{"text": "a"}, {"text": ""}]).name)
    )
