"""The pages in a real browser: at two widths, by keyboard alone, and with texts that would like to be markup."""

from __future__ import annotations

import http.client
import json
import shutil

import pytest
from banks import read_card, write_card
from browser import CHROMIUM, Browser
from serving import bank_of_all_kinds, served

HOSTILE = '<img src=x onerror="window.hit=1"></script><script>window.hit=1</script>\'"&{{7*7}}'
WIDTHS = (1280, 390)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")


@pytest.fixture(scope="module")
def server(tmp_path_factory, tiny_backbone):
    """A bank whose cards say hostile things, and hold a prompt that is not served."""
    bank = bank_of_all_kinds(tmp_path_factory.mktemp("pages"), tiny_backbone)
    folder = next(bank.glob("single-classification-*"))
    card = read_card(folder)
    card["labels"] = [HOSTILE, "bad"]
    card["task"] |= {"labels": [HOSTILE, "bad"], "title": HOSTILE, "positive": None}
    card["warnings"] = [HOSTILE]
    card["test"] = {"scores": {"accuracy": 0.9}, "n_test": 123_456, "data_fingerprint": "0"}
    write_card(folder, card)
    broken = bank / "zz-broken-s0-00000000"
    shutil.copytree(folder, broken)
    (broken / "card.json").write_text(json.dumps(card | {"labels": HOSTILE}), encoding="utf-8")
    with served(tiny_backbone, {"team": bank}) as running:
        yield running


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    running = Browser(tmp_path_factory.mktemp("profile"))
    yield running
    running.close()


@pytest.fixture(autouse=True)
def no_complaints(browser):
    """No script failed, nothing was forbidden by the policy, and no hostile text ran."""
    browser.problems.clear()
    browser.size(1280)
    yield
    assert browser.run("window.hit === undefined")
    assert browser.problems == []


def pages(server) -> list[str]:
    first = [f"/prompts/{entry.id}" for entry in server.service.registry.entries()]
    return ["/", "/try", "/try?form=pair", "/try?form=question", "/rank", "/file", "/docs", *first]


def test_no_page_is_wider_than_the_screen(server, browser):
    for width in WIDTHS:
        browser.size(width)
        for path in pages(server):
            browser.go(server.url + path)
            assert browser.run("document.documentElement.scrollWidth") <= width, path
            assert browser.run("document.querySelectorAll('img, script:not([src])').length") == 0, path
            assert browser.run("performance.getEntriesByType('resource').every(one => one.name.startsWith(origin))")


def test_the_table_is_searched_and_sorted(server, browser):
    browser.go(f"{server.url}/")
    shown = "#prompts tbody tr:not([hidden]) th small:first-of-type"
    assert len(browser.texts(shown)) == 8
    browser.focus("#search")
    browser.type("regression TEAM")
    assert [name.split("-s0-")[0] for name in browser.texts(shown)] == ["regression"]
    browser.type(" nothing")
    assert browser.run("document.getElementById('none-found').hidden") is False
    browser.run("document.getElementById('search').value = ''")
    browser.type(" ")
    browser.focus("thead th:nth-child(3) button")
    browser.key("Enter", "\r")
    scores = "[...document.querySelectorAll('#prompts td[data-name=score][data-v]')].map(one => Number(one.dataset.v))"
    assert browser.run(scores) == sorted(browser.run(scores), reverse=True)
    assert browser.texts(".off")[0].startswith("not served: ")


def test_a_card_and_its_curve(server, browser):
    entry = server.service.registry.find("single-classification")
    browser.go(f"{server.url}/prompts/{entry.id}")
    text = browser.run("document.body.innerText")
    assert text.count(HOSTILE) >= 3, "title, label and warning are shown as they are"
    assert "49" not in browser.run("document.title")
    assert browser.run("document.querySelectorAll('svg polyline').length") >= 1
    points = browser.run("document.querySelector('svg polyline').points.numberOfItems")
    assert points == len(entry.card.curve)


def press_until(browser, condition: str, most: int = 60) -> None:
    for _ in range(most):
        if browser.run(condition):
            return
        browser.key("Tab")
    raise AssertionError(condition)


def fill(browser, *texts: str) -> None:
    """Type into the fields, choose all prompts, and ask."""
    for number, text in enumerate(texts, 1):
        browser.focus(f"#field-{number}")
        browser.type(text)
    browser.run("document.querySelectorAll('input[name=prompt]').forEach(one => { one.checked = true; })")
    browser.run("document.querySelector('button.go').click()")


def answers(browser, count: int, selector: str = ".answers .answer") -> None:
    browser.until(f"document.querySelectorAll('{selector}').length === {count}")


@pytest.mark.parametrize("width", WIDTHS)
def test_a_text_is_tried_by_keyboard_alone(server, browser, width):
    browser.size(width)
    browser.go(f"{server.url}/try")
    press_until(browser, "document.activeElement.id === 'field-1'")
    browser.type(f"good w1 {HOSTILE}")
    press_until(browser, "document.activeElement.matches('button.go')")
    browser.key("Enter", "\r")
    answers(browser, 4)
    assert browser.texts(".answers .error") == []
    assert HOSTILE in browser.texts(".share span:first-child"), "a label, as text"
    shares = browser.run("[...document.querySelectorAll('.answers meter')].map(one => one.value)")
    assert shares
    assert all(0 <= share <= 1 for share in shares)
    assert browser.texts(".answers img, .answers script") == []
    assert browser.run("document.documentElement.scrollWidth") <= width


def test_spans_are_marked_where_the_server_found_them(server, browser):
    browser.go(f"{server.url}/try")
    fill(browser, "good w1 <b> bad \u00a0odd\u2028 phone good")
    answers(browser, 4)
    words = browser.run("document.getElementById('field-1').value.split(/\\s+/).filter(Boolean)")
    (expected,) = server.predict("token-classification", texts=[words])[1]["predictions"]
    found = browser.run("[...document.querySelectorAll('.answers mark')].map(one => one.firstChild.textContent)")
    assert found == [span["text"] for span in expected["spans"]]
    assert browser.texts(".answers mark small") == [span["label"] for span in expected["spans"]]


def test_an_answer_is_marked_in_its_context(server, browser):
    context = "w2 \U0001f600 phone good w4 <i>w5</i>"
    browser.go(f"{server.url}/try?form=question")
    fill(browser, "a w1", context)
    answers(browser, 1)
    (expected,) = server.predict("extractive-qa", texts=[["a w1", context]])[1]["predictions"]
    assert browser.texts(".answers mark") == [expected["answer"]]
    assert browser.texts(".answers .context") == [context]


def test_choices_are_typed_one_a_line(server, browser):
    browser.go(f"{server.url}/try?prompt={server.service.registry.find('multiple-choice').id}")
    fill(browser, "the w1", "good w2\nbad <u>\n")
    answers(browser, 2, ".answers .share")
    assert set(browser.texts(".share span:first-child")) == {"good w2", "bad <u>"}


def test_a_refusal_is_said_where_it_was_asked(server, browser):
    browser.go(f"{server.url}/try?form=question")
    fill(browser, "w1 " * 60, "w2")
    answers(browser, 1, ".answers .error")
    assert "leaves no room" in browser.texts(".answers .error")[0]


SAID = "document.querySelector('.error[role=alert]').textContent"


@pytest.mark.parametrize("width", WIDTHS)
def test_pasted_rows_rank_the_bank(server, browser, width):
    browser.size(width)
    browser.go(f"{server.url}/rank")
    lines = [f"the {('good', 'bad')[n % 2]} w{n} w{n + 1} phone\t{('up', '<b>down')[n % 2]}" for n in range(20)]
    browser.focus("#rows")
    browser.type("\n".join(["text\tlabel", *lines]))
    browser.run("document.getElementById('header').click()")
    browser.run("document.querySelector('button.go').click()")
    browser.until(f"document.querySelector('#ranking table') !== null || {SAID}")
    assert browser.run(SAID) == ""
    served_ids = sorted(entry.id for entry in server.service.registry.entries() if entry.served)
    assert sorted(browser.texts("#ranking tbody th")) == served_ids
    (column,) = [at for at, name in enumerate(browser.texts("#ranking thead th"), 1) if "decides" in name]
    values = [float(value) for value in browser.texts(f"#ranking tbody tr > :nth-child({column})")]
    assert values == sorted(values, reverse=True)
    assert browser.run("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize(
    ("rows", "status", "says"),
    [
        ("", 422, "Paste some rows"),
        ("only text", 422, "the first has 1"),
        ("a\tb\nc", 422, "row 2 has 1 cells"),
        ("a,b\n" * 201, 413, "201 rows"),
        ('a,"b', 422, "cannot be read"),
        ("a\tup\nb\tdown", 422, ""),
        ("the phone is good\tup\n" * 30, 422, ""),
    ],
)
def test_pasted_rows_that_cannot_be_ranked(rows, status, says, server, browser):
    found, answer, _ = server.ask("POST", "/page/rank", {"rows": rows})
    assert found == status
    assert says in answer["error"]
    assert "/tmp" not in answer["error"]


DROP = """(() => {
  const data = new DataTransfer();
  data.items.add(new File([TABLE], "my rows.csv", { type: "text/csv" }));
  document.querySelector(".drop").dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true }));
})()"""


def test_a_file_is_dropped_and_comes_back(server, browser):
    browser.go(f"{server.url}/file?prompt={server.service.registry.find('regression').id}")
    table = 'id,text\r\n1,"good, bad ""fine"""\r\n2,\r\n3,<b>good</b>\r\n'
    browser.run(DROP.replace("TABLE", json.dumps(table)))
    browser.run("document.querySelector('button.go').click()")
    browser.until(f"document.querySelector('#result a') !== null || {SAID}")
    assert browser.run(SAID) == ""
    assert browser.run("document.querySelector('#result a').download") == "my rows-predicted.csv"
    assert "1 rows could not be read" in browser.texts("#result")[0]
    assert browser.texts("#result pre")[0].splitlines()[0] == "id,text,prediction,confidence"


def test_the_file_that_comes_back(server, browser):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    table = b'id,text\n1,"good, bad ""fine"""\n2,\n3,<b>good</b>\n'
    connection.request("POST", "/page/file?prompt=regression", table, {"Content-Type": "text/csv"})
    answer = connection.getresponse()
    lines = answer.read().decode().split("\n")
    first, third = server.predict("regression", texts=['good, bad "fine"', "<b>good</b>"])[1]["predictions"]
    assert lines[0] == "id,text,prediction,confidence"
    assert lines[1].startswith('1,"good, bad ""fine""",')
    assert float(lines[1].split(",")[-2]) == pytest.approx(first["value"], abs=2e-5)
    assert lines[2] == "2,,,"
    assert float(lines[3].split(",")[-2]) == pytest.approx(third["value"], abs=2e-5)
    assert answer.headers["X-Unread-Rows"] == "1"
    for body, says in ((b"id,other\n1,a\n", "'text'"), (b"", "no row"), (b"id,text\n", "no row")):
        connection.request("POST", "/page/file?prompt=regression", body, {"Content-Type": "text/csv"})
        answer = connection.getresponse()
        error = json.loads(answer.read())["error"]
        assert (answer.status, says in error) == (422, True), error
        assert "/tmp" not in error
