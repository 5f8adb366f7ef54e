"""A model is known again wherever it lies; what computes otherwise is another; old cards are taken knowingly."""

from __future__ import annotations

import json
import shutil
import time

import pytest
from banks import OPTIONS, read_card, trained_in, write_card
from conftest import save_tiny, sentiment_rows, task_of
from tokenizers import Tokenizer, models, normalizers
from transformers import AutoModel, AutoTokenizer, BertConfig, PreTrainedTokenizer
from typer.testing import CliRunner

from promptpanda.backbone import Backbone
from promptpanda.bank.bank import Bank
from promptpanda.bank.folder import read_folder
from promptpanda.cli.main import app
from promptpanda.errors import PandaError
from promptpanda.fingerprint import computing_fields, tokenizer_state
from promptpanda.progress import Silent
from promptpanda.transfers.ranking import rank
from promptpanda.transfers.transfer import train

pytestmark = pytest.mark.usefixtures("one_thread")


def changed_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture
def twin(tiny_folder, tmp_path):
    """The tiny BERT again, in a folder of its own."""
    return shutil.copytree(tiny_folder("bert"), tmp_path / "twin")


def fingerprints(folder):
    backbone = Backbone.load(str(folder))
    return backbone.fingerprint, backbone.weights_fingerprint


@pytest.mark.parametrize(
    "changes",
    [{"hidden_act": "relu"}, {"layer_norm_eps": 1e-5}, {"num_attention_heads": 2}, {"is_decoder": True}],
    ids=lambda changes: next(iter(changes)),
)
def test_another_computing_field_is_another_model(changes, tiny_backbone, twin):
    changed_config(twin, **changes)
    fingerprint, weights = fingerprints(twin)
    assert weights == tiny_backbone.weights_fingerprint
    assert fingerprint != tiny_backbone.fingerprint


def lower_casing(tokenizer):
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()


def other_special_token(tokenizer):
    tokenizer.sep_token = "[MASK]"


@pytest.mark.parametrize("change", [lower_casing, other_special_token])
def test_another_tokenizer_is_another_model(change, tiny_backbone, twin):
    tokenizer = AutoTokenizer.from_pretrained(twin)
    change(tokenizer)
    tokenizer.save_pretrained(twin)
    fingerprint, weights = fingerprints(twin)
    assert weights == tiny_backbone.weights_fingerprint
    assert fingerprint != tiny_backbone.fingerprint


def test_segments_count(twin):
    tokenizer = AutoTokenizer.from_pretrained(twin)
    before = tokenizer_state(tokenizer)
    tokenizer.model_input_names = [*tokenizer.model_input_names, "token_type_ids"]
    assert tokenizer_state(tokenizer) != before


def test_the_same_model_elsewhere_is_the_same_model(tiny_backbone, twin, tmp_path):
    assert fingerprints(twin)[0] == tiny_backbone.fingerprint
    labels = {"id2label": {"0": "a", "1": "b", "2": "c"}, "label2id": {"a": 0, "b": 1, "c": 2}}
    names = {"_name_or_path": "elsewhere", "architectures": ["BertForMaskedLM"], "transformers_version": "4.0.0"}
    outputs = {"output_hidden_states": True, "use_cache": True, "problem_type": "regression", "temperature": 0.5}
    changed_config(twin, **labels, **names, **outputs)
    assert fingerprints(twin)[0] == tiny_backbone.fingerprint
    again = tmp_path / "saved again"
    AutoModel.from_pretrained(twin).save_pretrained(again)
    tokenizer = AutoTokenizer.from_pretrained(twin, padding_side="left", truncation_side="left")
    tokenizer(["good", "bad phone"], padding=True, truncation=True, max_length=3)  # which leaves traces in the backend
    tokenizer.save_pretrained(again)
    assert fingerprints(again)[0] == tiny_backbone.fingerprint


def test_fields_that_a_later_version_adds_change_nothing(tiny_backbone):
    assert set(computing_fields(BertConfig())) == {"model_type"}
    assert computing_fields(BertConfig(hidden_act="relu")) == {"model_type": "bert", "hidden_act": "relu"}


class SlowTokenizer(PreTrainedTokenizer):
    """Of characters, in Python alone."""

    def __init__(self, lower=False, **options):
        self.lower = lower
        self.letters = {letter: index for index, letter in enumerate("abcABC")}
        super().__init__(lower=lower, **options)

    vocab_size = property(lambda self: len(self.letters))

    def get_vocab(self):
        return dict(self.letters)

    def save_vocabulary(self, save_directory, filename_prefix=None):
        with open(f"{save_directory}/letters.json", "w") as file:
            json.dump(self.letters, file)
        return (file.name,)


def test_a_tokenizer_in_python_is_told_by_its_files_and_arguments():
    plain = tokenizer_state(SlowTokenizer())
    assert tokenizer_state(SlowTokenizer(padding_side="left", name_or_path="elsewhere")) == plain
    assert tokenizer_state(SlowTokenizer(lower=True)) != plain
    other = SlowTokenizer()
    other.letters["d"] = 6
    assert tokenizer_state(other) != plain


def test_a_large_vocabulary_takes_no_time(twin):
    tokenizer = AutoTokenizer.from_pretrained(twin)
    vocabulary = {"[UNK]": 0} | {f"word{number}": number + 1 for number in range(150_000)}
    tokenizer._tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    began = time.process_time()
    tokenizer_state(tokenizer)
    assert time.process_time() - began < 3  # seconds


class Notes(Silent):
    def __init__(self):
        self.notes = []

    def note(self, message):
        self.notes.append(message)


def made_old(folder, weights):
    """The card as a version wrote it that compared weights alone."""
    card = read_card(folder)
    del card["backbone"]["weights"]
    card["backbone"]["fingerprint"] = weights
    write_card(folder, card)


@pytest.fixture
def old(tiny_backbone, tmp_path):
    """A bank of one prompt, with an old card."""
    trained = trained_in(tmp_path / "bank", tiny_backbone)
    made_old(trained.path, tiny_backbone.weights_fingerprint)
    return trained


def panda(*arguments, code=0):
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == code, f"{result.stdout}\n{result.stderr}\n{result.exception!r}"
    return result


def test_an_old_card_is_accepted_knowingly(old, tiny_backbone, tmp_path):
    bank, target = Bank(tmp_path / "bank"), task_of(sentiment_rows(24, 9), tmp_path / "data", "films")
    with pytest.raises(PandaError, match=rf"compared weights alone.*panda bank adopt {old.card.id} --model"):
        bank.load(old.card.id, tiny_backbone)
    heard = Notes()
    with pytest.raises(PandaError, match="holds no prompt"):
        rank(target, tiny_backbone, bank, options=OPTIONS, progress=heard)
    assert [note for note in heard.notes if old.card.id in note and "panda bank adopt" in note]
    files = ["--bank", bank.folder, "--model", tiny_backbone.name]
    told = panda("bank", "adopt", old.card.id, *files, "--json")
    assert "on your word" in told.stderr
    assert json.loads(told.stdout) == {"adopted": [old.card.id]}
    assert read_folder(old.path, tiny_backbone).card == old.card
    heard = Notes()
    (ranked,) = rank(target, tiny_backbone, bank, options=OPTIONS, progress=heard)
    assert ranked.prompt == old.card.id
    assert not [note for note in heard.notes if "adopt" in note]
    assert json.loads(panda("bank", "adopt", old.card.id, *files, "--json").stdout) == {"adopted": []}


def test_nothing_is_adopted_if_one_cannot_be(old, tiny_backbone, load_tiny, tmp_path):
    other = trained_in(tmp_path / "bank", load_tiny("electra"), "songs")
    before = (old.path / "card.json").read_bytes()
    files = ["--bank", tmp_path / "bank", "--model", tiny_backbone.name]
    said = panda("bank", "adopt", old.card.id, other.card.id, *files, code=2).stderr
    assert "was trained on" in said
    assert (old.path / "card.json").read_bytes() == before


def test_the_bank_gives_no_prompt_of_another_activation(tiny_backbone, twin, tmp_path):
    task, bank = task_of(sentiment_rows(24, 5), tmp_path / "data", "books"), Bank(tmp_path / "bank")
    first = train(task, tiny_backbone, bank=bank, options=OPTIONS)
    changed_config(twin, hidden_act="relu")
    other = Backbone.load(str(twin))
    with pytest.raises(PandaError, match="another config or tokenizer"):
        bank.load(first.card.id, other)
    second = train(task, other, bank=bank, options=OPTIONS)
    assert second.card.id != first.card.id


def test_a_tiny_model_of_other_weights_is_told_by_name(tiny_backbone, tmp_path):
    trained = trained_in(tmp_path / "bank", tiny_backbone)
    other = Backbone.load(str(save_tiny(tiny_backbone.config, tmp_path / "other", seed=3)))
    with pytest.raises(PandaError, match=r"fingerprint .* not on"):
        read_folder(trained.path, other)
