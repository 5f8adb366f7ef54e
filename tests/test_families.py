"""Every cell of the table in docs/models.md holds, and the table says no more and no less."""

from __future__ import annotations

import math

import pytest
import torch
import yaml
from conftest import SIZES, tiny_tokenizer
from families import FAMILIES, NEEDED, PROOFS
from support_matrix import DATA, PAGE, outcome, page, row
from transformers import AutoModel, ConvBertConfig, DebertaConfig, FalconConfig

from promptpanda.backbone import Backbone
from promptpanda.errors import PandaError
from promptpanda.families import families, family_names, proved, refused
from promptpanda.footprint import estimate
from promptpanda.prompts import attention
from promptpanda.prompts import families as prepared

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("name", FAMILIES)
def test_what_the_table_says_of_a_family_is_what_its_proofs_give(name, tmp_path):
    assert row(name, tmp_path) == families()[name]


@pytest.mark.parametrize("name", FAMILIES)
def test_what_a_prompt_takes_is_told_of_every_family(name):
    config = FAMILIES[name]
    attention.register()
    model = AutoModel.from_config(config, attn_implementation=prepared.implementation(config))
    backbone = Backbone(prepared.prepare(model), None, name=name)  # nothing is tokenised
    told = estimate(config, prompt_length=4, batch_size=2, length=16)
    assert told.prompt_parameters == math.prod(backbone.shape.of("prefix", 4))
    assert told.parameters == sum(parameter.numel() for parameter in backbone.model.parameters())


def test_the_list_has_every_family_that_is_proved_and_no_other():
    assert family_names() == list(FAMILIES)
    assert all(family[proof] for family in families().values() for proof in NEEDED)


def test_the_page_shows_the_list():
    assert page(PAGE.read_text(encoding="utf-8"), yaml.safe_load(DATA.read_text(encoding="utf-8"))["families"]) == (
        PAGE.read_text(encoding="utf-8")
    )


def test_a_proof_can_fail(tiny_folder, monkeypatch):
    """A model that leaves its prompts out is no member; a proof that a family can do without gives a `no`."""
    folder = tiny_folder("distilbert")
    backbone = Backbone.load(str(folder))
    assert [proof for proof in PROOFS if not outcome(backbone, folder, proof)] == ["packed", "equal to PEFT"]
    hidden = Backbone.hidden
    monkeypatch.setattr(Backbone, "hidden", lambda self, batch, prompts=None, **options: hidden(self, batch))
    with pytest.raises(AssertionError):
        outcome(backbone, folder, "prefix")


def test_of_a_family_that_is_not_listed_nothing_is_known():
    assert proved("bert", "equal to PEFT")
    assert not proved("deberta-v2", "equal to PEFT")
    assert not proved("nobody", "equal to PEFT")


def test_a_refusal_names_the_families_that_work_and_the_reason(tmp_path):
    AutoModel.from_config(ConvBertConfig(**SIZES)).save_pretrained(tmp_path)
    with pytest.raises(PandaError, match=r"'convbert' \(its convolutions see padding.*DeBERTa v2/v3.*SmolLM3\.$"):
        Backbone.load(str(tmp_path))
    assert not set(refused()) & {family["type"] for family in families().values()}


UNFIT = {
    "falcon": FalconConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, vocab_size=120, alibi=True, pad_token_id=0
    ),
    "deberta": DebertaConfig(
        **SIZES, relative_attention=True, pos_att_type=["c2p"], max_relative_positions=8, talking_head=True
    ),
}


@pytest.mark.parametrize("family", UNFIT)
def test_members_of_a_family_that_compute_otherwise_are_refused(family, tmp_path):
    torch.manual_seed(0)
    AutoModel.from_config(UNFIT[family]).save_pretrained(tmp_path)
    tiny_tokenizer(False).save_pretrained(tmp_path)
    with pytest.raises(PandaError, match=f"'{family}'; families that work"):
        Backbone.load(str(tmp_path))
