"""Recipes: what is accepted, what is refused and how, and the recipes that the project brings along."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from promptpanda.cli.main import app
from promptpanda.errors import PandaError
from promptpanda.models import embedded_model, model_names
from promptpanda.sweep.plan import ModelAt, expand
from promptpanda.sweep.recipe import SweepRecipe
from promptpanda.sweep.store import Store
from promptpanda.tasks.catalog import load_task

RECIPES = Path(__file__).parent.parent / "recipes"
SHARED = Path(__file__).parent.parent.parent / "shared"


def test_a_recipe_survives_the_way_through_yaml(study, tmp_path):
    recipe = study.recipe(
        protocol="clean",
        variants={"half": {"method": "panda", "distillation": {"coefficient": 0.5}}},
        targets={"tasks": ["mood.yaml"], "budgets": [None, 24], "per_task": {"mood.yaml": {"epochs": 2}}},
    )
    (tmp_path / "again.yaml").write_text(recipe.to_yaml())
    again = SweepRecipe.from_yaml(tmp_path / "again.yaml")
    assert again == recipe
    assert again.to_yaml() == recipe.to_yaml()
    assert recipe.target_options("mood.yaml").epochs == 2
    assert recipe.target_options("mood.yaml").prompt_length == 4, "the shape of prompts is the sources'"
    assert recipe.distillation_options("half").coefficient == "0.5"


def test_the_recipe_of_the_documentation_is_one():
    page = (RECIPES.parent / "docs" / "studies.md").read_text(encoding="utf-8")
    recipe = SweepRecipe.parse(yaml.safe_load(re.search(r"```yaml\n(.*?)```", page, re.S).group(1)), "docs/studies.md")
    assert len(expand(recipe).runs) == 2 + 2 * 2 * 3 * (3 + 2 * 4)


def test_an_impossible_date_in_a_recipe_is_told(tmp_path):
    (tmp_path / "study.yaml").write_text("name: 2026-02-30")
    with pytest.raises(PandaError, match="is not valid YAML"):
        SweepRecipe.from_yaml(tmp_path / "study.yaml")


def test_paths_of_a_recipe_are_absolute_for_workers_elsewhere(study, monkeypatch):
    monkeypatch.chdir(study.folder)
    study.write_recipe(models=["./model"])
    plan = expand(SweepRecipe.from_yaml(Path("study.yaml")), Path())
    assert plan.models == {"./model": ModelAt(str(study.folder / "model"))}
    assert plan.tasks["mood"] == str(study.folder / "mood.yaml")


BAD = [
    ({"name": "../up"}, "'../up' cannot be used as a file name"),
    ({"name": None}, "name: "),
    ({"models": []}, "at least one is needed"),
    ({"models": ["a", "a"]}, "a comes twice"),
    ({"methods": []}, "at least one is needed"),
    ({"methods": ["pot", "pandas"]}, "no method 'pandas'; known are prompt_tuning, pot, panda"),
    ({"methods": ["pandas"]}, "Did you mean 'panda'?"),
    ({"methods": "panda"}, "methods: "),
    ({"seeds": [0, 1, 0]}, "0 comes twice"),
    ({"seeds": []}, "at least one is needed"),
    ({"seeds": [-1]}, "seeds: 0: input should be greater than or equal to 0, found '-1'"),
    ({"protocol": "dirty"}, "protocol: input should be 'clean' or 'paper', found 'dirty'"),
    (
        {"dtype": "bf16"},
        "dtype: input should be 'auto', 'float32', 'bfloat16', 'float16', 'int8' or 'nf4', found 'bf16'",
    ),
    ({"thread": 2}, "thread is no field; known are name, protocol, models"),
    ({"threads": 0}, "threads: input should be greater than or equal to 1"),
    ({"sources": None}, "method pot starts from a source, and the recipe has no sources"),
    ({"sources": {"tasks": []}}, "sources: at least one is needed"),
    ({"sources": {"tasks": ["books.yaml"], "seeds": [1, 1]}}, "sources: 1 comes twice"),
    ({"sources": {"tasks": ["books.yaml"], "exampels": 9}}, "Did you mean 'examples'?"),
    ({"sources": {"tasks": ["books.yaml"], "options": {"epoch": 9}}}, "no field 'epoch'; known are epochs"),
    ({"sources": {"tasks": ["books.yaml"], "options": {"lr": -1}}}, "sources: options: lr"),
    ({"sources": {"tasks": ["books.yaml"], "options": {"lr": "auto"}}}, "lr auto would train three times a run"),
    ({"targets": {"tasks": ["mood.yaml"], "budgets": 0}}, "targets: budgets: 0: "),
    ({"targets": {"tasks": ["mood.yaml"], "budgets": [8, 8]}}, "targets: 8 comes twice"),
    ({"targets": {"tasks": ["mood.yaml"], "test_examples": 0}}, "targets: test_examples"),
    (
        {"targets": {"tasks": ["mood.yaml"], "per_task": {"cb": {}}}},
        "per_task names 'cb', which is not among the tasks",
    ),
    ({"targets": {"tasks": ["mood.yaml"], "per_task": {"mood.yaml": {"lr": "x"}}}}, "targets: mood.yaml: lr"),
    ({"targets": {"tasks": ["mood.yaml"], "per_task": {"mood.yaml": {"prompt_length": 9}}}}, "cannot be a task's own"),
    (
        {"targets": {"tasks": ["mood.yaml"], "options": {"prompt_length": 9}}},
        "prompt_length 9 differs from the sources' 4",
    ),
    ({"targets": {"options": {}}}, "targets: tasks is missing."),
    ({"targets": None}, "methods is for targets, and the recipe has none; add targets, or leave methods out"),
    ({"targets": None, "methods": [], "sources": None}, "targets is missing; give targets and methods, or sources"),
    ({"distillation": {"coefficient": "much"}}, "coefficient must be adaptive, published or a number, found 'much'"),
    ({"distillation": {"coefficient": -1}}, "coefficient must be a finite number of at least 0"),
    ({"distillation": {"distance": "l1"}}, "distillation: distance: input should be 'mse' or 'kl'"),
    ({"distillation": {"coefficient": 1e300}}, "coefficient must be a finite number"),
    ({"variants": {"x": {"method": "panda", "distillation": {"scale": 1e300}}}}, "coefficient-scale must be a finite"),
    ({"variants": {"x": {"method": "panda", "distillation": {"temperature": 1e300}}}}, "temperature must be a finite"),
    ({"distillation": {"sclae": 1}}, "Did you mean 'scale'?"),
    ({"estimators": ["cosin"]}, "estimators: no 'cosin'"),
    ({"estimators": ["on", "on"]}, "on comes twice"),
    ({"variants": {"x": {"method": "pot", "options": {"lr": "fast"}}}}, "variants: x: options: lr"),
    ({"variants": {"x": {"method": "pott"}}}, "variants: x: no method 'pott'"),
    ({"variants": {"x": {"method": "panda", "distillation": {"beta": -1}}}}, "variants: x: distillation: beta"),
    ({"variants": {"x": {"method": "panda", "distillation": {"betta": 1}}}}, "Did you mean 'beta'?"),
    ({"variants": {"x": {"method": "pot", "options": {"prompt_length": 5}}}}, "prompts of one recipe have one shape"),
    ({"variants": {"default": {"method": "pot"}}}, "the name 'default' is taken"),
    ({"variants": {"a/b": {"method": "pot", "options": {"epochs": 3}}}}, "'a/b' cannot be used as a file name"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_wrong_recipes_are_refused_in_one_sentence(study, change, message):
    path = study.write_recipe(**change)
    with pytest.raises(PandaError) as error:
        SweepRecipe.from_yaml(path)
    text = str(error.value)
    assert message in text
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    assert text.endswith((".", "?"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", "is not a sweep recipe"),
        ("", "is not a sweep recipe"),
        ("name: [", "is not valid YAML"),
        ("\tname: x", "is not valid YAML"),
    ],
)
def test_files_that_are_no_recipes(tmp_path, text, message):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(PandaError, match=message):
        SweepRecipe.from_yaml(tmp_path / "bad.yaml")
    with pytest.raises(PandaError, match="No recipe at"):
        SweepRecipe.from_yaml(tmp_path / "none.yaml")
    with pytest.raises(PandaError, match="is a folder"):
        SweepRecipe.from_yaml(tmp_path)


def test_an_unknown_task_is_named_with_the_nearest(study):
    with pytest.raises(PandaError, match="No task 'rtee' in the catalog. Did you mean 'rte'?"):
        expand(study.recipe(targets={"tasks": ["rtee"]}), study.folder)


def test_the_command_refuses_with_code_2(study):
    path = study.write_recipe(methods=["pandas"])
    result = CliRunner().invoke(app, ["sweep", str(path)])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1


def test_the_paper_s_grid():
    recipe = SweepRecipe.from_yaml(RECIPES / "paper.yaml")
    plan = expand(recipe, RECIPES)
    assert recipe.protocol == "paper"
    assert set(recipe.models) == {f"bert-{size}" for size in ("large", "base", "medium", "small", "tiny")}
    assert set(recipe.models) <= set(model_names())
    sources, targets = 21, 9
    pairs = sources * targets - targets  # every target is among the sources
    assert (len(recipe.sources.tasks), len(recipe.targets.tasks)) == (sources, targets)
    counts = Counter((spec.kind, spec.method) for spec in plan.runs if spec.model == "bert-tiny")
    assert counts == {
        ("source", "prompt_tuning"): sources,
        ("target", "prompt_tuning"): targets,
        ("target", "model_tuning"): targets,
        ("target", "pot"): pairs,
        ("target", "panda"): pairs,
        ("estimates", None): pairs,
    }
    assert len(plan.runs) == 5 * sum(counts.values())


def test_the_laptop_s_grid():
    recipe = SweepRecipe.from_yaml(RECIPES / "laptop.yaml")
    plan = expand(recipe, RECIPES)
    kinds = {load_task(task).kind for task in recipe.targets.tasks}
    assert len(kinds) == len(recipe.targets.tasks) >= 4, "targets of different kinds"
    assert len(recipe.seeds) == 3
    assert all(spec.budget <= 160 for spec in plan.runs if spec.kind == "target")
    data = RECIPES / recipe.data_dir
    if not data.is_dir():
        pytest.skip("../shared/data is not there")
    for task in plan.tasks:
        assert load_task(task, data_dir=data).available(), task


def test_the_study_and_its_controls_share_their_runs():
    study = SweepRecipe.from_yaml(RECIPES / "study.yaml")
    controls = SweepRecipe.from_yaml(RECIPES / "study-controls.yaml")
    assert (len(study.sources.tasks), len(study.targets.tasks), len(study.seeds)) == (8, 6, 3)
    kinds = [load_task(task).kind for task in study.targets.tasks]
    assert len(set(kinds)) == 4
    assert max(study.targets.budgets) <= 128
    both = set(expand(study, RECIPES).runs) & set(expand(controls, RECIPES).runs)
    assert len(both) == 2 + 6 * 3 * (1 + 2 * 2), "source prompts, prompt tuning, PoT and PANDA of the two sources"
    changed = [spec for spec in expand(controls, RECIPES).runs if spec.variant != "default"]
    assert {spec.variant for spec in changed} >= {"random_teacher", "student_from_source", "coefficient_10"}


@pytest.mark.timeout(3000)
def test_the_smoke_recipe_runs(tmp_path, monkeypatch):
    if embedded_model() is None or not load_task("election_tweets").available():
        pytest.skip("the demo's packages are not installed (make install)")
    monkeypatch.chdir(tmp_path)
    found = CliRunner().invoke(app, ["sweep", str(RECIPES / "smoke.yaml"), "--json"])
    assert found.exit_code == 0, found.stderr
    outcome = json.loads(found.stdout)
    assert outcome["failed"] == []
    assert outcome["left"] == 0
    assert outcome["finished"] == outcome["total"] == outcome["begun"] > 10
    with Store.open(tmp_path / "runs" / "smoke") as store:
        rows = store.rows()
        assert yaml.safe_load(store.facts()["recipe"])["name"] == "smoke"
    assert {row.kind for row in rows} == {"source", "target", "estimates"}
    assert all(row.test is not None and len(row.predictions) == row.n_test for row in rows if row.kind == "target")
    assert all(0 <= row.constant <= 1 for row in rows if row.kind == "target")
    assert set(os.listdir(tmp_path / "runs" / "smoke" / "bank")) == {row.prompt for row in rows if row.prompt}
