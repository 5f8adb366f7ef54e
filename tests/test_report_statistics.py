"""What a report computes: metrics of resampled rows, intervals, choices, correlations, costs."""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np
import pytest
from report_rows import changed, made_answers, made_predictions, made_row, made_study, scored, scores_of
from scipy import stats

from promptpanda.evaluation.grid import evaluate_rows
from promptpanda.report import maps, predicted, results
from promptpanda.report.gains import REPLICATES, Bootstrap, Gain
from promptpanda.report.resample import TestRows, scorer
from promptpanda.report.study import Contender, Group, Study
from promptpanda.sweep.row import Answers, Row, in_force
from promptpanda.tasks.shared_text import known_pairs, pairs_of, share_text

PT = Contender("prompt_tuning", "default", "only")
POT_MEAN, POT_BEST = (Contender("pot", "default", choice) for choice in ("mean", "best"))


def group_of(rows: list[Row], answers: list[Answers] | None = None, **options: Any) -> Group:
    (group,) = Study.of(rows, answers or [], sizes={}, **options).groups
    return group


def gain_of(rows: list[Row], answers: list[Answers], method: Contender = POT_BEST) -> Gain:
    group = group_of(rows, answers)
    found = Bootstrap({one.test_fingerprint: one for one in answers}, rows).gain(group, method, PT, rows[0].task)
    assert found is not None
    return found


def pot_of(target: str = "cr", n_test: int = 200, seeds: tuple[int, ...] = (0, 1), better: float = 0.1) -> Any:
    """Prompt tuning and PoT from one source, on one target."""
    answers, rng = made_answers(target, n_test), np.random.default_rng(3)
    rows = []
    for seed in seeds:
        for method, source, right in (("prompt_tuning", None, 0.6), ("pot", "sst2", 0.6 + better)):
            row = made_row(method, task=target, seed=seed, source=source)
            rows.append(scored(row, answers, made_predictions(answers, right, rng)))
    return rows, [answers]


POT_ONLY = Contender("pot", "default", "only")


@pytest.mark.parametrize(
    ("target", "metrics", "groups"),
    [
        ("cr", ["accuracy"], False),
        ("mrpc", ["accuracy", "f1"], False),
        ("cola", ["matthews"], False),
        ("cb", ["accuracy", "macro_f1"], False),
        ("stsb", ["pearson_spearman", "pearson", "spearman"], False),
        ("copa", ["accuracy"], False),
        ("conll04", ["span_f1", "span_precision", "span_recall"], False),
        ("multirc", ["f1a", "question_em"], True),
    ],
)
def test_metrics_of_resampled_rows_are_those_of_the_rows_written_out(
    target: str, metrics: list[str], groups: bool
) -> None:
    n, rng = 60, np.random.default_rng(0)
    answers = made_answers(target, n, groups=[row // 4 for row in range(n)] if groups else None)
    predictions = made_predictions(answers, 0.7, rng)
    if target == "stsb":
        predictions = [round(value) for value in predictions]  # ties
    counts = TestRows.of(answers).draw(25, rng)
    written_out = [np.repeat(np.arange(n), drawn.astype(int)) for drawn in counts]
    for metric in metrics:
        score = scorer(answers, metric, predictions)
        assert score is not None
        expected = []
        for rows in written_out:
            if groups:
                expected.append(_with_copies_apart(answers, predictions, rows)[metric])
            else:
                expected.append(scores_of(answers, predictions, rows)[metric])
        np.testing.assert_allclose(score(counts), expected, atol=1e-9)


def _with_copies_apart(answers: Answers, predictions: list[Any], rows: np.ndarray) -> dict[str, float]:
    """Scores of drawn questions, each copy of which counts as a question of its own."""
    seen: dict[int, int] = {}
    groups = []
    for row in rows:
        seen[int(row)] = seen.get(int(row), -1) + 1
        groups.append(1000 * seen[int(row)] + (answers.groups or [])[row])
    copy = answers.model_copy(update={"labels": [answers.labels[row] for row in rows], "groups": groups})
    return scores_of(copy, [predictions[row] for row in rows])


def test_answers_of_questions_are_compared_as_text() -> None:
    from promptpanda.tasks.catalog import catalog_spec

    spec = catalog_spec("squad").model_dump(mode="json")
    labels = [["the red fox"], ["Paris", "in Paris"], ["7"]]
    answers = Answers(test_fingerprint="t", task="squad", task_spec=spec, class_names=(), labels=labels)
    f1, em = (scorer(answers, metric, ["red fox", "in Paris", "8"]) for metric in ("squad_f1", "squad_em"))
    counts = np.asarray([[1.0, 1.0, 1.0], [2.0, 0.0, 1.0]])
    assert f1 is not None
    assert em is not None
    np.testing.assert_allclose(f1(counts), [2 / 3, 2 / 3])
    np.testing.assert_allclose(em(counts), [2 / 3, 2 / 3])


def test_groups_are_drawn_whole() -> None:
    answers = made_answers("multirc", 12, groups=[0] * 5 + [1] * 3 + [2] * 4)
    counts = TestRows.of(answers).draw(200, np.random.default_rng(1))
    for start, stop in ((0, 5), (5, 8), (8, 12)):
        assert (counts[:, start:stop] == counts[:, start : start + 1]).all()
    assert (counts[:, [0, 5, 8]].sum(axis=1) == 3).all()


def test_the_interval_is_that_of_a_bootstrap_written_out() -> None:
    rows, answers = pot_of(seeds=(0, 1, 2))
    gain = gain_of(rows, answers, POT_ONLY)
    assert gain.basis == "test rows and seeds"
    labels, rng = np.asarray(answers[0].labels), np.random.default_rng(9)
    right = {(row.method, row.seed): labels == np.asarray(row.predictions) for row in rows}
    by_seed = [100 * (right["pot", seed].mean() - right["prompt_tuning", seed].mean()) for seed in range(3)]
    assert gain.mean == pytest.approx(statistics.fmean(by_seed))
    drawn = []
    for _ in range(4000):
        taken = rng.integers(0, len(labels), len(labels))
        seeds = rng.integers(0, 3, 3)
        drawn.append(
            100 * np.mean([right["pot", s][taken].mean() - right["prompt_tuning", s][taken].mean() for s in seeds])
        )
    low, high = np.percentile(drawn, [2.5, 97.5])
    assert gain.low == pytest.approx(low, abs=0.5)
    assert gain.high == pytest.approx(high, abs=0.5)
    assert gain.replicates is not None
    assert gain.replicates.shape == (REPLICATES,)


def test_one_seed_draws_test_rows_alone_and_its_interval_is_the_normal_one() -> None:
    rows, answers = pot_of(n_test=1500, seeds=(0,))
    gain = gain_of(rows, answers, POT_ONLY)
    assert gain.basis == "test rows"
    labels = np.asarray(answers[0].labels)
    tuned, pot = (labels == np.asarray(row.predictions) for row in rows)
    difference = 100 * (pot.astype(float) - tuned)
    error = difference.std(ddof=1) / np.sqrt(len(labels))
    assert gain.low == pytest.approx(difference.mean() - 1.96 * error, abs=0.35)
    assert gain.high == pytest.approx(difference.mean() + 1.96 * error, abs=0.35)


@pytest.mark.parametrize("target", ["cr", "stsb", "conll04"])
def test_more_test_rows_give_narrower_intervals(target: str) -> None:
    widths = []
    for n_test in (60, 240, 960):
        gain = gain_of(*pot_of(target, n_test, seeds=(0,)), POT_ONLY)
        assert gain.low is not None
        assert gain.high is not None
        widths.append(gain.high - gain.low)
    assert widths[0] > 1.5 * widths[1] > 2.25 * widths[2]


@pytest.mark.parametrize("target", ["cr", "cola", "stsb", "conll04", "copa"])
def test_equal_predictions_give_a_zero_interval(target: str) -> None:
    rows, answers = pot_of(target, seeds=(0, 1))
    equal = [rows[0], scored(rows[1], answers[0], rows[0].predictions or []),
             rows[2], scored(rows[3], answers[0], rows[2].predictions or [])]  # fmt: skip
    gain = gain_of(equal, answers, POT_ONLY)
    assert (gain.mean, gain.low, gain.high, gain.verdict) == (0.0, 0.0, 0.0, "open")


def test_without_predictions_seeds_alone_are_drawn() -> None:
    rows, answers = pot_of(seeds=(0, 1, 2))
    bare = [row.model_copy(update={"predictions": None}) for row in rows]
    gain = gain_of(bare, answers, POT_ONLY)
    assert gain.basis == "seeds"
    assert gain.low == pytest.approx(min(gain.by_seed))  # 1 of 27 draws has the lowest alone: more than 2.5 %
    assert gain.high == pytest.approx(max(gain.by_seed))
    alone = gain_of(bare[:2], answers, POT_ONLY)
    assert (alone.low, alone.high, alone.basis, alone.verdict) == (None, None, None, "open")


def test_predictions_that_do_not_give_the_stated_score_are_not_used() -> None:
    rows, answers = pot_of()
    wrong = rows[1].model_copy(update={"test": {"accuracy": 0.11}})
    assert gain_of([rows[0], wrong, *rows[2:]], answers, POT_ONLY).basis == "seeds"


def test_a_gain_clearly_above_or_below_zero_is_called_so() -> None:
    assert gain_of(*pot_of(n_test=800, better=0.2), POT_ONLY).verdict == "better"
    assert gain_of(*pot_of(n_test=800, better=-0.2), POT_ONLY).verdict == "worse"


def by_hand() -> list[Row]:
    """Two seeds, two sources; test and validation scores chosen by hand."""
    scores = {
        # method, source, seed: (test, validation, validation loss)
        ("prompt_tuning", None, 0): (0.60, 0.5, 0.7),
        ("prompt_tuning", None, 1): (0.64, 0.5, 0.7),
        ("pot", "sst2", 0): (0.70, 0.75, 0.5),
        ("pot", "trec", 0): (0.66, 0.75, 0.4),  # equal validation score, lower loss: chosen
        ("pot", "sst2", 1): (0.72, 0.9, 0.5),
        ("pot", "trec", 1): (0.50, 0.8, 0.4),
    }
    rows = []
    for (method, source, seed), (test, validation, loss) in scores.items():
        row = made_row(method, source=source, seed=seed, test={"accuracy": test})
        rows.append(row.model_copy(update={"validation": {"accuracy": validation, "loss": loss}}))
    return rows


def test_the_main_table_by_hand() -> None:
    group = group_of(by_hand())
    assert group.contenders == [PT, POT_MEAN, POT_BEST]
    tuned, mean, best = (group.result(one, "cr") for one in group.contenders)
    assert tuned is not None
    assert mean is not None
    assert best is not None
    assert (tuned.mean, tuned.sd) == pytest.approx((62.0, statistics.stdev([60, 64])))
    assert (mean.mean, mean.sd) == pytest.approx((64.5, statistics.stdev([68, 61])))
    assert (best.mean, best.sd) == pytest.approx((69.0, statistics.stdev([66, 72])))
    table = results.scores(group, "g")
    assert [cell.text for cell in table.rows[0]] == ["cr", "62.0", "64.5", "69.0"]
    assert [cell.mark for cell in table.rows[0]] == ["", "", "", "best"]


def test_the_gain_map_by_hand() -> None:
    grid = maps.gain_grid(group_of(by_hand()), "pot")
    assert grid.values["sst2", "cr"] == pytest.approx((10 + 8) / 2)
    assert grid.values["trec", "cr"] == pytest.approx((6 - 14) / 2)


def test_pairs_that_share_texts_are_shown_but_count_nowhere() -> None:
    assert share_text("sst2", "mr")
    assert share_text("mr", "sst2")
    assert not share_text("sst2", "cr")
    assert frozenset(("mrpc", "stsb")) in known_pairs()
    group = group_of(by_hand(), shared=pairs_of([("sst2", "cr")]))
    (mean,) = [group.result(one, "cr") for one in group.contenders if one.choice == "mean"]
    assert mean is not None
    assert mean.mean == pytest.approx((66 + 50) / 2)
    assert all(row.source == "trec" for rows in group.chosen(POT_BEST, "cr").values() for row in rows)
    grid = maps.gain_grid(group, "pot")
    table = maps.heat_map(group, grid, "map", "", "", 10.0)
    cells = {row[0].text: row for row in table.rows}
    assert (cells["sst2"][1].text, cells["sst2"][1].mark, cells["sst2"][2].text) == ("+9.0", "shared", "\u2013")
    assert table.foot[0][1].value == pytest.approx(-4.0)
    assert "left out of means" in table.notes[0]


def test_the_latest_of_several_rows_of_a_run_counts() -> None:
    rows = by_hand()
    newer = changed(rows[0], test={"accuracy": 0.8}, finished="2026-11-21T10:00:00+00:00")
    study = Study.of([newer, *rows], [], sizes={})
    assert study.superseded == 1
    tuned = study.groups[0].result(PT, "cr")
    assert tuned is not None
    assert tuned.mean == pytest.approx((80 + 64) / 2)


def test_the_rows_of_the_recipe_as_it_was_last_swept_count() -> None:
    answers = made_answers("cr", 20)
    old = made_row(finished="2026-11-20T10:00:00+00:00", validation={"accuracy": 0.5, "loss": 1.0})
    tried = changed(old, finished="2026-11-21T10:00:00+00:00", validation={"accuracy": 0.9, "loss": 1.0})
    failed = changed(old, finished="2026-11-22T10:00:00+00:00", status="failed", reason="No.", validation=None)
    other = changed(old, task="rte")
    rows = [old, tried, failed, other]

    def shown(plan: dict[str, str]) -> list[Row]:
        return [row for row in in_force(rows, plan) if row.task == "cr"]

    assert shown({}) == [tried], "the latest that finished"
    assert shown({old.key: "default"}) == [old], "those settings were taken back"
    assert shown({failed.key: "default"}) == [failed], "what is asked for now failed"
    assert {row.task for row in in_force(rows, {old.key: "default"})} == {"cr", "rte"}
    assert {(row.key, row.variant) for row in shown({tried.key: "default", old.key: "other"})} == {
        (tried.key, "default"),
        (old.key, "other"),
    }
    study = Study.of(rows, [answers], sizes={}, plan={old.key: "default"})
    assert study.superseded == 2
    assert [row.key for row in study.groups[0].runs if row.task == "cr"] == [old.key]


def test_a_fusion_of_a_set_that_shares_texts_counts_nowhere() -> None:
    spec = {"source_1": {"task": "mr"}, "source_2": {"task": "trec"}}
    answers = made_answers("cr", 20)
    fused = scored(made_row("late_fusion", spec=spec), answers, answers.labels)
    tuned = scored(made_row(), answers, answers.labels)
    contender = Contender("late_fusion", "default", "only")
    for shared, counted in ((frozenset(), [fused]), (pairs_of([("cr", "mr")]), [])):
        group = Study.of([fused, tuned], [answers], sizes={}, shared=shared).groups[0]
        assert [row for rows in group.chosen(contender, "cr").values() for row in rows] == counted


def test_without_test_data_validation_scores_are_shown_and_labelled() -> None:
    rows = [row.model_copy(update={"test": None}) for row in by_hand()]
    group = group_of(rows)
    tuned = group.result(PT, "cr")
    assert tuned is not None
    assert tuned.mean == pytest.approx(50)
    assert "validation part" in results.scores(group, "g").notes[0]


def test_the_paper_protocol_is_labelled() -> None:
    rows = [row.model_copy(update={"protocol": "paper"}) for row in by_hand()]
    notes = results.scores(group_of(rows), "g").notes
    assert "also chose it" in notes[0]
    assert not any("without a look at test scores" in note for note in notes)
    assert any("flatters" in note for note in notes)


def test_correlations_are_scipys_and_those_of_the_evaluation() -> None:
    rows, answers = made_study(n_test=40, models=("bert-tiny",))
    group = group_of(rows, answers)
    found = predicted.agreement(group, "logme", "cr")
    expected = stats.spearmanr([point.x for point in found.points], [point.y for point in found.points]).statistic
    assert found.spearman == pytest.approx(expected)
    evaluation = evaluate_rows(rows).models["bert-tiny"]
    for name in group.estimators:
        mean = predicted.mean_agreement(group, name)
        assert mean.mean == pytest.approx(evaluation.spearman[name].mean)
        assert mean.targets_error == pytest.approx(evaluation.spearman[name].targets_error)


def test_costs_count_teachers_and_all_sources_that_were_tried() -> None:
    rows = by_hand()
    for row in by_hand():
        if row.method == "pot":
            rows.append(changed(row, method="panda", example_steps=520, forward_examples=78))
    rows = [
        row.model_copy(update={"example_steps": 520, "seconds": 10.0, "forward_examples": 0})
        if row.method != "panda"
        else row
        for row in rows
    ]
    table = results.costs(group_of(rows), "g")
    costs = {row[0].text: row[2].value for row in table.rows}
    student = 1 + 78 / 3 / 520
    assert costs == pytest.approx(
        {
            "prompt tuning": 1.0,
            "PoT, mean of sources": 1.0,
            "PoT, best source": 2.0,
            "PANDA, mean of sources": 1 + student,
            "PANDA, best source": 2 * (1 + student),
        }
    )


def test_missing_runs_are_told() -> None:
    group = group_of(by_hand()[:-1])
    assert any("PoT on cr" in note for note in results.scores(group, "g").notes)
    assert not any("missing" in note for note in results.scores(group_of(by_hand()), "g").notes)


def test_means_are_over_targets_that_all_have() -> None:
    rows = by_hand()
    rows += [changed(row, task="rte") for row in by_hand() if row.method == "prompt_tuning"]
    table = results.scores(group_of(rows), "g")
    assert table.foot == ()
    assert any("Left out of the mean" in note and "rte" in note for note in table.notes)
