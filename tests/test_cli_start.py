"""The command line at its door: help that reads well at 80 columns, and quick answers where no model is needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from promptpanda.cli.main import app

ENTRY = """
import sys
from promptpanda.cli.main import main
sys.argv = ["panda", *sys.argv[1:]]
try:
    main()
finally:
    print(sorted({"torch", "transformers"} & set(sys.modules)), file=sys.stderr)
"""

COMMANDS = [
    *(
        [name]
        for name in ("demo", "train", "rank", "transfer", "evaluate", "predict", "serve", "sweep", "report", "doctor")
    ),
    *(["tasks", name] for name in ("list", "show")),
    *(["recipes", name] for name in ("list", "show")),
    *(["bank", name] for name in ("list", "show", "verify", "rm")),
]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("--help", 0),
        ("transfer --help", 0),
        ("tasks list", 0),
        ("tasks show rte", 0),
        ("recipes list", 0),
        ("recipes show quick", 0),
        ("bank list", 0),
        ("bank show nothing", 2),
        ("bank rm nothing", 2),
        ("transfer --nope", 2),
        ("transfer rtee", 2),
        ("transfer rte --lr abc", 2),
        ("train rte --epochs 0", 2),
        ("train rte --seeds x", 2),
        ("rank rtee", 2),
        ("evaluate nothing", 2),
        ("predict nothing", 2),
        ("predict nothing --server http://127.0.0.1:9", 2),
        ("predict nothing --token-file token", 2),
        ("estimators", 0),
        ("estimators --json", 0),
        ("estimators evaluate", 2),
        ("serve --no-starter", 2),
        ("serve --bank nothing", 2),
        ("transfer newsgroups_sci --methods pott", 2),
        ("transfer newsgroups_sci --source nothing", 2),
        ("sweep --nope", 2),
        ("sweep nothing.yaml", 2),
        ("report nothing", 2),
    ],
)
def test_what_needs_no_model_imports_no_torch(arguments, code, tmp_path):
    command = [sys.executable, "-c", ENTRY, *arguments.split()]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=1000)
    assert done.returncode == code, done.stderr
    assert done.stderr.splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_breaks_nothing_within_a_word_at_80_columns(command):
    """rich cuts a word that does not fit with an ellipsis, and breaks a long list of choices at a bar."""
    code = "from promptpanda.cli.main import main; main()"
    environment = os.environ | {"COLUMNS": "80", "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        [sys.executable, "-c", code, *command, "--help"], env=environment, capture_output=True, timeout=1000
    )
    shown = done.stdout.decode("utf-8")
    assert done.returncode == 0
    assert "Usage" in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert "\u2026" not in shown
    for line in shown.splitlines():
        cells = line.strip("\u2502 ").split()
        assert not any(cell.startswith("|") or cell.endswith("|") for cell in cells), line
        assert not any(cell.startswith("<") and ">" not in line for cell in cells), line


def test_help_of_transfer_stands_in_panels():
    done = subprocess.run(
        [sys.executable, "-c", "from promptpanda.cli.main import main; main()", "transfer", "--help"],
        env=os.environ | {"COLUMNS": "80", "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        timeout=1000,
    )
    titles = ["Your data", "Model and bank", "Training", "PANDA", "Source and selection", "Output"]
    shown = done.stdout.decode("utf-8")
    places = [shown.index(f"\u256d\u2500 {title} ") for title in titles]
    assert places == sorted(places)
    assert shown.index("--coefficient ") > places[3]


def test_only_given_twice_means_the_words_of_both(study):
    # Two seeds and a method that nothing starts from, so that either word alone plans more than both.
    recipe = study.write_recipe(methods=["prompt_tuning", "pot", "panda", "head_only"], seeds=[0, 1])

    def planned(*only: str) -> list[tuple[str, str | None, int]]:
        arguments = ["sweep", str(recipe), *only, "--out", str(study.folder / "out"), "--dry-run", "--json"]
        found = CliRunner().invoke(app, arguments)
        assert found.exit_code == 0, found.output
        groups = json.loads(found.stdout)["groups"]
        return [(group["kind"], group["method"], group["left"]) for group in groups]  # times are estimates

    joined = planned("--only", "panda s0")
    assert planned("--only", "panda", "--only", "s0") == joined
    assert planned("--only", "s0") != joined
    assert planned("--only", "panda") != joined
