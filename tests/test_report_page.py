"""The page, its tables in Markdown and LaTeX, and the command."""

from __future__ import annotations

import datetime
import functools
import http.server
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from report_rows import changed, made_row, made_study
from sweeps import Study as Sweep
from typer.testing import CliRunner

from promptpanda.cli.main import app
from promptpanda.errors import PandaError
from promptpanda.report.colours import INK, contrast, gain_colour, level_colour
from promptpanda.report.page import Report
from promptpanda.report.report import Facts, make_report
from promptpanda.report.tables import Cell, Table, latex, markdown, points, signed
from promptpanda.sweep.exchange import export_rows
from promptpanda.sweep.row import Row
from promptpanda.sweep.store import Store

FACTS = Facts(
    "A study",
    command="panda sweep study.yaml --seeds <1>",
    recipe="name: study\n",
    made=datetime.datetime(2026, 11, 23, 12, 0, tzinfo=datetime.UTC),
)
VOID = {"meta", "br", "img", "link", "input", "hr"}
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Page(HTMLParser):
    """Checks that tags are balanced, and collects ids, links, tags and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: dict[str, int] = {}
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] = self.tags.get(tag, 0) + 1
        for name, value in attrs:
            assert not name.startswith("on"), "no code in attributes"
            if name == "id":
                self.ids.append(value or "")
            if name in ("href", "src", "xlink:href", "srcset", "action"):
                self.links.append(value or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@functools.cache
def small_report() -> Report:
    rows, answers = made_study(
        targets=("cr", "rte", "stsb"), sources=("sst2", "mrpc", "trec", "conll03"), seeds=(0, 1), n_test=50
    )
    return make_report(rows, answers, FACTS)


def test_the_page_is_whole_and_asks_for_nothing() -> None:
    text = small_report().html()
    page = Page(text)
    assert len(page.ids) == len(set(page.ids)), "ids occur once"
    assert page.links, "there is a table of contents"
    for link in page.links:
        assert link.startswith("#")
        assert link[1:] in page.ids
    assert "@import" not in text
    assert re.findall(r"url\((?!#)", text) == []
    assert "default-src 'none'" in text
    for tag in ("header", "nav", "main", "h1", "table", "thead", "tbody", "tfoot", "figcaption", "svg"):
        assert page.tags.get(tag, 0) > 0
    assert page.tags["script"] == 1
    assert page.tags["figure"] == page.tags["figcaption"]


def test_the_page_says_where_it_comes_from() -> None:
    words = " ".join(Page(small_report().html()).words)
    for what in ("panda sweep study.yaml --seeds <1>", "name: study", "2.13.0", "2026-11-23 12:00 UTC"):
        assert what in words
    assert "Training rte-s0-1234abcd stopped" in words
    assert "shares texts" in small_report().html()
    rows, _ = made_study(targets=("cr",), sources=("sst2",), models=("bert-tiny",), seeds=(0,), n_test=20)
    for fingerprint in (rows[0].backbone_fingerprint, rows[0].data_fingerprint):
        assert fingerprint in words


def test_equal_rows_give_equal_reports() -> None:
    rows, answers = made_study(
        targets=("cr",), sources=("sst2", "trec"), models=("bert-tiny",), seeds=(0, 1), n_test=30
    )
    one = make_report(rows, answers, FACTS)
    other = make_report(reversed(rows), answers, FACTS)
    assert one.html() == other.html()
    assert (one.markdown(), one.latex()) == (other.markdown(), other.latex())


NASTY = ("<script>alert(1)</script>", "</style><b>", 'a"onmouseover="x', "$x^2$ & 50 % | {y}_\\input", "{{ 7 * 7 }}")


def renamed(rows: list[Row]) -> list[Row]:
    names = {"cr": NASTY[0], "sst2": NASTY[1], "trec": NASTY[2], "mrpc": NASTY[3], "conll03": NASTY[4]}

    def rename(row: Row) -> Row:
        return row.model_copy(
            update={
                "task": names.get(row.task, row.task),
                "source": names.get(row.source or "", row.source),
                "model": NASTY[0],
                "environment": {NASTY[0]: NASTY[3]},
                "estimates": row.estimates and {f"{NASTY[2]}{name}": value for name, value in row.estimates.items()},
            }
        )

    failed = made_row("pot", task=NASTY[0], source=NASTY[1], status="failed", reason=f"It said {NASTY[0]}.")
    return [*map(rename, rows), failed, changed(rows[-1], method=NASTY[1], variant=NASTY[0], kind="target")]


@functools.cache
def nasty_report() -> Report:
    sources = ("sst2", "trec", "mrpc", "conll03")
    rows, answers = made_study(("cr", "rte"), sources, models=("bert-tiny",), seeds=(0, 1), n_test=30)
    return make_report(renamed(rows), answers, Facts(NASTY[0], command=NASTY[1], recipe=NASTY[3]))


def test_text_from_data_is_escaped_everywhere() -> None:
    page = Page(nasty_report().html())
    assert page.tags["script"] == 1
    assert page.tags["style"] == 1
    assert "b" not in page.tags
    words = " ".join(page.words)
    for name in NASTY:
        assert name in words
    assert "<script" not in nasty_report().markdown()
    assert "\\input" not in nasty_report().latex().split("\n", 1)[1]
    assert "\\$x\\textasciicircum{}2\\$ \\& 50 \\% \\textbar{}" in nasty_report().latex()


def test_numbers_as_text() -> None:
    assert [points(value) for value in (81.25, -3.0, -0.04, 0.0)] == ["81.2", "\u22123.0", "0.0", "0.0"]
    assert [signed(value) for value in (1.26, -3.0, -0.04, 0.0)] == ["+1.3", "\u22123.0", "0.0", "0.0"]


def small_table() -> Table:
    return Table(
        "t-1",
        "Scores",
        "",
        "Two | columns.",
        ("target", "a_b"),
        ((Cell("x|y"), Cell("81.2", "\u00b1 0.4", 81.2, mark="best")), (Cell("z"), Cell("\u22121.0", mark="shared"))),
        ((Cell("mean"), Cell("[40.1]")),),
        ("50 % & more.",),
    )


def test_markdown() -> None:
    assert markdown(small_table()) == (
        "### Scores\n\nTwo \\| columns.\n\n| target | a\\_b |\n|---|---:|\n| x\\|y | **81.2** \u00b1 0.4 |\n"
        "| z | \u22121.0\u2020 |\n| mean | \\[40.1\\] |\n\n50 % &amp; more.\n"
    )


def test_latex() -> None:
    text = latex(small_table())
    assert "x\\textbar{}y & \\textbf{81.2} {\\footnotesize $\\pm$ 0.4} \\\\" in text
    assert "z & $-$1.0$\\dagger$ \\\\" in text
    assert "\\midrule\nmean & {[}40.1{]} \\\\\n\\bottomrule" in text
    assert "\\caption{\\textbf{Scores.} Two \\textbar{} columns. 50 \\% \\& more.}" in text


def test_what_auto_chose_is_read_from_the_left() -> None:
    rows, answers = made_study(targets=("cr",), sources=("sst2",), models=("bert-tiny",), seeds=(0,), n_test=20)
    tuned = next(row for row in rows if row.kind == "target" and row.method == "prompt_tuning")
    selection = {
        "survivors": [{"prompt": "sst2-s0-12345678", "task": "sst2", "estimate": 0.3}],
        "winner": "sst2-s0-12345678",
        "chosen": "pot",
        "gain_over_prompt_tuning": {"mean": 0.1, "low": -0.1, "high": 0.3, "distinguishable": False},
        "cost": 4.5,
    }
    report = make_report([*rows, changed(tuned, key="auto", method="auto", selection=selection)], answers, FACTS)
    table = report.markdown().split("### What auto chose", 1)[1]
    assert "|---|---|---|---:|---:|\n| cr | PoT | sst2 | 0 of 1 | 4.50 |\n" in table
    page = report.html()
    assert '<th scope="col" class="words">race won by</th>' in page
    assert '<td class="words">sst2</td>' in page
    assert "\\begin{tabular}{lllrr}" in report.latex()


def test_controls_have_a_table_of_their_own() -> None:
    """Against prompt tuning, and from the sources that they were run from alone."""
    made = {"targets": ("cr", "cb"), "sources": ("sst2", "trec"), "models": ("bert-tiny",), "seeds": (0, 1)}
    rows, answers = made_study(**made, n_test=40)
    heard = [changed(row, variant="kl") for row in rows if row.method == "panda" and row.source == "sst2"]
    text = make_report([*rows, *heard], answers, FACTS).markdown()
    table = text.split("### Controls", 1)[1].split("###")[0]
    names = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| ")]
    assert names == ["method", "PoT", "PANDA", "PANDA (kl)", "head only"]
    assert table.splitlines()[4] == "| method | cb | cr | mean of 2 |"
    lines = {line.split("|")[1].strip(): line for line in table.splitlines() if line.startswith("| ")}
    assert lines["PANDA (kl)"].replace("PANDA (kl)", "PANDA") == lines["PANDA"], "the same runs under two names"
    tested = {(row.method, row.source, row.task, row.seed): 100 * row.test[row.metric] for row in rows if row.test}
    gain = np.mean([tested["panda", "sst2", "cr", s] - tested["prompt_tuning", None, "cr", s] for s in (0, 1)])
    assert lines["PANDA"].split("|")[3].strip().startswith(signed(gain))
    assert "From sst2:" in table
    scores = text.split("### Scores", 1)[1].split("### ")[0]
    assert "kl" not in scores, "main tables show methods as they are"
    assert "### Controls" not in make_report(rows, answers, FACTS).markdown()


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex on this machine")
@pytest.mark.parametrize("report", [small_report, nasty_report])
def test_latex_compiles(tmp_path: Path, report: Callable[[], Report]) -> None:
    (tmp_path / "tables.tex").write_text(report().latex(), encoding="utf-8")
    document = "\\documentclass{article}\\usepackage{booktabs,graphicx}\\begin{document}\\input{tables}\\end{document}"
    (tmp_path / "main.tex").write_text(document)
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "main"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=1000, check=False)
    assert done.returncode == 0, done.stdout[-2000:]


def test_every_colour_can_be_read_on() -> None:
    for step in range(41):
        place = step / 40
        assert contrast(gain_colour(2 * place - 1, 1.0), INK) >= 4.5
        assert contrast(level_colour(place, 0.0, 1.0), INK) >= 4.5
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    middle = gain_colour(0.0, 5.0)
    assert contrast(middle, "#ffffff") < 1.2, "no gain has no colour"
    assert gain_colour(9.0, 5.0) == gain_colour(5.0, 5.0) != gain_colour(-5.0, 5.0)


def test_writing_replaces_whole_files_and_leaves_no_others(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "report"
    for _ in range(2):
        page = small_report().write(folder)
    assert page == folder / "report.html"
    assert sorted(path.name for path in folder.iterdir()) == ["report.html", "tables.md", "tables.tex"]
    (tmp_path / "file").write_text("x")
    with pytest.raises(PandaError, match="choose another place with --out"):
        small_report().write(tmp_path / "file")


def test_a_report_needs_a_finished_run() -> None:
    with pytest.raises(PandaError, match="found none and 1 that failed"):
        make_report([made_row(status="failed", reason="It broke.")], [], FACTS)


def test_little_is_enough() -> None:
    """One run; only estimates; only sources: what is missing is left out."""
    tuned = made_row(test={"accuracy": 0.7}, validation={"accuracy": 0.7})
    estimate = made_row(None, kind="estimates", source="sst2", metric=None, estimates={"cosine": 0.3})
    source = made_row(kind="source", task="sst2", validation={"accuracy": 0.9})
    pot = made_row("pot", source="sst2", test={"accuracy": 0.6})
    for rows in ([tuned], [estimate], [source], [pot], [tuned, estimate], [tuned, pot, estimate, source]):
        report = make_report(rows, [], FACTS)
        Page(report.html())
        report.markdown()
        report.latex()


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Callable[[str], Path]) -> Path:
    """The folder of a real sweep."""
    study = Sweep(tmp_path_factory.mktemp("sweep"), tiny_folder("bert"))
    study.run(recipe=study.recipe(seeds=[0, 1]), command="panda sweep study.yaml")
    return study.folder / "out"


def test_the_report_of_a_real_sweep(swept: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["report", str(swept), "--json"])
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    page = swept / "report" / "report.html"
    assert printed["report"] == str(page)
    assert (printed["finished"], printed["failed"]) == (16, 0)
    words = " ".join(Page(page.read_text(encoding="utf-8")).words)
    for what in ("panda sweep study.yaml", "tiny-bert", "mood", "books", "PANDA, best source", "No run failed."):
        assert what in words
    # Stored predictions give the stored scores, so that intervals are over test rows and seeds.
    assert "test rows and seeds are drawn again" in words
    with Store.open(swept) as store:
        rows, answers = store.rows(), store.answers()
    scores = [row.test for row in rows if row.method == "prompt_tuning" and row.kind == "target"]
    mean = 100 * sum(score["accuracy"] for score in scores if score is not None) / len(scores)
    assert f"| mood | {points(mean)}" in (swept / "report" / "tables.md").read_text().replace("**", "")

    exported = tmp_path / "rows.parquet"
    export_rows(rows, answers, exported)
    result = CliRunner().invoke(
        app, ["report", str(exported), "--out", str(tmp_path / "there"), "--shared", "mood,books"]
    )
    assert result.exit_code == 0, result.output
    assert "there/report.html: 16 finished runs, 0 failed" in result.stdout.replace("\n", "")
    again = (tmp_path / "there" / "report.html").read_text(encoding="utf-8")
    assert "shares texts" in again
    assert "<h1>rows</h1>" in again


def test_what_the_user_can_mend(swept: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no store " * 1000)
    for arguments, words in (
        ([str(tmp_path / "none")], "No store at"),
        ([str(tmp_path / "file")], "damaged or no store"),
        ([str(tmp_path / "rows.csv")], "No file"),
        ([str(swept), "--out", str(tmp_path / "file")], "is a file, and a report needs a folder"),
        ([str(swept), "--reference", str(tmp_path / "none.json")], "No reference at"),
        ([str(swept), "--reference", str(tmp_path / "file")], "is not valid JSON"),
        ([str(swept), "--shared", "mood"], "--shared takes two names"),
    ):
        result = CliRunner().invoke(app, ["report", *arguments])
        assert result.exit_code == 2, (arguments, result.output)
        assert words in " ".join(result.stderr.split())
        assert result.stderr.count("\n") == 1


PROBE = """
<!DOCTYPE html><meta charset="utf-8"><title>probe</title>
<iframe id="page" src="report.html" style="border:0;width:WIDTHpx;height:2000px"></iframe>
<pre id="out">nothing</pre>
<script>
document.getElementById("page").addEventListener("load", (event) => {
  const page = event.target.contentDocument, view = event.target.contentWindow;
  page.querySelectorAll("details").forEach((one) => { one.open = true; });
  const table = page.querySelector("#g1-scores table");
  const column = () => Array.from(table.tBodies[0].rows, (row) => row.cells[1].dataset.v);
  const before = column();
  const button = table.tHead.rows[0].cells[1].querySelector("button");
  button.click(); const down = column();
  button.click(); const up = column();
  button.click(); const after = column();
  document.getElementById("out").textContent = JSON.stringify({
    width: page.documentElement.scrollWidth, asked: view.innerWidth, before, down, up, after,
    foot: table.tFoot.rows[0].cells[0].textContent,
    first: page.querySelector("#glance-forest svg").getBoundingClientRect().top,
    cut: Array.from(page.querySelectorAll("#glance .scroll, [id^=g1-] .scroll, #estimators .scroll"),
      (one) => one.scrollWidth - one.clientWidth).filter((more) => more > 0),
    requests: view.performance.getEntriesByType("resource").map((one) => one.name),
    panels: Array.from(page.querySelectorAll("svg"), (one) => one.getBoundingClientRect().height).filter((h) => h < 50),
  });
});
</script>
"""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The report under an address of its own, with a page beside it that looks into it."""
    small_report().write(tmp_path)
    for width in (1280, 390):
        (tmp_path / f"probe-{width}.html").write_text(PROBE.replace("WIDTH", str(width)), encoding="utf-8")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
@pytest.mark.parametrize("width", [1280, 390])
def test_in_a_browser(served: str, tmp_path: Path, width: int) -> None:
    """No wider than the screen, tables sort and come back, nothing else is loaded."""
    assert CHROMIUM is not None
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width + 40},2200"]
    command += ["--virtual-time-budget=20000", "--dump-dom", f"{served}/probe-{width}.html"]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=1000, check=True).stdout
    match = re.search(r'<pre id="out">(\{.*?)</pre>', dom, re.DOTALL)
    assert match is not None, dom[-2000:]
    found = json.loads(match.group(1))
    assert found["asked"] == width
    assert found["width"] <= width
    assert found["first"] < {1280: 900, 390: 844}[width] - 60, "the first figure begins on the first screen"
    if width == 1280:
        assert found["cut"] == [], "no column of a table is out of sight"
    values = [float(value) for value in found["before"]]
    assert [float(value) for value in found["down"]] == sorted(values, reverse=True)
    assert [float(value) for value in found["up"]] == sorted(values)
    assert found["after"] == found["before"]
    assert found["foot"].startswith("mean of")
    assert found["requests"] == []
    assert found["panels"] == []
