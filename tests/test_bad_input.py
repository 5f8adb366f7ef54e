"""Every wrong input: one clear sentence on stderr, exit code 2, no traceback, and nothing that was earned is lost."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from conftest import sentiment_rows, write_jsonl
from test_bank import foreign
from typer.testing import CliRunner

from promptpanda.cli.main import app, main

FAST = ["--epochs", "1", "--max-length", "24"]


pytestmark = pytest.mark.usefixtures("one_thread")


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


def in_bank(folder="bank"):
    return sorted(os.listdir(folder)) if os.path.isdir(folder) else []


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
    assert "--data-dir" in refused("train", "rte"), "no data here, and no hub"
    assert "No prompt 'nothing'" in refused("bank", "show", "nothing", model=None)
    assert "No prompt 'nothing'" in refused("transfer", *own(), "--source", "nothing")
    assert "At least one method is needed; known are prompt_tuning" in refused("transfer", *own(), "--methods", ",")
    sentence = refused("transfer", *own(), "--source", "best")
    assert "train one with `panda train TASK`" in sentence, "an empty bank has no best prompt"


def test_the_nearest_name_is_suggested(refused, folder, tiny_folder):
    works("train", *own("books.jsonl"), *FAST, "--model", str(tiny_folder("bert")))
    assert "Did you mean 'books'?" in refused("transfer", *own(), "--source", "bokos")
    assert "Did you mean 'books'?" in refused("predict", "book", "good.jsonl", model=None)
    (prompt,) = os.listdir("bank")
    assert f"Did you mean '{prompt}'?" in refused("bank", "rm", prompt[:-1], model=None)
    assert "Did you mean 'adv_rte'?" in refused("tasks", "show", "adv_rtee", model=None)


def test_models_that_cannot_be_read(refused, folder, tiny_folder):
    def changed(name, change):
        model = shutil.copytree(tiny_folder("bert"), folder / name)
        change(model)
        return refused("train", *own(), *FAST, "--model", name, model=None)

    sentence = changed("no-weights", lambda model: (model / "model.safetensors").unlink())
    assert "no-weights" in sentence
    assert "model.safetensors" in sentence
    assert "not a valid JSON" in changed("bad-config", lambda model: (model / "config.json").write_text("{"))
    content = json.dumps({"model_type": "xlnet"})
    sentence = changed("xlnet", lambda model: (model / "config.json").write_text(content))
    assert "cannot be attached to the family 'xlnet' (" in sentence
    assert "; families that work: BERT" in sentence
    wide = json.dumps({"model_type": "deberta-v2"})
    sentence = changed("wide", lambda model: (model / "config.json").write_text(wide))
    assert "do not have the shapes that its config.json gives for a deberta-v2" in sentence
    ours = json.loads((tiny_folder("bert") / "config.json").read_text())
    lacking = json.dumps(ours | {"model_type": "deberta-v2", "relative_attention": True, "pos_att_type": ["c2p"]})
    sentence = changed("other", lambda model: (model / "config.json").write_text(lacking))
    assert "of the weights of a deberta-v2" in sentence
    assert "give the folder or hub id of a complete checkpoint" in sentence
    assert "give a hub id, a folder" in refused("train", *own(), "--model", "good.jsonl", model=None)


def test_a_model_with_cut_weights(refused, folder, tiny_folder):
    weights = shutil.copytree(tiny_folder("bert"), folder / "cut") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    assert "'cut' could not be read" in refused("train", *own(), *FAST, "--model", "cut", model=None)


def test_a_model_without_tokenizer(refused, folder, tiny_folder):
    """transformers then makes up a tokenizer that knows no word; every text would be a row of [UNK]."""
    model = shutil.copytree(tiny_folder("bert"), folder / "mute")
    for path in model.glob("tokenizer*"):
        path.unlink()
    assert "tokenizer" in refused("train", *own(), *FAST, "--model", "mute", model=None)


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
        (["--seeds", "0,1,"], "such as 0,1,2; found '0,1,'"),
        (["--seeds", "1.5"], "--seeds must be numbers"),
        (["--seeds", ""], "--seeds must be numbers"),
        (["--lr", "inf"], "--lr inf"),
        (["--init-std", "-1"], "--init-std -1"),
        (["--init-std", "nan"], "--init-std nan"),
        (["--max-length", "3"], "--max-length 3"),
        (["--early-stopping", "0"], "--early-stopping 0"),
        (["--weight-decay", "-1"], "--weight-decay -1"),
        (["--weight-decay", "inf"], "--weight-decay inf"),
        (["--prompt-length", str(10**12)], "positions"),
        (["--epochs", str(10**20)], "--epochs 1"),
        (["--batch-size", str(10**24)], "--batch-size 1"),
        (["--max-length", str(10**20)], "--max-length 1"),
        (["--reparameterize", str(10**15)], "--reparameterize 1"),
        (["--early-stopping", str(10**20)], "--early-stopping 1"),
        (["--init-std", "1e300"], "--init-std 1e+300"),
        (["--weight-decay", "1e300"], "--weight-decay 1e+300"),
    ],
)
def test_option_values_out_of_range(options, fragment, refused):
    assert fragment in refused("train", *own(), *options)


@pytest.mark.parametrize(
    "option",
    [
        ["--readout", "best"],
        ["--protocol", "dirty"],
        ["--epochs", "many"],
        ["--colour", "red"],
        ["--kind", "poem"],
        ["--train-examples", "0"],
        ["--lr"],
    ],
)
def test_option_values_of_the_wrong_type(option, folder):
    result = CliRunner().invoke(app, ["train", *own(), *option])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert option[0] in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["train", *own(), "--readout", "best"], "'best' is not one of 'auto'"),
        (["train", *own(), "--epochs", "many"], "--epochs"),
        (["train", *own(), "--colour", "red"], "--colour"),
        (["trian"], "Did you mean 'train'"),
        (["predict"], "PROMPT"),
    ],
)
def test_usage_errors_are_one_sentence_too(arguments, fragment, folder, monkeypatch, capsys):
    """There is one sentence on stderr, whoever finds the mistake. Through `main`, as a user runs it."""
    monkeypatch.setattr(sys, "argv", ["panda", *arguments])
    with pytest.raises(SystemExit) as left:
        main()
    shown = capsys.readouterr()
    assert (left.value.code, shown.out) == (2, "")
    assert fragment in shown.err
    lines = shown.err.strip().splitlines()
    assert len(lines) == 1, shown.err
    assert lines[0].startswith("panda: ")


def test_columns(refused, folder):
    write_jsonl(folder / "odd.jsonl", [{"body": row["text"], "mood": row["label"]} for row in sentiment_rows(40)])
    sentence = refused("train", *own(text="txt"))
    assert "Row 1 of train of task 'good' has no field 'txt'; it has 'text', 'label'. Did you mean 'text'?" in sentence
    assert "Did you mean 'label'?" in refused("train", *own(label="labl"))
    assert "say which column has the text (--text COLUMN)" in refused("train", "--train", "odd.jsonl")


def test_a_field_missing_in_one_row(refused, folder):
    write_jsonl(folder / "gap.jsonl", [*sentiment_rows(20), {"text": "no label"}])
    assert "Row 21 of train of task 'gap' has no label: None" in refused("train", *own("gap.jsonl"), "--strict")


def table(rows, **options):
    with io.BytesIO() as file:
        pyarrow.parquet.write_table(pyarrow.table(rows), file, **options)
        return file.getvalue()


GOOD = "".join(f"w{number} w{number + 1},{'xy'[number % 2]}\n" for number in range(40))


@pytest.mark.parametrize(
    ("name", "content", "fragments"),
    [
        ("empty.csv", b"", ("empty.csv is empty: expected at least one row",)),
        ("blank.jsonl", b"\n \n\n", ("blank.jsonl is empty: expected at least one row",)),
        ("empty.parquet", table({"text": pyarrow.array([], "string")}), ("empty.parquet is empty",)),
        ("zero.jsonl.gz", gzip.compress(b"", mtime=0), ("zero.jsonl.gz is empty",)),
        ("plain.jsonl.gz", b'{"text": "a"}\n', ("plain.jsonl.gz is not a complete gzip file", "compress it again")),
        ("latin.jsonl", '{"text": "a"}\n{"text": "café"}\n'.encode("latin-1"), ("line 2", "0xe9", "save it as UTF-8")),
        ("utf16.csv", "text,label\na,x\n".encode("utf-16-le"), ("Line 1 of utf16.csv holds NUL",)),
        ("cut16.csv", "text,label\na,x\n".encode("utf-16")[:-1], ("is not complete UTF-16", "save it as UTF-8")),
        ("cut.parquet", table({"text": ["a"] * 9})[:-7], ("cut.parquet is not a readable Parquet file",)),
        ("twice.csv", b"text,text,label\na,b,x\n", ("twice.csv names a column twice: text, text, label",)),
        ("headless.csv", GOOD.encode(), ("no field 'text'; it has 'w0 w1', 'x'",)),
        ("wide.csv", b"text,label\na,x\nhello, world,y\n", ("Record 3 of wide.csv has 3 cells, its header has 2",)),
        ("quote.csv", f'text,label\na,x\n"never closed,y\n{GOOD}'.encode(), ("Record 3 of quote.csv",)),
        ("after.csv", f'text,label\na,x\n"closed" early,y\n{GOOD}'.encode(), ("Record 3 of after.csv",)),
        ("deep.jsonl", b'{"text": "a"}\n{"text": ' + b"[" * 100_000 + b"\n", ("Line 2 of deep.jsonl",)),
        ("number.jsonl", b'{"text": "a", "label": "x"}\n7\n', ("Line 2 of number.jsonl is not a JSON object", "int")),
        ("rows.tab", b"text\tlabel\na\tx\n", ("has an unknown format", ".jsonl, .csv, .parquet, .json, .tsv, .xlsx")),
        ("rows.csv.bz2", b"", ("has an unknown format",)),
    ],
)
def test_files_that_cannot_be_read(name, content, fragments, refused, folder):
    (folder / name).write_bytes(content)
    sentence = refused("train", *own(name))
    for fragment in fragments:
        assert fragment in sentence
    assert in_bank() == []


def test_a_tab_file_of_ones_own_loses_no_rows(folder, tiny_folder):
    """Only Orange's corpora have two more header lines. Refusing such a file is as good as reading all of it."""
    (folder / "own.tab").write_text("text\tlabel\n" + GOOD.replace(",", "\t"))
    result = CliRunner().invoke(app, ["train", *own("own.tab"), *FAST, "--model", str(tiny_folder("bert")), "--json"])
    if result.exit_code == 2:
        assert "has an unknown format" in result.stderr
    else:
        trained = json.loads(result.stdout)
        assert trained["n_train"] + trained["n_val"] == 40


def test_half_a_surrogate_pair_in_json_is_no_crash(folder, tiny_folder):
    """Cut emoji are common in collected tweets; whether they are read or refused, there is no traceback."""
    rows = sentiment_rows(40)
    rows[4]["text"] = "half a \ud83d face"
    write_jsonl(folder / "tweets.jsonl", rows)
    result = CliRunner().invoke(app, ["train", *own("tweets.jsonl"), *FAST, "--model", str(tiny_folder("bert"))])
    assert result.exit_code in (0, 2), repr(result.exception)
    assert result.exit_code == 0 or "tweets" in result.stderr


def test_a_file_name_that_is_no_task_name(refused, folder):
    shutil.copy("good.jsonl", "my reviews.jsonl")
    sentence = refused("train", *own("my reviews.jsonl"))
    assert "'my reviews' cannot be used as a file name" in sentence
    assert "--name" in sentence
    assert "task spec" not in sentence, "the user wrote none"


def test_a_folder_of_data_without_the_expected_files(refused, folder):
    write_jsonl(folder / "data" / "rte" / "training.jsonl", sentiment_rows(4))
    sentence = refused("train", "rte", "--data-dir", "data")
    assert "data/rte" in sentence
    assert "train.jsonl" in sentence


def test_a_file_that_may_not_be_read(folder):
    """The way out of unreadable data is not another bank."""
    with tempfile.TemporaryDirectory() as place:  # pytest's own folders are closed to other users
        os.chmod(place, 0o755)
        secret = write_jsonl(Path(place) / "secret.jsonl", sentiment_rows(40))
        secret.chmod(0)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            result = CliRunner().invoke(app, ["train", *own(secret), *FAST])
        finally:
            os.seteuid(user)
    assert result.exit_code == 2
    assert "secret.jsonl" in result.stderr
    assert "read" in result.stderr
    assert "--bank" not in result.stderr


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
    assert "Record 3 of short.csv has 1 cells, its header has 2; write the missing ones" in refused(
        "train", *own("short.csv")
    )
    (folder / "latin.csv").write_bytes("text,label\nplain,x\ncafé,y\n".encode("latin-1"))
    assert "latin.csv is not UTF-8: line 3 has byte 0xe9" in refused("train", *own("latin.csv"))
    (folder / "cut.jsonl.gz").write_bytes(gzip.compress(b'{"text": "a", "label": "x"}\n' * 99)[:-9])
    assert "cut.jsonl.gz is not a complete gzip file" in refused("train", *own("cut.jsonl.gz"))
    (folder / "not.parquet").write_bytes(b"PAR1 this is none")
    assert "not.parquet is not a readable Parquet file" in refused("train", *own("not.parquet"))
    (folder / "notes.txt").write_text("x")
    assert "notes.txt has an unknown format" in refused("train", *own("notes.txt"))
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
    assert "Row 21 of train of task 'gaps' has no label: None in 'label'" in refused(
        "train", *own("gaps.jsonl"), "--strict"
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
    write_jsonl(folder / "few.jsonl", sentiment_rows(3))
    assert "3 training examples of task 'few' are too few" in refused("train", *own("few.jsonl"))
    sentence = refused("train", *own(), "--protocol", "paper")
    assert "needs an official validation split" in sentence
    assert "--protocol clean" in sentence


@pytest.mark.parametrize("label", [None, -1])
def test_labels_that_are_all_hidden(label, refused, folder):
    write_jsonl(folder / "hidden.jsonl", [{"text": f"w{n}", "label": label} for n in range(30)])
    sentence = refused("train", *own("hidden.jsonl"))
    assert "label" in sentence
    assert "no train split" not in sentence, "there is one; its labels are missing"


def test_a_label_that_is_not_a_number_is_no_class(refused, folder):
    """pandas writes a missing number as NaN; that is a gap, not a class called 'nan'."""
    labels = [float("nan") if n == 6 else n % 2 for n in range(40)]
    write_jsonl(folder / "gap.jsonl", [{"text": f"w{n}", "label": label} for n, label in enumerate(labels)])
    assert "Row 7 of train of task 'gap'" in refused("train", *own("gap.jsonl"), "--strict")
    (folder / "gap.parquet").write_bytes(table({"text": [f"w{n}" for n in range(40)], "label": labels}))
    assert "Row 7 of train of task 'gap'" in refused("train", *own("gap.parquet"), "--strict")


@pytest.mark.parametrize("value", ["much", "nan", "NaN", None, "", "inf", [1]])
def test_a_regression_target_that_is_no_number(value, refused, folder):
    rows = [{"text": f"w{n}", "label": n} for n in range(20)]
    rows[6]["label"] = float("nan") if value == "NaN" else value
    write_jsonl(folder / "price.jsonl", rows)
    sentence = refused("train", *own("price.jsonl"), "--kind", "regression", "--strict")
    if value in ("nan", "NaN", None, ""):  # a gap, which is left out without --strict
        assert "Row 7 of train of task 'price'" in sentence
        return
    assert "Row 7 of train of task 'price' has the target" in sentence
    assert "not a finite number; a regression needs one in each row" in sentence


@pytest.mark.parametrize("value", ["", "   ", None])
def test_an_empty_text(value, refused, folder):
    rows = sentiment_rows(20)
    rows[4]["text"] = value
    write_jsonl(folder / "holes.jsonl", rows)
    assert "Row 5 of train of task 'holes' has an empty text in 'text'" in refused(
        "train", *own("holes.jsonl"), "--strict"
    )


def test_a_label_in_test_that_train_lacks_is_found_before_training(refused, folder, tiny_folder):
    write_jsonl(folder / "test.jsonl", [{"text": "a", "label": "strange"}, {"text": "b", "label": "odd"}])
    works("train", *own("books.jsonl"), *FAST, "--model", str(tiny_folder("bert")))
    before = sorted(os.listdir("bank"))
    sentence = refused("transfer", *own(), "--test", "test.jsonl", *FAST, "--source", "books")
    assert "Row 1 of test of task 'good' has the label 'strange', but train has only 'bad', 'good'" in sentence
    assert sorted(os.listdir("bank")) == before


def test_lengths(refused):
    sentence = refused("train", *own(), "--max-length", "60", "--prompt-length", "5")
    assert "60 tokens and a prompt of 5 need 65 positions" in sentence
    assert "lower --max-length to 59" in sentence
    assert "lower the prompt length." in refused("train", *own(), "--max-length", "10", "--prompt-length", "70")
    assert in_bank() == []


def test_lengths_are_checked_for_the_rows_that_are_ranked(refused, folder, tiny_folder):
    works("train", *own("books.jsonl"), *FAST, "--model", str(tiny_folder("bert")))
    write_jsonl(folder / "long.jsonl", [row | {"text": f"{row['text']}{' w1' * 90}"} for row in sentiment_rows(40)])
    works(
        "rank", *own("long.jsonl"), "--model", str(tiny_folder("bert"))
    )  # what is left open is settled by the backbone
    long = (*own("long.jsonl"), "--max-length", "60")
    assert "lower --max-length to 44" in refused("rank", *long)
    assert "lower --max-length to 44" in refused("transfer", *long, "--source", "best")
    assert "lower --max-length to 44" in refused("transfer", *long, "--source", "books")


def test_prompts_that_do_not_fit(refused, folder, tiny_folder):
    works("train", *own("books.jsonl"), *FAST, "--prompt-length", "4", "--model", str(tiny_folder("bert")))
    (prompt,) = os.listdir("bank")
    assert "--prompt-length 6 differs" in refused(
        "transfer", *own(), *FAST, "--prompt-length", "6", "--source", "books"
    )
    sentence = refused("transfer", *own(), *FAST, "--source", "books", model="roberta")
    assert "was trained on" in sentence
    assert "--model" in sentence
    assert "holds no prompt of" in refused("transfer", *own(), *FAST, "--source", "best", model="roberta")
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
    for value in ("much", "nan", "-1", "inf"):
        sentence = refused("transfer", *own(), *FAST, "--source", "books", f"--coefficient={value}")
        assert "--coefficient must be" in sentence
        assert f"{value}" in sentence
    foreign(tiny_folder("bert"), folder / "theirs")
    assert "it can be a --source" in refused("predict", "theirs", "good.jsonl")
    sentence = refused("transfer", *own(), *FAST, "--source", "theirs", "--methods", "panda")
    assert "needs the source's signature" in sentence
    assert "for the base model" in refused("transfer", *own(), *FAST, "--source", "theirs", model="electra")


@pytest.mark.parametrize(
    ("options", "fragment"),
    [(["--coefficient", "much"], "--coefficient"), (["--cosine-layer", "9"], "--cosine-layer 9 is out of range")],
)
def test_option_values_are_checked_before_anything_is_trained(options, fragment, folder, tiny_folder):
    model = ["--model", str(tiny_folder("bert"))]
    works("train", *own("books.jsonl"), *FAST, *model)
    result = CliRunner().invoke(app, ["transfer", *own(), *FAST, *model, "--source", "books", *options])
    assert result.exit_code == 2
    assert fragment in result.stderr
    assert "seed 0" not in result.stderr, "a training was begun"


def test_an_endless_coefficient_is_not_blamed_on_the_learning_rate(refused, folder, tiny_folder):
    works("train", *own("books.jsonl"), *FAST, "--model", str(tiny_folder("bert")))
    sentence = refused("transfer", *own(), *FAST, "--source", "books", "--coefficient-scale", "inf")
    assert "--coefficient-scale" in sentence


def test_a_loss_that_is_not_finite(refused, folder):
    sentence = refused("train", *own(), *FAST, "--epochs", "3", "--lr", "1e30")
    assert "stopped" in sentence
    assert "the loss became nan" in sentence
    assert "lower --lr (it was 1e+30)" in sentence
    assert in_bank() == []


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
    assert "evaluate it on a task with the same labels" in refused("evaluate", "good", "sst2", "--data-dir", "data")


def test_the_sentence_about_a_strange_label_names_the_prompt_not_a_spec(refused, folder, tiny_folder):
    works("train", *own(), *FAST, "--model", str(tiny_folder("bert")))
    write_jsonl(folder / "other.jsonl", [{"text": "a", "label": "yes"}, {"text": "b", "label": "no"}])
    sentence = refused("evaluate", "good", "--test", "other.jsonl", "--text", "text", "--label", "label")
    assert "'bad', 'good'" in sentence
    assert "the spec names" not in sentence, "the user wrote none"


def test_numbers_do_not_stand_for_classes_of_own_files(refused, folder, tiny_folder):
    """Only a spec orders its classes as the hub does: here '1' is no class, not the second one."""
    write_jsonl(folder / "stars.jsonl", [{"text": f"w{n}", "label": "25"[n % 2]} for n in range(40)])
    works("train", *own("stars.jsonl"), *FAST, "--model", str(tiny_folder("bert")))
    write_jsonl(folder / "test.jsonl", [{"text": "a", "label": "0"}, {"text": "b", "label": "1"}])
    sentence = refused("evaluate", "stars", "--test", "test.jsonl", "--text", "text", "--label", "label")
    assert "Row 1 of test of task 'test' has the label '0'" in sentence


def test_a_prompt_of_another_kind(refused, folder, tiny_folder):
    model = ["--model", str(tiny_folder("bert"))]
    write_jsonl(folder / "price.jsonl", [{"text": f"w{n}", "label": n} for n in range(20)])
    works("train", *own("price.jsonl"), "--kind", "regression", *FAST, *model)
    test = ["--test", "price.jsonl", "--text", "text", "--label", "label"]
    sentence = refused("evaluate", "price", *test)
    assert "is for regression" in sentence
    assert "--kind regression" in sentence


def test_a_pair_prompt_wants_pairs(refused, folder, tiny_folder):
    rows = [{"a": row["text"], "b": f"w{n}", "label": row["label"]} for n, row in enumerate(sentiment_rows(40))]
    write_jsonl(folder / "pairs.jsonl", rows)
    works("train", *own("pairs.jsonl", text="a"), "--text2", "b", *FAST, "--model", str(tiny_folder("bert")))
    assert "needs the fields a, b; give a FILE" in refused("predict", "pairs", stdin="hello\n")
    sentence = refused("evaluate", "pairs", "--test", "pairs.jsonl", "--text", "a", "--label", "label")
    assert "pair" in sentence


def test_names_cannot_leave_their_folder(refused, folder):
    (folder / "keep").mkdir()
    assert "cannot be used as a file name" in refused("train", *own(), "--name", "../x")
    assert "cannot be used as a file name" in refused("bank", "rm", "../keep", model=None)
    assert "No prompt 'keep'" in refused("bank", "rm", "keep", "--bank", ".", model=None)
    assert "No task '../rte'" in refused("tasks", "show", "../rte", model=None)
    for name in ("a/b", "..", ".hidden", "/tmp/x", "", "x" * 101, "a b", "dot."):
        assert "cannot be used as a file name" in refused("train", *own(), f"--name={name}")
    for name in ("/etc", "..", "bank/../keep", str(folder / "keep")):
        assert "cannot be used as a file name" in refused("bank", "rm", name, model=None)
    (folder / "evil.yaml").write_text("name: ../x\nkind: single_classification\nsegments: ['{t}']\nmetrics: [accuracy]")
    assert "cannot be used as a file name" in refused("train", "evil.yaml")
    assert (folder / "keep").is_dir()
    assert in_bank() == []


def test_a_name_is_too_long_before_anything_is_trained_or_not_at_all(folder, tiny_folder):
    """A task's name may have 100 characters, and the seed and hash of a prompt's id come on top."""
    model = ["--model", str(tiny_folder("bert"))]
    result = CliRunner().invoke(app, ["train", *own(), "--name", "n" * 100, *FAST, *model])
    assert result.exit_code == 0 or "seed 0" not in result.stderr


def test_a_bank_that_cannot_be_written(refused, folder):
    (folder / "file").write_text("in the way")
    assert "file" in refused("train", *own(), *FAST, "--bank", "file/bank")
    assert "file" in refused("train", *own(), *FAST, "--bank", "file")
    for bank in ("file", "file/bank"):
        assert "--bank" in refused("train", *own(), *FAST, "--bank", bank)
    assert (folder / "file").read_text() == "in the way"


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="no /proc here")
def test_a_bank_where_no_folder_can_be_made(refused):
    sentence = refused("train", *own(), *FAST, "--bank", "/proc/bank")
    assert "/proc/bank" in sentence
    assert "--bank" in sentence


def test_a_bank_that_cannot_be_written_is_found_before_training(folder, tiny_folder):
    """Else the whole training is lost."""
    (folder / "file").write_text("in the way")
    arguments = ["train", *own(), *FAST, "--model", str(tiny_folder("bert")), "--bank", "file/bank"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert "seed 0" not in result.stderr, "a training was begun"


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
    subprocess.run(["umount", "--lazy", str(disk)], check=True)  # safetensors may keep a file mapped


def test_a_full_disk_loses_nothing(refused, folder, small_disk, tiny_folder):
    bank = ["--bank", str(small_disk / "bank")]
    works("train", *own("books.jsonl"), *FAST, *bank, "--model", str(tiny_folder("bert")))
    (small_disk / "filler").write_bytes(b"x" * (os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize))
    sentence = refused("train", *own(), *FAST, *bank)
    assert "disk is full" in sentence
    for arguments in (["push", "books", str(small_disk / "other")], ["export", str(small_disk / "all.tar")]):
        told = refused("bank", *arguments, *bank, model=None)
        assert f"disk is full at {small_disk}" in told, "of the disks at both ends it says which"
    (small_disk / "filler").unlink()
    assert json.loads(works("bank", "verify", *bank, "--json"))["problems"] == {}
    assert [path.name.split("-s0")[0] for path in (small_disk / "bank").iterdir()] == ["books"]


def test_a_disk_that_is_full_when_test_scores_are_noted(refused, folder, small_disk, tiny_folder):
    bank, model = ["--bank", str(small_disk / "bank")], ["--model", str(tiny_folder("bert"))]
    works("train", *own("books.jsonl"), *FAST, *bank, *model)
    transfer = ["transfer", *own(), *FAST, "--source", "books", "--methods", "prompt_tuning", *bank]
    works(*transfer, *model)
    before = {path: path.read_bytes() for path in (small_disk / "bank").rglob("*") if path.is_file()}
    (small_disk / "filler").write_bytes(b"x" * (os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize))
    assert "disk is full" in refused(*transfer, "--test", "books.jsonl")
    after = {path: path.read_bytes() for path in (small_disk / "bank").rglob("*") if path.is_file()}
    assert sorted(after) == sorted(before), "half a file was left"
    assert after == before


def test_a_read_only_disk(refused, small_disk):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert "another place (--bank)" in refused("train", *own(), *FAST, "--bank", str(small_disk / "bank"))


def test_predictions_need_text(refused, folder, tiny_folder):
    works("train", *own(), *FAST, "--model", str(tiny_folder("bert")))
    assert "Row 2 of holes.jsonl has an empty text" in refused(
        "predict", "good", str(write_jsonl(folder / "holes.jsonl", [{"text": "a"}, {"text": ""}]).name), "--strict"
    )
    gaps = write_jsonl(folder / "gaps.jsonl", [{"text": "a"}, {"body": ""}]).name
    sentence = refused("predict", "good", gaps, "--strict")
    assert "Row 2 of gaps.jsonl has no field 'text'" in sentence


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
def test_standard_input_that_is_not_utf8(errors, folder, tiny_folder, monkeypatch, capsys):
    """Under the locale C.UTF-8, which containers have, Python reads strange bytes as surrogates instead of refusing."""
    works("train", *own(), *FAST, "--model", str(tiny_folder("bert")))
    monkeypatch.setattr(sys, "argv", ["panda", "predict", "good"])
    stdin = io.TextIOWrapper(io.BytesIO("a plain line\na café\n".encode("latin-1")), encoding="utf-8", errors=errors)
    monkeypatch.setattr(sys, "stdin", stdin)
    with pytest.raises(SystemExit) as left:
        main()
    shown = capsys.readouterr()
    assert (left.value.code, shown.out) == (2, "")
    assert shown.err.startswith("panda: Standard input is not UTF-8")
    assert "UTF-8" in shown.err
