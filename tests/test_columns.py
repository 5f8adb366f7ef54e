"""Column files of CoNLL-2003, 2005 and 2012 style give the rows they mean, or an error with the line."""

from __future__ import annotations

import gzip

import pytest
from pydantic import ValidationError

from promptpanda.errors import PandaError
from promptpanda.tasks.columns import ColumnData, column_rows
from promptpanda.tasks.files.reader import open_rows
from promptpanda.tasks.files.source import Source
from promptpanda.tasks.tags import to_bio

CONLL_2003 = """-DOCSTART- -X- -X- O

EU NNP B-NP I-ORG
rejects VBZ B-VP O
German JJ B-NP I-MISC
-DOCSTART- -X- O O

#end NN B-NP O

"""

CONLL_2005 = """\
The      -       (A0*      (A1*      *
cat      -          *)        *)     *
that     -          *    (R-A1*)     *
sat      sit      (V*)        *      *
up       -       (C-V*)       *      *
was      -     (AM-T*        *      *
seen     see        *)      (V*)     *
to       -          *         *      *
be       be         *      (C-A1*)  (V*)

Silence  -

It       -       (A0*)
ends     end     (V*
up       -         *)
"""

CONLL_2012 = """#begin document (bc/00/cctv_00); part 000
bc/00/cctv_00   0    0    The   DT  (TOP(S(NP*     -    -   -   Speaker#1   (WORK_OF_ART*   (ARG0*        *    (18
bc/00/cctv_00   0    1  charm   NN           *)  charm  -   1   Speaker#1              *)        *)       *    18)
bc/00/cctv_00   0    2     is  VBZ        (VP*     be   01  1   Speaker#1               *     (V*)        *      -
bc/00/cctv_00   0    3  China  NNP         (NP*     -    -   -   Speaker#1           (GPE)  (ARG1*   (ARG0*) (2|(3)
bc/00/cctv_00   0    4   made  VBN       *)))))   make  02   -   Speaker#1               *         *)     (V*)   2)

bc/00/cctv_00   0    0    Yes   UH    (TOP(X*))     -    -   -   Speaker#1               *    -

#end document
"""

NAMES_2012 = ColumnData(word=3, tag=10, brackets=True)
ROLES_2005 = ColumnData(word=0, tag=None, predicate=1, arguments=2)
ROLES_2012 = ColumnData(word=3, predicate=7, arguments=11)


@pytest.fixture
def rows_of(tmp_path):
    def rows_of(content, layout=None, name="some.conll"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return [row for _, row in column_rows(Source.of(path), layout or ColumnData())]

    return rows_of


def test_conll_2003(rows_of):
    rows = rows_of(CONLL_2003)
    assert rows == [
        {"tokens": ["EU", "rejects", "German"], "tags": ["I-ORG", "O", "I-MISC"]},
        {"tokens": ["#end"], "tags": ["O"]},
    ]
    assert to_bio(rows[0]["tags"], "row 1", "iob1") == ("B-ORG", "O", "B-MISC")
    assert rows_of(CONLL_2003, ColumnData(tag=2))[0]["tags"] == ["B-NP", "B-VP", "B-NP"]
    assert rows_of(CONLL_2003, ColumnData(tag=-2))[0]["tags"] == ["B-NP", "B-VP", "B-NP"]


def test_other_ways_to_write_the_same_file(rows_of):
    rows = rows_of(CONLL_2003)
    assert rows_of(CONLL_2003.replace(" ", "\t")) == rows
    assert rows_of(CONLL_2003.replace(" ", "  \t ")) == rows
    assert rows_of(CONLL_2003.replace("\n", " \r\n")) == rows
    assert rows_of(b"\xef\xbb\xbf" + CONLL_2003.rstrip().encode()) == rows
    assert rows_of("\n\n" + CONLL_2003.replace("\n\n", "\n\t\n\n")) == rows
    assert rows_of(gzip.compress(CONLL_2003.encode()), name="some.txt.gz") == rows


def test_a_word_may_hold_a_no_break_space(rows_of):
    word = "10\u00a0000\u2028"
    assert rows_of(f"{word} O\n") == [{"tokens": [word], "tags": ["O"]}]


def test_conll_2012_names(rows_of):
    assert rows_of(CONLL_2012, NAMES_2012, "cctv_0000.v4_gold_conll") == [
        {
            "tokens": ["The", "charm", "is", "China", "made"],
            "tags": ["B-WORK_OF_ART", "I-WORK_OF_ART", "O", "B-GPE", "O"],
        },
        {"tokens": ["Yes"], "tags": ["O"]},
    ]


def test_conll_2012_roles(rows_of):
    words = ["The", "charm", "is", "China", "made"]
    rows = [
        {"tokens": words, "tags": ["B-ARG0", "I-ARG0", "B-V", "B-ARG1", "I-ARG1"], "predicate": 2},
        {"tokens": words, "tags": ["O", "O", "O", "B-ARG0", "B-V"], "predicate": 4},
    ]
    assert rows_of(CONLL_2012, ROLES_2012) == rows
    without_coreference = "\n".join(
        line if line.startswith("#") else " ".join(line.split()[:-1]) for line in CONLL_2012.split("\n")
    )
    assert rows_of(without_coreference, ROLES_2012) == rows


def test_the_lemma_column_of_conll_2012_holds_more_than_predicates(rows_of):
    message = r"from line 2 of .* has 3 predicate\(s\) in column 6 and 2 argument column\(s\) from column 11"
    with pytest.raises(PandaError, match=message):
        rows_of(CONLL_2012, ColumnData(word=3, predicate=6, arguments=11))


def test_conll_2005_roles(rows_of):
    rows = rows_of(CONLL_2005, ROLES_2005)
    assert [(row["predicate"], " ".join(row["tags"])) for row in rows] == [
        (3, "B-A0 I-A0 O B-V B-C-V B-AM-T I-AM-T O O"),
        (6, "B-A1 I-A1 B-R-A1 O O O B-V O B-C-A1"),
        (8, "O O O O O O O O B-V"),
        (1, "B-A0 B-V I-V"),
    ]
    assert [row["tokens"][0] for row in rows] == ["The", "The", "The", "It"]


def test_a_file_of_words_alone_can_be_predicted_for(tmp_path):
    path = tmp_path / "words.conll"
    path.write_text("EU\nrejects\n\nPeter\n")
    reader = open_rows(path, columns=ColumnData(), lenient=True)
    assert reader.columns == ("tokens",)
    assert [record.values for record in reader] == [{"tokens": ["EU", "rejects"]}, {"tokens": ["Peter"]}]


@pytest.mark.parametrize(
    ("content", "layout", "message"),
    [
        ("A O\n\nEU NNP O\nrejects O\n", {}, r"Line 4 of .* has 2 column\(s\), the first line of its sentence has 3"),
        ("A O\nB\n", {}, r"Line 2 of .* has 1 column\(s\), the first line of its sentence has 2"),
        ("A\nB\n", {}, "Line 1 of .* has one column for both words and tags"),
        ("A O\nB O\n", {"tag": 3}, r"Line 1 of .* has 2 column\(s\), none for tag: 3; check the layout"),
        ("A O\n", {"word": 2}, "none for word: 2"),
        ("A O\n", {"tag": -3}, "none for tag: -3"),
        ("A\n", {"predicate": 1, "arguments": 2}, r"has 1 column\(s\), none for predicate: 1"),
        ("", {}, "is empty: expected at least one sentence"),
        (" \n\n-DOCSTART- -X- O O\n\n", {}, "is empty"),
        ("A -\nB -\n", {"predicate": 1, "arguments": 2}, "has no predicate in column 1; check predicate"),
        ("Ab O\nC O\nSão O\n".encode("latin-1"), {}, "is not UTF-8: line 3 has byte 0xe3"),
    ],
)
def test_files_that_do_not_fit_the_layout(rows_of, content, layout, message):
    with pytest.raises(PandaError, match=message):
        rows_of(content, ColumnData(**layout))


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["(A*", "*"], r"Line 1 of .* opens '\(A\*' in column 1, which nothing closes"),
        (["*", "*)"], "Line 2 of .* closes a bracket in column 1 that none opens"),
        (["(A*)", "*)"], "Line 2 of .* closes a bracket"),
        (["(A*", "(B*", "*)", "*)"], r"Line 2 of .* opens '\(B\*' in column 1 inside '\(A\*' of line 1"),
        (["(A(B*", "*))"], r"Line 1 of .* has '\(A\(B\*' in column 1; expected brackets that are not nested"),
        (["(A*", "*))"], r"Line 2 of .* has '\*\)\)'"),
        (["*", "(A"], r"Line 2 of .* has '\(A'"),
        (["O", "B-A"], "Line 1 of .* has 'O' in column 1; expected brackets"),
        (["()"], r"Line 1 of .* has '\(\)'"),
    ],
)
def test_brackets_that_do_not_fit(rows_of, cells, message):
    with pytest.raises(PandaError, match=message):
        rows_of("".join(f"word {cell}\n" for cell in cells), ColumnData(brackets=True))


@pytest.mark.parametrize(
    ("content", "predicates", "columns"),
    [
        ("A - (A0*)\nB be (V*)\nC go *\n", 2, 1),
        ("A - (A0*) *\nB be (V*) (V*)\n", 1, 2),
        ("A - - (A0*)\nB be - (V*)\n", 1, 1),
        ("A be\n", 1, 0),
        ("A - *\n", 0, 1),
    ],
)
def test_one_argument_column_a_predicate(rows_of, content, predicates, columns):
    message = rf"from line 1 of .* has {predicates} predicate\(s\) in column 1 and {columns} argument column\(s\)"
    with pytest.raises(PandaError, match=message):
        rows_of(content, ROLES_2005)


def test_no_file_and_no_whole_gzip(rows_of, tmp_path):
    with pytest.raises(PandaError, match="No file"):
        list(column_rows(Source.of(tmp_path / "none.conll"), ColumnData()))
    with pytest.raises(PandaError, match="not a complete gzip"):
        rows_of(gzip.compress(CONLL_2003.encode())[:-9], name="cut.conll.gz")


@pytest.mark.parametrize(
    "layout", [{"predicate": 1}, {"arguments": 1}, {"tag": None}, {"column": 1}, {"predicate": -1, "arguments": 2}]
)
def test_layouts_that_mean_nothing_are_refused(layout):
    with pytest.raises(ValidationError):
        ColumnData(**layout)
