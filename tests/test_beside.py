"""`--beside`: trainings that share a batch give what each gives alone, up to rounding."""

from __future__ import annotations

import pytest
import torch
from conftest import save_tiny, sentiment_rows
from families import FAMILIES
from kinds import KINDS, kind_task
from typer.testing import CliRunner

from promptpanda.backbone import Backbone
from promptpanda.bank.bank import Bank
from promptpanda.bank.folder import SourcePrompt
from promptpanda.cli.main import app
from promptpanda.errors import PandaError
from promptpanda.prompts.dropout import keep_mask, keep_mask_of_rows
from promptpanda.sweep.recipe import SweepRecipe
from promptpanda.tasks.protocol import partition
from promptpanda.training.beside import advance_beside
from promptpanda.training.options import TrainingOptions
from promptpanda.transfers.method import options_used
from promptpanda.transfers.methods import HEAD_ONLY, PANDA, PANDA_UNLABELED, POT, PROMPT_TUNING
from promptpanda.transfers.race import race
from promptpanda.transfers.selection import SelectionOptions
from promptpanda.transfers.transfer import train, transfer
from promptpanda.transfers.trial import Trial

pytestmark = pytest.mark.usefixtures("one_thread")

OPTIONS = TrainingOptions(epochs=3, max_length=24, readout="mean", prompt_length=4, lr=1e-2, dropout=0.2)


def trial_of(backbone, task, seed=0, sources=(), unlabeled=None, bank=None, **options):
    settings = OPTIONS.model_copy(update=options)
    return Trial(backbone, task, partition(task, seed=seed), settings, seed, sources, unlabeled=unlabeled, bank=bank)


def assert_same(together, alone):
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one.prompt.tensor, other.prompt.tensor, atol=2e-3, rtol=2e-3)
        torch.testing.assert_close(one.head.weight, other.head.weight, atol=2e-3, rtol=2e-3)
        assert one.example_steps == other.example_steps
        assert [epoch.train_loss for epoch in one.curve] == pytest.approx(
            [epoch.train_loss for epoch in other.curve], abs=1e-3
        )


def both_ways(trials, method, width=8):
    begun = [method.begin(trial) for trial in trials]
    advance_beside(begun, width)
    return [one.finish() for one in begun], [method.run(trial) for trial in trials]


@pytest.mark.parametrize("kind", KINDS)
def test_seeds_of_every_kind_train_as_alone(kind, tiny_backbone, tmp_path):
    task = kind_task(kind, tmp_path)
    trials = [trial_of(tiny_backbone, task, seed, max_length=32, readout="auto") for seed in (0, 1, 2)]
    assert_same(*both_ways(trials, PROMPT_TUNING))


@pytest.mark.parametrize("family", ["GPT-2", "DistilBERT", "DeBERTa v2/v3", "ALBERT"])
def test_other_families_do_too(family, sentiment, tmp_path):
    backbone = Backbone.load(str(save_tiny(FAMILIES[family], tmp_path / "model")))
    trials = [trial_of(backbone, sentiment(), seed, readout="auto") for seed in (0, 1)]
    assert_same(*both_ways(trials, PROMPT_TUNING))


@pytest.mark.parametrize(
    "options",
    [
        {"readout": "compare"},
        {"readout": "compare", "train_layers": 1},
        {"train_layers": 1},
        {"prompt_kind": "shallow"},
        {"reparameterize": 8},
        {"gradient_checkpointing": True},
        {"precision": "bf16"},
    ],
    ids=str,
)
def test_options_of_the_training_hold(options, tiny_backbone, tmp_path):
    task = kind_task("pair_classification", tmp_path)
    trials = [trial_of(tiny_backbone, task, seed, **options) for seed in (0, 1)]
    together, alone = both_ways(trials, PROMPT_TUNING)
    if options.get("precision") == "bf16":  # coarse roundings; what matters is that it learns the same
        assert [one.validation["loss"] for one in together] == pytest.approx(
            [one.validation["loss"] for one in alone], abs=0.1
        )
    else:
        assert_same(together, alone)


def test_early_stopping_ends_one_and_the_others_go_on(tiny_backbone, sentiment):
    trials = [trial_of(tiny_backbone, sentiment(), seed, early_stopping=1, epochs=6) for seed in (0, 1, 2)]
    together, alone = both_ways(trials, PROMPT_TUNING)
    assert [len(one.curve) for one in together] == [len(one.curve) for one in alone]
    assert_same(together, alone)


def test_students_and_teachers(tiny_backbone, sentiment):
    source = SourcePrompt.of(train(sentiment("films", seed=5), tiny_backbone, options=OPTIONS))
    task, texts = sentiment(), tuple((row["text"],) for row in sentiment_rows(50, seed=77))
    trials = [trial_of(tiny_backbone, task, seed, (source,), texts) for seed in (0, 1)]
    for method in (POT, PANDA, PANDA_UNLABELED):  # the last needs batches of its own, and is trained alone
        together, alone = both_ways(trials, method)
        assert_same(together, alone)
        assert [one.forward_examples for one in together] == [one.forward_examples for one in alone]


def test_a_width_of_two_takes_three_in_two_groups(tiny_backbone, sentiment):
    trials = [trial_of(tiny_backbone, sentiment(), seed) for seed in (0, 1, 2)]
    together, alone = both_ways(trials, PROMPT_TUNING, width=2)
    assert_same(together, alone)
    assert torch.equal(together[2].prompt.tensor, alone[2].prompt.tensor)  # it was alone


def test_what_diverges_drops_out(tiny_backbone, sentiment):
    task = sentiment()
    begun = [
        PROMPT_TUNING.begin(trial_of(tiny_backbone, task, seed, lr=rate))
        for seed, rate in ((0, 1e-2), (1, 1e30), (2, 1e-2))
    ]
    advance_beside(begun, 8)
    assert [one.diverged is None for one in begun] == [True, False, True]
    alone = [PROMPT_TUNING.run(trial_of(tiny_backbone, task, seed)) for seed in (0, 2)]
    assert_same([begun[0].finish(), begun[2].finish()], alone)


def test_heads_are_trained_alone(tiny_backbone, sentiment):
    trials = [trial_of(tiny_backbone, sentiment(), seed) for seed in (0, 1)]
    begun = [trial.training(HEAD_ONLY) for trial in trials]
    assert {one.steps.joins for one in begun} == {None}
    advance_beside(begun, 8)
    assert all(
        torch.equal(one.finish().head.weight, HEAD_ONLY.run(trial).head.weight)
        for one, trial in zip(begun, trials, strict=True)
    )


def test_dropout_is_drawn_from_streams_of_their_own():
    owners = torch.tensor([0, 1, 0, 1, 1])

    def streams():
        return [torch.Generator().manual_seed(seed) for seed in (3, 4)]

    mask = keep_mask_of_rows((2, 5, 7), 0.5, torch.device("cpu"), streams(), owners, 1)
    for number, stream in enumerate(streams()):
        own = owners == number
        assert torch.equal(mask[:, own], keep_mask((2, int(own.sum()), 7), 0.5, torch.device("cpu"), stream))


def test_a_race_side_by_side_gives_the_same_standings(tiny_backbone, sentiment, tmp_path):
    sources = tuple(
        SourcePrompt.of(train(sentiment(name, seed=5 + place), tiny_backbone, options=OPTIONS))
        for place, name in enumerate(("books", "films", "games"))
    )
    options = {"epochs": 8, "dropout": 0.0}
    alone = race(trial_of(tiny_backbone, sentiment(), sources=sources, **options))
    together = race(trial_of(tiny_backbone, sentiment(), sources=sources, beside=4, **options))
    assert [one.id for one in together.finalists] == [one.id for one in alone.finalists]
    for (_, here), (_, there) in zip(together.rungs, alone.rungs, strict=True):
        assert [one.prompt for one in here] == [one.prompt for one in there]
        assert [one.loss for one in here] == pytest.approx([one.loss for one in there], abs=1e-3)


def test_a_transfer_keeps_all_seeds_and_takes_them_up_again(tiny_backbone, sentiment, tmp_path, monkeypatch):
    source = train(sentiment("films", seed=5), tiny_backbone, options=OPTIONS)
    bank = Bank(tmp_path / "bank")
    asked = {"methods": ["prompt_tuning", "pot", "panda"], "seeds": (0, 1), "bank": bank}
    together = transfer(sentiment(), source, tiny_backbone, options=OPTIONS.model_copy(update={"beside": 4}), **asked)
    alone = transfer(sentiment(), source, tiny_backbone, options=OPTIONS, **asked | {"bank": tmp_path / "other"})
    for name, result in together.methods.items():
        assert result.validation == pytest.approx(alone.methods[name].validation, abs=0.11)
        assert {one.card.options.beside for one in result.outcomes} == {4}
    monkeypatch.setattr("promptpanda.training.steps.Steps.update", lambda *_: pytest.fail("trained again"))
    again = transfer(sentiment(), source, tiny_backbone, options=OPTIONS.model_copy(update={"beside": 4}), **asked)
    assert {name: one.validation for name, one in again.methods.items()} == {
        name: one.validation for name, one in together.methods.items()
    }


def test_auto_and_rates_take_it(tiny_backbone, sentiment, tmp_path):
    bank = Bank(tmp_path / "bank")
    train(sentiment("films", seed=5), tiny_backbone, bank=bank, options=OPTIONS)
    options = OPTIONS.model_copy(update={"beside": 3, "lr": "auto"})
    result = transfer(
        sentiment(), "auto", tiny_backbone, bank=bank, options=options, selection=SelectionOptions(survivors=1)
    )
    assert result.prompt is not None


def test_it_is_part_of_a_runs_identity():
    assert "beside" not in options_used(OPTIONS, PROMPT_TUNING)
    assert options_used(OPTIONS.model_copy(update={"beside": 2}), PROMPT_TUNING)["beside"] == 2
    assert "beside" not in options_used(OPTIONS.model_copy(update={"beside": 2}), HEAD_ONLY)


def test_a_recipe_refuses_it():
    content = {
        "name": "one",
        "models": "tiny",
        "targets": {"tasks": ["cr"], "options": {"beside": 2}},
        "methods": ["prompt_tuning"],
    }
    with pytest.raises(PandaError, match="beside is for the trainings of one transfer"):
        SweepRecipe.parse(content, "recipe.yaml")


def test_wrong_widths_are_told(tmp_path):
    result = CliRunner().invoke(app, ["train", "cr", "--bank", str(tmp_path / "bank"), "--beside", "0"])
    assert result.exit_code == 2
    assert "--beside 0 is out of range" in " ".join(result.output.split())
