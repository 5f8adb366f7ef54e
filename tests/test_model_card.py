"""Model cards: huggingface_hub reads them, they tell what the prompt's card tells, and how to load it works."""

from __future__ import annotations

import re

import pytest
import yaml
from banks import read_card, write_card
from huggingface_hub import ModelCard
from shared_banks import panda

from promptpanda.bank.bank import Bank
from promptpanda.bank.card import Card
from promptpanda.sharing.model_card import bank_card, model_card


@pytest.fixture
def folder(bank):
    return bank / Bank(bank, others={}).ids()[0]


def changed(folder, **values):
    write_card(folder, read_card(folder) | values)
    return Card.read(folder)


def test_the_hub_reads_what_is_told(folder):
    test = {"scores": {"accuracy": 0.8}, "n_test": 100, "data_fingerprint": "x"}
    card = changed(folder, test=test, backbone=read_card(folder)["backbone"] | {"name": "roberta-base"})
    text = model_card(card, "apache-2.0")
    (folder / "README.md").write_text(text, encoding="utf-8")
    data = ModelCard.load(folder / "README.md", ignore_metadata_errors=False).data
    assert (data.base_model, data.library_name, data.license) == (
        "FacebookAI/roberta-base",
        "promptpanda",
        "apache-2.0",
    )
    assert (data.pipeline_tag, data.metrics) == ("text-classification", ["accuracy"])
    assert {"promptpanda", "soft-prompt", "prefix-tuning", "peft"} <= set(data.tags)
    (result,) = data.eval_results
    assert (result.metric_type, result.metric_value, result.dataset_split) == ("accuracy", 0.8, "test")
    assert result.metric_args == {"protocol": "clean", "rows": 100, "n_train": card.n_train, "seed": 0}
    # Wilson's interval for 80 of 100, from its formula.
    z, p, n = 1.959964, 0.8, 100
    middle, half = p + z * z / (2 * n), z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    low, high = ((middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n))
    assert f"| test | 100 | accuracy | 0.800 | {low:.3f} to {high:.3f} |" in text


def test_without_test_data_the_score_is_said_to_be_of_validation(folder):
    card = Card.read(folder)
    text = model_card(card)
    assert "No test data was read" in text
    metadata = yaml.safe_load(text.split("---")[1])
    assert metadata["model-index"][0]["results"][0]["dataset"]["split"] == "validation"
    assert "base_model" not in metadata, "a folder's name is no model of the Hub"
    assert card.backbone.name not in text, "nor is it told where it lies"
    assert metadata["license"] == "unknown"


def test_the_record_of_texts_or_its_absence_is_told(folder):
    assert "holds hashes of the texts" in model_card(Card.read(folder))
    files = {name: value for name, value in read_card(folder)["files"].items() if "seen" not in name}
    assert "There is no record of the texts" in model_card(changed(folder, files=files))


@pytest.mark.parametrize("form", ["SEQ_CLS", "FEATURE_EXTRACTION", "unsupported"])
def test_every_form_tells_how_it_is_loaded(form, folder):
    text = model_card(changed(folder, peft=form))
    code = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(code) == (form != "unsupported")
    for block in code:
        compile(block, "README.md", "exec")


def test_words_of_others_stay_words(folder):
    hostile = "]\n---\nlicense: mit\n<script>alert(1)</script> `x` \x1b[31m| \u202e"
    task = read_card(folder)["task"] | {"title": hostile}
    text = model_card(changed(folder, task=task, labels=["<b>", "a|b"], warnings=[hostile]))
    assert yaml.safe_load(text.split("\n---\n")[0].removeprefix("---"))["license"] == "unknown"
    body = text.split("\n---\n", 1)[1]
    assert not re.search(r"(?<!\\)<(script|b)", body)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert ModelCard(text, ignore_metadata_errors=False).data.license == "unknown"


def test_the_page_of_a_repository_lists_all(bank):
    ids = Bank(bank, others={}).ids()
    text = bank_card("team/prompts", [(bank / name / "card.json").read_bytes() for name in ids] + [b"no card"], "mit")
    data = ModelCard(text, ignore_metadata_errors=False).data
    assert len(data.eval_results) == len(ids)
    assert all(f"[{name}]({name}/README.md)" in text for name in ids)


def test_the_command_shows_it(bank, folder):
    assert panda("bank", "card", folder.name) == model_card(Card.read(folder))
    assert "license: mit" in panda("bank", "card", folder.name, "--license", "mit")
