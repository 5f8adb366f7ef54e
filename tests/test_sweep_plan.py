"""The graph of runs: nothing twice, seeds as agreed, and keys that change with what matters and with nothing else."""

from __future__ import annotations

import shutil
from collections import Counter

import pytest
from conftest import CONFIGS, save_tiny, sentiment_rows, write_jsonl

from promptpanda.errors import PandaError
from promptpanda.sweep.cache import Cache, identify
from promptpanda.sweep.plan import expand

pytestmark = pytest.mark.usefixtures("one_thread")


def plan_of(study, **changes):
    return expand(study.recipe(**changes), study.folder)


def keys_of(study, **changes):
    recipe = study.recipe(**changes)
    found = identify(expand(recipe, study.folder), recipe.protocol, study.folder / "data", Cache())
    return {spec: keys.key for spec, keys in found.keys.items()}


def test_counts_of_a_grid(study):
    plan = plan_of(
        study,
        targets={"tasks": ["mood.yaml", "films.yaml"], "budgets": [24, 32], "options": {"epochs": 1}},
        methods=["prompt_tuning", "pot", "panda", "head_only"],
        seeds=[0, 1, 2],
    )
    counts = Counter((spec.kind, spec.method) for spec in plan.runs)
    cells = 2 * 3  # budgets x seeds
    assert counts == {
        ("source", "prompt_tuning"): 2,
        ("target", "prompt_tuning"): 2 * cells,
        ("target", "head_only"): 2 * cells,
        ("target", "pot"): 3 * cells,  # mood from two sources, films from books alone
        ("target", "panda"): 3 * cells,
        ("estimates", None): 3 * cells,
    }
    assert len(set(plan.runs)) == len(plan.runs)
    assert not any(spec.source is not None and spec.source.task == spec.task for spec in plan.runs)


def test_what_a_run_starts_from_comes_before_it_and_is_shared(study):
    plan = plan_of(study, seeds=[0, 1], variants={"kl": {"method": "panda", "distillation": {"distance": "kl"}}})
    place = {spec: number for number, spec in enumerate(plan.runs)}
    for spec in plan.runs:
        assert all(place[need] < place[spec] for need in spec.needs.values())
    students = [spec for spec in plan.runs if spec.method == "panda" and spec.seed == 0 and spec.source.task == "books"]
    assert sorted(spec.variant for spec in students) == ["default", "kl"]
    assert len({spec.teacher for spec in students}) == 1, "a teacher serves all its students"
    assert {spec.source for spec in plan.runs if spec.source} == {spec for spec in plan.runs if spec.kind == "source"}


def test_a_target_seed_takes_the_source_of_its_seed_else_the_lowest(study):
    sources = study.content()["sources"] | {"seeds": [3, 1]}
    plan = plan_of(study, sources=sources, seeds=[0, 1, 3])
    found = {(spec.seed, spec.source.seed) for spec in plan.runs if spec.source is not None}
    assert found == {(0, 1), (1, 1), (3, 3)}


def test_a_teacher_is_planned_though_only_its_student_is_asked_for(study):
    plan = plan_of(study, methods=["panda"], estimators=False)
    assert Counter(spec.method for spec in plan.runs) == {"prompt_tuning": 2, "pot": 2, "panda": 2}


def test_estimators_that_need_a_prompt_of_the_target_start_from_it(study):
    plan = plan_of(study, methods=["pot"], estimators=True)
    assert all(spec.own is None and "e_avg" not in spec.estimators for spec in plan.runs)
    plan = plan_of(study, methods=["pot"], estimators=["e_avg"])
    tuned = [spec for spec in plan.runs if spec.kind == "target" and spec.method == "prompt_tuning"]
    assert [spec.own for spec in plan.runs if spec.kind == "estimates"] == tuned * 2


def test_a_change_that_does_not_matter_to_a_run_leaves_its_key(study):
    before = keys_of(study)
    study.write_task("news", 9)
    content = study.content()
    more = keys_of(
        study,
        name="another",
        sources=content["sources"] | {"tasks": ["news.yaml", "films.yaml", "books.yaml"], "seeds": [0, 1]},
        targets=content["targets"] | {"tasks": ["news.yaml", "mood.yaml"], "budgets": [32, 24]},
        methods=["model_tuning", "panda", "pot", "prompt_tuning"],
        seeds=[1, 0],
        variants={"half": {"method": "panda", "distillation": {"coefficient": 0.5}}},
    )
    assert before.items() <= more.items()
    # Settings of one method are no business of another's, and nobody's if they have no effect.
    deaf = keys_of(study, distillation={"coefficient": 0.5, "scale": 9.0})
    changed = {spec.method for spec in deaf if deaf[spec] not in before.values()}
    assert changed == {"panda"}
    rated = keys_of(study, targets=content["targets"] | {"options": {"epochs": 1, "max_length": 24, "model_lr": 1e-3}})
    assert rated == before


def test_neither_folders_nor_names_of_models_matter(study, tmp_path):
    before = set(keys_of(study).values())
    shutil.copytree(study.model, tmp_path / "copy")
    shutil.copytree(study.folder / "data", tmp_path / "elsewhere")
    recipe = study.recipe(models=[str(tmp_path / "copy")])
    found = identify(expand(recipe, study.folder), "clean", tmp_path / "elsewhere", Cache())
    assert {keys.key for keys in found.keys.values()} == before


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ({"threads": 2}, set()),
        ({"protocol": "paper"}, set()),
        ({"seeds": [1]}, {("source", "prompt_tuning")}),
        ({"targets": {"test_examples": 5}}, {("source", "prompt_tuning"), ("estimates", None)}),
        ({"targets": {"budgets": 32}}, {("source", "prompt_tuning")}),
        ({"targets": {"options": {"epochs": 2, "max_length": 24}}}, {("source", "prompt_tuning"), ("estimates", None)}),
        ({"sources": {"examples": 32}}, {("target", "prompt_tuning")}),
        ({"distillation": {"coefficient": 0.5}}, {"all but panda"}),
    ],
)
def test_a_changed_spec_gives_new_keys(study, change, kept):
    for name in TASK_FILES:
        write_jsonl(study.folder / "data" / name / "validation.jsonl", sentiment_rows(10, 77))
    before = keys_of(study)
    content = study.content()
    for part in ("sources", "targets"):
        if part in change:
            change = change | {part: content[part] | change[part]}
    after = keys_of(study, **change)
    if kept == {"all but panda"}:
        kept = {(spec.kind, spec.method) for spec in before} - {("target", "panda")}
    known = set(before.values())
    assert {(spec.kind, spec.method) for spec, key in after.items() if key in known} == kept


TASK_FILES = ("books", "films", "mood")


def test_changed_data_gives_new_keys_to_what_depends_on_it(study):
    before = keys_of(study)
    rows = sentiment_rows(40, 5)
    rows[7]["text"] += " w1"
    write_jsonl(study.folder / "data" / "books" / "train.jsonl", rows)
    after = keys_of(study)
    for spec in before:
        touched = any(one.task == "books" for one in spec.closure())
        assert (before[spec] != after[spec]) == touched
    write_jsonl(study.folder / "data" / "mood" / "test.jsonl", sentiment_rows(20, 999))
    tested = keys_of(study)
    assert all((after[spec] != tested[spec]) == spec.tested for spec in after)


def test_another_model_gives_new_keys(study, tmp_path):
    other = save_tiny(CONFIGS["bert"], tmp_path / "other", seed=1)
    before = keys_of(study)
    after = keys_of(study, models=[str(other)])
    assert set(before.values()).isdisjoint(after.values())
    both = keys_of(study, models=[str(study.model), str(other)])
    assert set(both.values()) == set(before.values()) | set(after.values())


def test_names_that_mean_the_same_are_refused(study, tmp_path):
    shutil.copytree(study.model, tmp_path / "twin")
    with pytest.raises(PandaError, match="have the same weights; leave one out"):
        keys_of(study, models=[str(study.model), str(tmp_path / "twin")])
    same = {"same": {"method": "panda", "distillation": {"scale": 1.0}}}
    with pytest.raises(PandaError, match="variants 'default' and 'same' of panda are the same settings"):
        plan_of(study, variants=same)
    (tmp_path / "other").mkdir()
    shutil.copy(tmp_path / "mood.yaml", tmp_path / "other" / "mood.yaml")
    with pytest.raises(PandaError, match="Two specs of the recipe call their task 'mood'"):
        plan_of(study, targets={"tasks": ["mood.yaml", "other/mood.yaml"]})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": {"tasks": ["mood.yaml"], "budgets": 41}}, "targets: budgets 41 is more than task 'mood' has (40)"),
        ({"protocol": "paper"}, "needs an official validation split, and task 'books' has none"),
        ({"models": ["./nowhere"]}, "No model could be loaded"),
        ({"data_dir": "nodata"}, "is not a folder"),
    ],
)
def test_what_is_missing_is_said_before_anything_runs(study, change, message):
    with pytest.raises(PandaError) as error:
        study.run(recipe=study.recipe(**change))
    assert message in str(error.value)
    assert study.bank().ids() == []
