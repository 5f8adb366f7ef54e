"""Methods and estimators of other distributions, and of a running program, beside our own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import sentiment_rows, write_jsonl

from promptpanda import Estimator, Method, PandaError, register
from promptpanda.plugins import Registry
from promptpanda.transfers.estimators import ESTIMATORS, estimators
from promptpanda.transfers.methods import METHODS, POT, PROMPT_TUNING
from promptpanda.transfers.names import METHOD_NAMES, method_names

PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "panda-extras"
version = "0.3"

[project.entry-points."promptpanda.methods"]
half_source = "panda_extras:HALF_SOURCE"
broken_method = "panda_extras_missing:METHOD"
pot = "panda_extras:HALF_SOURCE"

[project.entry-points."promptpanda.banks"]
shared = "panda_extras:folder"
nowhere = "panda_extras:NUMBER"

[project.entry-points."promptpanda.estimators"]
small_prompt = "panda_extras:SmallPrompt"
raising = "panda_extras:Raising"
no_estimator = "panda_extras:NUMBER"
"""
MODULE = """
from pathlib import Path

from promptpanda import Estimator, Method, Prompt

NUMBER = 3

def folder():
    return Path.cwd() / "their-bank"

def half(context):
    source = context.fused_source(HALF_SOURCE)
    start = Prompt(source.kind, source.tensor / 2)
    return context.training(HALF_SOURCE, start=start).run()

HALF_SOURCE = Method("half_source", "PoT from half", "a test", sources="one", teacher=None, run=half)

class SmallPrompt(Estimator):
    reference = "a test"
    needs = "bank"

    def score(self, source, target):
        return 0.0 if source is None else -float(source.prompt.tensor.abs().mean())

class Raising(SmallPrompt):
    def score(self, source, target):
        raise RuntimeError("nothing works")
"""
FAST = ["--epochs", "1", "--max-length", "24"]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with the tiny distribution installed: built by hatchling, without a network."""
    folder = tmp_path_factory.mktemp("extras")
    (folder / "panda_extras.py").write_text(MODULE)
    (folder / "pyproject.toml").write_text(PROJECT)
    target = folder / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(target), str(folder)], check=True, capture_output=True)
    return target


@pytest.fixture
def panda(site, tiny_folder, tmp_path):
    """Run `panda` in a process that sees the distribution; returns the finished process."""
    for name, seed in (("books", 5), ("mood", 0)):
        write_jsonl(tmp_path / f"{name}.jsonl", sentiment_rows(40, seed))
    path = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))

    def run(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from promptpanda.cli.main import main; main()", *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done

    return run


def test_the_names_that_the_command_line_knows_are_the_registrys():
    assert [name for name in METHODS if name not in METHODS.foreign()] == list(METHOD_NAMES)
    assert method_names("pot, panda") == ("pot", "panda")
    with pytest.raises(PandaError, match="No method 'pott'; known are prompt_tuning, .* Did you mean 'pot'"):
        method_names("pott")
    with pytest.raises(PandaError, match="At least one method is needed"):
        method_names(" , ")


def test_a_distribution_s_method_and_estimator_are_used_from_the_command_line(panda, tiny_folder, tmp_path):
    model = ["--model", str(tiny_folder("bert"))]
    own = ["--text", "text", "--label", "label"]
    panda("train", "--train", "books.jsonl", *own, *model, *FAST, "--prompt-length", "4")

    listed = json.loads(panda("estimators", "--json").stdout)["estimators"]
    assert listed["small_prompt"]["needs"] == "bank"
    assert listed["small_prompt"]["reference"] == "a test (panda-extras 0.3)"
    assert "no_estimator" not in listed

    ranked = json.loads(panda("rank", "--train", "mood.jsonl", *own, *model, "--max-length", "24", "--json").stdout)
    assert ranked["ranking"][0]["scores"]["small_prompt"] < 0
    assert "raising" not in ranked["ranking"][0]["scores"]

    methods = ["--methods", "prompt_tuning,pot,half_source", "--source", "books"]
    done = panda("transfer", "--train", "mood.jsonl", *own, *model, *FAST, *methods, "--json")
    result = json.loads(done.stdout)
    assert set(result["methods"]) == {"prompt_tuning", "pot", "half_source"}
    assert "small_prompt" in result["transferability"]
    cards = [json.loads(path.read_text()) for path in Path(tmp_path / "bank").glob("*/card.json")]
    assert {"half_source", "pot"} <= {card["method"] for card in cards}


def test_an_installed_bank_is_read_beside_one_s_own(panda, tiny_folder, tmp_path):
    model = ["--model", str(tiny_folder("bert"))]
    own = ["--text", "text", "--label", "label"]
    train = ("train", "--train", "books.jsonl", *own, *model, *FAST, "--prompt-length", "4", "--bank")
    panda(*train, "their-bank")
    (folder,) = (tmp_path / "their-bank").glob("books-*")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    listed = json.loads(panda("bank", "list", "--json").stdout)
    assert listed["bank"] == "bank"
    others = [one for one in listed["prompts"] if one["bank"] != "minilm-l6"]  # which this machine may have beside it
    assert [(one["id"], one["bank"], one["kind"]) for one in others] == [
        (folder.name, "shared", "single_classification")
    ]
    assert "is not a folder" in listed["problems"][0]
    assert json.loads(panda("bank", "list", "--no-starter", "--json").stdout)["prompts"] == []

    ranking = ("rank", "--train", "mood.jsonl", *own, *model, "--max-length", "24")
    assert json.loads(panda(*ranking, "--json").stdout)["ranking"][0]["prompt"] == folder.name
    assert "holds no prompt" in panda(*ranking, "--no-starter", code=2).stderr
    done = panda("transfer", "--train", "mood.jsonl", *own, *model, *FAST, "--source", "books", "--methods", "pot")
    assert "pot" in done.stdout.lower()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert folder.name not in {path.name for path in (tmp_path / "bank").iterdir()}

    panda(*train, "bank")  # the same prompt in both: one's own counts
    listed = json.loads(panda("bank", "list", "--json").stdout)["prompts"]
    assert [one["bank"] for one in listed if one["id"] == folder.name] == ["bank"]
    (folder / "adapter_model.safetensors").write_bytes(b"cut")
    assert folder.name in panda("bank", "verify", code=2).stderr
    panda("predict", "books", "mood.jsonl", *model)


def test_broken_entries_are_told_and_take_nothing_down(panda):
    refused = panda("transfer", "--train", "mood.jsonl", "--text", "text", "--label", "label", "--methods", "x", code=2)
    assert "No method 'x'" in refused.stderr
    assert "half_source" in refused.stderr
    with_broken = ("transfer", "--train", "mood.jsonl", "--text", "text", "--label", "label", "--methods")
    refused = panda(*with_broken, "broken_method", code=2)
    assert "panda-extras 0.3 cannot be used: ModuleNotFoundError" in refused.stderr
    told = panda("doctor").stdout
    assert "'broken_method' (promptpanda.methods) of panda-extras 0.3 cannot be used: ModuleNotFoundError" in told
    assert "'pot' of panda-extras 0.3" in told
    assert "is taken" in told
    assert "'no_estimator' of panda-extras 0.3 is a int" in told


def test_the_method_that_is_ours_stays_ours(site, monkeypatch):
    monkeypatch.syspath_prepend(str(site))
    assert METHODS["pot"] is POT


class Constant(Estimator):
    reference = "a test"
    needs = "bank"

    def score(self, source, target):
        return 1.0


def test_a_program_registers_its_own(monkeypatch):
    monkeypatch.setattr(METHODS, "_registered", {})
    monkeypatch.setattr(ESTIMATORS, "_registered", {})
    mine = Method("mine", "mine", "a test", sources="none", teacher=None, run=PROMPT_TUNING.run)
    register(mine)
    assert METHODS["mine"].title == "mine"
    assert list(METHODS)[-1] == "mine"
    register(Constant, "constant")
    register(Constant(), "constant")  # a cell of a notebook runs twice
    assert list(estimators())[-1] == "constant"


@pytest.mark.parametrize(
    ("entry", "name", "message"),
    [
        (3, None, "register takes a Method or an Estimator, found int."),
        (Constant, None, "An estimator is registered under a name"),
        (Constant, "cosine", "The name 'cosine' of this program in promptpanda.estimators is taken"),
        (Constant, "Capital Name", "is not a valid name for promptpanda.estimators"),
        (POT, None, "The name 'pot' of this program in promptpanda.methods is taken"),
        (POT, "other", "The method 'pot' of this program is registered as 'other'"),
    ],
)
def test_what_cannot_be_registered(entry, name, message):
    with pytest.raises(PandaError) as error:
        register(entry, name)
    assert message in str(error.value)


def test_a_registry_reads_entry_points_when_it_is_first_asked_for_others():
    registry = Registry("promptpanda.nothing", {"ours": 1}, lambda entry, name, source: int(str(entry)))
    assert registry["ours"] == 1
    assert registry._found is None
    assert list(registry) == ["ours"]
    assert registry.problems() == []
    with pytest.raises(KeyError):
        registry["theirs"]
