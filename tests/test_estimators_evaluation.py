"""How good estimators are: against the published tables, and on grids whose answer is known by hand."""

from __future__ import annotations

import json
import statistics
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from typer.testing import CliRunner

from promptpanda.cli.main import app
from promptpanda.errors import PandaError
from promptpanda.evaluation.agreement import jackknife_error, kendall, spearman, tops
from promptpanda.evaluation.grid import evaluate_rows
from promptpanda.evaluation.paper import evaluate_paper
from promptpanda.sweep.exchange import export_rows
from promptpanda.sweep.row import Row
from promptpanda.sweep.store import Store
from promptpanda.transfers.estimators import estimators

PAPER = Path(__file__).parents[2] / "shared" / "paper"
needs_paper = pytest.mark.skipif(not PAPER.is_dir(), reason="../shared/paper is not there")
MODELS = [f"BERT-{size}" for size in ("large", "base", "medium", "small", "tiny")]
# As published with the tables; the values of the five models in the order of MODELS.
SPEARMAN = {
    "e_avg": (0.30, 0.31, 0.28, 0.21, 0.16),
    "on": (0.09, 0.23, 0.26, 0.04, 0.40),
    "cosine": (0.21, 0.31, 0.21, 0.23, 0.17),
}
SELECTION = {
    "race": (79.7, 75.9, 71.7, 69.9, 60.6),
    "oracle": (80.8, 77.8, 73.7, 70.9, 62.6),
    "no_transfer": (77.5, 74.6, 70.5, 67.5, 59.1),
    "random": (74.2, 73.7, 69.8, 66.7, 58.4),
    "top1_e_avg": (75.0, 74.3, 71.2, 66.9, 57.8),
    "top1_on": (77.9, 73.9, 71.0, 67.4, 59.5),
    "top1_cosine": (74.4, 74.1, 69.9, 67.4, 60.8),
}
RACE_TOP3 = (80.4, 77.0, 73.1, 70.1, 61.8)


@pytest.fixture
def panda():
    def run(*arguments: str, code: int = 0) -> str:
        result = CliRunner().invoke(app, ["estimators", *arguments])
        assert result.exit_code == code, f"{result.stdout}\n{result.stderr}\n{result.exception!r}"
        return result.stdout if code == 0 else result.stderr

    return run


@needs_paper
def test_the_published_figures_come_back(panda):
    found = json.loads(panda("evaluate", "--paper", str(PAPER), "--json"))
    assert list(found["spearman"]) == MODELS
    for place, model in enumerate(MODELS):
        for name, values in SPEARMAN.items():
            assert found["spearman"][model][name] == pytest.approx(values[place], abs=0.01)
            assert 0.05 < found["spearman_errors"][model][name]["targets"] < 0.14
        for rule, values in SELECTION.items():
            assert found["selection"][model][rule] == pytest.approx(values[place], abs=0.1), (model, rule)
        low, high = found["selection_ranges"][model]["race_top3"]
        assert low - 0.1 <= RACE_TOP3[place] <= high + 0.1
        assert low <= found["selection"][model]["race_top3"] <= high
    # The published 73.1 of BERT-medium is the upper end over ties; the stated rule gives what the published share of
    # the oracle's gain, 61 %, follows from.
    medium = found["selection"]["BERT-medium"]
    share = (medium["race_top3"] - medium["no_transfer"]) / (medium["oracle"] - medium["no_transfer"])
    assert share == pytest.approx(0.61, abs=0.01)


@needs_paper
def test_the_known_failure_of_the_published_metric_is_seen():
    """It ranks ReCoRD the best source of STS-B on BERT-large, whose score there is the worst."""
    tables = json.loads((PAPER / "tables.json").read_text())
    column = tables["targets"].index("STSB")
    first = {name: values[column] for name, values in tables["first_epoch"]["BERT-large"].items()}
    assert min(first, key=first.get) == "ReCoRD"
    stsb = evaluate_paper(PAPER).models["BERT-large"].targets["STSB"]
    assert stsb["selection"]["top1_cosine"] == tables["full"]["BERT-large"]["PoT"]["ReCoRD"][column]
    assert stsb["selection"]["top1_cosine"] < stsb["selection"]["no_transfer"]


def tables_of(folder: Path, **changes) -> Path:
    """Two targets, three sources; of the second target the sources a and b are equal after the first epoch."""
    pot = {"a": [50.0, 60.0], "b": [70.0, 80.0], "s": [90.0, 40.0], "t": [65.0, 30.0]}
    tables = {
        "targets": ["S", "t"],
        "sources": ["a", "b", "s", "t"],
        "full": {"m": {"ref": {"Baseline": [60.0, 50.0]}, "PoT": pot}},
        "first_epoch": {"m": {"Random": [0, 0], "a": [1, 5], "b": [2, 5], "s": [9, 1], "t": [3, 9]}},
    }
    matrix = [[1.0, 0.9, 0.2, 0.1], [0.9, 1.0, 0.4, 0.5], [0.3, 0.2, 1.0, 0.1], [0.6, 0.7, 0.8, 1.0]]
    maps = {"names": ["a", "b", "S", "T-"], "m": {"m": {"E_avg": matrix, "ON": matrix, "ours": matrix}}}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tables.json").write_text(json.dumps(tables | changes))
    (folder / "heatmaps.json").write_text(json.dumps(maps))
    return folder


def test_tables_whose_answer_is_known_by_hand(tmp_path):
    """Target s: sources a, b, t (itself excluded); target t: a, b, s, by the target's row of the matrix."""
    model = evaluate_paper(tables_of(tmp_path)).models["m"]
    # s: predicted .3 .2 .1 against 1 2 3; t: predicted .6 .7 .8 against 5 5 1.
    assert model.targets["S"]["spearman"]["e_avg"] == pytest.approx(-1.0)
    assert model.targets["t"]["spearman"]["e_avg"] == pytest.approx(-np.sqrt(3) / 2)
    assert model.spearman["e_avg"].mean == pytest.approx((-1 - np.sqrt(3) / 2) / 2)
    assert model.spearman["e_avg"].targets_error == pytest.approx(statistics.stdev([-1, -np.sqrt(3) / 2]) / np.sqrt(2))
    points = {rule: choice.points.mean for rule, choice in model.selection.items()}
    assert points == pytest.approx(
        {
            "no_transfer": 55.0,
            "random": (185 / 3 + 60) / 2,
            "oracle": (70 + 80) / 2,
            "race": (65 + 60) / 2,  # t; of a and b, which are equal, the first
            "race_top3": (70 + 80) / 2,
            **{f"top1_{name}": (50 + 40) / 2 for name in ("e_avg", "on", "cosine")},
        }
    )
    race = model.selection["race"]
    assert (race.low, race.high) == (62.5, 72.5)
    assert race.gain.mean == pytest.approx(7.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"full": {}}, "tables.json has not the form of the published tables .full:"),
        ({"targets": 3}, "tables.json has not the form of the published tables .targets:"),
        ({"targets": ["s", "unknown"]}, "do not fit together: 'unknown' is missing"),
        ({"first_epoch": {}}, "do not fit together: 'm' is missing"),
    ],
)
def test_tables_of_another_form_are_refused_in_one_sentence(changes, message, tmp_path):
    with pytest.raises(PandaError, match=message):
        evaluate_paper(tables_of(tmp_path, **changes))


def test_ties_are_broken_in_every_way_the_stated_one_first():
    assert list(tops(np.asarray([3, 5, 5, 1, 5]), 2)) == [(1, 2), (1, 4), (2, 4)]
    assert list(tops(np.asarray([3.0, 5.0, 4.0]), 2)) == [(1, 2)]
    assert list(tops(np.asarray([3.0, 3.0]), 3)) == [(0, 1)]


def test_correlations_of_too_little_are_none():
    few, constant, three = np.asarray([1.0, 2.0]), np.ones(3), np.asarray([1.0, 3.0, 2.0])
    for function in (spearman, kendall):
        assert function(few, few) is None
        assert function(constant, three) is None
        assert function(three, constant) is None
        assert function(three, three) == pytest.approx(1.0)


def test_the_jackknife_error_of_a_mean_is_its_standard_error():
    values = [0.3, 0.9, 0.4, 0.6]
    left_out = [statistics.fmean(values[:place] + values[place + 1 :]) for place in range(4)]
    assert jackknife_error(left_out) == pytest.approx(statistics.stdev(values) / 2)


SOURCES = ("sa", "sb", "sc", "sd")


def row(kind, task, seed, source=None, score=None, method=None, **changes) -> Row:
    content = {
        "key": f"{kind}-{task}-{seed}-{source}-{method}-{sorted(changes.items())}",
        "kind": kind,
        "status": "finished",
        "model": "small",
        "task": task,
        "method": method,
        "source": source,
        "seed": seed,
        "budget": 64,
        "spec": {},
        "backbone_fingerprint": "f",
        "metric": "accuracy",
        "test": None if score is None else {"accuracy": score},
        "finished": "2026-01-01T00:00:00",
    }
    return Row(**content | changes)


def grid_rows(pot, tuned, predicted, **changes) -> list[Row]:
    """pot[target][seed] = scores of the sources; tuned[target][seed]; predicted[target][seed] = {estimator: values}."""
    rows = []
    for target in pot:
        for seed in range(len(pot[target])):
            rows.append(row("target", target, seed, None, tuned[target][seed], "prompt_tuning", **changes))
            for place, source in enumerate(SOURCES):
                score = pot[target][seed][place]
                rows.append(row("target", target, seed, source, score, "pot", **changes))
                values = {name: given[place] for name, given in predicted[target][seed].items()}
                rows.append(row("estimates", target, seed, source, estimates=values, **changes))
    return rows


POT = {
    "ta": [[0.50, 0.60, 0.70, 0.80], [0.54, 0.62, 0.80, 0.76]],
    "tb": [[0.50, 0.40, 0.30, 0.20], [0.50, 0.40, 0.32, 0.20]],
}
TUNED = {"ta": [0.60, 0.62], "tb": [0.60, 0.60]}
GOOD, FLAT = [0.1, 0.2, 0.3, 0.4], [1.0, 1.0, 0.0, 0.0]
PREDICTED = {target: [{"good": GOOD, "flat": FLAT}] * 2 for target in POT}


def test_a_grid_whose_answer_is_known_by_hand():
    model = evaluate_rows(grid_rows(POT, TUNED, PREDICTED)).models["small"]
    # Means over seeds: ta .52 .61 .75 .78, tb falling.
    assert model.targets["ta"]["spearman"]["good"] == pytest.approx(1.0)
    assert model.targets["tb"]["spearman"]["good"] == pytest.approx(-1.0)
    assert model.spearman["good"].mean == pytest.approx(0.0)
    assert model.spearman["good"].targets_error == pytest.approx(1.0)
    assert model.targets["ta"]["kendall"]["flat"] == pytest.approx(
        stats.kendalltau(FLAT, [0.52, 0.61, 0.75, 0.78]).statistic
    )
    # Without seed 0: ta .54 .62 .80 .76 gives rho .8; without seed 1: 1. tb -1 always.
    assert model.spearman["good"].seeds_error == pytest.approx(jackknife_error([-0.1, 0.0]))
    # The oracle: on seed 0 the best of seed 1 (sc: 70), on seed 1 that of seed 0 (sd: 76); on tb no transfer.
    assert model.targets["ta"]["gain"] == pytest.approx(73 - 61)
    assert model.targets["tb"]["gain"] == pytest.approx(0.0)
    assert model.selection["oracle"].points.mean == pytest.approx((73 + 60) / 2)
    assert model.selection["no_transfer"].points.mean == pytest.approx((61 + 60) / 2)
    assert model.selection["random"].points.mean == pytest.approx(100 * np.mean([np.mean(POT[t]) for t in POT]))
    # Top 1 of good: sd: 80 and 76, and 20 and 20. Regret: -10, 0 and 40, 40.
    assert model.regret["good"][1].mean == pytest.approx((-5 + 40) / 2)
    assert model.regret["good"][1].targets_error == pytest.approx(22.5)
    assert model.regret["good"][1].seeds_error == pytest.approx(2.5)
    # Top 1 of flat: sa or sb, at random: 55 and 58 on ta, 45 on tb.
    assert model.selection["top1_flat"].points.mean == pytest.approx((56.5 + 45) / 2)
    # Top 3 of good on ta: the best of sb, sc, sd by the other seed: sc (70), sd (76): the oracle's.
    assert model.targets["ta"]["regret"]["good"]["3"] == pytest.approx(0.0)
    # Transfer helps ta alone.
    assert model.spearman_where_gains["good"].mean == pytest.approx(1.0)
    assert model.spearman_where_gains["good"].targets_error is None


def test_the_full_selection_is_a_rule_beside_the_others():
    rows = grid_rows(POT, TUNED, PREDICTED)
    chosen = {"ta": [0.75, 0.70], "tb": [0.60, 0.50]}
    rows += [row("target", target, seed, None, chosen[target][seed], "auto") for target in POT for seed in (0, 1)]
    model = evaluate_rows(rows).models["small"]
    # The oracle of seed 0 and 1: 70 and 76 on ta, 60 and 60 on tb.
    assert model.selection["auto"].points.mean == pytest.approx((72.5 + 55) / 2)
    assert model.selection["auto"].gain.mean == pytest.approx((11.5 - 5) / 2)
    assert model.regret["auto"][1].mean == pytest.approx((0.5 + 5) / 2)
    assert model.regret["auto"][1].seeds_error == pytest.approx(5.25)  # seeds: (-5 + 0) / 2, (6 + 10) / 2
    # Where it lacks a target it is no rule, since its mean would be over other targets; its regret says itself.
    model = evaluate_rows(rows[:-1]).models["small"]
    assert "auto" not in model.selection
    assert model.regret["auto"][1].mean == pytest.approx(0.5)


def test_one_seed_is_enough():
    one = {target: values[:1] for target, values in POT.items()}
    model = evaluate_rows(grid_rows(one, TUNED, PREDICTED)).models["small"]
    assert model.selection["oracle"].points.mean == pytest.approx((80 + 60) / 2)
    assert model.spearman["good"].seeds_error is None
    assert model.regret["good"][1].seeds_error is None


def test_what_counts_in_a_grid():
    """Neither failed nor superseded runs, variants, incomplete sources, estimators without all values."""
    rows = grid_rows(POT, TUNED, PREDICTED)
    expected = evaluate_rows(rows).to_json()
    old = {"finished": "2025-01-01T00:00:00"}
    noise = [
        row("target", "ta", 0, "sa", 0.99, "pot", **old),
        row("target", "ta", 0, "sa", 0.99, "pot", status="failed", reason="NaN"),
        row("target", "ta", 0, "sa", 0.99, "pot", variant="twice"),
        row("target", "ta", 0, "se", 0.99, "pot"),  # seed 1 is missing
        row("target", "ta", 0, "sa", 0.99, "panda"),
        row("target", "ta", 0, "ta", 0.99, "pot"),
        row("target", "tc", 0, "sa", 0.99, "pot"),  # nothing to compare with
        row("source", "sa", 0, None, 0.99, "prompt_tuning"),
    ]
    rows[2] = rows[2].model_copy(update={"estimates": rows[2].estimates | {"partial": 1.0}})
    assert evaluate_rows([*noise, *rows]).to_json() == expected


def test_sets_that_share_texts_are_left_out():
    def renamed(rows, old, new):
        return [
            one.model_copy(update={name: new for name in ("task", "source") if getattr(one, name) == old})
            for one in rows
        ]

    rows = renamed(renamed(grid_rows(POT, TUNED, PREDICTED), "ta", "mrpc"), "sd", "stsb")
    found = evaluate_rows(rows)
    assert found.left_out == (("stsb", "mrpc"),)
    assert found.models["small"].targets["mrpc"]["sources"] == ["sa", "sb", "sc"]
    assert found.models["small"].targets["tb"]["sources"] == ["sa", "sb", "sc", "stsb"]
    handed_in = evaluate_rows(grid_rows(POT, TUNED, PREDICTED), shared=frozenset({frozenset(("ta", "sb"))}))
    assert handed_in.left_out == (("sb", "ta"),)


def test_budgets_and_protocols_are_models_of_their_own():
    rows = grid_rows(POT, TUNED, PREDICTED) + grid_rows(POT, TUNED, PREDICTED, budget=None)
    assert sorted(evaluate_rows(rows).models) == ["small, 64 examples", "small, all examples"]
    rows = grid_rows(POT, TUNED, PREDICTED) + grid_rows(POT, TUNED, PREDICTED, protocol="paper")
    assert sorted(evaluate_rows(rows).models) == ["small, clean protocol", "small, paper protocol"]


def test_the_order_of_rows_does_not_matter():
    rows = grid_rows(POT, TUNED, PREDICTED)
    shuffled = [rows[place] for place in np.random.default_rng(0).permutation(len(rows))]
    assert evaluate_rows(shuffled).to_json()["spearman"] == evaluate_rows(rows).to_json()["spearman"]
    assert evaluate_rows(shuffled).to_json()["regret"] == evaluate_rows(rows).to_json()["regret"]


def test_a_store_with_nothing_to_compare_is_refused():
    with pytest.raises(PandaError, match="pot from at least 3 sources, and with estimates; this store has none"):
        evaluate_rows([row("target", "ta", 0, None, 0.5, "prompt_tuning")])
    bare = [one.model_copy(update={"test": None}) for one in grid_rows(POT, TUNED, PREDICTED)]
    with pytest.raises(PandaError, match="is finished without a score of accuracy"):
        evaluate_rows(bare)


def test_stores_and_exported_rows_are_evaluated_alike(panda, tmp_path):
    rows = grid_rows(POT, TUNED, PREDICTED)
    with Store.create(tmp_path / "run" / "store.sqlite") as store:
        for one in rows:
            store.write(one)
    export_rows(rows, [], tmp_path / "rows.parquet")
    found = [
        json.loads(panda("evaluate", "--store", str(tmp_path / path), "--json"))
        for path in ("run", "run/store.sqlite", "rows.parquet")
    ]
    assert found[0] == found[1] == found[2] == json.loads(json.dumps(evaluate_rows(rows).to_json()))
    shown = panda("evaluate", "--store", str(tmp_path / "run"))
    assert "regret top 1" in shown
    assert "top3_good" in shown


def test_both_together_and_models_of_one_name(panda, tmp_path):
    tables_of(tmp_path / "paper")
    rows = grid_rows(POT, TUNED, PREDICTED)
    export_rows(rows, [], tmp_path / "rows.csv")
    export_rows([one.model_copy(update={"model": "m"}) for one in rows], [], tmp_path / "same.csv")
    both = ["evaluate", "--paper", str(tmp_path / "paper"), "--store"]
    assert list(json.loads(panda(*both, str(tmp_path / "rows.csv"), "--json"))["spearman"]) == ["m", "small"]
    assert "both have a model called 'm'" in panda(*both, str(tmp_path / "same.csv"), code=2)


def test_what_is_not_there_is_said_in_one_sentence(panda, tmp_path):
    assert "give --store with a sweep's folder, --paper with" in panda("evaluate", code=2)
    assert "No tables.json in" in panda("evaluate", "--paper", str(tmp_path), code=2)
    assert "No store at" in panda("evaluate", "--store", str(tmp_path), code=2)
    (tmp_path / "tables.json").write_text("{")
    assert "is not valid JSON" in panda("evaluate", "--paper", str(tmp_path), code=2)


def test_the_registry_is_listed(panda):
    listed = json.loads(panda("--json"))
    assert listed["default"] in listed["estimators"]
    assert list(listed["estimators"]) == list(estimators())
    for entry in listed["estimators"].values():
        assert set(entry) == {"needs", "cost", "passes", "trainings", "reference"}
    assert listed["estimators"]["probe"]["trainings"] == pytest.approx(0.21875)
    shown = panda()
    assert all(name in shown for name in listed["estimators"])


def test_points_do_not_depend_on_the_seeds_names():
    """Seeds 5 and 7 instead of 0 and 1."""
    rows = grid_rows(POT, TUNED, PREDICTED)
    renamed = [one.model_copy(update={"seed": {0: 5, 1: 7}[one.seed]}) for one in rows]
    for title, one in product(("spearman", "spearman_errors", "regret", "regret_errors", "selection"), ("small",)):
        assert evaluate_rows(renamed).to_json()[title][one] == evaluate_rows(rows).to_json()[title][one]
