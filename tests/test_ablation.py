"""Controls: each is what it says, to the bit where that can be said, and the table holds them all."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import sentiment_rows, write_jsonl
from kinds import kind_task
from test_bank import foreign
from typer.testing import CliRunner

from promptpanda.bank.bank import Bank
from promptpanda.bank.folder import SourcePrompt
from promptpanda.cli.main import app
from promptpanda.errors import PandaError
from promptpanda.prompts.prompt import Prompt
from promptpanda.report.results import costs
from promptpanda.report.study import Study as Reported
from promptpanda.sweep.plan import expand
from promptpanda.sweep.recipe import SweepRecipe
from promptpanda.tasks.protocol import partition
from promptpanda.tasks.spec import Kind
from promptpanda.training.distillation import DistillationOptions
from promptpanda.training.options import TrainingOptions
from promptpanda.transfers.ablation import CONTROLS, ablate
from promptpanda.transfers.methods import (
    BEST_OF_TWO,
    EARLY_FUSION,
    LATE_FUSION,
    PANDA,
    PERMUTED_SOURCE,
    POT,
    PROMPT_TUNING,
    PROMPT_TUNING_TWICE,
)
from promptpanda.transfers.transfer import train, transfer
from promptpanda.transfers.trial import Trial

OPTIONS = TrainingOptions(epochs=2, max_length=24, readout="mean", prompt_length=5)
DEFAULT = DistillationOptions()

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def sources(tiny_backbone, sentiment):
    trained = [train(sentiment(name, seed=seed), tiny_backbone, options=OPTIONS) for name, seed in (("a", 5), ("b", 6))]
    return tuple(map(SourcePrompt.of, trained))


@pytest.fixture
def trial_of(tiny_backbone, sentiment, sources):
    task = sentiment()

    def trial(count=1, seed=0, **settings):
        part = partition(task, train_examples=40, seed=seed)
        return Trial(tiny_backbone, task, part, OPTIONS, seed, sources[:count], DistillationOptions(**settings))

    return trial


def same(one, other):
    return torch.equal(one.prompt.tensor, other.prompt.tensor) and torch.equal(one.head.weight, other.head.weight)


def test_a_student_from_the_source_that_hears_nothing_is_pot_to_the_bit(trial_of):
    trial = trial_of(student="source", coefficient="0", count=2)
    assert same(trial.outcome(PANDA), trial.outcome(POT))
    assert same(trial.outcome(LATE_FUSION), trial.outcome(EARLY_FUSION))
    assert not same(trial_of(student="source").outcome(PANDA), trial_of().outcome(PANDA))
    assert trial.outcome(PANDA).card.distillation.student == "source"


def test_a_random_teacher_is_not_trained_and_teaches_something_else(trial_of):
    trial = trial_of(teacher="random", coefficient="1")
    outcome = trial.outcome(PANDA)
    assert set(trial.cached) == {"panda"}, "no teacher was trained"
    assert trial.trained([PANDA]) == [outcome]
    assert (outcome.card.distillation.teacher, outcome.card.example_steps) == ("random", 2 * 32)
    assert not same(outcome, trial_of(coefficient="1").outcome(PANDA))
    assert not same(outcome, trial.outcome(PROMPT_TUNING))
    assert same(outcome, trial_of(teacher="random", coefficient="1").outcome(PANDA))
    fused = trial_of(count=2, teacher="random", coefficient="1")
    assert same(fused.outcome(LATE_FUSION), outcome), "whatever the sources are"


def test_a_permuted_source_keeps_the_scale_of_every_layer_and_starts_pot(trial_of, tiny_backbone):
    trial = trial_of()
    source = trial.source.prompt
    permuted = source.permuted(np.random.default_rng([0, 9]))
    assert not torch.equal(permuted.tensor, source.tensor)
    for layer, other in zip(permuted.tensor.flatten(0, 1), source.tensor.flatten(0, 1), strict=True):
        assert torch.equal(layer.flatten().sort().values, other.flatten().sort().values)
    shallow = Prompt("shallow", torch.arange(20.0).reshape(5, 4))
    assert sorted(shallow.permuted(np.random.default_rng(0)).tensor.flatten().tolist()) == list(range(20))
    start = replace(trial.source, prompt=permuted, checksum="permuted")
    from_it = replace(trial, sources=(start,), cached={})
    assert same(trial.outcome(PERMUTED_SOURCE), from_it.outcome(POT))
    assert not same(trial.outcome(PERMUTED_SOURCE), trial_of(seed=1).outcome(PERMUTED_SOURCE))


def test_twice_the_epochs_is_prompt_tuning_with_twice_the_epochs(trial_of):
    trial, longer = trial_of(), trial_of()
    longer.options = OPTIONS.model_copy(update={"epochs": 4})
    twice = trial.outcome(PROMPT_TUNING_TWICE)
    assert same(twice, longer.outcome(PROMPT_TUNING))
    assert twice.card.example_steps == 2 * trial.outcome(PROMPT_TUNING).card.example_steps
    assert len(twice.card.curve) == 4


@pytest.mark.parametrize("seed", range(4))
def test_the_better_of_two_is_one_of_two_different_restarts(seed, trial_of):
    trial = trial_of(seed=seed)
    tries = [trial.training(BEST_OF_TWO, restart=restart).run() for restart in (0, 1)]
    first = trial.outcome(PROMPT_TUNING)
    assert torch.equal(tries[0].prompt.tensor, first.prompt.tensor)
    assert not torch.equal(tries[0].prompt.tensor, tries[1].prompt.tensor)
    assert not torch.equal(tries[0].head.weight, tries[1].head.weight)
    best = max(tries, key=lambda one: (one.validation["accuracy"], -one.validation["loss"]))
    outcome = trial.outcome(BEST_OF_TWO)
    assert torch.equal(outcome.prompt.tensor, best.prompt.tensor)
    card = outcome.card
    assert card.example_steps == 2 * first.card.example_steps
    assert card.forward_examples == 2 * 8 + 32, "two validations and one signature"


def test_defaults_leave_no_trace_in_what_identifies_a_run():
    assert DEFAULT.used() == {"coefficient": "adaptive", "distance": "mse", "scale": 1.0}
    heard = DistillationOptions(unlabeled_weight=0.5, confidence=True)
    assert heard.used() == DEFAULT.used()
    assert heard.used(unlabeled=True) == DEFAULT.used() | {"unlabeled_weight": 0.5, "confidence": True}
    changed = DistillationOptions(student="source", teacher="random").used()
    assert changed == DEFAULT.used() | {"student": "source", "teacher": "random"}
    with pytest.raises(PandaError, match="--unlabeled-weight must be a finite number"):
        DistillationOptions(unlabeled_weight=-1.0).check(Kind.REGRESSION)


def test_controls_differ_from_the_default_in_one_thing():
    assert len({control.name for control in CONTROLS}) == len(CONTROLS)
    for control in CONTROLS:
        assert len(control.distillation) <= 1
    plain = [control.method for control in CONTROLS if not control.distillation]
    assert plain == ["prompt_tuning", "prompt_tuning_twice", "best_of_two", "pot", "permuted_source", "panda"]
    unchanged = [control.name for control in CONTROLS if control.distillation and not control.changes(DEFAULT)]
    assert unchanged == ["coefficient_adaptive", "distance_mse"]
    around = DistillationOptions(coefficient="1", distance="kl")
    unchanged = [control.name for control in CONTROLS if control.distillation and not control.changes(around)]
    assert unchanged == ["coefficient_1", "distance_kl"]


def test_the_table_is_made_of_what_the_controls_give(trial_of, sentiment):
    trials = [trial_of(seed=seed) for seed in (0, 1)]
    test = sentiment().test()
    table = ablate(trials, test)
    assert list(table) == [one.name for one in CONTROLS if one.name not in ("coefficient_adaptive", "distance_mse")]
    for name, changes in (
        ("panda", {}),
        ("coefficient_10", {"coefficient": "10"}),
        ("distance_kl", {"distance": "kl"}),
    ):
        alone = [trial_of(seed=seed, **changes) for seed in (0, 1)]
        scores = tuple(trial.test(PANDA, test)[1].scores["accuracy"] for trial in alone)
        assert table[name].scores == scores
        assert table[name].validation == tuple(trial.outcome(PANDA).card.score for trial in alone)
        assert table[name].gains == tuple(a - b for a, b in zip(scores, table["prompt_tuning"].scores, strict=True))
    assert table["prompt_tuning"].gains == (0.0, 0.0)
    # Two trainings with a teacher, one with a random one; validation, signatures and what teachers read count a third.
    assert table["panda"].cost == pytest.approx(2 + (2 * 40 + 32) / 3 / 64)
    assert table["random_teacher"].cost == pytest.approx(1 + (40 + 32) / 3 / 64)
    assert table["prompt_tuning_twice"].cost == pytest.approx(2 + 40 / 3 / 64)
    entry = table["panda"].to_json()
    assert entry["mean"] == statistics.fmean(table["panda"].scores)
    assert entry["std"] == statistics.stdev(table["panda"].scores)
    assert entry["gain"] == statistics.fmean(table["panda"].gains)
    without = ablate(trials[:1], None)
    assert without["panda"].scores is None
    validation = [without[name].validation[0] for name in ("panda", "prompt_tuning")]
    assert without["panda"].gains == (validation[0] - validation[1],)


def test_a_regression_has_no_kl(tiny_backbone, tmp_path, sources):
    task = kind_task("regression", tmp_path)
    options = TrainingOptions(epochs=1, max_length=32, readout="mean", prompt_length=5)
    trial = Trial(tiny_backbone, task, partition(task, train_examples=30, seed=0), options, 0, sources[:1])
    table = ablate([trial], None)
    assert "distance_kl" not in table
    assert "coefficient_published" in table


def test_a_control_that_diverges_leaves_the_others(trial_of):
    trial = trial_of()
    trial.options = OPTIONS.model_copy(update={"student_lr": 1e30})
    assert list(ablate([trial], None)) == [
        "prompt_tuning",
        "prompt_tuning_twice",
        "best_of_two",
        "pot",
        "permuted_source",
    ]


def test_controls_that_a_foreign_source_does_not_allow_are_left_out(tiny_backbone, tiny_folder, sentiment, tmp_path):
    foreign(tiny_folder("bert"), tmp_path / "theirs", length=5)
    result = transfer(
        sentiment(),
        str(tmp_path / "theirs"),
        tiny_backbone,
        bank=Bank(tmp_path / "bank"),
        options=OPTIONS,
        train_examples=40,
        distillation=DistillationOptions(coefficient="1"),
        ablation=True,
    )
    known = [one.name for one in CONTROLS if one.name not in ("coefficient_adaptive", "coefficient_1", "distance_mse")]
    assert list(result.ablation) == known


def test_one_of_two_restarts_is_enough(trial_of):
    trial = trial_of()
    training = trial.training

    def first_diverges(method, *, restart=0, **settings):
        made = training(method, restart=restart, **settings)
        if restart == 0:
            made.steps.lr = 1e30
        return made

    trial.training = first_diverges
    second = training(BEST_OF_TWO, restart=1).run()
    assert torch.equal(trial.outcome(BEST_OF_TWO).prompt.tensor, second.prompt.tensor)


def test_ablation_needs_a_source(tiny_backbone, sentiment, tmp_path):
    with pytest.raises(PandaError, match="starts from a source prompt, and there is none"):
        transfer(
            sentiment(),
            "auto",
            tiny_backbone,
            bank=Bank(tmp_path / "empty"),
            options=OPTIONS,
            methods=["prompt_tuning"],
            train_examples=40,
            ablation=True,
        )


@pytest.fixture
def panda(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, seed in (("books", 5), ("mood", 0)):
        write_jsonl(tmp_path / f"{name}.jsonl", sentiment_rows(40, seed))
    write_jsonl(tmp_path / "test.jsonl", sentiment_rows(20, 9))
    shared = ["--model", str(tiny_folder("bert")), "--text", "text", "--label", "label", "--epochs", "1"]

    def run(*arguments):
        result = CliRunner().invoke(app, [*arguments, *shared, "--max-length", "24", "--prompt-length", "4"])
        assert result.exit_code == 0, result.output
        return result.stdout

    return run


def test_the_table_on_the_command_line(panda, tmp_path):
    panda("train", "--train", "books.jsonl")
    command = ["transfer", "--train", "mood.jsonl", "--test", "test.jsonl", "--source", "books", "--ablate"]
    found = json.loads(panda(*command, "--seeds", "0,1", "--json"))
    assert list(found["methods"]) == ["prompt_tuning", "pot", "panda"]
    assert found["ablation"]["panda"]["scores"] == found["methods"]["panda"]["scores"]
    keys = {"method", "changes", "mean", "std", "scores", "validation", "gain", "cost"}
    assert all(set(entry) == keys for entry in found["ablation"].values())
    made = len(Bank(tmp_path / "bank").ids())
    text = panda(*command, "--seeds", "0,1", "--methods", "prompt_tuning")
    assert len(Bank(tmp_path / "bank").ids()) == made, "nothing is trained twice"
    for name in found["ablation"]:
        assert name in text
    assert "teacher random" in text
    assert "ablation" not in json.loads(panda(*command[:-1], "--json"))
    panda(*command[:-1], "--teacher", "random", "--student", "source", "--methods", "panda")
    (card,) = [
        card
        for card in Bank(tmp_path / "bank").cards()
        if card.distillation is not None
        and (card.distillation.student, card.distillation.teacher) == ("source", "random")
    ]
    assert card.method == "panda"


def test_a_recipe_takes_all_controls_by_one_word(study, tmp_path):
    recipe = study.recipe(variants="ablation", methods=["panda"])
    assert recipe.methods == ("panda", "prompt_tuning", "prompt_tuning_twice", "best_of_two", "pot", "permuted_source")
    changing = [one.name for one in CONTROLS if one.distillation and one.changes(DEFAULT)]
    assert list(recipe.variants) == changing
    (tmp_path / "again.yaml").write_text(recipe.to_yaml())
    assert SweepRecipe.from_yaml(tmp_path / "again.yaml") == recipe
    around = study.recipe(variants="ablation", distillation={"coefficient": 1, "distance": "kl"})
    assert {"coefficient_adaptive", "distance_mse"} <= set(around.variants)
    assert not {"coefficient_1", "distance_kl"} & set(around.variants)
    plan = expand(recipe, study.folder)
    students = [spec for spec in plan.runs if spec.method == "panda"]
    assert len(students) == 2 * (1 + len(changing))
    assert all((spec.teacher is None) == (spec.variant == "random_teacher") for spec in students)
    assert Counter(spec.method for spec in plan.runs if spec.kind == "target")["pot"] == 2, "one teacher a source"
    with pytest.raises(PandaError, match="variants: input should be a valid dictionary"):
        study.recipe(variants="ablations")
    with pytest.raises(PandaError, match="Did you mean 'scale'"):
        study.recipe(variants="ablation", distillation={"sclae": 1})


def test_variants_that_a_kind_has_not_are_left_out(study):
    study.write_task("mood", 0, kind="regression", metrics=["pearson"], labels=[])
    plan = expand(study.recipe(variants="ablation"), study.folder)
    assert {spec.variant for spec in plan.runs} & {"distance_kl", "random_teacher"} == {"random_teacher"}


def test_a_sweep_of_controls_and_fusions_gives_what_trials_give(study, tiny_backbone):
    recipe = study.recipe(
        methods=["panda", "early_fusion", "late_fusion", "panda_unlabeled", "late_fusion_unlabeled", "best_of_two"],
        variants={
            "random": {"method": "late_fusion", "distillation": {"teacher": "random"}},
            "warm": {"method": "panda", "distillation": {"student": "source"}},
        },
        targets=study.content()["targets"] | {"unlabeled": 10},
        estimators=False,
    )
    study.run(recipe=recipe)
    rows = study.rows()
    assert {row.status for row in rows} == {"finished"}, [row.reason for row in rows]
    study.run(recipe=recipe)
    assert study.rows() == rows, "nothing is run twice"
    by_name = {(row.method, row.variant, row.source): row for row in rows if row.kind == "target"}
    fused = by_name["late_fusion", "default", None]
    bank = study.bank()
    card = bank.load(fused.prompt, tiny_backbone).card
    pots = {by_name["pot", "default", name].prompt for name in ("books", "films")}
    assert {card.distillation.teacher, *card.distillation.fused_with} == pots
    assert sum(one.weight for one in card.sources) == pytest.approx(1.0)
    assert bank.load(by_name["late_fusion", "random", None].prompt, tiny_backbone).card.distillation.teacher == "random"
    for key in (("panda_unlabeled", "default", "books"), ("late_fusion_unlabeled", "default", None)):
        assert bank.load(by_name[key].prompt, tiny_backbone).card.distillation.n_unlabeled == 10
    assert by_name["early_fusion", "default", None].example_steps == by_name["pot", "default", "books"].example_steps
    assert by_name["best_of_two", "default", None].example_steps == 2 * by_name["pot", "default", "books"].example_steps


def test_a_source_that_shares_text_with_the_target_is_in_no_fusion(study):
    recipe = study.recipe(
        sources={"tasks": ["mr", "trec", "wic"]}, targets={"tasks": ["sst2"]}, methods=["late_fusion", "pot"]
    )
    runs = expand(recipe, study.folder).runs
    assert {spec.source.task for spec in runs if spec.method == "pot"} == {"mr", "trec", "wic"}
    (fused,) = [spec for spec in runs if spec.method == "late_fusion"]
    assert [spec.task for spec in fused.sources] == ["trec", "wic"], "mr and sst2 share texts"


def test_a_report_of_a_sweep_with_fusions(study, tmp_path):
    variants = {"random": {"method": "late_fusion", "distillation": {"teacher": "random"}}}
    study.run(recipe=study.recipe(methods=["prompt_tuning", "late_fusion"], variants=variants, estimators=False))
    rows = {(row.method, row.variant, row.source): row for row in study.rows() if row.kind == "target"}
    work = {key: row.example_steps + row.forward_examples / 3 for key, row in rows.items()}
    fused = work["late_fusion", "default", None] + work["pot", "default", "books"] + work["pot", "default", "films"]
    (group,) = Reported.of(study.rows(), [], sizes={}).groups
    found = {row[0].text: [cell.value for cell in row] for row in costs(group, "x").rows}
    unit = rows["prompt_tuning", "default", None].example_steps
    assert pytest.approx(fused / unit) in found["late fusion"], "both teachers count"
    assert pytest.approx(work["late_fusion", "random", None] / unit) in found["late fusion (random)"]
    result = CliRunner().invoke(app, ["report", str(tmp_path / "out"), "--out", str(tmp_path / "page")])
    assert result.exit_code == 0, result.output
    assert "late fusion (random)" in next((tmp_path / "page").glob("*.html")).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": ["panda_unlabeled"]}, "panda_unlabeled learns from unlabelled text; say how much in targets"),
        ({"targets": {"tasks": ["mood.yaml"], "unlabeled": 5}}, "a budget of null leaves none"),
        ({"targets": {"tasks": ["mood.yaml"], "budgets": 24, "unlabeled": 0}}, "targets: unlabeled"),
        ({"methods": ["late_fusion"], "sources": None}, "late_fusion starts from a source"),
        ({"distillation": {"student": "old"}}, "student: input should be 'fresh' or 'source'"),
        ({"distillation": {"teacher": "none"}}, "teacher: input should be 'trained' or 'random'"),
        ({"distillation": {"unlabeled_weight": -1}}, "unlabeled_weight"),
    ],
)
def test_wrong_recipes_are_refused(change, message, study):
    with pytest.raises(PandaError) as error:
        study.recipe(**change)
    assert message in str(error.value)


def test_keys_of_older_runs_hold_nothing_of_what_came_later(study):
    plain = expand(study.recipe(), study.folder)
    for spec in plain.runs:
        content = spec.content(lambda need: need.label)
        assert not {"fused", "unlabeled"} & set(content)
        assert set(content["needs"]) <= {"source", "teacher", "own"}
    fused = expand(study.recipe(methods=["late_fusion"], estimators=False), study.folder)
    (spec,) = [spec for spec in fused.runs if spec.method == "late_fusion"]
    assert [one.task for one in spec.sources] == ["books", "films"]
    assert {"late_fusion", "books", "films"} <= set(spec.words)
    assert "from books and films" in spec.label
    assert list(spec.needs) == ["source_1", "source_2", "teacher_1", "teacher_2"]
    assert all(one in fused.runs for one in spec.needs.values())
    assert [one.source for one in spec.teachers] == list(spec.sources)
