"""What is saved is what is loaded, PEFT reads it where promised, and nothing damaged or foreign slips in."""

from __future__ import annotations

import json
import os
import shutil
import socket

import numpy as np
import pytest
import torch
from conftest import FAMILIES, sentiment_rows, task_of, text_batch
from peft import CartridgeConfig, PeftModel, PrefixTuningConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModel, AutoModelForSequenceClassification

from promptpanda.backbone import TextBatch
from promptpanda.bank.bank import Bank
from promptpanda.bank.folder import read_folder, read_source
from promptpanda.errors import PandaError
from promptpanda.files import check_name, whole_folder
from promptpanda.prompts.prompt import Prompt, PromptStack
from promptpanda.tasks.encoding import encode
from promptpanda.training.inference import predict_outputs
from promptpanda.training.options import TrainingOptions
from promptpanda.transfers.transfer import train

OPTIONS = {"epochs": 1, "prompt_length": 4, "max_length": 24}


@pytest.fixture
def trained(tiny_backbone, sentiment, tmp_path):
    return train(sentiment(), tiny_backbone, bank=Bank(tmp_path / "bank"), options=TrainingOptions(**OPTIONS))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["prefix", "shallow"])
def test_save_load_predict_is_identical(family, kind, load_tiny, sentiment, tmp_path):
    backbone, task = load_tiny(family), sentiment()
    options = TrainingOptions(**OPTIONS, prompt_kind=kind)
    fresh = train(task, backbone, options=options)  # never on disk
    loaded = train(task, backbone, bank=Bank(tmp_path / "bank"), options=options)
    again = read_folder(loaded.path, backbone)
    encoded = encode(backbone, task.test().texts, 24)
    expected = predict_outputs(backbone, fresh.prompt, fresh.head, encoded)
    for other in (loaded, again):
        assert torch.equal(fresh.prompt.tensor, other.prompt.tensor)
        assert np.array_equal(expected, predict_outputs(backbone, other.prompt, other.head, encoded))
    Bank(tmp_path / "bank").verify(loaded.card.id)
    without_peft = {"prefix": ("distilbert", "albert", "modernbert"), "shallow": ()}
    assert (again.card.peft == "unsupported") == (family in without_peft[kind])


@pytest.mark.parametrize(
    ("family", "readout"), [("bert", "pooler"), ("gpt2", "last"), ("llama", "last"), ("qwen3", "last")]
)
def test_peft_gives_equal_logits(family, readout, load_tiny, tiny_folder, sentiment, tmp_path):
    backbone = load_tiny(family)
    options = TrainingOptions(**OPTIONS, readout=readout)
    ours = train(sentiment(), backbone, bank=Bank(tmp_path / "bank"), options=options)
    assert ours.card.peft == "SEQ_CLS"
    assert not (ours.path / "head.safetensors").exists()
    base = AutoModelForSequenceClassification.from_pretrained(tiny_folder(family), num_labels=2)
    base.config.pad_token_id = 0
    model = PeftModel.from_pretrained(base, ours.path).eval()
    batch = text_batch(family)
    with torch.no_grad():
        theirs = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
        hidden = backbone.hidden(batch, PromptStack.of([ours.prompt]))
        logits = ours.head(backbone.read(hidden, batch.attention_mask, readout))
    torch.testing.assert_close(logits, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("family", "kind"),
    [(family, "prefix") for family in ("bert", "roberta", "electra", "gpt2", "llama", "qwen3")]
    + [(family, "shallow") for family in FAMILIES],
)
def test_peft_gives_equal_hidden_states(family, kind, load_tiny, tiny_folder, sentiment, tmp_path):
    backbone = load_tiny(family)
    options = TrainingOptions(**OPTIONS, readout="mean", prompt_kind=kind)
    ours = train(sentiment(), backbone, bank=Bank(tmp_path / "bank"), options=options)
    assert ours.card.peft == "FEATURE_EXTRACTION"
    model = PeftModel.from_pretrained(AutoModel.from_pretrained(tiny_folder(family)), ours.path).eval()
    batch = text_batch(family)
    with torch.no_grad():
        theirs = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state
        hidden = backbone.hidden(batch, PromptStack.of([ours.prompt]))
    theirs = theirs[:, theirs.shape[1] - hidden.shape[1] :]
    assert float(((hidden - theirs).abs() * batch.attention_mask[:, :, None]).max()) < 1e-5


def test_peft_gives_equal_values_and_equal_logits_of_pairs(tiny_backbone, tiny_folder, tmp_path):
    """A regression's folded head, on inputs of two segments."""
    rows = [{"text": row["text"], "label": 100.0 + number % 7} for number, row in enumerate(sentiment_rows(40))]
    task = task_of(rows, tmp_path, kind="regression", metrics=["pearson"])
    options = TrainingOptions(**OPTIONS, readout="pooler")
    ours = train(task, tiny_backbone, bank=Bank(tmp_path / "bank"), options=options)
    assert ours.card.peft == "SEQ_CLS"
    base = AutoModelForSequenceClassification.from_pretrained(tiny_folder("bert"), num_labels=1)
    model = PeftModel.from_pretrained(base, ours.path).eval()
    batch = text_batch("bert")
    types = (torch.arange(9) > 3).long() * batch.attention_mask
    with torch.no_grad():
        theirs = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, token_type_ids=types).logits
        hidden = tiny_backbone.hidden(
            TextBatch(batch.input_ids, batch.attention_mask, types), PromptStack.of([ours.prompt])
        )
        values = ours.head(tiny_backbone.read(hidden, batch.attention_mask, "pooler"))
    torch.testing.assert_close(values, theirs, atol=1e-5, rtol=1e-5)
    assert float(values.mean()) == pytest.approx(103, abs=5)


def foreign(folder, target, length=4):
    torch.manual_seed(1)
    model = get_peft_model(
        AutoModel.from_pretrained(folder),
        PrefixTuningConfig(task_type="FEATURE_EXTRACTION", num_virtual_tokens=length),
    )
    model.save_pretrained(target)
    return model.prompt_encoder["default"].embedding.weight.detach()


def test_a_foreign_peft_prefix_is_a_source(tiny_backbone, tiny_folder, tmp_path):
    flat = foreign(tiny_folder("bert"), tmp_path / "theirs")
    source = read_source(tmp_path / "theirs", tiny_backbone)
    assert source.signature is None
    assert source.task == "theirs"
    assert torch.equal(source.prompt.tensor.permute(3, 0, 1, 2, 4).reshape(4, -1), flat)


@pytest.mark.parametrize("form", ["projected", "shallow", "cartridge"])
def test_other_forms_of_foreign_prompts_are_sources_too(form, tiny_backbone, tiny_folder, tmp_path):
    """What PEFT computes with them before it saves them is what we compute after reading them."""
    common = {"task_type": "FEATURE_EXTRACTION", "num_virtual_tokens": 4}
    if form == "shallow":
        config = PromptTuningConfig(**common)
    elif form == "cartridge":
        config = CartridgeConfig(**common, num_frozen_tokens=1)
    else:
        config = PrefixTuningConfig(**common, prefix_projection=True, encoder_hidden_size=16)
    torch.manual_seed(0)
    model = get_peft_model(AutoModel.from_pretrained(tiny_folder("bert")), config).eval()
    model.save_pretrained(tmp_path)
    source, batch = read_source(tmp_path, tiny_backbone), text_batch("bert")
    with torch.no_grad():
        theirs = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state
        hidden = tiny_backbone.hidden(batch, PromptStack.of([source.prompt]))
    theirs = theirs[:, theirs.shape[1] - hidden.shape[1] :]
    assert float(((hidden - theirs).abs() * batch.attention_mask[:, :, None]).max()) < 1e-5


def test_a_foreign_prompt_that_is_not_finite_is_refused(tiny_backbone, tiny_folder, tmp_path):
    flat = foreign(tiny_folder("bert"), tmp_path).clone()
    flat[1, 5] = float("nan")
    save_file({"prompt_embeddings": flat}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(PandaError, match="not finite"):
        read_source(tmp_path, tiny_backbone)


def test_a_foreign_prefix_of_another_model_is_refused(tiny_backbone, load_tiny, tiny_folder, tmp_path):
    foreign(tiny_folder("electra"), tmp_path / "electra")
    with pytest.raises(PandaError, match="for the base model '.*tiny-electra', not for .*tiny-bert.*--model"):
        read_source(tmp_path / "electra", tiny_backbone)
    foreign(tiny_folder("bert"), tmp_path / "bert")
    with pytest.raises(PandaError, match="shape .* takes .*use the backbone"):
        read_source(tmp_path / "bert", load_tiny("llama"))


def test_a_pickled_adapter_is_never_opened(tiny_backbone, tiny_folder, tmp_path):
    foreign(tiny_folder("bert"), tmp_path / "theirs")
    (tmp_path / "theirs" / "adapter_model.safetensors").unlink()
    (tmp_path / "theirs" / "adapter_model.bin").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(PandaError, match="only safetensors"):
        read_source(tmp_path / "theirs", tiny_backbone)


def test_another_adapter_type_is_refused(tiny_backbone, tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    with pytest.raises(PandaError, match="type LORA; expected PREFIX_TUNING, CARTRIDGE or PROMPT_TUNING"):
        read_source(tmp_path, tiny_backbone)


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "signature.safetensors", "adapter_config.json"])
@pytest.mark.parametrize("damage", ["changed", "cut", "missing"])
def test_damage_is_noticed(name, damage, trained, tiny_backbone, tmp_path):
    path = trained.path / name
    content = bytearray(path.read_bytes())
    if damage == "changed":
        content[-3] ^= 1
        path.write_bytes(content)
    elif damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        path.unlink()
    with pytest.raises(PandaError, match=f"{trained.card.id} is (damaged|incomplete): {name}.*train it again"):
        read_folder(trained.path, tiny_backbone)
    with pytest.raises(PandaError, match=name):
        Bank(tmp_path / "bank").verify(trained.card.id)


def test_another_backbone_is_refused(trained, load_tiny):
    with pytest.raises(PandaError, match="was trained on .*tiny-bert.*not on .*tiny-roberta.*--model"):
        read_folder(trained.path, load_tiny("roberta"))


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 1}', '{"format": 99}'])
def test_a_broken_card_is_refused_and_the_others_are_still_listed(content, trained, tiny_backbone, tmp_path):
    bank = Bank(tmp_path / "bank")
    broken = bank.folder / "other-s0-00000000"
    shutil.copytree(trained.path, broken)
    (broken / "card.json").write_text(content)
    with pytest.raises(PandaError, match="card.json"):
        read_folder(broken, tiny_backbone)
    cards, problems = bank.readable_cards()
    assert [card.id for card in cards] == [trained.card.id]
    assert len(problems) == 1


def test_a_card_cannot_reach_outside_its_folder(trained, tiny_backbone):
    card = json.loads((trained.path / "card.json").read_text())
    card["files"]["../secret"] = "0" * 64
    (trained.path / "card.json").write_text(json.dumps(card))
    with pytest.raises(PandaError, match="outside its folder"):
        read_folder(trained.path, tiny_backbone)


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "a\\b", "-x", "x\0", "x" * 101, "naïve", "a.", "a b"])
def test_names_that_could_be_paths_are_refused(name):
    with pytest.raises(PandaError, match="cannot be used as a file name"):
        check_name(name, "Name")


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    def stopped_midway():
        with whole_folder(tmp_path / "bank" / "x") as staging:
            (staging / "half").write_text("half")
            raise RuntimeError("midway")

    with pytest.raises(RuntimeError, match="midway"):
        stopped_midway()
    assert list((tmp_path / "bank").iterdir()) == []
    with whole_folder(tmp_path / "bank" / "x") as staging:
        (staging / "file").write_text("first")
        assert not (tmp_path / "bank" / "x").exists()
    with whole_folder(tmp_path / "bank" / "x") as staging:
        (staging / "file").write_text("second")
    assert [path.name for path in (tmp_path / "bank").iterdir()] == ["x"]
    assert (tmp_path / "bank" / "x" / "file").read_text() == "first"


def test_what_a_killed_process_left_is_swept_and_what_a_living_one_writes_is_not(tmp_path):
    dead = tmp_path / f".staging-{socket.gethostname()}-99999999-abc"
    living = tmp_path / f".staging-{socket.gethostname()}-{os.getppid()}-abc"
    elsewhere = tmp_path / ".staging-another.host-1-abc"
    for path in (dead, living, elsewhere):
        path.mkdir()
    with whole_folder(tmp_path / "x"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([living.name, elsewhere.name, "x"])


def test_references_are_ids_paths_and_task_names(tiny_backbone, sentiment, tmp_path):
    bank = Bank(tmp_path / "bank")
    options = TrainingOptions(**OPTIONS | {"epochs": 4})
    prompts = [train(sentiment(), tiny_backbone, bank=bank, options=options, seed=seed) for seed in (0, 1, 2)]
    best = max(prompts, key=lambda one: (one.card.score, -one.card.seed))
    assert bank.resolve("mood") == best.path
    assert bank.resolve(prompts[1].card.id) == prompts[1].path
    assert bank.resolve(str(prompts[1].path)) == prompts[1].path
    assert bank.siblings(prompts[0].card, [2, 7]) == [prompts[2].card.id, prompts[0].card.id]
    with pytest.raises(PandaError, match="Did you mean 'mood'"):
        bank.resolve("moood")
    bank.remove(prompts[1].card.id)
    assert prompts[1].card.id not in bank.ids()
    assert len(bank.ids()) == 2


def test_shape_mistakes_of_a_prompt_are_named():
    with pytest.raises(PandaError, match="5 dimensions"):
        Prompt("prefix", torch.zeros(3, 4))
    with pytest.raises(PandaError, match="at least one virtual token"):
        Prompt("shallow", torch.zeros(0, 4))


def test_a_prompt_of_a_training_that_diverged_stands_for_no_task(tiny_backbone, sentiment, tmp_path):
    """Neither as the best of its task nor, in a transfer over seeds, as the sibling with the right seed."""
    bank = Bank(tmp_path / "bank")
    zero, one = (
        train(sentiment(), tiny_backbone, bank=bank, options=TrainingOptions(**OPTIONS), seed=seed) for seed in (0, 1)
    )
    for broken, sound in ((zero, one), (one, zero)):
        broken.card.model_copy(update={"diverged": "the loss became nan in epoch 2 of 2 (step 9)"}).write(broken.path)
        sound.card.write(sound.path)
        assert bank.resolve("mood") == sound.path
        assert bank.siblings(sound.card, [broken.card.seed]) == [sound.card.id]


def test_a_training_whose_scores_are_not_finite_leaves_no_unreadable_card(tiny_backbone, sentiment, tmp_path):
    bank = Bank(tmp_path / "bank")
    options = TrainingOptions(**OPTIONS, lr=1e20, batch_size=64)
    with pytest.raises(PandaError) as refusal:
        train(sentiment(), tiny_backbone, bank=bank, options=options)
    assert bank.readable_cards()[1] == []
    assert "--lr" in str(refusal.value)
