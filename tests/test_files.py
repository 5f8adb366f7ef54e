"""Files of all formats as rows: what people have, and what is broken, hostile or too large."""

from __future__ import annotations

import gzip
import io
import json
import tracemalloc
import zipfile
from pathlib import Path

import datasets
import msoffcrypto
import openpyxl
import pandas
import pyarrow
import pyarrow.feather
import pytest

from promptpanda.errors import PandaError
from promptpanda.tasks.catalog import own_task
from promptpanda.tasks.columns import ColumnData
from promptpanda.tasks.files import lines, source
from promptpanda.tasks.files.reader import open_rows
from promptpanda.tasks.files.records import Layout
from promptpanda.tasks.inputs import Passage

ROWS = [
    {"text": 'He said: "good, really"; twice', "label": "good"},
    {"text": "two\nlines", "label": "bad"},
    {"text": "a bar | a tab \t and ü", "label": "good"},
]
FRAME = pandas.DataFrame(ROWS)


def write(path: Path) -> Path:
    """ROWS, as pandas, openpyxl or `datasets` write them."""
    name = path.name.removesuffix(".gz")
    if name.endswith((".csv", ".tsv")):
        FRAME.to_csv(path, index=False, sep="\t" if name.endswith(".tsv") else ",")
    elif name.endswith((".jsonl", ".json")):
        FRAME.to_json(path, orient="records", lines=name.endswith(".jsonl"), force_ascii=False)
    elif name.endswith(".xlsx"):
        FRAME.to_excel(path, index=False)
    elif name.endswith(".parquet"):
        FRAME.to_parquet(path)
    elif name.endswith(".feather"):
        pyarrow.feather.write_feather(pyarrow.Table.from_pylist(ROWS), path)
    elif name.endswith(".arrow"):
        with pyarrow.ipc.new_stream(path, pyarrow.Table.from_pylist(ROWS).schema) as writer:
            writer.write_table(pyarrow.Table.from_pylist(ROWS))
    elif name.endswith(".zip"):
        write(path.with_suffix(".csv"))
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(path.with_suffix(".csv"), "a folder/rows.csv")
            archive.writestr("__MACOSX/._rows.csv", b"x")
    else:
        datasets.Dataset.from_list(ROWS).save_to_disk(path)
    return path


def rows_of(path: Path, *args, **options) -> list[dict]:
    return [record.values for record in open_rows(path, *args, **options)]


ENDINGS = [
    "csv",
    "tsv",
    "csv.gz",
    "tsv.gz",
    "jsonl",
    "jsonl.gz",
    "json",
    "json.gz",
    "xlsx",
    "parquet",
    "feather",
    "arrow",
    "zip",
    "folder",
]


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_format_gives_the_same_rows(tmp_path, ending):
    reader = open_rows(write(tmp_path / f"rows.{ending}"))
    assert reader.columns == ("text", "label")
    records = list(reader)
    assert [record.values for record in records] == ROWS
    assert [record.number for record in records] == [1, 2, 3]
    first, *_, last = {"csv": [2, 3, 5], "xlsx": [2, 3, 4], "zip": [2, 3, 5]}.get(ending.split(".")[0], [0, 0])
    if first:
        assert (records[0].line, records[2].line) == (first, last)
    assert reader.notes == []


@pytest.mark.parametrize(("sign", "name"), [(";", "semicolons"), ("\t", "tabs"), ("|", "bars"), (",", "commas")])
@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_the_delimiter_is_found_out_and_told(tmp_path, sign, name, ending):
    path = tmp_path / f"rows.{ending}"
    FRAME.to_csv(path, index=False, sep=sign)
    reader = open_rows(path, needed=["text", "label"])
    assert [record.values for record in reader] == ROWS
    usual = sign == ("\t" if ending == "tsv" else ",")
    assert reader.notes == ([] if usual else [f"{path}: its columns are separated by {name}."])


def test_the_delimiter_that_is_named_counts(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("a;b,c\n1;2,3\n")
    assert rows_of(path) == [{"a;b": "1;2", "c": "3"}]
    assert rows_of(path, Layout(delimiter="semicolon")) == [{"a": "1", "b,c": "2,3"}]
    assert rows_of(path, needed=["a"]) == [{"a": "1", "b,c": "2,3"}]
    for wrong in ("", ";;", '"', "\n"):
        with pytest.raises(PandaError, match="give one character, or comma, semicolon, tab or bar"):
            Layout(delimiter=wrong)


def test_texts_with_many_signs_do_not_mislead(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("text,label\n" + '"a; b; c | d",x\n' * 50)
    assert rows_of(path) == [{"text": "a; b; c | d", "label": "x"}] * 50


def test_tabs_with_and_without_quotation(tmp_path):
    path = tmp_path / "rows.tsv"
    path.write_text('text\tlabel\n"Good", he said\tx\nthe 5" one\ty\n')
    reader = open_rows(path)
    assert [record.values["text"] for record in reader] == ['"Good", he said', 'the 5" one']
    assert reader.notes == [f"{path}: quotation marks are read as a part of the text."]
    path.write_text('text\tlabel\n"a ""b""\nc"\tx\n"d"\ty\n')
    assert [row["text"] for row in rows_of(path)] == ['a "b"\nc', "d"]


def test_what_excel_writes(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(b'\xef\xbb\xbfsep=;\r\ntext;label\r\n"a\r\nb";x\r\n\r\nc;y\r\n')
    assert [(record.line, record.values["text"]) for record in open_rows(path)] == [(3, "a\r\nb"), (6, "c")]
    path.write_bytes("text\tlabel\r\nä\tx\r\n".encode("utf-16"))
    assert rows_of(path) == [{"text": "ä", "label": "x"}]


def test_names_that_stand_twice_matter_only_where_they_are_used(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("text,note,note,note.1\na,1,2,3\n")
    reader = open_rows(path, needed=["text"])
    assert reader.headers == ("text", "note", "note", "note.1")
    assert next(iter(reader)).values == {"text": "a", "note": "1", "note.2": "2", "note.1": "3"}
    for needed in (None, ["note"]):
        with pytest.raises(PandaError, match="names a column twice"):
            open_rows(path, needed=needed)


def test_rows_that_cannot_be_read_are_passed_over_on_demand(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text('text,label\na,x\nb\n"c" d,x\ne,y\n')
    records = list(open_rows(path, lenient=True))
    assert [record.line for record in records] == [2, 3, 4, 5]
    assert [record.values for record in records][::3] == [{"text": "a", "label": "x"}, {"text": "e", "label": "y"}]
    assert records[1].problem.startswith(f"Record 3 of {path} has 1 cells")
    assert records[2].problem.startswith(f"Record 4 of {path} is not valid CSV")
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n\n{"a": \n[1]\n{"a": 2}\n\n')
    problems = [record.problem for record in open_rows(path, lenient=True, every_line=True)]
    assert [problem is None for problem in problems] == [True, False, False, False, True]
    with pytest.raises(PandaError, match="Line 2 of .* is empty"):
        list(open_rows(path, every_line=True))


@pytest.mark.parametrize(
    ("value", "notes"),
    [
        ({"version": 1, "data": ROWS}, "its rows are those under 'data'"),
        ({"text": [row["text"] for row in ROWS], "label": [row["label"] for row in ROWS]}, "it holds columns"),
        (json.loads(FRAME.to_json()), "it holds columns"),
        (json.loads(FRAME.to_json(orient="split")), ""),
    ],
)
def test_json_with_the_rows_somewhere(tmp_path, value, notes):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(value, indent=1))
    reader = open_rows(path)
    assert [record.values for record in reader] == ROWS
    assert notes in " ".join(reader.notes)


def test_json_that_has_one_object_a_line(tmp_path):
    path = tmp_path / "rows.json"
    FRAME.to_json(path, orient="records", lines=True)
    reader = open_rows(path)
    assert [record.values for record in reader] == ROWS
    assert "one JSON object per line" in reader.notes[0]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (7, "holds a int, where a list"),
        ({"a": 1}, "without a list of objects under one of its keys ('a')"),
        ({"train": ROWS, "test": ROWS}, "has lists of objects under 'train', 'test'; write each to a file"),
        ([{"a": 1}, 7], "Row 2 of .* is not a JSON object"),
        ({"data": [{"paragraphs": [{"qas": []}]}]}, "Article 1 of .* has no 'context'|article 1 of .* 'context'"),
        ({"data": [{"paragraphs": [{"context": "a", "qas": [{"answers": []}]}]}]}, "Question 1 of .* no 'question'"),
        ([{"id": 1, "data": {"text": "a"}, "annotations": [{"result": [{"value": 1}]}]}], "Task 1 of .* from_name"),
    ],
)
def test_json_without_rows(tmp_path, value, message):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(value))
    with pytest.raises(PandaError, match=message.replace("(", r"\(").replace(")", r"\)")):
        list(open_rows(path))


def test_squad_in_its_own_form(tmp_path):
    question = {
        "id": "q",
        "question": "When?",
        "answers": [{"text": "1900", "answer_start": 3}],
        "is_impossible": False,
    }
    none = {"id": "r", "question": "Who?", "answers": [], "is_impossible": True, "plausible_answers": []}
    data = [{"title": "t", "paragraphs": [{"context": "In 1900.", "qas": [question, none]}]}]
    path = tmp_path / "squad.json"
    path.write_text(json.dumps({"version": "v2.0", "data": data}))
    reader = open_rows(path)
    first, second = (record.values for record in reader)
    assert reader.form == "squad"
    assert first["answers"] == {"text": ["1900"], "answer_start": [3]}
    assert second | {"answers": 0} == {"id": "r", "title": "t", "question": "Who?", "context": "In 1900.", "answers": 0}
    assert second["answers"] == {"text": [], "answer_start": []}
    assert "SQuAD 2.0, 2 questions, 1 of them without an answer" in reader.notes[0]


def test_squad_without_answers(tmp_path):
    """What is to be answered: it can be read, and is left out where a label is needed."""
    questions = [{"id": "q", "question": "When?"}, {"id": "r", "question": "Who?", "answers": []}]
    value = {"data": [{"title": "t", "paragraphs": [{"context": "In 1900.", "qas": questions}]}]}
    path = tmp_path / "questions.json"
    path.write_text(json.dumps(value))
    reader = open_rows(path)
    first, second = (record.values for record in reader)
    assert first == {"id": "q", "title": "t", "question": "When?", "context": "In 1900."}
    assert second["answers"] == {"text": [], "answer_start": []}
    assert "2 questions, 1 of them without an answer, 1 of them not labelled. Columns" in reader.notes[0]
    task = own_task(train=path, text="question", text2="context", label="answers", kind="extractive_qa")
    assert task.train().texts == (Passage("Who?", "In 1900."),)
    assert task.notes[-1] == f"{path}: 1 row has no label and is left out (row 1)."


def label_studio(text, *results, cancelled=False):
    return {"id": 1, "data": {"text": text}, "annotations": [{"result": list(results), "was_cancelled": cancelled}]}


def choice(*names):
    return {"from_name": "mood", "to_name": "text", "type": "choices", "value": {"choices": list(names)}}


def span(start, end, label):
    return {"from_name": "ner", "type": "labels", "value": {"start": start, "end": end, "text": "", "labels": [label]}}


def test_exports_of_label_studio(tmp_path):
    relation = {"type": "relation", "from_id": "a", "to_id": "b"}
    tasks = [
        label_studio("Ana in Oslo", choice("good"), span(0, 3, "PER"), span(7, 11, "LOC"), relation),
        label_studio("none", choice("bad", "sad")),
        label_studio("skipped", choice("bad"), cancelled=True),
    ]
    tasks[0]["annotations"].append(tasks[0]["annotations"][0])
    path = tmp_path / "export.json"
    path.write_text(json.dumps(tasks))
    reader = open_rows(path)
    assert [record.values for record in reader] == [
        {"id": 1, "text": "Ana in Oslo", "mood": "good", "ner": [(0, 3, "PER"), (7, 11, "LOC")]},
        {"id": 1, "text": "none", "mood": ["bad", "sad"], "ner": []},
        {"id": 1, "text": "skipped", "mood": None, "ner": None},
    ]
    assert "its labels are in 'mood', 'ner'" in reader.notes[0]
    assert "1 rows were annotated more than once" in reader.notes[1]


def test_tasks_of_label_studio_that_nobody_labelled(tmp_path):
    """Those that are to be predicted: as they are imported there, and as they are exported."""
    path = tmp_path / "tasks.json"
    path.write_text(json.dumps([{"data": {"id": "own", "text": "a"}}, {"id": 7, "data": {"text": "b"}}]))
    reader = open_rows(path)
    assert [record.values for record in reader] == [{"id": "own", "text": "a"}, {"id": 7, "text": "b"}]
    assert reader.notes == [f"{path}: an export of Label Studio; nothing in it is labelled."]
    path.write_text(json.dumps([{"id": 7, "data": {"text": "b"}, "annotations": [], "predictions": []}]))
    assert rows_of(path) == [{"id": 7, "text": "b"}]


def test_class_names_in_the_metadata(tmp_path):
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["bad", "good"]),
            "tags": datasets.Sequence(datasets.ClassLabel(names=["O", "B-X"])),
        }
    )
    data = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, -1], "tags": [[0, 1], []]}, features)
    data.to_parquet(tmp_path / "rows.parquet")
    data.save_to_disk(tmp_path / "saved")
    for path in (tmp_path / "rows.parquet", tmp_path / "saved"):
        assert rows_of(path) == [{"text": "a", "label": 1, "tags": [0, 1]}, {"text": "b", "label": -1, "tags": []}]
        named = rows_of(path, Layout(class_names=True))
        assert named == [{"text": "a", "label": "good", "tags": ["O", "B-X"]}, {"text": "b", "label": -1, "tags": []}]


def test_saved_folders(tmp_path):
    data = datasets.Dataset.from_list(ROWS)
    datasets.DatasetDict(train=data, test=data).save_to_disk(tmp_path / "both")
    with pytest.raises(PandaError, match=r"holds 2 data sets \(test, train\); name one of its folders"):
        open_rows(tmp_path / "both")
    assert rows_of(tmp_path / "both" / "test") == ROWS
    state = tmp_path / "both" / "test" / "state.json"
    for name in ("../train/data-00000-of-00001.arrow", "/etc/passwd", "gone.arrow", 7):
        state.write_text(json.dumps({"_data_files": [{"filename": name}]}))
        with pytest.raises(PandaError, match="which is not a file beside it"):
            open_rows(tmp_path / "both" / "test")
    state.write_text("[]")
    with pytest.raises(PandaError, match="does not name the files"):
        open_rows(tmp_path / "both" / "test")


def workbook(path, **sheets):
    book = openpyxl.Workbook()
    book.remove(book.active)
    for title, rows in sheets.items():
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(row)
    book.save(path)
    return book


def test_sheets(tmp_path):
    path = tmp_path / "book.xlsx"
    workbook(path, Notes=[], Data=[("text", "label", None), ("a", 1), (), (None, 2.5)], More=[("x",), ("y",)])
    reader = open_rows(path)
    assert [(record.line, record.values) for record in reader] == [
        (2, {"text": "a", "label": 1}),
        (4, {"text": None, "label": 2.5}),
    ]
    assert "of its sheets 'Notes', 'Data', 'More', 'Data' is read; --sheet selects another" in reader.notes[0]
    assert rows_of(path, Layout(sheet="More")) == rows_of(path, Layout(sheet="3")) == [{"x": "y"}]
    with pytest.raises(PandaError, match="has no sheet 'data'; it has 'Notes', 'Data', 'More'. Did you mean 'Data'"):
        open_rows(path, Layout(sheet="data"))
    with pytest.raises(PandaError, match="The sheet 'Notes' of .* is empty"):
        open_rows(path, Layout(sheet="Notes"))


def test_of_several_sheets_the_one_with_the_columns_is_read(tmp_path):
    path = tmp_path / "book.xlsx"
    workbook(path, Notes=[("see the other sheet",)], Data=[("id", "text"), (1, "a")], More=[("text",), ("b",)])
    assert [record.values for record in open_rows(path, needed=["text"])] == [{"id": 1, "text": "a"}]
    assert [record.values for record in open_rows(path, needed=["x"])] == []
    assert "'Notes' is read" in open_rows(path, needed=["x"]).notes[0]


def test_headers_of_merged_cells(tmp_path):
    path = tmp_path / "book.xlsx"
    book = workbook(path, Data=[("customer", None, "label"), ("a", "b", "x")])
    book["Data"].merge_cells("A1:B1")
    book.save(path)
    with pytest.raises(
        PandaError, match=r"The column B of the sheet 'Data' .* \(seen in row 1\), as with merged cells"
    ):
        list(open_rows(path))
    workbook(path, Data=[("Reviews of May",), ("text", "label"), ("a", "x")])
    with pytest.raises(PandaError, match=r"The column B .* \(seen in row 2\), .* or a title above the table"):
        list(open_rows(path))


def test_workbooks_that_cannot_be_opened(tmp_path):
    path = tmp_path / "book.xlsx"
    workbook(path, Data=[("text",), ("a",)])
    locked = io.BytesIO()
    msoffcrypto.OfficeFile(io.BytesIO(path.read_bytes())).encrypt("secret", locked)  # as Excel does
    path.write_bytes(locked.getvalue())
    with pytest.raises(PandaError, match="is protected by a password; save it without one"):
        open_rows(path)
    path.write_bytes(b"\xd0\xcf\x11\xe0" + bytes(600))
    with pytest.raises(PandaError, match=r"in the old format \(.xls\)"):
        open_rows(path)
    workbook(path, Data=[("text",), ("a",)])
    whole = path.read_bytes()
    for content in (whole[:-30], b"text,label\n", b""):
        path.write_bytes(content)
        with pytest.raises(PandaError, match="is not a readable workbook"):
            open_rows(path)
    decompression_error = io.BytesIO()
    with zipfile.ZipFile(decompression_error, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/worksheets/sheet1.xml", bytes(source._RATIO_FROM + 1))
    path.write_bytes(decompression_error.getvalue())
    with pytest.raises(PandaError, match="unpacks to more than 200 times its size"):
        open_rows(path)


def archive_of(path, **files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def test_archives_that_are_refused(tmp_path):
    path = tmp_path / "rows.zip"
    good = "text,label\na,x\n"
    for files, message in [
        ({"a.csv": good, "b.csv": good}, r"holds 2 files \(a.csv, b.csv\); expected one"),
        ({}, r"holds 0 files \(none\)"),
        ({"../../a.csv": good}, r"'../../a.csv', which points outside the archive"),
        ({"/etc/a.csv": good}, "points outside the archive"),
        ({"a.zip": good}, "holds another archive"),
        ({"a.doc": good}, "has an unknown format"),
        ({"a.csv": bytes(source._RATIO_FROM + 1)}, "unpacks to more than 200 times"),
    ]:
        with pytest.raises(PandaError, match=message):
            open_rows(archive_of(path, **files))
    whole = archive_of(path, **{"a.csv": good}).read_bytes()
    path.write_bytes(whole[:-9])
    with pytest.raises(PandaError, match="is not a complete zip file"):
        open_rows(path)
    at = whole.index(b"a.csv") + 5
    path.write_bytes(whole[: at + 2] + b"\xff\xff" + whole[at + 4 :])
    with pytest.raises(PandaError, match="is not a complete zip file"):
        list(open_rows(path))
    flagged = bytearray(whole)
    flagged[6] |= 1
    flagged[whole.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(flagged)
    with pytest.raises(PandaError, match="is protected by a password"):
        open_rows(path)


def test_a_bomb_of_gzip_does_not_fill_memory(tmp_path):
    path = tmp_path / "rows.csv.gz"
    with gzip.open(path, "wb") as file:
        for _ in range(100):
            file.write(b"text,label\n" * 100_000)
    tracemalloc.start()
    with pytest.raises(PandaError, match="unpacks to more than 200 times its size"):
        for _ in open_rows(path):
            pass
    assert tracemalloc.get_traced_memory()[1] < 2**23
    tracemalloc.stop()


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl", "rows.tsv", "rows.conll"])
def test_a_line_of_two_gigabytes_does_not_fill_memory(tmp_path, name, monkeypatch):
    """The file has a hole in it: it takes no room on the disk."""
    monkeypatch.setattr(lines, "MAX_LINE", 2**20)
    path = tmp_path / name
    with path.open("wb") as file:
        file.write(b"text,label\na,x\n" if name.endswith("csv") else b"a\tx\n" if "json" not in name else b'{"a": 1}\n')
        file.write(b"a")
        file.truncate(2**31)
    tracemalloc.start()
    with pytest.raises(PandaError, match=r"Line \d of .* has more than 1,048,576 characters"):
        list(open_rows(path, columns=ColumnData()))
    assert tracemalloc.get_traced_memory()[1] < 2**25
    tracemalloc.stop()


def test_a_json_file_too_large_to_be_read_as_a_whole(tmp_path):
    path = tmp_path / "rows.json"
    with path.open("wb") as file:
        file.write(b"[\n")
        file.truncate(2**31)
    with pytest.raises(PandaError, match=r"more than 33,554,432 characters|holds more than 1 GB"):
        open_rows(path)


def test_a_name_that_lies_about_the_content(tmp_path):
    write(tmp_path / "rows.xlsx").rename(tmp_path / "rows.csv")
    with pytest.raises(PandaError, match=r"holds a zip archive or a workbook \(.zip, .xlsx\), not what its name says"):
        open_rows(tmp_path / "rows.csv")
    write(tmp_path / "rows.jsonl.gz").rename(tmp_path / "rows.jsonl")
    with pytest.raises(PandaError, match="holds gzip"):
        open_rows(tmp_path / "rows.jsonl")


def test_options_for_other_formats(tmp_path):
    path = write(tmp_path / "rows.csv")
    with pytest.raises(PandaError, match="--sheet is for workbooks"):
        open_rows(path, Layout(sheet="1"))
    with pytest.raises(PandaError, match="--delimiter is for .csv and .tsv"):
        open_rows(write(tmp_path / "rows.jsonl"), Layout(delimiter=";"))


UNIVERSAL = """# sent_id = 1
# text = Vámonos al mar
1-2\tVámonos\t_\t_\t_\t_\t_\t_\t_\t_
1\tVamos\tir\tVERB\t_\t_\t0\troot\t_\t_
2\tnos\tnosotros\tPRON\t_\t_\t1\tobj\t_\t_
3-4\tal\t_\t_\t_\t_\t_\t_\t_\t_
3\ta\ta\tADP\t_\t_\t5\tcase\t_\t_
4\tel mismo\tel\tDET\t_\t_\t5\tdet\t_\t_
5\tmar\tmar\tNOUN\t_\t_\t1\tobl\t_\t_
5.1\tnada\tnada\tNOUN\t_\t_\t_\t_\t_\t_

"""


def test_universal_dependencies(tmp_path):
    path = tmp_path / "ud.conllu"
    path.write_text(UNIVERSAL * 2)
    records = list(open_rows(path, columns=ColumnData(word=1, tag=3)))
    assert [record.line for record in records] == [4, 15]
    assert records[0].values == {
        "tokens": ["Vamos", "nos", "a", "el mismo", "mar"],
        "tags": ["VERB", "PRON", "ADP", "DET", "NOUN"],
    }


def test_comments_above_a_sentence_of_columns(tmp_path):
    path = tmp_path / "rows.iob2"
    path.write_text("# sent_id = 4\n# O\nAna B-PER\n")
    assert rows_of(path, columns=ColumnData()) == [{"tokens": ["#", "Ana"], "tags": ["O", "B-PER"]}]


def test_a_delimiter_of_another_kind_is_asked_for(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("text~label\ngood, really~a\n")
    with pytest.raises(PandaError, match="is one column, 'text~label', .* say it with --delimiter"):
        open_rows(path, needed=["text"])
    assert rows_of(path, Layout(delimiter="~")) == [{"text": "good, really", "label": "a"}]


def test_the_shortest_rows_of_a_bomb_do_not_fill_memory(tmp_path):
    """Every row of four bytes takes a hundred times as much as values."""
    path = tmp_path / "rows.csv.gz"
    with gzip.open(path, "wb") as file:
        file.write(b"text,label\n")
        for _ in range(16):
            file.write(b"a,b\n" * 2**18)
    read = []
    with pytest.raises(PandaError, match="unpacks to more than 200 times its size"):
        read.extend(record.number for record in open_rows(path))
    assert len(read) < 1_500_000


def test_json_of_pandas_by_index_and_by_column(tmp_path):
    path, rows = tmp_path / "rows.json", [{"text": "a", "1": 2}, {"text": "b", "1": 3}]
    for orient in ("records", "index", "columns", "split", "table"):
        pandas.DataFrame(rows).to_json(path, orient=orient)
        found = [{key: value for key, value in row.items() if key != "index"} for row in rows_of(path)]
        assert found == rows
