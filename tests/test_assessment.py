"""Figures of an assessment against scikit-learn and written-out formulas, and what their intervals cover."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from seqeval.metrics import classification_report
from sklearn import metrics as sk

from promptpanda.assessment.assess import Assessment, assess, to_json
from promptpanda.assessment.bootstrap import interval, resampled, shares, widened
from promptpanda.assessment.calibration import bins_of, chance_error, expected_calibration_error
from promptpanda.assessment.comparison import McNemar
from promptpanda.assessment.evaluated import Answers, Evaluated
from promptpanda.assessment.forms.spans import matched
from promptpanda.assessment.selective import COVERAGES
from promptpanda.tasks.encoding import Encoded
from promptpanda.tasks.grouping import blocks_of
from promptpanda.tasks.inputs import Split, Words, ragged
from promptpanda.tasks.spec import TaskSpec
from promptpanda.tasks.tags import tag_names
from promptpanda.tasks.task import Task
from promptpanda.training.objectives.sequence import Classification, Regression
from promptpanda.training.objectives.tokens import TokenClassification

ROWS = Encoded((), None, 0)


def spec(kind: str, **more: object) -> TaskSpec:
    return TaskSpec.parse({"name": "made", "kind": kind, "segments": ["{text}"], **more}, "a test")


def classified(
    outputs: np.ndarray, labels: np.ndarray, id: str = "made-s0-00000000", groups: np.ndarray | None = None
) -> Evaluated:
    """Classes c0, c1, ...; a text of its own for each example."""
    names = [f"c{number}" for number in range(outputs.shape[1])]
    task = Task(spec("single_classification", labels=names, metrics=["accuracy", "macro_f1"]))
    split = Split(tuple((f"text {number}",) for number in range(len(labels))), labels, groups)
    objective = Classification(outputs.shape[1])
    return Evaluated(id, task, split, ROWS, outputs, objective, outputs.argmax(axis=1), blocks_of(split))


def drawn_classes(examples: int, classes: int, seed: int, sure: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose softmax is the distribution that labels are drawn from, times `sure`."""
    rng = np.random.default_rng(seed)
    logits = 1.5 * rng.normal(size=(examples, classes))
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = np.asarray([rng.choice(classes, p=row) for row in shares])
    return (sure * logits).astype(np.float32), labels


@pytest.mark.parametrize("classes", [2, 7, 30])
def test_classes_are_counted_as_scikit_learn_does(classes):
    outputs, labels = drawn_classes(120, classes, seed=classes)
    found = assess(classified(outputs, labels))
    said, every = outputs.argmax(axis=1), np.arange(classes)
    expected = sk.precision_recall_fscore_support(labels, said, labels=every, zero_division=0.0)
    got = [[row.figures[name].value for name in ("precision", "recall", "f1")] for row in found.by_class]
    np.testing.assert_allclose(np.asarray(got).T, expected[:3], rtol=1e-12)
    assert [row.support for row in found.by_class] == expected[3].tolist()
    np.testing.assert_array_equal(found.confusion.matrix, sk.confusion_matrix(labels, said, labels=every))
    values = {name: one.value for name, one in found.metrics.items()}
    assert values == pytest.approx(
        {
            "accuracy": sk.accuracy_score(labels, said),
            "macro_f1": sk.f1_score(labels, said, average="macro"),
            "balanced_accuracy": sk.balanced_accuracy_score(labels, said),
        }
    )


def test_classes_that_the_model_does_not_have_are_errors():
    outputs, labels = drawn_classes(60, 3, seed=13)
    labels[:6] = 3
    evaluated = classified(outputs, labels)
    evaluated = replace(evaluated, split=replace(evaluated.split, unseen_labels=("new",)))
    found = assess(evaluated)
    assert found.confusion.labels == ("c0", "c1", "c2", "new")
    new = found.by_class[3]
    assert (new.name, new.support, new.figures["recall"].value) == ("new", 6, 0.0)
    assert found.score.value == sk.accuracy_score(labels, outputs.argmax(axis=1))
    assert found.metrics["balanced_accuracy"].value == pytest.approx(
        sk.balanced_accuracy_score(labels, outputs.argmax(axis=1))
    )
    assert {one.expected for one in found.mistakes} >= {"new"}


def test_every_figure_has_an_interval_around_it():
    found = to_json(assess(classified(*drawn_classes(200, 3, seed=1, sure=2.0)), temperature=2.0))
    json.dumps(found, allow_nan=False)
    assert found["low"] < found["score"] < found["high"]
    for name, value in found["metrics"].items():
        low, high = found["intervals"]["metrics"][name]
        assert low < value < high
    for name, figures in found["per_class"].items():
        assert set(figures) == {"precision", "recall", "f1", "support"}
        for figure, (low, high) in found["intervals"]["per_class"][name].items():
            assert low < figures[figure] < high
    for name in ("ece", "ece_scaled"):
        low, high = found["intervals"]["calibration"][name]
        assert 0 <= low <= found["calibration"][name] <= high <= 1
    assert all(one["low"] <= one["accuracy"] <= one["high"] for one in found["coverage"])
    assert set(found["confusion"]) == {"labels", "matrix"}
    assert set(found["calibration"]) == {"ece", "ece_scaled", "temperature"}


def test_equal_examples_give_equal_intervals():
    evaluated = classified(*drawn_classes(60, 4, seed=2))
    assert to_json(assess(evaluated)) == to_json(assess(evaluated))


def test_intervals_cover_the_truth_as_often_as_they_say():
    """200 samples of 100 examples from a model whose accuracy is known: 95 % +- 3.5 standard errors."""
    rng, truth, hits = np.random.default_rng(3), 0.8, 0
    units = np.arange(100)
    for seed in range(200):
        right = rng.random(100) < truth
        low, high = interval(resampled({"accuracy": shares(right)}, units, seed)["accuracy"])
        hits += low <= truth <= high
    assert abs(hits / 200 - 0.95) < 3.5 * math.sqrt(0.95 * 0.05 / 200)


def test_intervals_of_groups_cover_the_truth_and_those_of_rows_do_not():
    """Five rows a group are right or wrong together: rows drawn one by one would seem five times as many."""
    rng, truth = np.random.default_rng(4), 0.7
    groups, hits = np.repeat(np.arange(30), 5), np.zeros(2)
    for seed in range(80):
        right = np.repeat(rng.random(30) < truth, 5)
        for place, units in enumerate((groups, np.arange(150))):
            low, high = interval(resampled({"accuracy": shares(right)}, units, seed)["accuracy"])
            hits[place] += low <= truth <= high
    assert hits[0] / 80 > 0.86
    assert hits[1] / 80 < 0.75


def test_examples_of_one_group_are_drawn_together():
    outputs, labels = drawn_classes(40, 2, seed=5)
    groups = np.repeat(np.arange(8), 5)
    grouped, alone = assess(classified(outputs, labels, groups=groups)), assess(classified(outputs, labels))
    assert (grouped.units, alone.units) == (8, 40)
    assert any("8 independent groups" in note for note in grouped.notes)
    assert grouped.score.value == alone.score.value
    together = assess(classified(outputs, labels, groups=np.zeros(40, dtype=np.int64)))
    assert together.score.interval == (None, None)
    assert to_json(together)["low"] is None


def test_where_all_are_right_the_exact_binomial_limit_is_told():
    outputs = np.eye(2, dtype=np.float32)[np.arange(20) % 2] * 4
    found = assess(classified(outputs, np.arange(20) % 2))
    expected = binomtest(20, 20).proportion_ci(0.95)
    assert found.score.interval == pytest.approx((expected.low, 1))
    assert found.coverage[-1].interval == found.score.interval
    assert found.by_class[0].figures["recall"].interval == pytest.approx((binomtest(10, 10).proportion_ci(0.95).low, 1))
    assert "exact binomial" in " ".join(found.notes)
    wrong = assess(classified(outputs, 1 - np.arange(20) % 2))
    assert wrong.score.interval == pytest.approx((0, 1 - expected.low))
    grouped = assess(classified(outputs, np.arange(20) % 2, groups=np.repeat(np.arange(5), 4)))
    assert grouped.score.interval == pytest.approx((binomtest(5, 5).proportion_ci(0.95).low, 1))


def expected_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """Guo et al. 2017, equation 3, as a loop."""
    total = 0.0
    for number in range(15):
        inside = (confidence > number / 15) & (confidence <= (number + 1) / 15)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return total


@given(st.lists(st.tuples(st.floats(0.01, 1.0), st.booleans()), min_size=1, max_size=60))
@settings(max_examples=60, deadline=None)
def test_the_calibration_error_is_that_of_the_formula(drawn):
    confidence, right = np.asarray([one for one, _ in drawn]), np.asarray([one for _, one in drawn])
    answers = Answers(np.arange(len(drawn)), confidence, right)
    score = expected_calibration_error(answers, len(drawn))
    assert score(np.ones((1, len(drawn))))[0] == pytest.approx(expected_error(confidence, right), abs=1e-9)
    assert sum(one.count for one in bins_of(answers)) == len(drawn)
    # A resample is the error of the rows that it drew.
    counts = np.random.default_rng(0).integers(0, 3, (1, len(drawn)))
    if counts.sum():
        twice = np.repeat(np.arange(len(drawn)), counts[0])
        expected = expected_error(confidence[twice], right[twice])
        assert score(counts.astype(float))[0] == pytest.approx(expected, abs=1e-9)


def test_a_calibrated_model_is_off_by_chance_alone():
    outputs, labels = drawn_classes(2000, 3, seed=6)
    calibration = assess(classified(outputs, labels)).calibration
    assert calibration.ece.value < 2 * calibration.chance
    assert calibration.chance == pytest.approx(chance_error(classified_confidence(outputs)), abs=1e-12)
    unsure = assess(classified(3 * outputs, labels), temperature=3.0).calibration
    assert unsure.ece.value > 5 * unsure.chance
    assert unsure.scaled.value == pytest.approx(calibration.ece.value, abs=1e-6)


def classified_confidence(outputs: np.ndarray) -> np.ndarray:
    shares = np.exp(outputs.astype(np.float64))
    return (shares / shares.sum(axis=1, keepdims=True)).max(axis=1)


@pytest.mark.parametrize("levels", [[0.63, 0.83, 0.97], np.arange(0.36, 1, 1 / 15)])
def test_the_interval_of_the_calibration_error_covers_it(levels):
    """In ten bins the percentile interval would lie too high: resampling widens every gap. 40 samples of 200."""
    rng, hits = np.random.default_rng(7), 0
    for seed in range(40):
        confidence = rng.choice(levels, 200)
        right = rng.random(200) < confidence - 0.1  # off by exactly 0.1 everywhere
        answers = Answers(np.arange(200), confidence, right)
        score = expected_calibration_error(answers, 200)
        low, high = widened(float(score(np.ones((1, 200)))[0]), resampled({"e": score}, np.arange(200), seed)["e"])
        hits += low <= 0.1 <= high
    assert hits >= 36


def test_risk_and_coverage_are_those_of_a_sorted_list():
    outputs, labels = drawn_classes(137, 4, seed=8)
    found = assess(classified(outputs, labels)).coverage
    confidence, right = classified_confidence(outputs), outputs.argmax(axis=1) == labels
    order = np.argsort(-confidence, kind="stable")
    assert tuple(one.coverage for one in found) == COVERAGES
    for one in found:
        count = math.ceil(one.coverage * 137 - 1e-9)
        assert one.accuracy == pytest.approx(right[order[:count]].mean())
        assert one.confidence == pytest.approx(confidence[order[count - 1]])
    assert found[-1].accuracy == pytest.approx(right.mean())


def test_the_rows_that_are_wrong_come_by_how_sure_the_model_is():
    outputs, labels = drawn_classes(80, 3, seed=9)
    found = assess(classified(outputs, labels)).mistakes
    confidence, said = classified_confidence(outputs), outputs.argmax(axis=1)
    wrong = np.flatnonzero(said != labels)
    order = wrong[np.argsort(-confidence[wrong])]
    assert [one.place - 1 for one in found] == order[: len(found)].tolist()
    first = order[0]
    assert (found[0].expected, found[0].predicted) == (f"c{labels[first]}", f"c{said[first]}")
    assert found[0].text == f"text {first}"


def compared(one: Evaluated, other: Evaluated) -> Assessment:
    return assess(one, other=other)


def test_a_better_prompt_is_told_from_a_worse_one_and_two_alike_are_not():
    rng = np.random.default_rng(10)
    labels = rng.integers(0, 2, 400)

    def with_accuracy(share: float, id: str) -> Evaluated:
        said = np.where(rng.random(400) < share, labels, 1 - labels)
        return classified(np.eye(2, dtype=np.float32)[said], labels, id)

    good, bad, alike = (with_accuracy(*one) for one in ((0.9, "good"), (0.7, "bad"), (0.9, "alike")))
    better = compared(good, bad).comparison
    assert (better.verdict, better.other) == ("better", "bad")
    assert compared(bad, good).comparison.verdict == "worse"
    assert compared(bad, good).comparison.difference == -better.difference
    assert compared(good, alike).comparison.verdict == "open"
    assert better.mcnemar.p < 1e-6 < 0.05 < compared(good, alike).comparison.mcnemar.p


def test_mcnemar_is_the_binomial_sum():
    this = np.asarray([True] * 9 + [False] * 2 + [True] * 30)
    other = np.asarray([False] * 9 + [True] * 2 + [True] * 30)
    found = McNemar.of(this, other)
    assert (found.this, found.other) == (9, 2)
    assert found.p == pytest.approx(2 * sum(math.comb(11, k) for k in range(3)) / 2**11)
    assert McNemar.of(this, this).p == 1.0


def test_groups_have_no_mcnemar_test():
    outputs, labels = drawn_classes(40, 2, seed=11)
    groups = np.repeat(np.arange(8), 5)
    evaluated = classified(outputs, labels, groups=groups)
    assert compared(evaluated, classified(-outputs, labels, "other", groups)).comparison.mcnemar is None


def test_values_are_measured_by_error_and_correlation():
    rng = np.random.default_rng(12)
    labels = rng.normal(size=90)
    predictions = labels + 0.3 * rng.normal(size=90)
    split = Split(tuple((f"text {number}",) for number in range(90)), labels)
    task = Task(spec("regression", metrics=["pearson"]))
    evaluated = Evaluated("r", task, split, ROWS, predictions[:, None], Regression(), predictions, blocks_of(split))
    found = assess(evaluated, temperature=None)
    assert found.metrics["mean_absolute_error"].value == pytest.approx(sk.mean_absolute_error(labels, predictions))
    assert found.metrics["rmse"].value == pytest.approx(sk.root_mean_squared_error(labels, predictions))
    assert found.score.value == pytest.approx(np.corrcoef(labels, predictions)[0, 1])
    assert found.calibration is None
    assert found.mistakes[0].place - 1 == np.abs(predictions - labels).argmax()
    whole = to_json(found)
    assert whole["values"]["predictions"] == predictions.tolist()
    assert whole["calibration"] == {"ece": None, "ece_scaled": None, "temperature": None}


def tagged(gold: list[list[str]], said: list[list[str]], confidence: float = 0.9) -> Evaluated:
    types = sorted({tag[2:] for tags in (*gold, *said) for tag in tags if tag != "O"})
    names = tag_names(types)
    task = Task(spec("token_classification", label="tags", labels=types, metrics=["span_f1"]))
    indices = [ragged([tuple(map(names.index, tags)) for tags in side]) for side in (gold, said)]
    texts = tuple(Words(tuple(f"w{row}x{at}" for at in range(len(tags)))) for row, tags in enumerate(gold))
    width = max(map(len, gold))
    logits = np.zeros((len(gold), width, len(names)), dtype=np.float32)
    sure = math.log(confidence / (1 - confidence) * (len(names) - 1))
    for row, tags in enumerate(indices[1]):
        logits[row, np.arange(len(tags)), tags] = sure
    places = tuple(np.arange(len(tags)) for tags in gold)
    encoded = Encoded(tuple(places), None, 0, units=places, places=places)
    split = Split(texts, indices[0])
    objective = TokenClassification(len(names))
    return Evaluated("t", task, split, encoded, logits, objective, list(indices[1]), blocks_of(split))


GOLD = [["B-A", "I-A", "O", "B-B"], ["O", "B-C", "I-C"], ["B-A", "O"], ["O", "O"]]
SAID = [["B-A", "I-A", "O", "B-A"], ["O", "B-C", "O"], ["O", "O"], ["B-B", "O"]]


def test_spans_are_counted_by_type_as_seqeval_does():
    found = assess(tagged(GOLD, SAID))
    report = classification_report(GOLD, SAID, output_dict=True, zero_division=0)
    for row in found.by_class:
        expected = report[row.name]
        assert {name: one.value for name, one in row.figures.items()} == pytest.approx(
            {"precision": expected["precision"], "recall": expected["recall"], "f1": expected["f1-score"]}
        )
        assert row.support == expected["support"]
    assert found.score.value == pytest.approx(report["micro avg"]["f1-score"])


def test_confusions_of_spans_tell_types_limits_missed_and_made_up():
    found = assess(tagged(GOLD, SAID))
    assert found.confusion.labels == ("A", "B", "C", "O")
    assert found.confusion.matrix.tolist() == [[1, 0, 0, 1], [1, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0]]
    assert "1 of these begin or end elsewhere" in found.confusion.note
    assert ("A", "O", 1) in found.confusions
    first = {one.place: one for one in found.mistakes}[1]
    assert (first.expected, first.predicted) == ("w0x0 w0x1 [A]; w0x3 [B]", "w0x0 w0x1 [A]; w0x3 [A]")


def test_a_sentence_is_as_sure_as_its_least_sure_tag_and_right_as_a_whole():
    evaluated = tagged([*GOLD, ["B-A", "O"]], [*SAID, ["B-A", "O"]])
    evaluated.outputs[4, 1] = 0  # its second word could have any of seven tags
    found = assess(evaluated)
    assert found.calibration.answers == 5
    assert [one.count for one in found.calibration.bins] == [1, 4]
    assert found.calibration.bins[0].confidence == pytest.approx(1 / 7, abs=1e-6)
    assert found.calibration.bins[0].accuracy == 1
    assert found.coverage[-1].accuracy == 1 / 5


def test_spans_are_matched_once_equal_ones_first():
    gold, said = [(0, 4, "A"), (4, 6, "B")], [(0, 2, "A"), (2, 5, "B"), (4, 6, "B")]
    assert matched(gold, said) == [((4, 6, "B"), (4, 6, "B")), ((0, 4, "A"), (0, 2, "A")), (None, (2, 5, "B"))]


def test_a_model_that_predicts_no_span_is_counted_too():
    found = assess(tagged(GOLD, [["O"] * len(tags) for tags in GOLD]), temperature=1.5)
    assert found.coverage[-1].accuracy == 1 / 4
    assert found.mistakes[0].predicted == "(no span)"
    assert {one.figures["recall"].value for one in found.by_class} == {0.0}
    json.dumps(to_json(found), allow_nan=False)
