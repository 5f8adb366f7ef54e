"""Baselines without a prompt: the head alone on the frozen backbone, and tuning of the whole model."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import torch
from conftest import FAMILIES, sentiment_rows, write_jsonl
from kinds import KINDS, data_of, kind_task
from typer.testing import CliRunner

from promptpanda.bank.bank import Bank
from promptpanda.bank.folder import SourcePrompt
from promptpanda.cli.main import app
from promptpanda.errors import PandaError
from promptpanda.progress import Silent
from promptpanda.tasks.encoding import encode
from promptpanda.tasks.protocol import partition
from promptpanda.training.inference import predict_outputs
from promptpanda.training.loop import Training
from promptpanda.training.objectives.kinds import objective_for
from promptpanda.training.options import TrainingOptions
from promptpanda.transfers.estimators import TargetFeatures
from promptpanda.transfers.evaluate import evaluate
from promptpanda.transfers.predict import predict
from promptpanda.transfers.ranking import rank
from promptpanda.transfers.transfer import train, transfer

FAST = {"epochs": 2, "max_length": 24, "readout": "mean", "lr": 3e-2, "model_lr": 1e-3}
OPTIONS = TrainingOptions(**FAST)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def bank(tmp_path):
    return Bank(tmp_path / "bank")


class Counting(Silent):
    """Notes which trainings begin."""

    def __init__(self):
        self.begun = []

    def begin(self, label, steps):
        self.begun.append(label.split()[-1])


def run(task, backbone, *methods, bank=None, options=OPTIONS, progress=None, **changes):
    return transfer(task, "best", backbone, bank=bank, options=options, methods=methods, progress=progress, **changes)


def weights(backbone):
    return {name: tensor.clone() for name, tensor in backbone.model.state_dict().items()}


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_head_alone_reads_the_bare_backbone(family, load_tiny, sentiment, bank):
    backbone, task = load_tiny(family), sentiment()
    outcome = run(task, backbone, "head_only", bank=bank, options=OPTIONS).prompt
    assert outcome.prompt is outcome.signature is outcome.backbone is None
    head = outcome.head
    texts = task.test().texts[:6]
    expected = []
    for (text,) in texts:
        ids = torch.tensor([backbone.tokenizer(text)["input_ids"]])
        with torch.no_grad():
            hidden = backbone.model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
        expected.append((hidden.mean(1) @ head.weight.T + head.bias)[0].numpy())
    found = predict_outputs(backbone, None, head, encode(backbone, texts, 24))
    np.testing.assert_allclose(found, expected, atol=2e-4, rtol=1e-3)


def test_a_head_alone_is_kept_as_card_and_head(tiny_backbone, sentiment, bank):
    result = run(sentiment(), tiny_backbone, "head_only", bank=bank)
    (folder,) = bank.folder.iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["card.json", "head.safetensors"]
    bank.verify(folder.name)
    card = bank.load(folder.name, tiny_backbone).card
    assert (card.prompt_kind, card.prompt_length, card.weights_kept, card.method) == (None, 0, True, "head_only")
    assert result.chosen == "head_only"
    assert result.to_json()["prompt"] == str(folder)


def test_a_head_alone_learns_and_repeats_to_the_bit(tiny_backbone, sentiment):
    task, before = sentiment(train=120), weights(tiny_backbone)
    options = TrainingOptions(**FAST | {"epochs": 12})
    results = [run(task, tiny_backbone, "head_only", options=options) for _ in range(2)]
    assert torch.equal(results[0].prompt.head.weight, results[1].prompt.head.weight)
    assert results[0].methods["head_only"].mean > 0.8
    assert same(before, weights(tiny_backbone))


def test_a_damaged_head_is_found(tiny_backbone, sentiment, bank):
    run(sentiment(), tiny_backbone, "head_only", bank=bank)
    (folder,) = bank.folder.iterdir()
    path = folder / "head.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(PandaError, match=r"head\.safetensors does not match its checksum"):
        bank.verify(folder.name)
    path.unlink()
    with pytest.raises(PandaError, match=r"head\.safetensors is missing"):
        bank.load(folder.name, tiny_backbone)


@pytest.mark.parametrize("kind", KINDS)
def test_both_baselines_serve_every_kind(kind, tiny_backbone, tmp_path, bank):
    task = kind_task(kind, tmp_path, train=24, test=8)
    options = TrainingOptions(**FAST | {"epochs": 1, "max_length": 16})
    result = run(task, tiny_backbone, "head_only", "model_tuning", bank=bank, options=options)
    assert result.chosen == "head_only"
    outcome = bank.load(result.prompt.card.id, tiny_backbone)
    found = evaluate(outcome, tiny_backbone, task, task.test())
    assert found[task.spec.metric] == pytest.approx(result.methods["head_only"].mean)
    assert predict(outcome, tiny_backbone, task.test().texts) == predict(
        result.prompt, tiny_backbone, task.test().texts
    )


def test_options_of_prompts_make_no_second_run_of_a_baseline(tiny_backbone, sentiment, bank):
    progress = Counting()
    for changes in ({}, {"prompt_length": 7, "init_std": 0.1, "prompt_kind": "shallow"}):
        options = TrainingOptions(**FAST | {"epochs": 1} | changes)
        run(sentiment(), tiny_backbone, "head_only", "model_tuning", bank=bank, options=options, progress=progress)
    assert progress.begun == ["head_only", "model_tuning"]
    changed = {"head_only": {"lr": 1e-3}, "model_tuning": {"model_lr": 1e-5}}
    for name, change in changed.items():
        run(
            sentiment(),
            tiny_backbone,
            "head_only",
            "model_tuning",
            bank=bank,
            progress=progress,
            options=TrainingOptions(**FAST | {"epochs": 1} | change),
        )
        assert progress.begun[2:] == [name], "what learns at another rate is another run, the other is not"
        del progress.begun[2:]


@pytest.mark.parametrize("method", ["head_only", "model_tuning"])
def test_a_baseline_has_the_positions_of_a_prompt_to_itself(method, tiny_backbone, sentiment):
    """The model has 64: 60 tokens fit without a prompt, and not beside one of 20."""
    options = TrainingOptions(**FAST | {"epochs": 1, "max_length": 60})
    assert run(sentiment(), tiny_backbone, method, options=options).chosen == method


def test_a_baseline_is_no_source_and_not_ranked(tiny_backbone, sentiment, bank):
    result = run(sentiment("films", seed=6), tiny_backbone, "head_only", "model_tuning", bank=bank)
    with pytest.raises(PandaError, match="made by head_only, which trains no prompt; it cannot be a source"):
        SourcePrompt.of(result.prompt)
    for method in ("head_only", "model_tuning"):
        name = result.methods[method].outcomes[0].card.id
        with pytest.raises(PandaError, match=f"made by {method}, which trains no prompt"):
            transfer(sentiment(), name, tiny_backbone, bank=bank, options=OPTIONS, methods=["pot"])
    part = partition(sentiment(), train_examples=40, seed=0)
    view = TargetFeatures(tiny_backbone, encode(tiny_backbone, part.train.texts, 24))
    with pytest.raises(PandaError, match="holds no prompt"):
        rank(sentiment(), tiny_backbone, bank, view)
    tuned = train(sentiment("books", seed=5), tiny_backbone, bank=bank, options=OPTIONS)
    assert [entry.prompt for entry in rank(sentiment(), tiny_backbone, bank, view)] == [tuned.card.id]


def test_a_tasks_name_means_its_prompt_and_not_its_baselines(tiny_backbone, sentiment, bank):
    run(sentiment(), tiny_backbone, "head_only", "model_tuning", bank=bank)
    with pytest.raises(PandaError) as refused:
        bank.resolve("mood")
    sentence = str(refused.value)
    assert "Did you mean 'mood'?" not in sentence, "that is what was asked for"
    assert "no prompt" in sentence.lower()
    tuned = train(sentiment(), tiny_backbone, bank=bank, options=OPTIONS)
    assert bank.resolve("mood").name == tuned.card.id


def test_model_tuning_learns_and_leaves_the_callers_backbone_alone(tiny_backbone, sentiment):
    task, before, fingerprint = sentiment(train=120), weights(tiny_backbone), tiny_backbone.fingerprint
    options = TrainingOptions(**FAST | {"epochs": 10, "model_lr": 3e-3})
    result = run(task, tiny_backbone, "model_tuning", options=options)
    assert same(before, weights(tiny_backbone))
    assert tiny_backbone.fingerprint == fingerprint
    assert not any(parameter.requires_grad for parameter in tiny_backbone.model.parameters())
    assert not tiny_backbone.model.training
    assert result.methods["model_tuning"].mean > 0.9
    assert result.methods["model_tuning"].outcomes[0].backbone is None, "a tuned model is not kept in memory"
    curve = result.prompt.card.curve
    assert curve[-1].train_loss < 0.5 * curve[0].train_loss


def test_model_tuning_trains_every_weight_that_matters(tiny_backbone, sentiment):
    task = sentiment()
    data, objective = data_of(tiny_backbone, task, max_length=24), objective_for(task.spec, 2)
    fitted = Training(tiny_backbone, data, data, objective, OPTIONS, seed=0, trained="model").run()
    before, after = weights(tiny_backbone), weights(fitted.backbone)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert not {name for name in set(before) - changed if "pooler" not in name and "position_ids" not in name}
    assert fitted.prompt is None
    expected = predict_outputs(fitted.backbone, None, fitted.head, data.encoded)
    assert not np.allclose(expected, predict_outputs(tiny_backbone, None, fitted.head, data.encoded))
    assert np.array_equal(expected, predict_outputs(fitted.backbone, None, fitted.head, data.encoded)), (
        "no dropout left"
    )


def tuned(backbone, task, seed=0, **changes):
    data, objective = data_of(backbone, task, max_length=24), objective_for(task.spec, 2)
    options = TrainingOptions(**FAST | changes)
    return weights(Training(backbone, data, data, objective, options, seed=seed, trained="model").run().backbone)


@pytest.mark.parametrize("family", ["bert", "gpt2", "albert"])
def test_model_tuning_repeats_to_the_bit(family, load_tiny, sentiment):
    """Its dropout is the model's own, which draws from torch's global generator."""
    backbone, task = load_tiny(family), sentiment()
    first = tuned(backbone, task, seed=3)
    torch.rand(5)
    assert same(first, tuned(backbone, task, seed=3))
    assert not same(first, tuned(backbone, task, seed=4))


def test_model_tuning_leaves_the_global_generator_as_it_was(tiny_backbone, sentiment):
    task = sentiment()
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    tuned(tiny_backbone, task)
    assert torch.equal(torch.rand(3), expected)


def test_model_tuning_has_the_models_dropout(tiny_backbone, sentiment):
    """In training mode, and off again when outputs are predicted."""
    task, seen = sentiment(), []
    data, objective = data_of(tiny_backbone, task, max_length=24), objective_for(task.spec, 2)
    handles = [
        module.register_forward_hook(lambda module, *_: seen.append(module.training))
        for module in tiny_backbone.model.modules()
        if isinstance(module, torch.nn.Dropout)
    ]
    try:
        Training(tiny_backbone, data, data, objective, TrainingOptions(**FAST | {"epochs": 1}), seed=0).run()
        assert not any(seen), "a frozen backbone has none"
        seen.clear()
        Training(
            tiny_backbone, data, data, objective, TrainingOptions(**FAST | {"epochs": 1}), seed=0, trained="model"
        ).run()
    finally:
        for handle in handles:
            handle.remove()
    assert set(seen) == {True, False}


@pytest.mark.parametrize("trained", ["prompt", "model"])
def test_gradient_checkpointing_computes_layers_twice_and_changes_nothing(trained, tiny_backbone, sentiment):
    task = sentiment()
    data, objective = data_of(tiny_backbone, task, max_length=24), objective_for(task.spec, 2)
    calls = []
    handle = tiny_backbone.model.encoder.layer[0].attention.register_forward_hook(lambda *_: calls.append(1))
    found = []
    try:
        for saved in (False, True):
            calls.clear()
            options = TrainingOptions(**FAST | {"epochs": 2, "gradient_checkpointing": saved, "dropout": 0.0})
            fitted = Training(tiny_backbone, data, data, objective, options, seed=0, trained=trained).run()
            found.append((len(calls), fitted))
    finally:
        handle.remove()
    steps = 2 * -(-len(data) // OPTIONS.batch_size)
    assert found[1][0] == found[0][0] + steps, "each step computes the layer once more"
    if trained == "prompt":
        assert torch.equal(found[0][1].prompt.tensor, found[1][1].prompt.tensor)


def test_model_tuning_keeps_its_scores_and_not_its_weights(tiny_backbone, sentiment, bank):
    task = sentiment()
    result = run(task, tiny_backbone, "model_tuning", bank=bank)
    (folder,) = bank.folder.iterdir()
    assert sum(path.stat().st_size for path in folder.iterdir()) < 20_000
    kept = bank.load(folder.name, tiny_backbone)
    assert kept.card.weights_kept is False
    assert kept.card.test.scores["accuracy"] == result.methods["model_tuning"].scores[0]
    bank.verify(folder.name)
    for use in (
        lambda: predict(kept, tiny_backbone, ["good"]),
        lambda: evaluate(kept, tiny_backbone, task, task.test()),
    ):
        with pytest.raises(PandaError, match="keeps the scores and not the weights; predict with a prompt"):
            use()


def test_model_tuning_is_chosen_only_where_it_is_alone(tiny_backbone, sentiment, bank):
    options = TrainingOptions(**FAST | {"epochs": 6, "lr": 1e-9})
    result = run(sentiment(), tiny_backbone, "head_only", "prompt_tuning", "model_tuning", bank=bank, options=options)
    best = max(result.methods, key=lambda name: result.methods[name].validation[0])
    assert best == "model_tuning", "the others cannot learn at this rate"
    assert result.chosen in ("head_only", "prompt_tuning")
    assert result.prompt.card.method == result.chosen
    assert run(sentiment(), tiny_backbone, "model_tuning", bank=bank, options=options).chosen == "model_tuning"


def test_model_tuning_is_resumed_and_scored_again_where_the_test_data_is_new(tiny_backbone, sentiment, bank):
    progress = Counting()

    def go(**changes):
        return run(sentiment(), tiny_backbone, "model_tuning", bank=bank, progress=progress, seeds=(0, 1), **changes)

    first = go()
    assert progress.begun == ["model_tuning"] * 2
    second = go()
    assert progress.begun == ["model_tuning"] * 2, "known scores need no training"
    assert second.to_json() == first.to_json()
    third = go(test_examples=10)
    assert progress.begun == ["model_tuning"] * 4, "the bank keeps no model that could be scored"
    assert {outcome.card.test.n_test for outcome in third.methods["model_tuning"].outcomes} == {10}
    assert third.methods["model_tuning"].validation == first.methods["model_tuning"].validation
    assert len(bank.ids()) == 2
    again = go()
    assert again.methods["model_tuning"].scores == first.methods["model_tuning"].scores, "to the bit"


def test_model_tuning_without_test_data_has_validation_scores(tiny_backbone, sentiment, bank):
    result = run(sentiment(test=None), tiny_backbone, "model_tuning", bank=bank)
    assert result.methods["model_tuning"].scores is None
    assert len(result.methods["model_tuning"].validation) == 1


@pytest.mark.parametrize("protocol", ["clean", "paper"])
def test_all_five_methods_side_by_side(protocol, tiny_backbone, sentiment, bank, tmp_path):
    train(sentiment("books", seed=5), tiny_backbone, bank=bank, options=TrainingOptions(**FAST | {"prompt_length": 5}))
    task = sentiment()
    write_jsonl(tmp_path / "data" / "mood" / "validation.jsonl", sentiment_rows(20, 77))
    methods = ("model_tuning", "panda", "head_only", "pot", "prompt_tuning")
    result = run(task, tiny_backbone, *methods, bank=bank, protocol=protocol)
    assert list(result.methods) == ["prompt_tuning", "pot", "panda", "head_only", "model_tuning"]
    assert len(bank.ids()) == 6
    for name, method in result.methods.items():
        card = method.outcomes[0].card
        assert (card.prompt_length == 5) == (name in ("prompt_tuning", "pot", "panda"))
        assert bool(card.sources) == (name in ("pot", "panda"))
        assert protocol == "clean" or method.scores == method.validation, "reported on the set that chose the epoch"
    assert result.cost > 4 + 1 / 3, "four trainings, and one pass over the training part for the head alone"


@pytest.fixture
def panda(tmp_path, monkeypatch, tiny_folder):
    """Run `panda` in a folder with two files."""
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "good.jsonl", sentiment_rows(40))
    write_jsonl(tmp_path / "books.jsonl", sentiment_rows(40, 5))
    fast = ["--epochs", "1", "--max-length", "24", "--model", str(tiny_folder("bert"))]
    own = ["--text", "text", "--label", "label"]

    def go(*arguments, code=0):
        more = [*own, *fast] if arguments[0] in ("train", "transfer", "rank") else []
        result = CliRunner().invoke(app, [*arguments, *more])
        assert result.exit_code == code, f"{result.stdout}\n{result.stderr}\n{result.exception!r}"
        assert "Traceback" not in result.stderr
        return result.stdout if code == 0 else result.stderr.splitlines()[-1]

    return go


def test_baselines_through_the_command_line(panda):
    train_and_test = ["--train", "good.jsonl", "--test", "books.jsonl"]
    shown = panda("transfer", *train_and_test, "--methods", "head_only,model_tuning")
    assert "head only *" in shown
    assert "model tuning" in shown
    listed = {row["method"]: row for row in json.loads(panda("bank", "list", "--json"))["prompts"]}
    assert set(listed) == {"head_only", "model_tuning"}
    assert "head_only" in panda("bank", "list")
    head, model = (listed[name]["id"] for name in ("head_only", "model_tuning"))
    assert json.loads(panda("bank", "show", head, "--json"))["prompt_kind"] is None
    assert json.loads(panda("bank", "verify", "--json"))["sound"] == sorted([head, model])
    predictions = [json.loads(line) for line in panda("predict", head, "books.jsonl").splitlines()]
    assert len(predictions) == 40
    right = [found["label"] == row["label"] for found, row in zip(predictions, sentiment_rows(40, 5), strict=True)]
    assert np.mean(right) == pytest.approx(listed["head_only"]["test"])
    scored = json.loads(
        panda("evaluate", head, "--test", "books.jsonl", "--text", "text", "--label", "label", "--json")
    )
    assert scored["score"] == pytest.approx(listed["head_only"]["test"])
    for arguments in (
        ["predict", model, "books.jsonl"],
        ["evaluate", model, "--test", "books.jsonl", "--text", "text", "--label", "label"],
    ):
        sentence = panda(*arguments, code=2)
        assert sentence.startswith("panda: ")
        assert "keeps the scores and not the weights" in sentence
    for name in (head, model):
        sentence = panda("transfer", "--train", "books.jsonl", "--source", name, code=2)
        assert sentence.startswith("panda: ")
        assert "it cannot be a source" in sentence
    assert "holds no prompt" in panda("rank", "--train", "books.jsonl", code=2)
    panda("train", "--train", "books.jsonl")
    ranking = json.loads(panda("rank", "--train", "good.jsonl", "--json"))["ranking"]
    assert [entry["task"] for entry in ranking] == ["books"]
    panda("bank", "rm", head, model)
    assert len(os.listdir("bank")) == 1


def test_what_to_do_next_is_possible(panda):
    """A tuned model is not kept, so that nothing can be predicted with it."""
    assert "panda predict" not in panda("transfer", "--train", "good.jsonl", "--methods", "model_tuning")
    assert "panda predict" in panda("transfer", "--train", "good.jsonl", "--methods", "head_only")


@pytest.mark.parametrize("kind", ["token_classification", "extractive_qa"])
def test_a_head_that_read_its_examples_once_learns_what_it_would_by_reading_them_again(
    kind, tiny_backbone, tmp_path, monkeypatch
):
    task = kind_task(kind, tmp_path, train=24)
    part = partition(task, train_examples=24, seed=0)
    data = [data_of(tiny_backbone, task, split) for split in (part.train, part.validation)]
    objective = objective_for(task.spec, len(task.labels), part.train.labels)

    def trained():
        return Training(tiny_backbone, *data, objective, OPTIONS, seed=0, trained="head").run()

    once = trained()
    assert (once.example_steps, once.forward_examples) == (0, len(data[0]) + len(data[1]))
    monkeypatch.setattr("promptpanda.training.learner._MOST_SEEN", 0)
    again = trained()
    assert again.example_steps == OPTIONS.epochs * len(data[0])
    torch.testing.assert_close(once.head.weight, again.head.weight, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(once.head.bias, again.head.bias, atol=1e-5, rtol=1e-4)
    assert once.validation["loss"] == pytest.approx(again.validation["loss"], abs=1e-4)
