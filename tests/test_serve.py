"""Answers of the server: equal to those of `predict` whatever shares the batch, and prompts that come and go."""

from __future__ import annotations

import json
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import CONFIGS, save_tiny
from kinds import KINDS, ROWS, kind_task
from serving import OPTIONS, Served, bank_of_all_kinds, served

from promptpanda.backbone import Backbone
from promptpanda.bank.bank import Bank
from promptpanda.bank.card import Card, SourceCard
from promptpanda.serving.model import Model
from promptpanda.serving.summaries import ancestry, card_of, summary
from promptpanda.tasks.unlabeled import read_inputs
from promptpanda.transfers.predict import predict
from promptpanda.transfers.transfer import train


@pytest.fixture(scope="module")
def bank(tmp_path_factory, tiny_backbone):
    return bank_of_all_kinds(tmp_path_factory.mktemp("served"), tiny_backbone)


@pytest.fixture(scope="module")
def server(bank, tiny_backbone):
    with served(tiny_backbone, {"team": bank}) as running:
        yield running


def name_of(kind: str) -> str:
    return kind.replace("_", "-")


def folder_of(bank: Path, kind: str) -> Path:
    return next(bank.glob(f"{name_of(kind)}-s0-*"))


def offline(bank: Path, backbone: Backbone, kind: str, rows: list[dict]) -> list[dict]:
    """What `predict` says of rows, one at a time: nothing shares their batches."""
    folder = folder_of(bank, kind)
    inputs = read_inputs(Card.read(folder).task, rows, "a test")
    return [predict(folder, backbone, [one])[0] for one in inputs]


def same(found: dict, expected: dict) -> bool:
    """Whether two predictions are equal: words exactly, numbers within 1e-5."""
    if isinstance(expected, dict):
        return expected.keys() <= found.keys() and all(same(found[key], value) for key, value in expected.items())
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(same, found, expected))
    return abs(found - expected) < 1e-5 if isinstance(expected, float) else found == expected


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_is_that_of_predict(kind, server, bank, tiny_backbone):
    rows = ROWS[kind](6, 3)
    status, answer = server.predict(name_of(kind), rows=rows, probabilities=True)
    assert status == 200
    assert answer["prompt"] == folder_of(bank, kind).name
    expected = offline(bank, tiny_backbone, kind, rows)
    assert len(answer["predictions"]) == 6
    assert all(map(same, answer["predictions"], expected))


def test_whatever_shares_the_batch(server, bank, tiny_backbone):
    """Many clients with all kinds at once: every answer is the one that its rows have alone."""
    asked = [(kind, ROWS[kind](1 + number % 5, 50 + number)) for number in range(10) for kind in KINDS]
    expected = [offline(bank, tiny_backbone, kind, rows) for kind, rows in asked]
    with ThreadPoolExecutor(24) as clients:
        answers = list(clients.map(lambda one: server.predict(name_of(one[0]), rows=one[1], probabilities=True), asked))
    for (status, answer), predictions in zip(answers, expected, strict=True):
        assert status == 200
        assert all(map(same, answer["predictions"], predictions))
    metrics = server.ask("GET", "/metrics")[1]["text"]
    counts = {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in metrics.splitlines() if line[0] != "#"}
    assert counts["panda_batch_prompts_sum"] > counts["panda_batch_prompts_count"], "prompts were mixed"
    assert counts["panda_queue_rows"] == 0


@pytest.mark.parametrize(
    ("kind", "text", "row"),
    [
        ("single_classification", "the phone good", {"text": "the phone good"}),
        ("pair_classification", ["the phone", "good"], {"first": "the phone", "second": "good"}),
        ("regression", "good bad fine", {"text": "good bad fine"}),
        ("token_classification", ["good", "w1"], {"tokens": ["good", "w1"]}),
        ("token_classification", "good w1", {"tokens": ["good", "w1"]}),
        ("extractive_qa", ["a w1", "w1 phone good"], {"question": "a w1", "context": "w1 phone good"}),
    ],
)
def test_texts_are_rows_in_short(kind, text, row, server):
    texts, rows = server.predict(name_of(kind), texts=[text]), server.predict(name_of(kind), rows=[row])
    assert texts[0] == 200
    assert same(texts[1], rows[1])


def test_what_is_asked_for_of_probabilities(server):
    plain = server.predict("single-classification", texts=["good"])[1]["predictions"][0]
    assert plain.keys() == {"label", "confidence"}
    full = server.predict("single-classification", texts=["good"], probabilities=True)[1]["predictions"][0]
    assert full["probabilities"][full["label"]] == max(full["probabilities"].values())
    assert full["confidence"] == pytest.approx(full["probabilities"][full["label"]], abs=1e-6)
    assert sum(full["probabilities"].values()) == pytest.approx(1)
    one = server.predict("single-classification", texts=["good"], top=1)[1]["predictions"][0]
    assert list(one["probabilities"]) == [one["label"]]
    row = {"question": "a w1", "context": "w1 phone good w4"}
    assert "nbest" not in server.predict("extractive-qa", rows=[row])[1]["predictions"][0]
    assert len(server.predict("extractive-qa", rows=[row], top=2)[1]["predictions"][0]["nbest"]) == 2


def test_a_prompt_and_the_list(server, bank):
    listed = server.ask("GET", "/v1/prompts")[1]["prompts"]
    assert [one["id"] for one in listed] == sorted(path.name for path in bank.iterdir())
    assert all(one["served"] and one["bank"] == "team" for one in listed)
    shown = server.ask("GET", f"/v1/prompts/{listed[0]['id']}")[1]
    assert shown["card"]["validation"] == Card.read(bank / listed[0]["id"]).validation
    assert shown["ancestry"] == []
    everything = json.dumps([listed, [server.ask("GET", f"/v1/prompts/{one['id']}")[1] for one in listed]])
    assert str(bank.parent) not in everything
    assert "/" not in shown["card"]["backbone"]["name"]


def test_openapi_tells_the_routes(server):
    status, api, _ = server.ask("GET", "/openapi.json")
    assert status == 200
    assert {"/v1/predict", "/v1/prompts", "/v1/prompts/{prompt_id}", "/healthz", "/readyz", "/metrics"} == set(
        api["paths"]
    )
    assert {"400", "401", "404", "413", "422", "429", "503"} <= set(api["paths"]["/v1/predict"]["post"]["responses"])


def eventually(condition, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture
def own(bank, tmp_path, tiny_backbone):
    """A bank of the test's own, with a server over it."""
    copy = tmp_path / "bank"
    copy.mkdir()
    shutil.copytree(folder_of(bank, "regression"), copy / folder_of(bank, "regression").name)
    with served(tiny_backbone, {"bank": copy}) as running:
        yield running, copy


def test_prompts_come_and_go(own, bank):
    server, copy = own
    new = folder_of(bank, "single_classification")
    assert server.predict("single-classification", texts=["good"])[0] == 404
    shutil.copytree(new, copy / new.name)
    eventually(lambda: server.predict("single-classification", texts=["good"])[0] == 200)
    shutil.rmtree(copy / new.name)
    eventually(lambda: server.predict("single-classification", texts=["good"])[0] == 404)
    assert any(new.name in sentence and "served" in sentence for sentence in server.said)
    assert f"{new.name} is gone." in server.said


def test_a_prompt_is_replaced_without_a_dropped_request(own, tiny_backbone):
    """The folder is taken away and another put in its place, again and again, while clients ask."""
    server, copy = own
    folder = next(copy.iterdir())
    spare = copy.parent / "spare"
    shutil.copytree(folder, spare)
    stop = threading.Event()
    statuses: list[int] = []

    def ask() -> None:
        while not stop.is_set():
            statuses.append(server.predict(folder.name, texts=["good bad"])[0])

    clients = [threading.Thread(target=ask) for _ in range(3)]
    for client in clients:
        client.start()
    for _ in range(3):
        shutil.rmtree(folder)
        time.sleep(0.1)
        shutil.copytree(spare, folder)
        time.sleep(1.2)
    stop.set()
    for client in clients:
        client.join()
    assert len(statuses) > 20
    assert set(statuses) == {200}


def test_a_damaged_prompt_is_left_out_and_told(own):
    server, copy = own
    folder = next(copy.iterdir())
    (folder / "adapter_model.safetensors").write_bytes(b"cut")
    eventually(lambda: server.predict("regression", texts=["good"])[0] == 404)
    (listed,) = server.ask("GET", "/v1/prompts")[1]["prompts"]
    assert not listed["served"]
    assert "damaged" in listed["problem"]
    status, answer = server.predict(folder.name, texts=["good"])
    assert status == 404
    assert "damaged" in answer["error"]
    assert any("damaged" in sentence for sentence in server.said)
    assert str(copy) not in json.dumps([listed, answer, server.said])


def test_a_prompt_of_another_backbone_is_listed_as_not_served(tmp_path, bank, tiny_backbone):
    other = Backbone.load(str(save_tiny(CONFIGS["bert"], tmp_path / "other-model", seed=1)))
    with served(other, {"bank": bank}) as server:
        listed = server.ask("GET", "/v1/prompts")[1]["prompts"]
        assert len(listed) == len(KINDS)
        assert all(not one["served"] and "was trained on tiny-bert" in one["problem"] for one in listed)
        status, answer = server.predict("regression", texts=["good"])
        assert status == 404
        assert "was trained on tiny-bert" in answer["error"], "a task's name too is told why its prompt does not answer"
        assert str(tmp_path) not in json.dumps([listed, answer])


def test_the_bank_is_deleted(own):
    server, copy = own
    shutil.rmtree(copy)
    eventually(lambda: server.ask("GET", "/readyz")[0] == 503)
    eventually(lambda: server.predict("regression", texts=["good"])[0] == 404)
    assert server.ask("GET", "/healthz")[0] == 200
    assert server.ask("GET", "/v1/prompts")[1] == {"prompts": []}
    assert any("is gone" in sentence for sentence in server.said)


def test_a_server_whose_own_bank_is_deleted_is_not_ready_with_an_installed_one_alone(bank, tmp_path, tiny_backbone):
    copy = tmp_path / "bank"
    shutil.copytree(folder_of(bank, "regression"), copy / folder_of(bank, "regression").name)
    with served(tiny_backbone, {"bank": copy, "starter": bank}, installed=["starter"]) as server:
        assert server.ask("GET", "/readyz")[0] == 200
        shutil.rmtree(copy)
        eventually(lambda: server.ask("GET", "/readyz")[0] == 503)
        assert server.predict("single-classification", texts=["good"])[0] == 200
    with served(tiny_backbone, {"starter": bank}, installed=["starter"]) as server:
        assert server.ask("GET", "/readyz")[0] == 200


def test_of_two_banks_the_first_counts(bank, tmp_path, tiny_backbone):
    copy = tmp_path / "mine"
    shutil.copytree(folder_of(bank, "regression"), copy / folder_of(bank, "regression").name)
    with served(tiny_backbone, {"mine": copy, "team": bank}) as server:
        banks = {one["task"]: one["bank"] for one in server.ask("GET", "/v1/prompts")[1]["prompts"]}
    assert banks.pop("regression") == "mine"
    assert set(banks.values()) == {"team"}


def test_the_model_is_let_go_and_comes_back(bank, tiny_folder, tiny_backbone):
    model = Model(lambda: Backbone.load(str(tiny_folder("bert"))))
    with served(model, {"team": bank}, idle_after=0.3) as server:
        row = {"text": "good bad fine"}
        (expected,) = offline(bank, tiny_backbone, "regression", [row])
        for _ in range(2):
            eventually(lambda: not model.loaded)
            assert model.backbone.device.type == "meta"
            status, answer = server.predict("regression", rows=[row])
            assert status == 200
            assert same(answer["predictions"][0], expected)


def test_a_prompt_trained_meanwhile_is_served(own, tiny_backbone, tmp_path):

    server, copy = own
    train(
        kind_task("single_classification", tmp_path / "data", "fresh"),
        tiny_backbone,
        bank=Bank(copy, others={}),
        options=OPTIONS,
    )
    eventually(lambda: server.predict("fresh", texts=["good"])[0] == 200)


def test_a_card_tells_no_paths(server):
    entry = server.service.registry.entries()[0]
    away = SourceCard(id="/home/eve/prompts/foreign", task="foreign", checksum="0" * 64)
    card = entry.card.model_copy(update={"sources": (away,), "warnings": ("Nothing is in /home/eve/data.",)})
    shown = card_of(card), summary(replace(entry, card=card)), ancestry(replace(entry, card=card), [])
    assert "eve" not in json.dumps(shown)


def test_ancestry_ends_where_cards_are_gone_or_come_again(server: Served, bank):
    one, two = server.service.registry.entries()[:2]
    from_two = SourceCard(id=two.id, task="two", checksum="0" * 64)
    from_one = SourceCard(id=one.id, task="one", checksum="0" * 64)
    away = SourceCard(id="away-s0-00000000", task="away", checksum="0" * 64)
    assert one.card is not None
    assert two.card is not None
    circle = [
        replace(one, card=one.card.model_copy(update={"sources": (from_two, away)})),
        replace(two, card=two.card.model_copy(update={"sources": (from_one,)})),
    ]
    first, second = ancestry(circle[0], circle)
    assert (first["id"], first["here"]) == (two.id, True)
    assert first["sources"][0]["sources"] == []
    assert (second["here"], second["sources"]) == (False, [])
