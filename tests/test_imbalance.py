"""Classes of which one is rare: weights in the loss, metrics that see it, and the metric that decides."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import torch
from conftest import WORDS, sentiment_rows, write_jsonl
from kinds import KINDS, kind_task
from report_rows import made_answers
from sklearn import metrics as sk
from sklearn.linear_model import LogisticRegression
from sklearn.utils.class_weight import compute_class_weight
from typer.testing import CliRunner

from promptpanda import PandaError, TrainingOptions, own_task, train
from promptpanda.cli.main import app
from promptpanda.report.resample import TestRows, scorer
from promptpanda.sweep.plan import expand
from promptpanda.sweep.recipe import SweepRecipe
from promptpanda.tasks.catalog import catalog_names, catalog_spec
from promptpanda.tasks.encoding import Encoded
from promptpanda.tasks.inputs import Split
from promptpanda.tasks.metrics import METRICS, compute_metrics
from promptpanda.tasks.protocol import partition
from promptpanda.tasks.spec import TaskSpec
from promptpanda.training.objectives.label_sets import MultiLabel
from promptpanda.training.objectives.sequence import Classification
from promptpanda.training.objectives.weights import balanced_weights
from promptpanda.transfers.methods import HEAD_ONLY, PROMPT_TUNING
from promptpanda.transfers.trial import Trial

FAST = TrainingOptions(epochs=2, prompt_length=4, max_length=24, readout="mean", lr=3e-2)
NOT_IN_EXAMPLES = {"title", "templates", "origin", "licence", "hub", "package", "files"}
CLASSES = {"name": "x", "kind": "single_classification", "segments": ["{t}"]}

pytestmark = pytest.mark.usefixtures("one_thread")


class Notes:
    def __init__(self):
        self.notes = []

    def begin(self, label, total):
        pass

    def advance(self, count):
        pass

    def note(self, message):
        self.notes.append(message)


def rows_of(counts):
    """So many rows of every class, with a word of its own in each."""
    return [
        {"text": f"{WORDS[place]} w{number} w{number // 60}", "label": name}
        for place, (name, count) in enumerate(counts.items())
        for number in range(count)
    ]


def own(folder, counts, **options):
    return own_task(train=write_jsonl(folder / "own.jsonl", rows_of(counts)), text="text", **options)


@pytest.mark.parametrize("classes", [2, 5])
def test_weights_are_scikit_learns(classes):
    labels = np.random.default_rng(0).integers(0, classes, 50) ** 2 % classes
    there = np.unique(labels)
    found = np.asarray(balanced_weights(labels, classes))
    np.testing.assert_allclose(found[there], compute_class_weight("balanced", classes=there, y=labels))
    assert (np.delete(found, there) == 1).all()


def layout_of(count):
    return Encoded(tuple(np.zeros(1, dtype=np.int64) for _ in range(count)), None, 0).layout(np.arange(count))


def test_a_weighted_loss_is_a_mean_over_examples_of_weight_times_loss():
    outputs = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    labels = np.asarray([0, 0, 0, 0, 1, 1, 2])
    objective = Classification(3).balanced(labels)
    logs = outputs.double().log_softmax(1).numpy()
    weights = compute_class_weight("balanced", classes=np.arange(3), y=labels)[labels]
    by_hand = float(np.mean(weights * -logs[np.arange(7), labels]))
    found = objective.loss(outputs, objective.targets(None, labels), layout_of(7))
    assert float(found) == pytest.approx(by_hand, rel=1e-5)
    several = np.asarray([[1, 0], [0, 0], [0, 1], [0, 0], [0, 0], [0, 0], [0, 1]])
    objective = MultiLabel(2).balanced(several)
    p = torch.sigmoid(outputs[:, :2].double()).numpy()
    each = -(several * np.log(p) + (1 - several) * np.log(1 - p))
    weights = np.stack([compute_class_weight("balanced", classes=np.arange(2), y=y)[y] for y in several.T], axis=1)
    found = objective.loss(outputs[:, :2], objective.targets(None, several), layout_of(7))
    assert float(found) == pytest.approx(float((weights * each).mean()), rel=1e-5)


def test_the_loss_is_least_where_scikit_learns_is():
    """The gradient vanishes at the solution of a weighted logistic regression (with its penalty)."""
    rng = np.random.default_rng(3)
    features, labels = rng.normal(size=(60, 4)), (rng.random(60) < 0.15).astype(int) * 2 + (rng.random(60) < 0.3)
    labels = np.unique(labels, return_inverse=True)[1]
    penalty = 5.0
    fitted = LogisticRegression(C=penalty, class_weight="balanced", tol=1e-10, max_iter=5000).fit(features, labels)
    weight = torch.tensor(fitted.coef_, dtype=torch.float64, requires_grad=True)
    bias = torch.tensor(fitted.intercept_, dtype=torch.float64, requires_grad=True)
    objective = Classification(len(fitted.classes_)).balanced(labels)
    outputs = torch.tensor(features) @ weight.T + bias
    loss = objective.loss(outputs, objective.targets(None, labels), layout_of(60))
    (loss + (weight**2).sum() / (2 * penalty * 60)).backward()
    assert float(weight.grad.abs().max()) < 1e-4
    assert float(bias.grad.abs().max()) < 1e-4


def test_weights_change_the_training_and_make_another_run_only_where_they_are_asked_for(tiny_backbone, tmp_path):
    task = own(tmp_path, {"a": 40, "b": 8})
    part = partition(task)
    plain, weighted = (
        Trial(tiny_backbone, task, part, FAST.model_copy(update={"class_weights": value}), 0)
        for value in (None, "balanced")
    )
    assert plain.identity(PROMPT_TUNING) == Trial(tiny_backbone, task, part, FAST, 0).identity(PROMPT_TUNING)
    assert plain.identity(PROMPT_TUNING) != weighted.identity(PROMPT_TUNING)
    one, other = plain.outcome(HEAD_ONLY), weighted.outcome(HEAD_ONLY)
    assert not torch.equal(one.head.weight, other.head.weight)
    found, more = (trial.predict(trial.outcome(HEAD_ONLY), trial.train_data) for trial in (plain, weighted))
    assert more.predictions.sum() >= found.predictions.sum()


def test_what_came_later_is_not_in_older_identities():
    from promptpanda.transfers.method import options_used

    assert "class_weights" not in options_used(TrainingOptions(), PROMPT_TUNING)
    assert options_used(TrainingOptions(class_weights="balanced"), PROMPT_TUNING)["class_weights"] == "balanced"
    for name in catalog_names():
        spec = catalog_spec(name)
        older = spec.model_dump(mode="json", exclude=NOT_IN_EXAMPLES)
        assert spec.content == {k: v for k, v in older.items() if k not in ("label_separator", "label_columns")}
    several = CLASSES | {"kind": "multi_label", "metrics": ["micro_f1"], "label_columns": ["a"]}
    assert TaskSpec.parse(several, "a test").content["label_columns"] == ["a"]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "classification" not in kind and kind != "multi_label"])
def test_weights_are_refused_where_there_are_no_classes(kind, tiny_backbone, tmp_path):
    options = FAST.model_copy(update={"class_weights": "balanced"})
    with pytest.raises(PandaError, match="--class-weights balances the classes or labels of whole texts"):
        train(kind_task(kind, tmp_path), tiny_backbone, options=options)


@pytest.mark.parametrize("classes", [2, 3, 6])
def test_metrics_are_scikit_learns(classes):
    rng = np.random.default_rng(classes)
    labels = rng.permutation(np.concatenate([np.arange(classes), rng.integers(0, classes, 60)]))
    said = np.where(rng.random(len(labels)) < 0.6, labels, rng.integers(0, classes, len(labels)))
    scores = rng.dirichlet(np.ones(classes), len(labels))
    assert METRICS["balanced_accuracy"](labels, said, 0) == pytest.approx(sk.balanced_accuracy_score(labels, said))
    metrics = ["balanced_accuracy", "average_precision", "roc_auc"]
    names = tuple("abcdef"[:classes])
    spec = TaskSpec.parse(CLASSES | {"metrics": metrics, "labels": names}, "a test")
    split = Split((("x",),) * len(labels), labels)
    found = compute_metrics(spec, names, split, said, scores)
    if classes == 2:
        assert found["average_precision"] == pytest.approx(sk.average_precision_score(labels, scores[:, 1]))
        assert found["roc_auc"] == pytest.approx(sk.roc_auc_score(labels, scores[:, 1]))
        rare = spec.model_copy(update={"positive": "a"})
        found = compute_metrics(rare, names, split, said, scores)
        assert found["average_precision"] == pytest.approx(sk.average_precision_score(labels == 0, scores[:, 0]))
    else:
        assert found["roc_auc"] == pytest.approx(sk.roc_auc_score(labels, scores, multi_class="ovr"))
        every = np.eye(classes)[labels]
        assert found["average_precision"] == pytest.approx(sk.average_precision_score(every, scores))
    assert list(compute_metrics(spec, names, split, said)) == ["balanced_accuracy"], "a ranking needs probabilities"


def test_balanced_accuracy_of_resampled_rows_is_that_of_the_rows_written_out():
    rng = np.random.default_rng(0)
    answers = made_answers("cb", 40)
    said = [int(value) for value in rng.integers(0, 3, 40)]
    counts = TestRows.of(answers).draw(20, rng)
    labels, rows = np.asarray(answers.labels), [np.repeat(np.arange(40), drawn.astype(int)) for drawn in counts]
    expected = [METRICS["balanced_accuracy"](labels[each], np.asarray(said)[each], 0) for each in rows]
    np.testing.assert_allclose(scorer(answers, "balanced_accuracy", said)(counts), expected, atol=1e-9)


def test_degenerate_rankings_and_recalls_are_numbers_without_warnings():
    spec = TaskSpec.parse(
        CLASSES | {"metrics": ["balanced_accuracy", "average_precision", "roc_auc"], "labels": ["a", "b"]}, "a test"
    )
    split = Split((("x",),) * 4, np.zeros(4, dtype=np.int64))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = compute_metrics(spec, ("a", "b"), split, np.ones(4, dtype=np.int64), np.full((4, 2), 0.5))
    assert found == {"balanced_accuracy": 0.0, "average_precision": 0.0, "roc_auc": 0.5}


def test_nothing_is_chosen_by_a_ranking():
    with pytest.raises(PandaError, match="roc_auc ranks examples, so that no prediction can be chosen by it"):
        TaskSpec.parse(CLASSES | {"metrics": ["roc_auc", "accuracy"]}, "a test")


@pytest.mark.parametrize(
    ("counts", "rare"),
    [
        ({"ham": 95, "spam": 5}, "spam"),
        ({"spam": 95, "ham": 5}, "ham"),
        ({"a": 60, "b": 34, "c": 6}, "c"),
        ({"ham": 90, "spam": 10}, None),
        ({name: 5 for name in "abcdefghijklmnop"}, None),
        ({"a": 20} | {name: 6 for name in "bcdefghij"}, "b"),
    ],
)
def test_macro_f1_decides_where_a_class_is_rare(counts, rare, tmp_path):
    task = own(tmp_path, counts)
    assert len(task.train()) == sum(counts.values())
    if rare is None:
        assert (task.spec.metrics, task.spec.positive, task.notes) == (("accuracy", "macro_f1"), None, [])
        return
    assert task.spec.metrics == ("macro_f1", "balanced_accuracy", "average_precision", "roc_auc", "accuracy")
    assert task.spec.positive == (rare if len(counts) == 2 else None)
    (note,) = task.notes
    assert f"the rarest class, '{rare}', has {counts[rare]} of {sum(counts.values())} training rows" in note
    task.train()
    assert task.notes == [note]
    named = own(tmp_path, counts, metric="accuracy")
    named.train()
    assert (named.spec.metrics, named.notes) == (("accuracy", "macro_f1"), [])


def test_it_is_said_and_all_metrics_are_given(tiny_backbone, tmp_path):
    task, progress = own(tmp_path, {"a": 56, "b": 4}), Notes()
    trained = train(task, tiny_backbone, options=FAST, progress=progress)
    assert progress.notes[0] == task.notes[0]
    assert list(trained.card.validation) == [*task.spec.metrics, "loss"]


def test_a_broken_file_is_told_when_it_is_read(tmp_path):
    path = tmp_path / "own.jsonl"
    path.write_text('{"text": "a", "label": "x"}\n{broken\n')
    task = own_task(train=path, text="text")
    with pytest.raises(PandaError, match="Line 2"):
        task.train()


def test_the_commands_take_a_metric(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "own.jsonl", sentiment_rows(40))
    common = ["--train", "own.jsonl", "--text", "text", "--label", "label", "--model", str(tiny_folder("bert"))]
    fast = ["--epochs", "1", "--max-length", "24", "--prompt-length", "4", "--json"]
    result = CliRunner().invoke(app, ["train", *common, *fast, "--metric", "balanced_accuracy"])
    assert json.loads(result.stdout)["metric"] == "balanced_accuracy"
    result = CliRunner().invoke(app, ["train", *common, *fast, "--metric", "span_f1"])
    assert result.exit_code == 2
    assert "metric span_f1 does not go with kind single_classification" in result.stderr
    result = CliRunner().invoke(app, ["train", "sst2", "--metric", "accuracy"])
    assert result.exit_code == 2
    assert "--metric is for own files" in result.stderr


def test_a_sweep_takes_weights_where_there_are_classes_and_other_runs_keep_their_keys():
    def plan(task, options):
        targets = {"tasks": [task], "options": options}
        content = {"name": "x", "models": ["m"], "targets": targets, "methods": ["prompt_tuning"]}
        return expand(SweepRecipe.parse(content, "a test"))

    with pytest.raises(PandaError, match="The recipe's options of stsb do not go with it: --class-weights balances"):
        plan("stsb", {"class_weights": "balanced"})
    (weighted,) = plan("sst2", {"class_weights": "balanced"}).runs
    (plain,) = plan("sst2", {}).runs
    assert set(weighted.options) - set(plain.options) == {("class_weights", "balanced")}
