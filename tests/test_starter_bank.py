"""The bank that comes along: sound, small, and its cards say where everything is from."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from promptpanda.backbone import Backbone
from promptpanda.bank.bank import Bank
from promptpanda.bank.installed import installed_banks
from promptpanda.bank.seen_texts import SEEN_NAME
from promptpanda.models import embedded_model
from promptpanda.tasks.catalog import catalog_spec

PROJECT = Path(__file__).parent.parent / "banks" / "minilm-l6"
NAME = "minilm-l6"

pytestmark = pytest.mark.installed_banks


@pytest.fixture(scope="module")
def bank():
    folders, problems = installed_banks()
    assert problems == ()
    if NAME not in folders:
        pytest.skip(f"{PROJECT} is not installed; `make install` does it")
    return Bank(folders[NAME], others={})


def test_every_prompt_is_whole_and_fits_the_embedded_model(bank):
    if embedded_model() is None:
        pytest.skip("the embedded model is not installed")
    fingerprint = Backbone.load().fingerprint
    for prompt_id in bank.ids():
        bank.verify(prompt_id)
    assert {card.backbone.fingerprint for card in bank.cards()} == {fingerprint}


def test_every_card_tells_data_licence_sizes_and_scores(bank):
    cards = list(bank.cards())
    assert len({card.task.name for card in cards}) == len(cards) >= 8
    for card in cards:
        assert card.task == catalog_spec(card.task.name), f"the card of {card.id} is not of today's catalog"
        assert card.task.origin, card.id
        assert card.task.licence, card.id
        assert card.n_train > card.n_val > 0
        assert card.task.metric in card.validation
        assert SEEN_NAME in card.files, f"{card.id} cannot be told from a target whose rows it saw"
        if card.test is not None:
            assert card.test.n_test > 0


def test_it_stays_small(bank):
    size = sum(path.stat().st_size for path in bank.folder.rglob("*") if path.is_file())
    assert size < 25e6


def test_its_folder_is_the_one_that_the_project_names(bank):
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"]["promptpanda.banks"] == {NAME: "promptpanda_minilm_l6:FOLDER"}
    listed = (PROJECT / "README.md").read_text(encoding="utf-8")
    for card in bank.cards():
        assert f"| {card.task.name} |" in listed
