"""Push and pull through a real S3 server, through folders, and through the Hub's protocol; killed, and gone on with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from shared_banks import contents, hub_server, panda, refused, s3_server

from promptpanda.bank.bank import Bank
from promptpanda.sharing.model_card import MARK

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def s3(monkeypatch):
    """A bucket on a real S3 server: (its filesystem, the requests so far)."""
    pytest.importorskip("moto", reason="the S3 server is in the dev extra")
    import fsspec
    import s3fs

    with s3_server() as (address, requests):
        for name, value in {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": address,
        }.items():
            monkeypatch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        store = fsspec.filesystem("s3", use_listings_cache=False)
        store.mkdir("team")
        requests.clear()
        yield store, requests
        s3fs.S3FileSystem.clear_instance_cache()


def uploads(requests):
    return [request for request in requests if request.startswith("PUT ")]


def test_a_bank_goes_through_s3_and_comes_back(s3, bank, ids, model, tmp_path):
    store, requests = s3
    sent = json.loads(panda("bank", "push", "*", "s3://team/prompts", "--license", "apache-2.0", "--json"))
    assert sorted(sent["sent"]) == ids
    assert {path.split("/")[2] for path in store.find("team/prompts")} == set(ids)
    assert "license: apache-2.0" in store.cat(f"team/prompts/{ids[0]}/README.md").decode()
    requests.clear()
    again = json.loads(panda("bank", "push", "*", "s3://team/prompts", "--json"))
    assert (sorted(again["unchanged"]), uploads(requests)) == (ids, []), "nothing is sent twice"
    taken = json.loads(panda("bank", "pull", "s3://team/prompts", "--bank", "new", *model, "--json"))
    assert taken["pulled"] == ids
    assert all(contents(bank / name) == contents(tmp_path / "new" / name) for name in ids)
    requests.clear()
    assert json.loads(panda("bank", "pull", "s3://team/prompts", "--bank", "new", *model, "--json"))["unchanged"] == ids
    assert not [request for request in requests if "safetensors" in request], "cards are enough to see that"


def test_a_pattern_is_pulled_alone(s3, bank, ids, model):
    panda("bank", "push", "*", "s3://team/prompts")
    pull = ["bank", "pull", "s3://team/prompts", "--bank", "new", *model]
    assert json.loads(panda(*pull, "--prompt", "films-*", "--json"))["pulled"] == ids[3:]
    assert "No prompt at s3://team/prompts is mnli-*" in refused(*pull, "--prompt", "mnli-*")


def test_keys_that_lead_upwards_reach_nothing(s3, bank, ids, model, tmp_path):
    store, _ = s3
    panda("bank", "push", ids[0], "s3://team/prompts")
    card = store.cat(f"team/prompts/{ids[0]}/card.json")
    for key in (
        f"../{ids[1]}/card.json",
        f"{ids[0]}/../../evil",
        f"..%2f{ids[1]}/card.json",
        "../../evil-s0-12345678/card.json",
    ):
        store.pipe_file(f"team/prompts/{key}", card)
    before = {path for path in tmp_path.rglob("*")}
    assert (
        json.loads(panda("bank", "pull", "s3://team/prompts", "--bank", "new", *model, "--json"))["pulled"] == ids[:1]
    )
    new = {path.relative_to(tmp_path / "new") for path in set(tmp_path.rglob("*")) - before if path != tmp_path / "new"}
    assert {path.parts[0] for path in new} == {ids[0]}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda store, path: store.pipe_file(f"{path}/head.safetensors", b"x"),
            "does not match its checksum (changed or truncated); whoever keeps it there can send it again",
        ),
        (lambda store, path: store.rm_file(f"{path}/head.safetensors"), "head.safetensors is missing there"),
        (lambda store, path: store.pipe_file(f"{path}/card.json", b"{}"), "has format None"),
        (lambda store, path: store.pipe_file(f"{path}/card.json", b"\xff"), "not UTF-8"),
        (lambda store, path: store.rm_file(f"{path}/card.json"), "has no card.json"),
    ],
)
def test_what_was_changed_on_the_server_stays_there(change, sentence, s3, bank, ids, model):
    store, _ = s3
    panda("bank", "push", *ids[:2], "s3://team/prompts")
    change(store, f"team/prompts/{ids[0]}")
    assert sentence in refused("bank", "pull", "s3://team/prompts", "--bank", "new", *model)
    assert Bank("new", others={}).ids() == ids[1:2]
    assert [path.name for path in Path("new").iterdir()] == ids[1:2]


def test_a_place_that_cannot_be_written_is_told_by_its_name(bank, ids):
    Path("a-file").write_text("x")
    for arguments in (["push", ids[0], "./a-file"], ["push", ids[0], "./a-file/new"], ["export", "a-file/all.tar"]):
        sentence = refused("bank", *arguments)
        assert sentence.startswith("panda: a-file")
        assert "cannot be written" in sentence
        assert "--bank" not in sentence


def test_files_beyond_the_limit_are_not_read(s3, bank, ids, model, monkeypatch):
    _, requests = s3
    panda("bank", "push", ids[0], "s3://team/prompts")
    monkeypatch.setattr("promptpanda.sharing.stores.MOST_FILE", 100)
    requests.clear()
    assert "the most that is allowed" in refused("bank", "pull", "s3://team/prompts", "--bank", "new", *model)
    assert not [request for request in requests if request.startswith("GET") and "safetensors" in request]


def test_places_that_are_no_banks(s3, bank, model):
    store, _ = s3
    store.pipe_file("team/other/notes.txt", b"x")
    Path("empty").mkdir()
    assert "is not a bank" in refused("bank", "pull", "s3://team/other", *model)
    assert "There is nothing at" in refused("bank", "pull", "s3://team/nothing", *model)
    assert "s3://nobody/x" in refused("bank", "push", "films", "s3://nobody/x")
    assert "is not a bank" in refused("bank", "pull", "./empty", *model)
    assert "There is no folder" in refused("bank", "pull", "./nothing", *model)
    assert "OWNER/NAME" in refused("bank", "pull", "nothing", *model)
    assert "write ./empty/new or hf://empty/new" in refused("bank", "push", "films", "empty/new")
    assert "cannot be used" in refused("bank", "push", "films", "nonsense://x/y")
    assert "not at s3://team/all.tar" in refused("bank", "push", "films", "s3://team/all.tar")


def test_a_server_that_is_not_there_is_one_sentence(s3, bank, model, monkeypatch):
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()
    assert "s3://team/prompts cannot be used" in refused("bank", "pull", "s3://team/prompts", *model)


def killed_when(seen, *arguments):
    """Run the command in a process of its own and kill it as soon as `seen()`."""
    code = "from promptpanda.cli.main import main; main()"
    process = subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 600
    while process.poll() is None and not seen() and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return process.returncode == -signal.SIGKILL


def many(bank, ids, count):
    """The bank's first prompt under many ids."""
    import shutil

    for number in range(count):
        name = f"books-s0-{number:08x}"
        shutil.copytree(bank / ids[0], bank / name)
        card = json.loads((bank / name / "card.json").read_text())
        (bank / name / "card.json").write_text(json.dumps(card | {"id": name}))


def test_a_pull_that_is_killed_goes_on_where_it_was(s3, bank, ids, model):
    _, requests = s3
    many(bank, ids, 40)
    panda("bank", "push", "*", "s3://team/prompts")
    new = Bank("new", others={})
    pull = ["bank", "pull", "s3://team/prompts", "--bank", "new", *model]
    assert killed_when(lambda: Path("new").is_dir() and len(new.ids()) > 2, *pull), "it was too fast to be killed"
    kept = new.ids()
    assert 2 < len(kept) < 44
    for name in kept:
        new.verify(name)
    requests.clear()
    taken = json.loads(panda(*pull, "--json"))
    assert (taken["unchanged"], len(taken["pulled"])) == (kept, 44 - len(kept))
    again = {request for request in requests if "safetensors" in request and request.split("/")[3] in kept}
    assert again == set(), "what was whole is not fetched again"
    assert {path.name for path in Path("new").iterdir()} == set(Bank(bank, others={}).ids())


def test_a_push_that_is_killed_leaves_whole_prompts_and_goes_on(s3, bank, ids, model):
    store, requests = s3
    many(bank, ids, 40)

    def cards():
        return sum(request.startswith("PUT") and request.endswith("card.json") for request in requests)

    assert killed_when(lambda: cards() > 2, "bank", "push", "*", "s3://team/prompts")
    there = {path.split("/")[2] for path in store.find("team/prompts") if path.endswith("card.json")}
    assert 2 < len(there) < 44
    for name in there:
        files = {path.split("/")[-1]: store.cat(path) for path in store.find(f"team/prompts/{name}")}
        files.pop("README.md")
        assert files == contents(bank / name), "what has a card is whole"
    requests.clear()
    sent = json.loads(panda("bank", "push", "*", "s3://team/prompts", "--json"))
    assert set(sent["unchanged"]) == there
    assert len(sent["sent"]) == 44 - len(there)
    assert not {request.split("/")[3] for request in uploads(requests)} & there


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """The Hub's protocol on loopback, and huggingface_hub turned to it."""
    from huggingface_hub import constants

    with hub_server() as server:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        template = server.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_TOKEN", "hf_test")
        yield server


def test_a_bank_goes_through_the_hub_and_comes_back(hub, bank, ids, model, tmp_path):
    sent = json.loads(panda("bank", "push", "books-*", "team/prompts", "--json"))
    assert sorted(sent["sent"]) == ids[:3]
    assert hub.private == {"team/prompts": True}, "private unless --public"
    assert len(hub.commits) == 1, "all prompts in one commit"
    files = hub.files["team/prompts"]
    assert MARK in files["README.md"].decode()
    assert all(name in files["README.md"].decode() for name in ids[:3])
    again = json.loads(panda("bank", "push", "books-*", "team/prompts", "--json"))
    assert (sorted(again["unchanged"]), len(hub.commits)) == (ids[:3], 1)
    panda("bank", "push", "films", "hf://team/prompts")
    assert {path.split("/")[0] for path in hub.commits[1]} == {ids[3], "README.md"}
    assert all(name in files["README.md"].decode() for name in ids), "the page of the repository tells of all"
    taken = json.loads(panda("bank", "pull", "team/prompts", "--bank", "new", *model, "--json"))
    assert taken["pulled"] == ids
    assert all(contents(bank / name) == contents(tmp_path / "new" / name) for name in ids)


def test_a_page_that_somebody_wrote_is_kept(hub, bank, ids):
    hub.files["team/prompts"] = {"README.md": b"# ours\n"}
    panda("bank", "push", "films", "team/prompts")
    assert hub.files["team/prompts"]["README.md"] == b"# ours\n"


def test_repositories_that_are_not_there_or_no_banks(hub, bank, model):
    hub.files["team/model"] = {"README.md": b"# a model\n", "model.safetensors": b"x", "sub/config.json": b"{}"}
    assert "is not a bank" in refused("bank", "pull", "team/model", *model)
    assert "no repository team/nothing" in refused("bank", "pull", "team/nothing", *model)
    assert "OWNER/NAME" in refused("bank", "pull", "hf://nothing", *model)


def test_the_hub_without_a_network_is_one_sentence(bank, model):
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    for command in (["bank", "push", "films", "team/prompts"], ["bank", "pull", "team/prompts", *model]):
        sentence = refused(*command)
        assert sentence.startswith("panda: hf://team/prompts cannot be used")
        assert "offline" in sentence.lower()
