"""The report's first screen: its sentences say what its tables say, and one scale serves all of its panels."""

from __future__ import annotations

import functools
import re

import pytest
from report_rows import changed, made_study

from promptpanda.report.answers import answer, compare, left_out
from promptpanda.report.figures import Forest, forests
from promptpanda.report.gains import Bootstrap, Gain
from promptpanda.report.page import Report
from promptpanda.report.report import FIRST_SCREEN, Facts, make_report
from promptpanda.report.study import Study
from promptpanda.report.tables import Table
from promptpanda.sweep.row import Answers, Row


@functools.cache
def rows_with_auto() -> tuple[list[Row], list[Answers]]:
    """`auto` as PoT from sst2; what a constant scores is known, and on cr it is more than any method's score."""
    rows, answers = made_study(("cr", "cola", "stsb"), ("sst2", "trec"), ("bert-tiny",), (0, 1), n_test=60)
    constant = {"cr": 0.99, "cola": 0.0, "stsb": 0.0}
    known = [row.model_copy(update={"constant": constant[row.task]}) if row.test else row for row in rows]
    auto = [changed(row, method="auto", source=None) for row in known if row.method == "pot" and row.source == "sst2"]
    return [*known, *auto], answers


def table(report: Report, name: str) -> Table:
    return next(one for section in report.sections for one in section.tables if one.id == name)


def test_the_sentences_have_the_numbers_of_the_table() -> None:
    report = make_report(*rows_with_auto(), Facts("x"))
    first = report.sections[0]
    (said,) = first.answers
    by_title = {row[0].text: row for row in table(report, "glance").rows}
    assert next(iter(by_title)) == "auto"
    assert said.headline.startswith("auto ")
    everything = " ".join((said.headline, *said.rest))
    for title, row in by_title.items():
        low_high = row[1].extra.strip("[]").replace(", ", " to ")
        size = row[1].text.lstrip("+\u2212") if re.search("wins|loses", said.headline) else row[1].text
        words = f"{size} points ({low_high})" if title == "auto" else f"{title} {row[1].text} ({low_high})"
        assert words in everything
    better, worse = by_title["auto"][2].text, by_title["auto"][3].text
    counts = f"better on {better}, worse on {worse}".replace(" 0", " none")
    assert counts in everything or (better == worse == "0" and "better or worse on none" in everything)
    page = report.html()
    assert page.index("auto ") < page.index('id="glance-forest"') < page.index('id="glance"')
    assert said.headline in report.markdown()


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (1.0, 3.0, "wins 2.0 points (+1.0 to +3.0) over prompt tuning"),
        (-3.0, -1.0, "loses 2.0 points (\u22123.0 to \u22121.0) against prompt tuning"),
        (-1.0, 5.0, "is not clearly different from prompt tuning: +2.0 points (\u22121.0 to +5.0)"),
        (None, None, "scores +2.0 points against prompt tuning, mean of 3 targets, without an interval."),
    ],
)
def test_the_verdict_in_words(low: float | None, high: float | None, words: str) -> None:
    study = Study.of(*rows_with_auto(), sizes={})
    (group,) = study.groups
    lead = compare(group, Bootstrap(study.answers, group.runs))[0]
    mean = -2.0 if high is not None and high < 0 else 2.0
    gain = Gain((mean,), low, high, None if low is None else "seeds", None)
    made = type(lead)(lead.contender, lead.targets, gain, 0, 0)
    assert f"auto {words}" in answer(group, [made], "").headline


def test_without_auto_no_test_score_chooses_whom_the_first_sentence_names() -> None:
    rows, answers = rows_with_auto()
    plain = [row for row in rows if row.method != "auto"]
    (said,) = make_report(plain, answers, Facts("x")).sections[0].answers
    # The reverse ranking by test scores, the same name first.
    worse = [
        row.model_copy(update={"test": {name: 1 - one for name, one in row.test.items()}, "predictions": None})
        if row.test
        else row
        for row in plain
    ]
    (other,) = make_report(worse, answers, Facts("x")).sections[0].answers
    assert said.headline.startswith("PoT, best source ")
    assert other.headline.startswith("PoT, best source ")


def test_a_method_without_prompt_tuning_to_compare_with() -> None:
    rows, answers = rows_with_auto()
    (said,) = make_report([row for row in rows if row.method == "pot"], answers, Facts("x")).sections[0].answers
    assert said.headline.startswith("No method can be compared with prompt tuning")


def test_many_groups_have_their_answers_in_their_sections() -> None:
    rows, answers = made_study(("cr",), ("sst2",), [f"model-{number}" for number in range(5)], (0,), n_test=20)
    first, *others = make_report(rows, answers, Facts("x")).sections
    assert len(first.answers) == FIRST_SCREEN
    assert first.lead[0].startswith("What was found under 2 other conditions")
    assert sum(len(section.answers) for section in others) == 2


def test_the_constant_stands_in_the_tables_and_the_page_says_who_does_not_beat_it() -> None:
    report = make_report(*rows_with_auto(), Facts("x"))
    scores = table(report, "g1-scores")
    assert scores.columns[:4] == ("target", "a constant", "prompt tuning", "auto")
    assert {row[0].text: row[1].text for row in scores.rows} == {"cola": "0.0", "cr": "99.0", "stsb": "0.0"}
    assert scores.foot[0][1].text == "33.0"
    note = "No method beats a constant prediction on cr (99.0)."
    assert note in scores.notes
    assert note in report.sections[0].answers[0].rest
    rows, answers = rows_with_auto()
    without = make_report([row.model_copy(update={"constant": None}) for row in rows], answers, Facts("x"))
    assert "a constant" not in table(without, "g1-scores").columns
    assert "constant prediction on" not in without.html()


def test_only_those_methods_are_named_that_do_not_beat_the_constant() -> None:
    rows, answers = rows_with_auto()
    study = Study.of(rows, answers, sizes={})
    (group,) = study.groups
    by_title = {one.title: result.mean for one in group.contenders if (result := group.result(one, "cr"))}
    worst = min(by_title, key=lambda title: by_title[title])
    floor = (by_title[worst] + sorted(by_title.values())[1]) / 200
    moved = [row.model_copy(update={"constant": floor}) if row.task == "cr" and row.test else row for row in rows]
    rest = make_report(moved, answers, Facts("x")).sections[0].answers[0].rest
    assert f"Not above a constant prediction: {worst} on cr ({100 * floor:.1f})." in rest


def test_runs_that_the_page_leaves_out_are_told_at_the_top() -> None:
    rows, answers = made_study(("rte",), ("sst2", "conll03"), ("bert-tiny",), (0, 1), n_test=30)
    assert left_out(Study.of(rows, answers, sizes={})) == ("2 runs failed and left no result.",)
    tuned = next(row for row in rows if row.method == "prompt_tuning" and row.kind == "target")
    older = tuned.model_copy(update={"key": "older", "finished": "2026-01-01T00:00:00+00:00"})
    unscored = changed(tuned, method="head_only", seed=9, test=None, predictions=None)
    report = make_report([*rows, older, unscored], answers, Facts("x"), shared=frozenset({frozenset({"rte", "sst2"})}))
    told = " ".join(report.left_out)
    assert "2 runs failed" in told
    assert "Not shown: 1 row of the store" in told
    assert "share texts: 4 runs, rte from sst2." in told
    assert "others have: 1 run on rte." in told
    page = report.html()
    assert page.index("share texts: 4 runs") < page.index("What was found")


def test_panels_side_by_side_have_one_scale() -> None:
    """Equal gains are drawn at equal places, whatever else and whatever names the panels hold."""
    one = Gain((1.0,), 0.5, 1.5, "seeds", None)
    wide = Gain((-20.0,), -30.0, 9.0, "seeds", None)
    name = "a method with a name of fifty characters or more, in full"
    panels = forests([Forest("a", [("x", one)]), Forest("b", [(name, wide), ("x", one)], one)], "k")

    def places(svg: str, hint: str) -> set[str]:
        return set(re.findall(rf'<title>{hint}: [^<]*</title>.*?<use [^>]*?x="([\d.]+)"', svg, re.DOTALL))

    assert places(panels[0].svg, "x") == places(panels[1].svg, "x") == places(panels[1].svg, "mean") != set()
    ticks = [re.findall(r">(\u2212?\d+)</text>", panel.svg) for panel in panels]
    assert ticks[0] == ticks[1] != []
    for word in name.split():
        assert re.search(rf">[^<]*{re.escape(word)}[^<]*</text>", panels[1].svg), "no name is cut"
    assert "\u2026" not in panels[1].svg
