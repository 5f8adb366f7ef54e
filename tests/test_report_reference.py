"""Published tables beside ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from report_rows import made_study

from promptpanda.errors import PandaError
from promptpanda.report.reference import Reference, beside, published_gains, same_name
from promptpanda.report.study import Contender, Study

PUBLISHED = Path(__file__).parents[2] / "shared" / "paper" / "tables.json"
PT, POT_MEAN, POT_BEST, PANDA_MEAN, TUNED = (
    Contender(method, "default", choice)
    for method, choice in (
        ("prompt_tuning", "only"),
        ("pot", "mean"),
        ("pot", "best"),
        ("panda", "mean"),
        ("model_tuning", "only"),
    )
)
SMALL: dict[str, Any] = {
    "targets": ["RTE", "CoLA"],
    "sources": ["RTE", "MNLI", "MRPC"],
    "full": {
        "BERT-x": {
            "ref": {"Full-tune": [70.0, 60.0, 65.0], "Baseline": [66.0, 50.0, 58.0]},
            "PoT": {"RTE": [66.0, 52.0, 59.0], "MNLI": [80.0, 40, 60.0], "MRPC": [70.0, None, 60.0]},
            "PANDA": {"RTE": [66.0, 55.0, 60.5], "MNLI": [72.0, 51.0, 61.5], "MRPC": [68.0, 53.0, 60.5]},
        }
    },
    "first_epoch": {},
}


def written(folder: Path, content: object) -> Path:
    path = folder / "tables.json"
    path.write_text(json.dumps(content))
    return path


def test_the_target_itself_is_no_source_but_in_the_published_mean(tmp_path: Path) -> None:
    reference = Reference.read(written(tmp_path, SMALL))
    assert reference.result("BERT-x", PT, "RTE") == 66.0
    assert reference.result("BERT-x", TUNED, "CoLA") == 60.0
    assert reference.result("BERT-x", POT_MEAN, "RTE") == pytest.approx((80 + 70) / 2)
    assert reference.result("BERT-x", POT_MEAN, "RTE", own=True) == pytest.approx((66 + 80 + 70) / 3)
    assert reference.result("BERT-x", POT_BEST, "RTE") == 80.0
    assert reference.result("BERT-x", POT_MEAN, "CoLA") == pytest.approx((52 + 40) / 2)


def test_the_table_has_ours_and_theirs_for_the_targets_that_both_have(tmp_path: Path) -> None:
    rows, answers = made_study(targets=("rte", "cr"), sources=("mnli", "mrpc"), models=("bert-tiny",), n_test=20)
    study = Study.of(rows, answers, sizes={})
    table = beside(Reference.read(written(tmp_path, SMALL)), study)
    assert table.columns == ("runs", "method", "RTE", "mean of these", "published mean")
    lines = {(row[0].text, row[1].text): [cell.text for cell in row[2:]] for row in table.rows}
    assert lines["published: BERT-x", "PoT, mean of sources"] == ["75.0", "75.0", "59.0"]
    ours = study.groups[0].result(PT, "rte")
    assert ours is not None
    assert lines["ours: bert-tiny", "prompt tuning"] == [f"{ours.mean:.1f}", f"{ours.mean:.1f}", "\u2013"]


def test_published_gains_have_our_names(tmp_path: Path) -> None:
    rows, answers = made_study(targets=("rte", "cola"), sources=("mnli", "mrpc"), models=("bert-tiny",), n_test=20)
    group = Study.of(rows, answers, sizes={}).groups[0]
    grid = published_gains(Reference.read(written(tmp_path, SMALL)), "BERT-x", group)
    assert grid.values == pytest.approx({("mnli", "rte"): 14, ("mrpc", "rte"): 4, ("mnli", "cola"): -10})


def test_names_are_compared_without_case_and_signs() -> None:
    assert same_name("CoNLL04", "conll-04")
    assert same_name("STS-B", "stsb")
    assert not same_name("sst2", "sst5")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"targets": []}, "not a valid reference at targets"),
        ({"targets": ["RTE", "rte"]}, "names a target twice"),
        ({"full": {}}, "not a valid reference at full"),
        ({"full": {"B": {"PoT": {"RTE": [66.0]}}}}, "has 1 scores in full.B.PoT.RTE"),
        ({"full": {"B": {"PoT": {"X": [66.0, 1.0]}}}}, "has the source 'X'"),
        ({"full": {"B": {"ref": {"Best": [66.0, 1.0]}}}}, "expected Full-tune or Baseline"),
        ({"full": {"B": {"ref": {"Baseline": [0.66, 0.5]}}}}, "expected points"),
        ({"full": {"B": {"ref": {"Baseline": ["66", 1.0]}}}}, "full.B.ref.Baseline.0"),
        ({"full": {"B": {"Pot": {}}}}, "full.B.Pot"),
    ],
)
def test_a_wrong_reference_is_told_in_one_sentence(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    with pytest.raises(PandaError) as caught:
        Reference.read(written(tmp_path, SMALL | change))
    message = str(caught.value)
    assert words in message
    assert "tables.json" in message
    assert "\n" not in message


@pytest.mark.parametrize("content", ["", "[1, 2", "[1]", "\ud800"])
def test_what_is_no_json_object_is_told(tmp_path: Path, content: str) -> None:
    path = tmp_path / "tables.json"
    path.write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(PandaError, match=r"tables\.json is no"):
        Reference.read(path)
    with pytest.raises(PandaError, match="check the path"):
        Reference.read(tmp_path / "none.json")
    with pytest.raises(PandaError, match="is a folder"):
        Reference.read(tmp_path)


@pytest.mark.skipif(not PUBLISHED.is_file(), reason="the published tables (../shared/paper) are not here")
def test_the_published_summary_comes_out() -> None:
    """The publication's table of means over the nine targets, and its best source per target (to its rounding)."""
    reference = Reference.read(PUBLISHED)
    summary = {
        "BERT-large": (78.5, 77.5, 74.3, 78.4, 80.8),
        "BERT-base": (74.8, 74.6, 73.9, 75.5, 77.9),
        "BERT-medium": (71.0, 70.5, 69.9, 71.8, 73.7),
        "BERT-small": (68.7, 67.5, 66.8, 68.8, 71.0),
        "BERT-tiny": (60.8, 59.1, 58.5, 60.4, 62.6),
    }
    random_source = {"BERT-large": 74.2, "BERT-base": 73.7, "BERT-medium": 69.8, "BERT-small": 66.7, "BERT-tiny": 58.4}
    for model, expected in summary.items():
        found = []
        for one in (TUNED, PT, POT_MEAN, PANDA_MEAN, POT_BEST):
            values = [reference.result(model, one, target, own=True) for target in reference.targets]
            found.append(sum(value for value in values if value is not None) / len(values))
        assert found == pytest.approx(expected, abs=0.11)
        others = [reference.result(model, POT_MEAN, target) for target in reference.targets]
        assert sum(value or 0 for value in others) / 9 == pytest.approx(random_source[model], abs=0.06)
