"""Tasks are data: specs validate, files of all formats give the same rows, splits are read when they are asked for."""

from __future__ import annotations

import csv
import gzip
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import yaml
from conftest import sentiment_rows, write_jsonl

from promptpanda.errors import PandaError
from promptpanda.tasks.catalog import load_task, own_task
from promptpanda.tasks.reading import read_rows
from promptpanda.tasks.spec import Kind, TaskSpec
from promptpanda.tasks.task import Task

ROWS = [
    {"text": 'He said: "good, really"', "label": "good"},
    {"text": "two\nlines", "label": "bad"},
    {"text": "a separator \u2028 inside", "label": "good"},
    {"text": "naïve café", "label": "bad"},
]
SPEC = {"name": "mood", "kind": "single_classification", "segments": ["{text}"], "metrics": ["accuracy"]}


def parse(**changes):
    return TaskSpec.parse(SPEC | changes, "a test")


def write(path, rows):
    if path.name.endswith(".jsonl.gz"):
        path.write_bytes(gzip.compress("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()))
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8-sig")
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8-sig") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    else:
        pa.parquet.write_table(pa.Table.from_pylist(rows), path)


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "csv", "parquet"])
def test_all_formats_give_the_same_rows(ending, tmp_path):
    path = tmp_path / f"train.{ending}"
    write(path, ROWS)
    assert read_rows(path) == ROWS
    (tmp_path / "mood").mkdir()
    path.rename(tmp_path / "mood" / path.name)
    split = Task(parse(labels=["good", "bad"]), tmp_path).train()
    assert split.texts == tuple((row["text"],) for row in ROWS)
    assert split.labels.tolist() == [0, 1, 0, 1]


def test_csv_as_other_programs_write_it(tmp_path):
    content = '\ufeff"text",label\r\n"one, two",good\r\n\r\n"a ""quoted"" word",bad\r\n"two\nlines",good\r\n,bad\r\n'
    (tmp_path / "rows.csv").write_bytes(content.encode())
    texts = [("one, two", "good"), ('a "quoted" word', "bad"), ("two\nlines", "good"), ("", "bad")]
    assert read_rows(tmp_path / "rows.csv") == [{"text": text, "label": label} for text, label in texts]


@pytest.mark.parametrize("name", ["short.csv", "short.CSV"])
def test_a_csv_record_of_another_width_is_refused_however_the_file_is_written(name, tmp_path):
    for record in ("b", "hello, world,x"):
        (tmp_path / name).write_text(f"text,label\na,x\n{record}\n")
        with pytest.raises(PandaError, match="Record 3 of .* cells, its header has 2"):
            read_rows(tmp_path / name)


@pytest.mark.parametrize("name", ["review text", "naïve", "review.text", "0", "a:b", "a[0]", "a!r", "'quoted'"])
def test_a_column_may_have_any_name(name, tmp_path):
    """Names such as `review.text` are common, and mean something else inside a format string."""
    rows = [{name: f"text {number}", "label": "xy"[number % 2]} for number in range(4)]
    write_jsonl(tmp_path / "own.jsonl", rows)
    task = own_task(train=tmp_path / "own.jsonl", text=name, label="label")
    assert task.train().texts == tuple((f"text {number}",) for number in range(4))


def test_names_integers_and_digits_are_the_same_labels(tmp_path):
    rows = [{"text": "x", "label": label} for label in ("bad", 1, "1", "good", 0, "0", "fine")]
    write_jsonl(tmp_path / "mood" / "train.jsonl", rows)
    task = Task(parse(labels=["good", "bad"], aliases={"fine": "good"}), tmp_path)
    assert task.train().labels.tolist() == [1, 1, 1, 0, 0, 0, 0]


def test_labels_that_the_spec_does_not_name_come_from_train(tmp_path):
    write_jsonl(tmp_path / "mood" / "train.jsonl", [{"text": "x", "label": label} for label in (3, 1, 2, True)])
    task = Task(parse(), tmp_path)
    assert task.labels == ("1", "2", "3", "True")
    assert task.train().labels.tolist() == [2, 0, 1, 3]


def test_a_split_without_labels_is_none(tmp_path):
    write_jsonl(tmp_path / "mood" / "train.jsonl", sentiment_rows(4))
    write_jsonl(tmp_path / "mood" / "test.jsonl", [{"text": "x", "label": -1}, {"text": "y", "label": -1}])
    task = Task(parse(labels=["good", "bad"]), tmp_path)
    assert task.split("test") is None
    assert task.split("validation") is None
    assert task.test() is None
    write_jsonl(tmp_path / "mood" / "validation.jsonl", [{"text": "x", "label": "good"}, {"text": "y", "label": -1}])
    with pytest.raises(PandaError, match="Row 2 of validation of task 'mood' has the label -1"):
        Task(task.spec, tmp_path).split("validation")


def test_rows_of_other_labels_are_dropped_where_the_spec_says_so(tmp_path):
    rows = [{"text": str(label), "label": label} for label in ("good", "odd", "bad", 0, "strange")]
    write_jsonl(tmp_path / "mood" / "train.jsonl", rows)
    task = Task(parse(labels=["good", "bad"], drop_other_labels=True), tmp_path)
    assert task.train().labels.tolist() == [0, 1, 0]
    with pytest.raises(PandaError, match="Row 2 of train of task 'mood' has the label 'odd'"):
        Task(parse(labels=["good", "bad"]), tmp_path).train()
    write_jsonl(tmp_path / "mood" / "train.jsonl", rows[:3])
    with pytest.raises(PandaError, match="No row of train of task 'mood' has one of the labels"):
        Task(parse(labels=["up", "down"], drop_other_labels=True), tmp_path).train()


def test_row_numbers_count_the_dropped_rows_too(tmp_path):
    rows = [{"text": "a", "label": "odd"}, {"text": "b", "label": "good"}, {"text": "", "label": "bad"}]
    write_jsonl(tmp_path / "mood" / "train.jsonl", rows)
    with pytest.raises(PandaError, match="Row 3 of train of task 'mood' has an empty text"):
        Task(parse(labels=["good", "bad"], drop_other_labels=True), tmp_path).train()


def test_benchmarks_are_tested_on_their_validation_set_and_others_on_test(tmp_path):
    for split, count in (("train", 4), ("validation", 6), ("test", 8)):
        write_jsonl(tmp_path / "mood" / f"{split}.jsonl", sentiment_rows(count))
    labels = ["good", "bad"]
    assert len(Task(parse(labels=labels, benchmark="glue"), tmp_path).test()) == 6
    assert len(Task(parse(labels=labels), tmp_path).test()) == 8
    (tmp_path / "mood" / "test.jsonl").unlink()
    assert len(Task(parse(labels=labels), tmp_path).test()) == 6


def test_splits_are_read_only_when_asked_for(tmp_path):
    write_jsonl(tmp_path / "mood" / "train.jsonl", sentiment_rows(4))
    (tmp_path / "mood" / "test.jsonl").write_text("broken")
    task = Task(parse(labels=["good", "bad"]), tmp_path)
    assert len(task.train()) == 4
    with pytest.raises(PandaError, match="Line 1 of .*not valid JSON"):
        task.test()


def test_a_hugging_face_dataset_from_a_local_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "hub" / "mood"
    write_jsonl(folder / "train.jsonl", [{"text": "x", "label": 0}, {"text": "y", "label": 1}])
    write_jsonl(folder / "test.jsonl", [{"text": "z", "label": 1}])
    task = Task(parse(labels=["good", "bad"], hub={"path": str(folder)}))
    assert task.train().labels.tolist() == [0, 1]
    assert task.test().texts == (("z",),)
    assert task.split("validation") is None
    renamed = Task(parse(labels=["good", "bad"], hub={"path": str(folder), "splits": {"validation": "test"}}))
    assert renamed.split("validation").texts == (("z",),)
    swapped = Task(parse(labels=["good", "bad"], hub={"path": str(folder), "splits": {"train": "test"}}))
    assert swapped.split("train").texts == (("z",),)
    assert (tmp_path / "cache").is_dir(), "the cache of the test is used, not that of the user"
    with pytest.raises(PandaError, match="Hugging Face dataset .*nowhere.*--data-dir"):
        Task(parse(hub={"path": str(tmp_path / "nowhere")})).train()


def test_a_broken_hugging_face_dataset_is_refused(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "hub" / "broken").mkdir(parents=True)
    (tmp_path / "hub" / "broken" / "train.jsonl").write_text('{"text": "a", "label": 0}\n{"te\n')
    with pytest.raises(PandaError, match="Hugging Face dataset .*broken.* could not be loaded"):
        Task(parse(labels=["good", "bad"], hub={"path": str(tmp_path / "hub" / "broken")})).train()


def test_templates_make_segments(tmp_path):
    rows = [{"a": "one", "b": "two", "label": "x"}, {"a": "three", "b": "", "label": "y"}]
    write_jsonl(tmp_path / "pair" / "train.jsonl", rows[:1])
    spec = parse(name="pair", kind="pair_classification", segments=["{b}: {a}", "{a}"], labels=["x", "y"])
    assert Task(spec, tmp_path).split("train").texts == (("two: one", "one"),)
    single = parse(segments=["{a}{b}"], labels=["x", "y"])
    assert single.render(rows[1], "Row 2") == ("three",), "a segment may have empty fields, but not be empty"
    with pytest.raises(PandaError, match="Row 2 has an empty text in 'b'"):
        parse(segments=["{b}"]).render(rows[1], "Row 2")


def test_a_yaml_spec_with_files_beside_it(tmp_path):
    write_jsonl(tmp_path / "rows.jsonl", sentiment_rows(6))
    (tmp_path / "mine.yaml").write_text(
        "name: mine\nkind: single_classification\nsegments: ['{text}']\nlabels: [good, bad]\nmetrics: [accuracy]\n"
        "files: {train: rows.jsonl}\n"
    )
    task = load_task(tmp_path / "mine.yaml")
    assert len(task.train()) == 6
    assert TaskSpec.model_validate_json(task.spec.model_dump_json()) == task.spec
    (tmp_path / "again.yaml").write_text(yaml.safe_dump(task.spec.model_dump(mode="json", exclude_defaults=True)))
    assert load_task(tmp_path / "again.yaml").spec == task.spec


def test_a_data_root_comes_before_files_and_hub_and_may_be_named_by_the_environment(tmp_path, monkeypatch):
    write_jsonl(tmp_path / "elsewhere.jsonl", sentiment_rows(6))
    write_jsonl(tmp_path / "root" / "mood" / "train.jsonl", sentiment_rows(4))
    write(tmp_path / "root" / "mood" / "train.csv", sentiment_rows(8))
    spec = parse(files={"train": str(tmp_path / "elsewhere.jsonl")}, hub={"path": "nobody/nothing"})
    (tmp_path / "mood.yaml").write_text(yaml.safe_dump(spec.model_dump(mode="json", exclude_defaults=True)))
    assert len(load_task(tmp_path / "mood.yaml", data_dir=tmp_path / "root").train()) == 4
    assert len(load_task(tmp_path / "mood.yaml").train()) == 6
    monkeypatch.setenv("PANDA_DATA", str(tmp_path / "root"))
    assert len(load_task(tmp_path / "mood.yaml").train()) == 4
    assert str(tmp_path / "root" / "mood") in load_task(tmp_path / "mood.yaml").origin()


def test_tags_of_a_hub_dataset_are_read_in_its_own_order(tmp_path):
    import datasets

    names = ["B-PER", "O", "I-PER"]  # not the order of ours
    tag = datasets.ClassLabel(names=names)
    features = datasets.Features({"tokens": datasets.List(datasets.Value("string")), "tags": datasets.List(tag)})
    data = {"tokens": [["Ann", "Lee", "sings"], ["no", "one"]], "tags": [[0, 2, 1], [1, 1]]}
    datasets.Dataset.from_dict(data, features).to_parquet(tmp_path / "hub" / "train.parquet")
    content = {"kind": "token_classification", "segments": ["{tokens}"], "label": "tags", "metrics": ["span_f1"]}
    task = Task(TaskSpec.parse({"name": "names", "hub": {"path": str(tmp_path / "hub")}} | content, "a test"))
    assert task.labels == ("O", "B-PER", "I-PER")
    assert task.train().labels.tolist() == [(1, 2, 0), (0, 0)]


def test_own_files_of_the_other_kinds(tmp_path):
    write_jsonl(tmp_path / "q.jsonl", [{"q": "who?", "c": "Ann sings", "a": "Ann"}])
    answer = own_task(train=tmp_path / "q.jsonl", text="q", text2="c", label="a", kind=Kind.EXTRACTIVE_QA).train()
    assert (answer.texts[0], answer.labels[0]) == (("who?", "Ann sings"), ((0, "Ann"),))
    write_jsonl(tmp_path / "n.jsonl", [{"w": ["Ann", "sings"], "t": ["B-PER", "O"]}])
    tags = own_task(train=tmp_path / "n.jsonl", text="w", label="t", kind=Kind.TOKEN_CLASSIFICATION)
    assert (tags.train().texts[0].words, tags.labels) == (("Ann", "sings"), ("O", "B-PER", "I-PER"))
    rows = [{"p": "rain", "x": "wet", "y": "dry", "both": ["wet", "dry"], "l": 0, "name": "wet"}]
    write_jsonl(tmp_path / "c.jsonl", rows)
    by_columns = own_task(train=tmp_path / "c.jsonl", text="p", choices=["x", "y"], label="l").train()
    listed = own_task(train=tmp_path / "c.jsonl", text="p", choices=["both"], label="name").train()
    assert by_columns.texts[0] == ((("rain", "wet"), ("rain", "dry")), ("x", "y"))
    assert listed.texts[0] == ((("rain", "wet"), ("rain", "dry")), ("wet", "dry"))
    assert by_columns.labels.tolist() == listed.labels.tolist() == [(0,)]
    with pytest.raises(PandaError, match="Multiple choice needs --choices"):
        own_task(train=tmp_path / "c.jsonl", text="p", label="l", kind=Kind.MULTIPLE_CHOICE)


def test_own_words_and_tags_in_columns_and_in_csv(tmp_path):
    (tmp_path / "names.conll").write_text("Ann NNP B-PER\nsings VB O\n\nno DT O\n")
    kind = Kind.TOKEN_CLASSIFICATION
    columns = own_task(train=tmp_path / "names.conll", text="tokens", label="tags", kind=kind).train()
    rows = [{"w": '["Ann", "sings"]', "t": '["B-PER", "O"]'}, {"w": '["no"]', "t": '["O"]'}]
    write(tmp_path / "names.csv", rows)
    cells = own_task(train=tmp_path / "names.csv", text="w", label="t", kind=kind).train()
    assert columns.texts == cells.texts == ((("Ann", "sings"), None), (("no",), None))
    assert columns.labels.tolist() == cells.labels.tolist() == [(1, 0), (0,)]
    with pytest.raises(PandaError, match="is a column file, and the task's spec has no `columns`"):
        own_task(train=tmp_path / "names.conll", text="tokens", label="tags").train()


@pytest.mark.parametrize(("text", "label"), [("w", "t"), ("s", "t"), ("w", "c")])
def test_lists_are_no_texts_and_no_classes(text, label, tmp_path):
    rows = [{"w": ["a", "b"], "t": ["O", "O"], "s": "a b", "c": "xy"[n % 2]} for n in range(4)]
    write_jsonl(tmp_path / "own.jsonl", rows)
    with pytest.raises(PandaError, match="--kind token_classification"):
        own_task(train=tmp_path / "own.jsonl", text=text, label=label).train()


def test_own_files_need_no_spec(tmp_path):
    write(
        tmp_path / "reviews.csv",
        [{"body": "x", "title": "t", "stars": "4.5"}, {"body": "y", "title": "u", "stars": "1"}],
    )
    plain = own_task(train=tmp_path / "reviews.csv", text="body", label="stars")
    assert (plain.name, plain.kind, plain.labels) == ("reviews", Kind.SINGLE_CLASSIFICATION, ("1", "4.5"))
    pair = own_task(train=tmp_path / "reviews.csv", text="title", text2="body", label="stars", name="stars")
    assert (pair.name, pair.kind) == ("stars", Kind.PAIR_CLASSIFICATION)
    assert pair.train().texts[0] == ("t", "x")
    value = own_task(train=tmp_path / "reviews.csv", text="body", label="stars", kind=Kind.REGRESSION)
    np.testing.assert_array_equal(value.train().labels, [4.5, 1.0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "../x"}, "cannot be used as a file name"),
        ({"kind": "poetry"}, "kind"),
        ({"segments": []}, "segments"),
        ({"segments": ["no field"]}, "field in braces"),
        ({"segments": ["{a}", "{b}"]}, "does not go with 2 segment"),
        ({"kind": "pair_classification"}, "does not go with 1 segment"),
        ({"kind": "regression"}, "metric accuracy does not go with kind regression"),
        ({"metrics": ["pearson"]}, "metric pearson does not go"),
        ({"metrics": ["bleu"]}, "metrics"),
        ({"segments": ["{a"]}, "brace|expected '}'"),
        ({"segments": ["{a}", "{b}", "{c}"]}, "segments"),
        ({"metrics": []}, "metrics"),
        (
            {"kind": "regression", "metrics": ["pearson"], "labels": ["a", "b"]},
            "of kind regression has no labels",
        ),
        (
            {"kind": "regression", "metrics": ["pearson"], "aliases": {"a": "b"}},
            "of kind regression has no labels",
        ),
        ({"benchmark": "bigbench"}, "benchmark"),
        ({"hub": {"config": "x"}}, "hub.path"),
        ({"files": {"dev": "x"}}, "files.dev"),
        ({"labels": ["one"]}, "at least two classes"),
        ({"labels": ["one", "two", "one"]}, "'?one'?.* twice"),
        ({"labels": ["a", "b"], "aliases": {"x": "c"}}, "'c' is not among the labels"),
        ({"labels": ["a", "b"], "positive": "c"}, "'c' is not among the labels"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_specs_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(PandaError, match=f"task spec in a test is not valid.*{message}"):
        parse(**changes)
