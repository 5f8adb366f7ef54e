"""Classes, labels and types that own test data alone has: errors of every model, told, and never a reason to stop.

Also where the mistakes of a model are said to be in a file.
"""

from __future__ import annotations

import json

import numpy as np
import openpyxl
import pytest
from conftest import sentiment_rows
from kinds import label_set_rows, word_rows
from seqeval.metrics import f1_score
from sklearn import metrics as sk

from promptpanda import Bank, TrainingOptions, evaluate, own_task, train, transfer
from promptpanda.assessment.assess import assess, to_json
from promptpanda.assessment.evaluated import Evaluated
from promptpanda.errors import PandaError
from promptpanda.report.resample import scorer
from promptpanda.sweep.work import answers_of, plain
from promptpanda.tasks.spec import Kind

ONCE = TrainingOptions(epochs=1, prompt_length=2, max_length=16, readout="mean", lr=3e-2)

pytestmark = pytest.mark.usefixtures("one_thread")


def evaluated_by(backbone, tmp_path, task):
    trained = train(task, backbone, bank=tmp_path / "bank", options=ONCE)
    return Evaluated.of(Bank(tmp_path / "bank").load(str(trained.path), backbone), backbone, task), trained


def test_a_transfer_and_its_scores_take_a_class_that_training_has_not(tiny_backbone, tmp_path):
    tested = [*sentiment_rows(20, 7), {"text": "an odd w1", "label": "odd"}]
    task = own_task(train=sentiment_rows(40), test=tested, text="text")
    result = transfer(task, "auto", tiny_backbone, methods=["prompt_tuning"], options=ONCE, bank=tmp_path / "bank")
    (score,) = result.methods["prompt_tuning"].scores
    evaluated = Evaluated.of(result.prompt, tiny_backbone, task)
    assert evaluated.predictions.max() < 2
    assert score == pytest.approx(sk.accuracy_score(evaluated.split.labels, evaluated.predictions))
    assert score <= 20 / 21


def test_a_label_that_the_test_data_alone_has_counts_as_an_error(tiny_backbone, tmp_path):
    tested = [
        *label_set_rows(12, 3),
        {"text": "an odd w1", "label": ["odd"]},
        {"text": "good w2", "label": [*label_set_rows(1, 3)[0]["label"], "odd", "even"]},
    ]
    task = own_task(train=label_set_rows(40), test=tested, text="text", kind=Kind.MULTI_LABEL)
    split = task.test()
    assert split.unseen_labels == ("even", "odd")
    assert split.labels.shape == (14, len(task.labels) + 2)
    assert split.labels[:, -2:].sum(0).tolist() == [1, 2]
    assert "2 of 14 test rows have a label that train has not: 'even', 'odd'; they count as errors." in task.notes
    evaluated, trained = evaluated_by(tiny_backbone, tmp_path, task)
    found = assess(evaluated, temperature=2.0)
    right = evaluated.split.labels
    for name in ("micro", "macro"):
        expected = sk.f1_score(right, evaluated.predictions, average=name, zero_division=np.nan)
        assert found.metrics[f"{name}_f1"].value == pytest.approx(expected)
    scores = evaluate(trained, tiny_backbone, task)
    assert scores["micro_f1"] == pytest.approx(found.score.value)
    odd = found.by_class[-1]
    assert (odd.name, odd.support, odd.figures["recall"].value) == ("odd", 2, 0.0)
    assert found.calibration.answers == 14 * len(task.labels) + 3
    assert any("odd" in one.expected for one in found.mistakes)
    json.dumps(to_json(found), allow_nan=False)
    kept = answers_of(task, split)
    drawn = scorer(kept, "micro_f1", plain(evaluated.predictions))
    assert drawn(np.ones((1, 14)))[0] == pytest.approx(found.score.value)


def test_a_type_that_the_test_data_alone_has_counts_as_an_error(tiny_backbone, tmp_path):
    tested = [*word_rows(12, 3), {"tokens": ["a", "b", "c"], "tags": ["B-ODD", "I-ODD", "O"]}]
    task = own_task(
        train=word_rows(40), test=tested, text="tokens", label="tags", kind=Kind.TOKEN_CLASSIFICATION, name="tags"
    )
    split = task.test()
    assert split.unseen_labels == ("B-ODD", "I-ODD")
    assert "1 of 13 test rows has a type of span that train has not: 'ODD'; it counts as an error." in task.notes
    evaluated, _ = evaluated_by(tiny_backbone, tmp_path, task)
    found = assess(evaluated)
    gold, said = (
        [[evaluated.names[tag] for tag in tags] for tags in side] for side in (split.labels, evaluated.predictions)
    )
    assert found.score.value == pytest.approx(f1_score(gold, said))
    assert {row.name: row.support for row in found.by_class}["ODD"] == 1
    assert "a b [ODD]" in {one.expected for one in found.mistakes}
    drawn = scorer(answers_of(task, split), "span_f1", plain(evaluated.predictions))
    assert drawn(np.ones((1, 13)))[0] == pytest.approx(found.score.value)


def test_labels_of_another_task_are_refused_with_the_first_row():
    tested = [{"text": "a", "label": ["x", "y"]}, {"text": "b", "label": []}]
    task = own_task(train=label_set_rows(20), test=tested, text="text", kind=Kind.MULTI_LABEL)
    with pytest.raises(PandaError, match="Row 1 of test of task 'own' has the label 'x', but train has only"):
        task.test()


def test_mistakes_are_told_by_the_lines_of_the_file(tiny_backbone, tmp_path):
    """A cell with a line break, a row that is left out, and a model that is wrong about every row."""
    (tmp_path / "train.csv").write_text("text,label\n" + "".join(f"good w{n},no\nbad w{n},yes\n" for n in range(12)))
    cells = ['"two\nlines"', "", "three", "four"]
    (tmp_path / "test.csv").write_text("text,label\n" + "".join(f"{cell},never\n" for cell in cells) + "five,no\n")
    task = own_task(train=tmp_path / "train.csv", test=tmp_path / "test.csv", text="text")
    evaluated, _ = evaluated_by(tiny_backbone, tmp_path, task)
    found = {one.text: (one.place, one.unit) for one in assess(evaluated).mistakes if one.expected == "never"}
    assert found == {"two\nlines": (2, "line"), "three": (5, "line"), "four": (6, "line")}
    assert evaluated.split.take(np.asarray([1, 0])).lines.tolist() == [5, 2]
    book = openpyxl.Workbook()
    for row in (["text", "label"], [None, None], ["a", "never"], ["five", "no"]):
        book.active.append(row)
    book.save(tmp_path / "test.xlsx")
    task = own_task(train=tmp_path / "train.csv", test=tmp_path / "test.xlsx", text="text")
    evaluated, _ = evaluated_by(tiny_backbone, tmp_path, task)
    first = next(one for one in to_json(assess(evaluated))["mistakes"] if one["expected"] == "never")
    assert (first["place"], first["unit"]) == (3, "row"), "as the spreadsheet numbers it"
