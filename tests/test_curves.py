"""Learning curves: nested subsets, nothing trained twice, forecasts that hold what they promise."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
from conftest import sentiment_rows, task_of, write_jsonl
from typer.testing import CliRunner

from promptpanda.bank.bank import Bank
from promptpanda.cli.main import app
from promptpanda.curves.forecast import Measured, forecast
from promptpanda.curves.measure import CurveRun, learning_curve
from promptpanda.curves.plan import CurvePlan
from promptpanda.curves.request import CurveRequest
from promptpanda.errors import PandaError
from promptpanda.tasks.protocol import nested_order
from promptpanda.training.options import TrainingOptions
from promptpanda.transfers.methods import HEAD_ONLY, LATE_FUSION, PROMPT_TUNING
from promptpanda.transfers.transfer import train

pytestmark = pytest.mark.usefixtures("one_thread")

OPTIONS = TrainingOptions(epochs=1, max_length=24, prompt_length=4, readout="mean")


def law(sizes, a, b, c, seeds=3, noise=0.0, samples=400, rows=10_000):
    """Scores that follow a power law: its error is a + b n^-c."""
    draws = np.random.default_rng(3)
    error = a + b * np.asarray(sizes, dtype=float) ** -c
    scores = 1 - error[:, None] + noise * draws.standard_normal((len(sizes), seeds))
    of_rows = draws.standard_normal(samples) * np.sqrt(0.2 / rows)
    return Measured(tuple(sizes), scores, scores[:, :, None] + of_rows)


@pytest.mark.parametrize("exponent", [0.25, 0.5, 1.0])
def test_a_power_law_is_found_again(exponent):
    scale = 0.4 * 32**exponent
    measured = law([32, 64, 128, 256], 0.1, scale, exponent, noise=1e-4)
    found = forecast(measured, 512)
    there, here = (1 - 0.1 - scale * size**-exponent for size in (512, 256))
    assert found.gain == pytest.approx(there - here, abs=2e-3)
    assert found.score == pytest.approx(there, abs=5e-3)
    assert found.gain_low < there - here < found.gain_high
    assert found.low < there < found.high
    assert found.verdict == "helps"


def test_intervals_hold_the_truth_as_often_as_they_say():
    sizes, hits, widths = [16, 32, 64, 128], 0, []
    for trial in range(120):
        draws = np.random.default_rng(trial)
        exponent, rows = float(draws.choice([0.3, 0.6, 0.9])), 150
        means = 1 - 0.15 - 0.35 * 16**exponent * np.asarray(sizes, dtype=float) ** -exponent
        scores = means[:, None] + 0.02 * draws.standard_normal((4, 3))
        # Rows are easy or hard at every size.
        hard, own = draws.standard_normal((rows, 1, 1)), draws.standard_normal((rows, 4, 3))
        parts = scores + 0.3 * hard + 0.2 * own
        picked = draws.integers(0, rows, (400, rows))
        found = forecast(Measured(tuple(sizes), parts.mean(axis=0), parts[picked].mean(axis=1).transpose(1, 2, 0)), 256)
        gain = 0.35 * 16**exponent * (128**-exponent - 256**-exponent)
        hits += found.gain_low <= gain <= found.gain_high
        widths.append(found.gain_high - found.gain_low)
    assert 0.9 <= hits / 120 <= 1.0
    assert np.median(widths) < 0.15


def test_no_interval_goes_beyond_a_perfect_score():
    measured = law([16, 32, 64, 128], 0.0, 0.2, 0.5, seeds=2, noise=0.05)
    assert measured.draws()[:, 3].max() > 1
    low, high = measured.interval(3)
    assert low < high == 1.0
    assert forecast(measured, 256).high <= 1.0


def test_rows_that_are_hard_at_all_sizes_make_the_score_unsure_and_not_the_gain():
    few, many = (law([16, 32, 64, 128], 0.1, 2.0, 0.5, noise=1e-3, rows=rows) for rows in (50, 5000))
    narrow, wide = forecast(many, 256), forecast(few, 256)
    assert wide.high - wide.low > 3 * (narrow.high - narrow.low)
    assert wide.gain_high - wide.gain_low == pytest.approx(narrow.gain_high - narrow.gain_low, rel=0.3)


def test_too_few_sizes_or_seeds_tell_nothing():
    assert forecast(law([16, 32], 0.1, 1.0, 0.5), 64) is None
    assert forecast(law([16, 32, 64], 0.1, 1.0, 0.5, seeds=1), 128) is None
    flat = forecast(law([16, 32, 64, 128], 0.3, 0.0, 0.5, noise=1e-3), 256)
    assert flat.verdict == "little"
    assert forecast(law([16, 32, 64, 128], 0.3, 0.0, 0.5, noise=0.03), 256).verdict == "open"


def test_every_beginning_is_stratified_and_holds_all_classes(tmp_path):
    rows = [
        {"text": f"w{number} w{number % 7}", "label": "rare" if number % 20 == 0 else "ab"[number % 2]}
        for number in range(200)
    ]
    task = task_of(rows, tmp_path)
    train_split = task.train()
    order = nested_order(train_split, task.kind, 4)
    assert sorted(order) == list(range(200))
    assert set(train_split.labels[order[:3]]) == {0, 1, 2}
    for size in (40, 80, 160):
        counts = np.bincount(train_split.labels[order[:size]], minlength=3)
        whole = np.bincount(train_split.labels, minlength=3) * size / 200
        assert np.abs(counts - whole).max() <= 2
    assert not np.array_equal(order, nested_order(train_split, task.kind, 5))


def test_small_draws_are_parts_of_larger_ones_and_scored_rows_are_in_none(sentiment):
    plan = CurvePlan.of(sentiment(train=120, test=None), [PROMPT_TUNING], seeds=(0, 1))
    assert plan.carved
    assert len(plan.scored) == 30
    assert plan.sizes == (16, 32, 64, 90)
    for seed in plan.seeds:
        draws = [set(plan.drawn(size, seed).train().texts) for size in plan.sizes]
        assert all(small < large for small, large in pairwise(draws))
        assert not draws[-1] & set(plan.scored.texts)
    with_test = CurvePlan.of(sentiment("other", train=64, test=40), [PROMPT_TUNING], test_examples=25)
    assert not with_test.carved
    assert len(with_test.scored) == 25
    assert with_test.sizes == (16, 32, 64)


def test_rows_that_belong_together_are_never_on_both_sides(tmp_path):
    rows = [row | {"text": f"{row['text']} {number // 2}"} for number, row in enumerate(sentiment_rows(100))]
    rows = [rows[2 * (number // 2)] | {"label": "good"} for number in range(100)][:60] + rows[60:]
    plan = CurvePlan.of(task_of(rows, tmp_path), [PROMPT_TUNING])
    assert not set(plan.pool.texts) & set(plan.scored.texts)


def test_what_does_not_fit_is_refused(sentiment, tiny_backbone):
    task = sentiment(train=60, test=20)

    def refused(match, task=task, **options):
        with pytest.raises(PandaError, match=match):
            CurveRun.of(CurveRequest(task=task, **options), tiny_backbone)

    refused("--sizes 61 is more than the 60 rows", sizes=[16, 61])
    refused("--sizes are numbers of labelled rows", sizes=[])
    refused("8 labelled rows .* too few for 2 classes", sizes=[8])
    refused("late_fusion takes more", methods=[LATE_FUSION.name])
    refused("35 labelled rows and no test data", task=sentiment("few", train=35, test=None))


def test_values_that_do_not_go_together_are_refused_before_anything_is_loaded(sentiment):
    def refused(match, **options):
        with pytest.raises(PandaError, match=match):
            CurveRequest(task=sentiment(train=60, test=20), **options)

    refused("method pot starts from a source prompt", methods=["pot"])
    refused("--source is for methods that start from one", source="books", methods=["prompt_tuning"])
    refused("--lr auto tries three trainings", options=TrainingOptions(lr="auto"))
    refused("Seeds are numbers from 0", seeds=(1, 1))
    refused("No method 'pott'", methods=["pott"])


def test_a_curve_is_never_trained_nor_scored_twice(sentiment, tiny_backbone, tmp_path, monkeypatch):
    task, folder = sentiment(train=64, test=30), tmp_path / "curve"
    asked = {"sizes": [16, 32, 64], "seeds": (0, 1), "options": OPTIONS}
    given, request = asked | {"folder": folder}, CurveRequest(task=task, **asked)
    small = learning_curve(task, tiny_backbone, **given | {"sizes": [16, 32]})
    run = CurveRun.of(request, tiny_backbone, folder=folder)
    assert [(size, seed) for _, size, seed in run.left()] == [(64, 0), (64, 1)]
    assert run.seconds(run.left()) > 0
    first = run.run()
    np.testing.assert_array_equal(first.measured["prompt_tuning"].scores[:2], small.measured["prompt_tuning"].scores)
    assert not CurveRun.of(request, tiny_backbone, folder=folder).left()

    def never(*arguments, **options):
        raise AssertionError("trained or scored again")

    from promptpanda.training.loop import Training
    from promptpanda.transfers.trial import Trial

    monkeypatch.setattr(Training, "run", never)
    monkeypatch.setattr(Trial, "evaluate", never)
    again = learning_curve(task, tiny_backbone, **given)
    assert again.to_json() == first.to_json()
    # A damaged score is made again from the prompt, without training.
    monkeypatch.undo()
    monkeypatch.setattr(Training, "run", never)
    for path in (folder / "scores").iterdir():
        path.write_text("{")
    assert learning_curve(task, tiny_backbone, **given).to_json() == first.to_json()


def test_points_are_those_that_plain_training_gives(sentiment, tiny_backbone):
    task = sentiment(train=32, test=30)
    curve = learning_curve(task, tiny_backbone, sizes=[32], seeds=(0,), options=OPTIONS)
    from promptpanda.transfers.evaluate import evaluate

    score = evaluate(train(task, tiny_backbone, options=OPTIONS), tiny_backbone, task)["accuracy"]
    assert curve.measured["prompt_tuning"].scores == pytest.approx(np.asarray([[score]]))
    assert "cannot be forecast: 1 size is too few" in curve.sentences("prompt_tuning")[0]


def test_a_source_gives_the_curve_of_pot(sentiment, tiny_backbone, tmp_path):
    bank = Bank(tmp_path / "bank", others={})
    source = train(sentiment("books", seed=5), tiny_backbone, bank=bank, options=OPTIONS)
    curve = learning_curve(
        sentiment(train=32, test=30), tiny_backbone, source="books", bank=bank, sizes=[16, 32], seeds=(0, 1),
        options=OPTIONS.model_copy(update={"prompt_length": 4}), methods=["pot", "head_only"],
    )  # fmt: skip
    assert set(curve.measured) == {"pot", "head_only"}
    assert curve.sources == (source.card.id,)
    assert bank.ids() == [source.card.id]
    assert HEAD_ONLY.name in curve.to_json()["methods"]


def test_the_command_tells_its_plan_draws_and_writes_a_page(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "mood.jsonl", [row | {"text": row["text"] + " <b>"} for row in sentiment_rows(64, 1)])
    write_jsonl(tmp_path / "test.jsonl", sentiment_rows(60, 2))
    command = ["curve", "--train", "mood.jsonl", "--test", "test.jsonl", "--text", "text", "--label", "label"]
    command += ["--model", str(tiny_folder("bert")), "--epochs", "1", "--prompt-length", "4", "--methods", "head_only"]

    def run(*more, code=0):
        result = CliRunner().invoke(app, [*command, *more])
        assert result.exit_code == code, f"{result.stdout}\n{result.stderr}\n{result.exception!r}"
        return result

    plan = run("--dry-run").stdout
    assert "16, 32, 64 labelled rows, seeds 0, 1, 2; scored on 60 rows of the test data" in plan
    assert "9 trainings; 9 to do, about" in plan
    assert not (tmp_path / "curves").exists()
    assert json.loads(run("--dry-run", "--json").stdout)["left"] == 9
    (tmp_path / "pages").mkdir()
    shown = run("--report", "pages/curve.html")
    assert "9 trainings; 9 to do" in shown.stderr
    bars = [line.split() for line in shown.stdout.splitlines() if " to " in line and "o" in line.split()[-1]]
    assert [bar[0] for bar in bars[:3]] == ["16", "32", "64"]
    page = (tmp_path / "pages" / "curve.html").read_text()
    assert ("<svg" in page and "twice as many" in page.lower()) or "cannot be forecast" in page
    found = json.loads(run("--json").stdout)
    assert np.asarray(found["methods"]["head_only"]["scores"]).shape == (3, 3)
    assert set(found) >= {"target", "metric", "sizes", "seeds", "n_scored", "constant", "methods"}
    assert "9 trainings, 9 of them finished; 0 to do" in run("--dry-run").stdout
    assert "--sizes must be numbers" in run("--sizes", "a", code=2).stderr
    assert "is a folder" in run("--report", "pages", code=2).stderr
    assert "say --force" in run("--report", "pages/curve.html", code=2).stderr
