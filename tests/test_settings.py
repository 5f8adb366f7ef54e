"""Settings that are settled by the task, named recipes, and the search of a learning rate."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from conftest import CONFIGS, save_tiny, write_jsonl
from transformers import BertConfig

from promptpanda.backbone import Backbone
from promptpanda.bank.bank import Bank
from promptpanda.errors import PandaError
from promptpanda.models import hub_id
from promptpanda.tasks.catalog import catalog_names, catalog_spec, own_task
from promptpanda.tasks.encoding import token_lengths
from promptpanda.tasks.protocol import Partition, partition
from promptpanda.tasks.spec import Kind
from promptpanda.training.defaults import resolved
from promptpanda.training.options import TrainingOptions
from promptpanda.training.recipes import recipe, recipe_names
from promptpanda.transfers.methods import PROMPT_TUNING
from promptpanda.transfers.rates import RATES
from promptpanda.transfers.transfer import train, transfer
from promptpanda.transfers.trial import Trial

SMALL = {"prompt_length": 4, "max_length": 24}


class Listener:
    """Keeps what it is told."""

    def __init__(self):
        self.notes = []

    def begin(self, label, total): ...

    def advance(self, units): ...

    def note(self, message):
        self.notes.append(message)


@pytest.mark.parametrize(("n_train", "epochs"), [(8, 40), (51, 40), (160, 20), (800, 4), (5000, 3), (100_000, 3)])
def test_epochs_make_up_about_200_steps(n_train, epochs):
    assert resolved(TrainingOptions(), Kind.REGRESSION, n_train).epochs == epochs


def test_what_is_given_stays():
    given = TrainingOptions(epochs=1, max_length=50)
    assert resolved(given, Kind.EXTRACTIVE_QA, 10, positions=40) == given


@pytest.mark.parametrize(
    ("kind", "positions", "length"),
    [
        (Kind.EXTRACTIVE_QA, 512, 384),
        (Kind.EXTRACTIVE_QA, None, 384),
        (Kind.EXTRACTIVE_QA, 300, 280),
        (Kind.TOKEN_CLASSIFICATION, 512, 128),
        (Kind.SINGLE_CLASSIFICATION, 64, 44),
        (Kind.SINGLE_CLASSIFICATION, 10, 4),
    ],
)
def test_max_length_suits_the_kind_and_the_backbone(kind, positions, length):
    assert resolved(TrainingOptions(), kind, 100, positions=positions).max_length == length


@pytest.mark.parametrize(
    ("lengths", "positions", "length"),
    [
        ([10] * 100, 512, 128),
        ([300] * 100, 512, 320),
        ([10] * 97 + [500] * 3, 512, 128),
        ([10] * 90 + [200] * 10, 512, 224),
        ([900] * 100, 512, 384),
        ([900] * 100, None, 384),
        ([900] * 100, 300, 280),
    ],
)
def test_max_length_holds_most_of_longer_texts(lengths, positions, length):
    found = resolved(
        TrainingOptions(), Kind.SINGLE_CLASSIFICATION, 100, positions=positions, lengths=np.asarray(lengths)
    )
    assert found.max_length == length


def test_cut_texts_are_told(tiny_backbone, sentiment):
    listener = Listener()
    task = sentiment()
    lengths = token_lengths(tiny_backbone, partition(task, seed=0).train.texts)
    assert lengths.max() > 9
    options = TrainingOptions(epochs=1, prompt_length=4, max_length=9)
    train(task, tiny_backbone, options=options, progress=listener)
    (note,) = [note for note in listener.notes if "are cut" in note]
    assert note.startswith(f"{(lengths > 9).sum()} of 48 training texts have more than 9 tokens and are cut")
    assert f"the longest has {lengths.max()}" in note
    whole = Listener()
    train(task, tiny_backbone, options=options.model_copy(update={"max_length": 24}), progress=whole)
    assert not any("are cut" in note for note in whole.notes)


def test_what_was_settled_is_told(tiny_backbone, sentiment):
    listener = Listener()
    train(sentiment(), tiny_backbone, options=TrainingOptions(epochs=1, prompt_length=4), progress=listener)
    assert listener.notes[0] == ("mood: 48 training examples; 1 epoch, lr 0.01, batch 16, prefix of 4, max length 60.")


@pytest.fixture(scope="module")
def roomy(tmp_path_factory):
    """A tiny BERT with as many positions as a real one: recipes are longer than the others take."""
    config = BertConfig(**CONFIGS["bert"].to_dict() | {"max_position_embeddings": 512})
    return Backbone.load(str(save_tiny(config, tmp_path_factory.mktemp("roomy"))))


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_trains_for_a_step(name, roomy, sentiment):
    found = recipe(name)
    task = sentiment()
    few = task.train().take(torch.arange(found.options.batch_size if found.options.batch_size < 60 else 60).numpy())
    options = found.options.model_copy(update={"epochs": 1})
    trial = Trial(roomy, task, Partition(few, few, "clean"), options, 0)
    trained = trial.outcome(PROMPT_TUNING)
    assert trained.card.example_steps == len(few) == options.batch_size
    assert trained.prompt.length == options.prompt_length
    assert trained.card.options == options


@pytest.mark.parametrize("name", recipe_names())
def test_recipes_name_tasks_and_models_that_exist(name):
    found = recipe(name)
    assert found.task is None or found.task in catalog_names()
    assert found.model is None or hub_id(found.model) is not None
    if found.task is not None and found.options.readout != "auto":
        assert catalog_spec(found.task).kind != Kind.TOKEN_CLASSIFICATION, "a tagger has no such readout"


def test_the_published_recipe_of_panda():
    options = recipe("panda-cb").options
    assert (options.epochs, options.batch_size, options.prompt_length, options.max_length) == (100, 16, 20, 128)
    assert (options.lr, options.student_lr, options.dropout, options.weight_decay) == (1e-2, 7e-3, 0.1, 0.0)
    assert recipe("panda-cb").coefficient == "published"


def test_the_students_rate_is_its_own(tiny_backbone, sentiment, tmp_path):
    bank = Bank(tmp_path / "bank")
    source = train(sentiment("books"), tiny_backbone, options=TrainingOptions(epochs=1, **SMALL))
    by_rate = {
        rate: transfer(
            sentiment(), source, tiny_backbone, bank=bank, options=TrainingOptions(epochs=1, student_lr=rate, **SMALL)
        ).methods
        for rate in (None, 1e-2, 1e-3)
    }
    tensors = {rate: methods["panda"].outcomes[0].prompt.tensor for rate, methods in by_rate.items()}
    assert torch.equal(tensors[None], tensors[1e-2])
    assert not torch.equal(tensors[None], tensors[1e-3])
    teachers = {methods["pot"].outcomes[0].card.id for methods in by_rate.values()}
    assert len(teachers) == 1, "the student's rate must not train the teacher again"


def test_auto_takes_the_best_of_three_rates_and_says_what_it_cost(tiny_backbone, sentiment, tmp_path):
    bank, listener = Bank(tmp_path / "bank"), Listener()
    options = TrainingOptions(epochs=2, **SMALL)
    source = train(sentiment("books"), tiny_backbone, options=options)
    auto = TrainingOptions(epochs=2, lr="auto", **SMALL)
    found = transfer(sentiment(), source, tiny_backbone, bank=bank, options=auto, seeds=(0, 1), progress=listener)
    alone = {
        rate: train(sentiment(), tiny_backbone, options=TrainingOptions(epochs=2, lr=rate, **SMALL)).card
        for rate in RATES
    }
    best = max(RATES, key=lambda rate: (alone[rate].score, -alone[rate].validation["loss"]))
    used = {outcome.card.options.lr for method in found.methods.values() for outcome in method.outcomes}
    assert used == {best}
    assert {card.options.lr for card in bank.cards()} == set(RATES)
    assert len(list(bank.cards())) == 2 + 3 * 2, "the training at the chosen rate is used again"
    told = [note for note in listener.notes if note.startswith("--lr auto takes")]
    assert len(told) == 1
    assert f"takes {best:g} (accuracy on 12 validation examples" in told[0]
    assert told[0].endswith("the others cost 2.4 trainings.")
    plain = transfer(
        sentiment(),
        source,
        tiny_backbone,
        bank=bank,
        options=TrainingOptions(epochs=2, lr=best, **SMALL),
        seeds=(0, 1),
    )
    assert plain.to_json()["methods"].keys() == found.methods.keys()
    for name, method in plain.methods.items():
        assert method.validation == found.methods[name].validation
    assert found.cost - plain.cost == pytest.approx(2 * (96 + 60 / 3) / 96 / 2), "once for both seeds"


def test_rates_that_diverge_are_left_out(tiny_backbone, sentiment, monkeypatch):
    listener = Listener()
    monkeypatch.setattr("promptpanda.transfers.rates.RATES", (1e30, 1e-2))
    trained = train(
        sentiment(), tiny_backbone, options=TrainingOptions(epochs=2, lr="auto", **SMALL), progress=listener
    )
    assert trained.card.options.lr == 1e-2
    assert any("stopped" in note for note in listener.notes)
    monkeypatch.setattr("promptpanda.transfers.rates.RATES", (1e30,))
    with pytest.raises(PandaError, match="--lr auto tried 1e\\+30, and all diverged; give --lr"):
        train(sentiment(), tiny_backbone, options=TrainingOptions(epochs=2, lr="auto", **SMALL))


def test_a_training_that_learns_nothing_warns(tiny_backbone, sentiment):
    listener = Listener()
    options = TrainingOptions(epochs=3, lr=1e-12, **SMALL)
    card = train(sentiment(train=40), tiny_backbone, options=options, progress=listener).card
    hardly = [warning for warning in card.warnings if "The training loss hardly fell" in warning]
    assert len(hardly) == 1
    assert any(note.endswith(hardly[0]) for note in listener.notes)
    learns = train(sentiment(), tiny_backbone, options=TrainingOptions(epochs=20, lr=3e-2, **SMALL)).card
    assert learns.warnings == ()


def test_the_majority_class_warns(tiny_backbone, tmp_path, sentiment):
    """Labels that nothing in the text tells, one of them rare: the best prediction is a constant."""
    rows = [{"text": f"w{number % 60} w{number % 7}", "label": "ab"[number % 8 == 0]} for number in range(80)]
    task = sentiment()
    write_jsonl(tmp_path / "data" / "mood" / "train.jsonl", rows)
    task = type(task)(task.spec.model_copy(update={"labels": ("a", "b")}), tmp_path / "data")
    card = train(task, tiny_backbone, options=TrainingOptions(epochs=1, lr=1e-4, **SMALL)).card
    assert any("is no better than a constant prediction (0.875)" in warning for warning in card.warnings)


def test_recipes_on_the_command_line(tiny_folder, tmp_path, monkeypatch):
    from conftest import sentiment_rows
    from typer.testing import CliRunner

    from promptpanda.cli.main import app

    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "mood.jsonl", sentiment_rows(40))
    own = ["--train", "mood.jsonl", "--text", "text", "--label", "label", "--model", str(tiny_folder("bert"))]

    def panda(*arguments):
        return CliRunner().invoke(app, [*arguments])

    listed = json.loads(panda("recipes", "list", "--json").stdout)["recipes"]
    assert [row["name"] for row in listed] == recipe_names()
    assert "student_lr: 0.007" in panda("recipes", "show", "panda-cb").stdout
    fast = ["--epochs", "1", "--prompt-length", "4", "--max-length", "24"]
    found = json.loads(panda("train", *own, "--recipe", "p-tuning-v2-wsc", *fast, "--json").stdout)
    card = json.loads((tmp_path / found["prompts"][0] / "card.json").read_text())
    options = card["options"]
    assert (options["lr"], options["readout"]) == (5e-3, "pooler")
    assert (options["epochs"], options["prompt_length"]) == (1, 4), "what is given beside the recipe wins"
    done = panda("train", *own, "--recipe", "p-tuning-v2-wcs")
    assert done.exit_code == 2
    assert "No recipe 'p-tuning-v2-wcs'" in done.stderr
    assert "Did you mean 'p-tuning-v2-wsc'?" in done.stderr
    done = panda("train", *own, "--lr", "fast")
    assert done.exit_code == 2
    assert "--lr must be a number or auto, found 'fast'." in done.stderr


@pytest.mark.parametrize("kind", ["multiple_choice", "token_classification"])
def test_a_readout_is_ignored_with_a_note_where_it_concerns_nothing(kind, tiny_backbone, tmp_path):
    rows = [
        {"w": [f"w{n}", "good"], "s": f"w{n} good", "t": ["O", "B-X"], "a": f"w{n}", "b": "bad", "l": n % 2}
        for n in range(20)
    ]
    path = write_jsonl(tmp_path / "own.jsonl", rows)
    task = {
        "multiple_choice": lambda: own_task(train=path, text="s", choices=["a", "b"], label="l"),
        "token_classification": lambda: own_task(train=path, text="w", label="t", kind=Kind.TOKEN_CLASSIFICATION),
    }[kind]()
    listener = Listener()
    prompts = {
        readout: train(
            task, tiny_backbone, options=TrainingOptions(epochs=1, readout=readout, **SMALL), progress=listener
        )
        for readout in ("auto", "cls")
    }
    assert torch.equal(prompts["auto"].prompt.tensor, prompts["cls"].prompt.tensor)
    notes = [note for note in listener.notes if "is ignored" in note]
    assert notes == [f"--readout cls is ignored: it does not concern {kind.replace('_', ' ')}."]
