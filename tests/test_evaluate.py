"""panda evaluate, run as a user runs it: a file alone, the page, the comparison, and what cannot be."""

from __future__ import annotations

import csv
import json
import math

import pytest
from browser import CHROMIUM, Browser
from conftest import sentiment_rows, write_jsonl
from kinds import value_rows, word_rows
from test_report_page import Page
from typer.testing import CliRunner

from promptpanda.cli.main import app

FAST = ["--epochs", "2", "--max-length", "24", "--prompt-length", "4"]
HOSTILE = ["<script>alert(1)</script>", "x" * 10_000, "\u202eevil\u202c \x1b[31mred", "</style><b>", "{{ 7 * 7 }}"]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def panda(tiny_folder, tmp_path, monkeypatch):
    """Run `panda` in a folder of its own; returns stdout, or with a code the sentence on stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, code: int = 0, family: str = "bert") -> str:
        model = [] if arguments[0] == "evaluate" else ["--model", str(tiny_folder(family))]
        result = CliRunner().invoke(app, [*arguments, *model])
        assert result.exit_code == code, f"{result.stdout}\n{result.stderr}\n{result.exception!r}"
        assert code == 0 or len(result.stderr.strip().splitlines()) == 1
        return result.stdout if code == 0 else result.stderr

    return run


@pytest.fixture
def mood(panda, tmp_path):
    """A trained prompt, and a test file with the same columns."""
    rows = [{"body": row["text"], "verdict": row["label"]} for row in sentiment_rows(60)]
    write_jsonl(tmp_path / "mood.jsonl", rows)
    tested = [{"body": row["text"], "verdict": row["label"]} for row in sentiment_rows(40, 1000)]
    write_jsonl(tmp_path / "held-out.jsonl", tested)
    trained = panda("train", "--train", "mood.jsonl", "--text", "body", "--label", "verdict", *FAST, "--json")
    return json.loads(trained)["prompts"][0]


def test_a_file_alone_is_enough(panda, mood, tmp_path):
    found = json.loads(panda("evaluate", "mood", "held-out.jsonl", "--json"))
    promised = {"metric", "score", "low", "high", "n_test", "metrics", "per_class", "confusion", "calibration"}
    assert promised <= set(found)
    assert set(found["per_class"]) == set(found["confusion"]["labels"]) == {"good", "bad"}
    assert sum(map(sum, found["confusion"]["matrix"])) == found["n_test"] == 40
    assert found["score"] == found["metrics"]["accuracy"]
    named = ["--test", "held-out.jsonl", "--text", "body", "--label", "verdict", "--name", "mood"]
    assert json.loads(panda("evaluate", mood, *named, "--json")) == found
    assert json.loads(panda("evaluate", mood, "--test", "held-out.jsonl", "--json")) == found
    # The same rows as a table of other columns: what differs is said, the rest comes from the card.
    with (tmp_path / "held-out.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["body", "right"])
        for line in (tmp_path / "held-out.jsonl").read_text().splitlines():
            writer.writerow(json.loads(line).values())
    for mistake in found["mistakes"]:
        mistake["place"] += 1  # the table's first line is its header
    assert json.loads(panda("evaluate", mood, "held-out.csv", "--label", "right", "--json")) == found


def test_the_terminal_shows_classes_confusions_calibration_coverage_and_mistakes(panda, mood, tmp_path):
    labels = ["good", "bad"]
    rows = [{"body": f"{HOSTILE[n % 5]} w{n}", "verdict": labels[n % 2]} for n in range(30)]
    write_jsonl(tmp_path / "hostile.jsonl", rows)
    shown = panda("evaluate", mood, "hostile.jsonl")
    for what in ("on 30 test examples of mood", "By class", "Confusions", "Calibration", "answered", "Wrong and most"):
        assert what in shown
    assert "\x1b" not in shown
    assert "\u202e" not in shown


def test_the_page_is_whole_escaped_and_never_replaced_unasked(panda, mood, tmp_path):
    labels = ["good", "bad"]
    rows = [{"body": f"{HOSTILE[n % 5]} w{n}", "verdict": labels[n % 2]} for n in range(30)]
    write_jsonl(tmp_path / "hostile.jsonl", rows)
    assert "out.html" in panda("evaluate", mood, "hostile.jsonl", "--report", "out.html")
    text = (tmp_path / "out.html").read_text(encoding="utf-8")
    page = Page(text)  # tags are balanced, and no attribute holds code
    assert page.tags["script"] == 1
    assert "b" not in page.tags
    assert len(page.ids) == len(set(page.ids))
    assert all(link.startswith("#") for link in page.links)
    assert "default-src 'none'" in text
    assert "<script>alert" not in text
    assert "<script>alert(1)</script>" in " ".join(page.words)
    assert "49" not in " ".join(page.words).split()
    assert "\x1b" not in text
    assert "\u202e" not in text
    sentence = panda("evaluate", mood, "hostile.jsonl", "--report", "out.html", code=2)
    assert "already exists; say --force" in sentence
    assert (tmp_path / "out.html").read_text(encoding="utf-8") == text
    panda("evaluate", mood, "held-out.jsonl", "--report", "out.html", "--force")
    assert "40" in (tmp_path / "out.html").read_text(encoding="utf-8")
    assert [path.name for path in tmp_path.glob(".out*")] == []


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_what_is_wrong_is_in_sight_on_every_screen(panda, tmp_path):
    names = {"good": "equivalent", "bad": "not_equivalent"}
    rows = [{"text": row["text"], "label": names[row["label"]]} for row in sentiment_rows(40)]
    write_jsonl(tmp_path / "pairs.jsonl", rows)
    panda("train", "--train", "pairs.jsonl", "--text", "text", "--label", "label", *FAST)
    write_jsonl(tmp_path / "tested.jsonl", [{"text": row["text"], "label": "not_equivalent"} for row in rows])
    panda("evaluate", "pairs", "tested.jsonl", "--report", "page.html")
    browser = Browser(tmp_path / "profile")
    try:
        for width in (1280, 390):
            browser.size(width)
            browser.go(f"file://{tmp_path}/page.html")
            cells = "[...document.querySelectorAll('#mistakes tbody > tr > *')]"
            assert browser.run(f"{cells}.length") > 5
            assert browser.run(f"Math.max(...{cells}.map(one => one.getBoundingClientRect().right))") <= width
        first = "[...document.querySelector('#mistakes tbody > tr').children].slice(0, 4)"
        edges = browser.run(f"{first}.flatMap(one => (box => [box.left, box.right])(one.getBoundingClientRect()))")
        assert edges == sorted(edges), "no cell runs into the next"
        browser.size(1280)
        lines = (
            "(one => { const range = document.createRange(); range.selectNodeContents(one); "
            "return range.getClientRects().length; })(document.querySelector('#mistakes tbody td'))"
        )
        assert browser.texts("#mistakes tbody td")[0] == "not_equivalent"
        assert browser.run(lines) == 1, "a name that fits is not broken"
    finally:
        browser.close()


def test_a_prompt_is_compared_with_another_also_of_another_model(panda, mood, tmp_path):
    flipped = [json.loads(line) for line in (tmp_path / "mood.jsonl").read_text().splitlines()]
    for row in flipped:
        row["verdict"] = {"good": "bad", "bad": "good"}[row["verdict"]]
    write_jsonl(tmp_path / "flipped.jsonl", flipped)
    columns = ["--text", "body", "--label", "verdict", "--json"]
    long = ["--epochs", "30", "--max-length", "24", "--prompt-length", "4"]
    good = json.loads(panda("train", "--train", "mood.jsonl", *long, *columns))["prompts"][0]
    bad = json.loads(panda("train", "--train", "flipped.jsonl", *long, *columns, family="electra"))["prompts"][0]
    found = json.loads(panda("evaluate", good, "held-out.jsonl", "--compare", bad, "--json"))
    compared = found["comparison"]
    assert compared["difference"] == pytest.approx(found["score"] - compared["other_score"])
    assert compared["low"] <= compared["difference"] <= compared["high"]
    assert compared["verdict"] == "better"
    alone = json.loads(panda("evaluate", bad, "held-out.jsonl", "--json"))
    assert alone["score"] == compared["other_score"]
    assert "is better; difference" in panda("evaluate", good, "held-out.jsonl", "--compare", bad)
    assert "names" in panda("evaluate", good, "held-out.jsonl", "--compare", good, code=2)


def test_rows_that_the_prompt_was_trained_on_are_told(panda, mood):
    assert any(
        "60 of 60 examples" in note for note in json.loads(panda("evaluate", mood, "mood.jsonl", "--json"))["notes"]
    )
    assert json.loads(panda("evaluate", mood, "held-out.jsonl", "--json"))["notes"] == []


def test_a_card_without_a_temperature_gets_one_from_its_training_file(panda, mood, tmp_path):
    path = next((tmp_path / "bank").glob("mood-*")) / "card.json"
    content = json.loads(path.read_text())
    kept = content.pop("temperature")
    path.write_text(json.dumps(content))
    found = json.loads(panda("evaluate", mood, "held-out.jsonl", "--json"))
    assert found["calibration"]["temperature"] == pytest.approx(kept, abs=2e-4)
    assert json.loads(path.read_text())["temperature"] == found["calibration"]["temperature"]
    (tmp_path / "mood.jsonl").unlink()
    content["temperature"] = None
    path.write_text(json.dumps(content))
    without = json.loads(panda("evaluate", mood, "held-out.jsonl", "--json"))
    assert without["calibration"]["temperature"] is None
    assert without["calibration"]["ece_scaled"] is None
    assert "no held-out validation data" in panda("evaluate", mood, "held-out.jsonl", "--report", "page.html")


def test_predictions_are_calibrated_by_the_card(panda, mood, tmp_path, tiny_folder):
    path = next((tmp_path / "bank").glob("mood-*")) / "card.json"
    content = json.loads(path.read_text()) | {"temperature": 4.0}
    path.write_text(json.dumps(content))
    plain, scaled = (
        [json.loads(line) for line in panda("predict", mood, "held-out.jsonl", *more).splitlines()]
        for more in ((), ("--calibrated",))
    )
    for one, other in zip(plain, scaled, strict=True):
        assert one["label"] == other["label"]
        sure, less = (math.log(row["probabilities"]["good"] / row["probabilities"]["bad"]) for row in (one, other))
        assert less == pytest.approx(sure / 4, rel=1e-3, abs=1e-5)
    panda("predict", mood, "held-out.jsonl", "--output", "plain.csv")
    panda("predict", mood, "held-out.jsonl", "--calibrated", "--output", "scaled.csv")
    plain_file, scaled_file = ((tmp_path / name).read_text() for name in ("plain.csv", "scaled.csv"))
    assert plain_file.count("\n") == scaled_file.count("\n") == 41
    assert plain_file != scaled_file
    path.write_text(json.dumps(content | {"temperature": None}))
    assert "no temperature" in panda("predict", mood, "held-out.jsonl", "--calibrated", code=2)


def test_values_and_tags_from_a_file_alone(panda, tmp_path):
    write_jsonl(tmp_path / "stars.jsonl", value_rows(40))
    write_jsonl(tmp_path / "stars-test.jsonl", value_rows(20, 9))
    panda("train", "--train", "stars.jsonl", "--kind", "regression", "--text", "text", "--label", "label", *FAST)
    found = json.loads(panda("evaluate", "stars", "stars-test.jsonl", "--json", "--report", "stars.html"))
    assert set(found["metrics"]) == {"pearson_spearman", "mean_absolute_error", "rmse"}
    assert len(found["values"]["labels"]) == 20
    assert "Farthest off" in panda("evaluate", "stars", "stars-test.jsonl")
    page = (tmp_path / "stars.html").read_text()
    assert "Predicted and right values" in page
    assert "Values that are wrong in the data show here first" in page, "and nothing of classes, where there are none"

    write_jsonl(tmp_path / "words.jsonl", word_rows(40))
    tags = ["--kind", "token_classification", "--text", "tokens", "--label", "tags"]
    panda("train", "--train", "words.jsonl", *tags, "--epochs", "30", "--max-length", "24", "--prompt-length", "4")
    lines = "\n\n".join("good B-UP\nw1 O\nbad B-DOWN\nphone O" for _ in range(3)) + "\n"
    (tmp_path / "words-test.conll").write_text(lines)
    found = json.loads(panda("evaluate", "words", "words-test.conll", "--json", "--report", "words.html"))
    assert set(found["per_class"]) == {"UP", "DOWN"}
    assert found["confusion"]["labels"][-1] == "O"
    assert found["n_test"] == 3


def test_what_cannot_be_is_one_sentence(panda, mood, tmp_path):
    assert "nothing.csv" in panda("evaluate", mood, "nothing.csv", code=2)
    assert "no field 'body'" in panda("evaluate", mood, str(write_jsonl(tmp_path / "o.jsonl", [{"x": 1}])), code=2)
    assert "is a folder" in panda("evaluate", mood, "held-out.jsonl", "--report", str(tmp_path), code=2)
    assert "no folder" in panda("evaluate", mood, "held-out.jsonl", "--report", "not/there.html", code=2)
    assert "Both the task" in panda("evaluate", mood, "held-out.jsonl", "--test", "held-out.jsonl", code=2)
    write_jsonl(tmp_path / "hidden.jsonl", [{"body": "the phone good", "verdict": None}])
    assert "no labelled test data" in panda("evaluate", mood, "hidden.jsonl", code=2)
