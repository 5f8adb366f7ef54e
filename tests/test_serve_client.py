"""The client, and the lines of Python in docs/serving.md, against a real server."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from serving import bank_of_all_kinds, served

from promptpanda.errors import PandaError
from promptpanda.serving.client import Client
from promptpanda.serving.limits import Limits

TOKEN = "a-token-of-a-test-0123456789"
DOCS = Path(__file__).parents[1] / "docs" / "serving.md"


@pytest.fixture(scope="module")
def server(tmp_path_factory, tiny_backbone):
    bank = bank_of_all_kinds(tmp_path_factory.mktemp("client"), tiny_backbone)
    with served(tiny_backbone, {"team": bank}, token=TOKEN, limits=Limits(queue=300)) as running:
        yield running


@pytest.fixture
def client(server):
    return Client(server.url, TOKEN)


def test_the_ten_lines_of_the_docs(server, capsys, client):
    short, long = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert len([line for line in short.splitlines() if line.strip()]) <= 10
    names: dict = {}
    exec(short, names)
    (found,) = names["predict"]("single-classification", ["the phone good"], server.url, TOKEN)
    assert found["confidence"] == pytest.approx(max(found["probabilities"].values()))
    here = long.replace("http://127.0.0.1:8000", server.url).replace("token=None", f"token={TOKEN!r}")
    exec(here.replace('"reviews"', '"single-classification"'), {})
    assert [line.split()[0] in ("good", "bad") for line in capsys.readouterr().out.splitlines()] == [True, True]


def test_many_rows_are_sent_in_parts(client, server):
    texts = [f"good w{number % 50}" for number in range(450)]
    found = list(client.predict("regression", texts=texts))
    assert len(found) == 450
    assert found[7]["value"] == pytest.approx(next(client.predict("regression", texts=[texts[7]]))["value"], abs=1e-5)
    assert list(client.predict("regression", texts=[])) == []


def test_rows_probabilities_and_prompts(client):
    row = {"premise": "the w1", "choices": ["good w2", "bad w3"]}
    (found,) = client.predict("multiple-choice", rows=[row], probabilities=True)
    assert found["probabilities"].keys() == set(row["choices"])
    (found,) = client.predict("multiple-choice", rows=[row], top=1)
    assert len(found["probabilities"]) == 1
    listed = client.prompts()
    assert client.prompt(listed[0]["id"])["card"]["id"] == listed[0]["id"]


def test_refusals_are_one_sentence(client, server):
    for asked, says in (
        (lambda: list(client.predict("nothing", texts=["a"])), "No prompt 'nothing'"),
        (lambda: list(client.predict("regression", texts=[""])), "empty"),
        (lambda: list(Client(server.url, "wrong").predict("regression", texts=["a"])), "token"),
        (lambda: client.prompt("../x"), "."),
        (lambda: list(Client("http://127.0.0.1:9").predict("regression", texts=["a"])), "cannot be reached"),
        (lambda: Client("127.0.0.1:8000"), "not the address"),
        (lambda: Client("file:///etc/passwd"), "not the address"),
    ):
        with pytest.raises(PandaError) as refused:
            asked()
        assert says in str(refused.value)
        assert "\n" not in str(refused.value)
