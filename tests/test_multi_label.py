"""Several labels a text: how they are read, trained, thresholded, kept, scored and used."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_jsonl
from hypothesis import given, settings
from hypothesis import strategies as st
from kinds import data_of, kind_task, label_set_rows
from peft import PeftModel
from sklearn import metrics as sk
from transformers import AutoModelForSequenceClassification, BertConfig
from typer.testing import CliRunner

from promptpanda import Bank, PandaError, TrainingOptions, evaluate, own_task, predict, train, transfer
from promptpanda.bank.card import Card
from promptpanda.cli.main import app
from promptpanda.report.resample import TestRows, scorer
from promptpanda.sweep.work import answers_of, plain
from promptpanda.tasks.inputs import Split
from promptpanda.tasks.metrics import baseline, compute_metrics, label_scores
from promptpanda.tasks.protocol import partition
from promptpanda.tasks.spec import TaskSpec
from promptpanda.tasks.task import Task
from promptpanda.training.distillation import Distillation, DistillationOptions
from promptpanda.training.inference import predict_outputs
from promptpanda.training.objectives.label_sets import MultiLabel
from promptpanda.training.objectives.thresholds import EXPECTED, label_thresholds
from promptpanda.transfers.calibrated import calibrated

ONCE = TrainingOptions(epochs=1, prompt_length=4, max_length=16, readout="mean", lr=3e-2)
CASE = Path(__file__).parents[2] / "shared" / "cases" / "many-labels.jsonl"
SPEC = {"name": "x", "kind": "multi_label", "segments": ["{text}"], "metrics": ["micro_f1", "macro_f1"]}

pytestmark = pytest.mark.usefixtures("one_thread")

TEXTS = ["a phone", "the food", "good w1", "bad w2"]
LABELS = [["up", "down"], [], ["down"], ["up"]]
MATRIX = [[1, 1], [0, 0], [1, 0], [0, 1]]  # down, up


def written(form, folder):
    """A file with these labels in one of the forms that people have, and the options that read it."""
    if form == "columns":
        names = ["text", "up", "down"]
        cells = [
            [text, *("1" if name in row else "0" for name in names[1:])]
            for text, row in zip(TEXTS, LABELS, strict=True)
        ]
        return table(folder, names, cells), {"label": ["down", "up"]}
    if form == "booleans":
        rows = [{"text": t, "up": "up" in row, "down": "down" in row} for t, row in zip(TEXTS, LABELS, strict=True)]
        return write_jsonl(folder / "own.jsonl", rows), {"label": ["down", "up"]}
    if form == "list":
        rows = [{"text": text, "label": row} for text, row in zip(TEXTS, LABELS, strict=True)]
        return write_jsonl(folder / "own.jsonl", rows), {}
    join, options = {
        "bars": (" | ".join, {}),
        "commas": (", ".join, {"label_separator": ","}),
        "json": (json.dumps, {}),
    }[form]
    return table(
        folder, ["text", "label"], [[text, join(row)] for text, row in zip(TEXTS, LABELS, strict=True)]
    ), options


def table(folder, header, rows):
    with (folder / "own.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return folder / "own.csv"


@pytest.mark.parametrize("form", ["list", "bars", "commas", "json", "columns", "booleans"])
def test_every_form_of_labels_is_read_alike(form, tmp_path):
    path, options = written(form, tmp_path)
    task = own_task(train=path, text="text", kind="multi_label", **options)
    assert task.labels == ("down", "up")
    assert task.train().labels.tolist() == MATRIX
    assert task.spec.metrics == ("micro_f1", "macro_f1")


@pytest.mark.skipif(not CASE.exists(), reason=f"{CASE} is not there")
def test_many_labels_are_three_and_none_of_them_in_some_texts():
    task = own_task(train=CASE, text="text", label="label", kind="multi_label")
    assert task.labels == ("delivery", "light", "price")
    split = task.train()
    assert split.labels.shape == (60, 3)
    assert 0 < (split.labels.sum(1) == 0).sum() < 60


@pytest.mark.parametrize(
    ("rows", "options", "fragment"),
    [
        ([{"label": {"a": 1}}], {}, "Row 1 of train of task 'own' has no labels in 'label', found \"{'a': 1}\""),
        ([{"label": [["a"]]}], {}, "has ['a'] among its labels"),
        ([{"label": [None]}], {}, "has None among its labels"),
        ([{"label": "[1, "}], {}, "has no labels in 'label', found '[1, '"),
        ([{"label": []}, {"label": ""}], {}, "No row of train of task 'own' has a label in 'label'"),
        ([{"label": ["a"]}, {"label": "a"}], {}, "so there is nothing to learn"),
        ([{"a": 1, "b": 2}], {"label": ["a", "b"]}, "has 2 in the label's column 'b'; expected 0 or 1"),
        ([{"a": "x", "b": 0}], {"label": ["a", "b"]}, "has 'x' in the label's column 'a'"),
        ([{"a": None, "b": 0}], {"label": ["a", "b"]}, "has None in the label's column 'a'"),
        ([{"label": None}, {"label": ["a"]}, {"label": []}], {"strict": True}, "Row 1 of train of task 'own' has no"),
        ([{"a": 1}], {"label": ["a", "b"]}, "has no field 'b'"),
    ],
)
def test_labels_that_cannot_be_read_are_told_with_their_row(rows, options, fragment, tmp_path):
    write_jsonl(tmp_path / "own.jsonl", [{"text": "a phone"} | row for row in rows])
    with pytest.raises(PandaError) as refused:
        own_task(train=tmp_path / "own.jsonl", text="text", kind="multi_label", **options).train()
    assert fragment in str(refused.value)


@pytest.mark.parametrize(
    ("options", "fragment"),
    [
        ({"label": ["a", "b"]}, "2 label columns were given; several, of 0 and 1, are for --kind multi_label"),
        ({"label": ["a", "text"], "kind": "multi_label"}, "The column 'text' is given as text and as label"),
        ({"label": ["a", "a"], "kind": "multi_label"}, "a column is in label_columns twice"),
        ({"label_separator": ","}, "label_separator belongs to kind multi_label"),
        ({"kind": "multi_label", "label_separator": ""}, "label_separator"),
        ({"kind": "multi_label", "metric": "accuracy"}, "metric accuracy does not go with kind multi_label"),
        ({"kind": "multi_label", "metric": "roc_auc"}, "roc_auc ranks examples"),
    ],
)
def test_options_that_make_no_sense(options, fragment, tmp_path):
    path = write_jsonl(tmp_path / "own.jsonl", [{"text": "a phone", "label": ["a"]}])
    with pytest.raises(PandaError) as refused:
        own_task(train=path, text="text", **options)
    assert fragment in str(refused.value)


def test_rows_without_any_label_stay_and_rows_whose_labels_are_missing_are_left_out(tmp_path):
    rows = [["w1", "a"], ["w2", ""], ["w3", "NaN"], ["", "a"], ["w5", "b|a"]]
    task = own_task(train=table(tmp_path, ["text", "label"], rows), text="text", kind="multi_label")
    assert [text for (text,) in task.train().texts] == ["w1", "w2", "w5"]
    assert task.train().labels.tolist() == [[1, 0], [0, 0], [1, 1]]
    assert ["no label" in note for note in task.notes[:2]] == [True, False]
    cells = [["w1", 1, 0], ["w2", "", ""], ["w3", 0, 0]]
    task = own_task(train=table(tmp_path, ["text", "a", "b"], cells), text="text", label=["a", "b"], kind="multi_label")
    assert task.train().labels.tolist() == [[1, 0], [0, 0]]


def test_a_file_with_lists_names_the_kind_that_reads_them(tmp_path):
    path = write_jsonl(tmp_path / "own.jsonl", [{"text": "a phone", "label": ["a", "b"]}])
    with pytest.raises(PandaError, match="--kind multi_label for several labels per text"):
        own_task(train=path, text="text").train()


def test_a_label_that_train_has_not_is_told(tmp_path):
    path, _ = written("list", tmp_path)
    test = write_jsonl(tmp_path / "test.jsonl", [{"text": "w1", "label": ["up", "sideways"]}])
    task = own_task(train=path, test=test, text="text", kind="multi_label")
    assert task.test().labels.tolist() == [[0, 1, 1]]
    assert task.notes[-1] == "1 of 1 test rows has a label that train has not: 'sideways'; it counts as an error."


def test_every_label_keeps_an_example_to_train_on(tmp_path):
    names = [f"l{number}" for number in range(12)]
    rows = [{"text": f"w{n} w{n % 7}", "label": [names[n % 12], names[(n * 5) % 12]]} for n in range(60)]
    rows += [{"text": "good w3", "label": ["rare"]}, {"text": "bad w3", "label": []}]
    task = own_task(train=write_jsonl(tmp_path / "own.jsonl", rows), text="text", kind="multi_label")
    for seed in range(5):
        part = partition(task, seed=seed)
        assert part.train.labels.any(0).all()
        assert part.validation.labels.sum(0).min() >= 0
        assert len(part.validation) == 12
    # With nearly as many labels as examples not every one can, and there is a partition all the same.
    many = [{"text": f"w{n} w{n // 50}", "label": [f"l{n}"]} for n in range(20)]
    task = own_task(train=write_jsonl(tmp_path / "many.jsonl", many), text="text", kind="multi_label")
    assert len(partition(task).validation) == 8


def test_loss_and_distances_are_their_formulas():
    outputs, teacher = (torch.randn(5, 3, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    labels = np.asarray([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0], [0, 0, 1]])
    layout = data_layout(5)
    objective = MultiLabel(3)
    p, q = (1 / (1 + np.exp(-side.double().numpy())) for side in (outputs, teacher))
    by_hand = -np.mean(labels * np.log(p) + (1 - labels) * np.log(1 - p))
    targets = objective.targets(None, labels)
    assert float(objective.loss(outputs, targets, layout)) == pytest.approx(by_hand, rel=1e-5)
    found = Distillation(teacher, 0.3).loss(outputs, teacher, objective, layout)
    assert float(found) == pytest.approx(0.3 * float(((outputs - teacher) ** 2).mean()), rel=1e-5)
    t = 2.0
    soft_p, soft_q = (1 / (1 + np.exp(-side.double().numpy() / t)) for side in (outputs, teacher))
    bernoulli = soft_q * np.log(soft_q / soft_p) + (1 - soft_q) * np.log((1 - soft_q) / (1 - soft_p))
    found = Distillation(teacher, 0.3, "kl", t).loss(outputs, teacher, objective, layout)
    assert float(found) == pytest.approx(0.3 * t**2 * bernoulli.mean(), rel=1e-4)
    assert q.shape == (5, 3)


def data_layout(count):
    from promptpanda.tasks.encoding import Encoded

    return Encoded(tuple(np.zeros(1, dtype=np.int64) for _ in range(count)), None, 0).layout(np.arange(count))


def brute_force(probabilities, labels):
    """The best expected F1 over every cut, one column."""
    share = EXPECTED / (EXPECTED + len(labels))
    believed = (1 - share) * labels + share * probabilities
    scores = {}
    for threshold in np.unique(probabilities):
        given = probabilities >= threshold
        scores[threshold] = 2 * believed[given].sum() / (given.sum() + believed.sum())
    return scores


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([0.02, 0.1, 0.3, 0.31, 0.5, 0.7, 0.98]), st.booleans()), min_size=1, max_size=30)
)
def test_a_threshold_has_the_best_f1_on_what_was_seen_and_is_expected(pairs):
    probabilities, labels = np.asarray([p for p, _ in pairs]), np.asarray([int(there) for _, there in pairs])
    (threshold,) = label_thresholds(probabilities[:, None], labels[:, None])
    assert 0 < threshold <= 1
    scores = brute_force(probabilities, labels)
    given = probabilities >= threshold
    assert given.any()
    assert scores[probabilities[given].min()] == pytest.approx(max(scores.values()))


def test_many_examples_outweigh_what_is_expected_and_a_rare_label_is_not_left_to_one_example():
    rng = np.random.default_rng(0)
    probabilities = rng.random(5000)
    (sure,) = label_thresholds(probabilities[:, None], (probabilities > 0.8).astype(int)[:, None])
    assert sure == pytest.approx(0.8, abs=0.01)
    few = np.asarray([0.4, 0.3, 0.2, 0.1, 0.05, 0.05, 0.04, 0.03])
    alone = (few == 0.05).astype(int) * (np.arange(8) == 5)  # one example, low in the ranking
    assert label_thresholds(few[:, None], alone[:, None])[0] > 0.05
    assert label_thresholds(np.zeros((8, 1)), np.zeros((8, 1), dtype=int)) == (0.5,)


def test_metrics_are_scikit_learns():
    rng = np.random.default_rng(0)
    for _ in range(20):
        labels, said = (rng.random((12, 6)) < 0.2).astype(int), (rng.random((12, 6)) < 0.3).astype(int)
        found = label_scores(labels, said)
        assert found["micro_f1"] == pytest.approx(sk.f1_score(labels, said, average="micro", zero_division=0))
        expected = sk.f1_score(labels, said, average="macro", zero_division=np.nan)
        assert found["macro_f1"] == pytest.approx(expected)
    nothing = np.zeros((4, 2), dtype=int)
    assert label_scores(nothing, nothing) == {"micro_f1": 0.0, "macro_f1": 0.0}


def test_rankings_of_labels_are_scikit_learns():
    rng = np.random.default_rng(1)
    labels, probabilities = (rng.random((40, 3)) < 0.3).astype(int), rng.random((40, 3))
    spec = TaskSpec.parse(SPEC | {"metrics": ["micro_f1", "average_precision", "roc_auc"]}, "a test")
    split = Split((("x",),) * 40, labels)
    found = compute_metrics(spec, ("a", "b", "c"), split, labels, probabilities)
    assert found["average_precision"] == pytest.approx(sk.average_precision_score(labels, probabilities))
    assert found["roc_auc"] == pytest.approx(sk.roc_auc_score(labels, probabilities))


@pytest.mark.parametrize("metric", ["micro_f1", "macro_f1"])
def test_the_constant_gives_the_labels_that_score_best(metric):
    rng = np.random.default_rng(2)
    labels = (rng.random((30, 4)) < np.asarray([0.7, 0.4, 0.2, 0.05])).astype(int)
    split = Split((("x",),) * 30, labels)
    spec = TaskSpec.parse(SPEC | {"metrics": [metric]}, "a test")
    every = [
        label_scores(labels, np.tile([subset >> at & 1 for at in range(4)], (30, 1)))[metric] for subset in range(16)
    ]
    assert baseline(spec, tuple("abcd"), split, split)[metric] == pytest.approx(max(every))


def test_labels_are_learnt_kept_and_predicted(tiny_backbone, tmp_path):
    task, bank = kind_task("multi_label", tmp_path, train=120), Bank(tmp_path / "bank")
    options = ONCE.model_copy(update={"epochs": 25})
    trained = train(task, tiny_backbone, bank=bank, options=options)
    loaded = bank.load(trained.card.id, tiny_backbone)
    assert len(loaded.card.threshold) == 2
    scores = evaluate(loaded, tiny_backbone, task, task.test())
    floor = baseline(task.spec, task.labels, task.train(), task.test())["micro_f1"]
    assert scores["micro_f1"] > floor + 0.1
    with_texts = tiny_backbone, task.test().texts
    found = predict(loaded, *with_texts)
    for one in found:
        reached = zip(one["probabilities"].items(), loaded.card.threshold, strict=True)
        assert one["labels"] == [name for (name, p), threshold in reached if p >= threshold]
    assert {len(one["labels"]) for one in found} == {0, 1, 2}
    scaled = predict(calibrated(replace(loaded, card=loaded.card.model_copy(update={"temperature": 2.0}))), *with_texts)
    assert [one["labels"] for one in scaled] == [one["labels"] for one in found]
    assert scaled[0]["probabilities"] != found[0]["probabilities"]
    # The thresholds of the card decide, one a label.
    never_up = loaded.card.model_copy(update={"threshold": (1.0, loaded.card.threshold[1])})
    changed = replace(loaded, card=never_up)
    assert {tuple(one["labels"]) for one in predict(changed, tiny_backbone, task.test().texts)} == {(), ("down",)}
    # Labels of the data may stand in another order than those of the prompt.
    turned = Task(task.spec.model_copy(update={"labels": ("down", "up")}), tmp_path)
    assert evaluate(changed, tiny_backbone, turned) == pytest.approx(evaluate(changed, tiny_backbone, task))
    unnamed = own_task(test=tmp_path / task.name / "test.jsonl", text="text", kind="multi_label")
    assert evaluate(loaded, tiny_backbone, unnamed) == pytest.approx(scores)
    with pytest.raises(PandaError, match="is for multi_label, task 'test' is single_classification"):
        evaluate(loaded, tiny_backbone, own_task(test=tmp_path / task.name / "test.jsonl", text="text"))


def test_peft_gives_equal_logits(tiny_backbone, tiny_folder, tmp_path):
    bank, task = Bank(tmp_path / "bank"), kind_task("multi_label", tmp_path)
    ours = train(task, tiny_backbone, bank=bank, options=ONCE.model_copy(update={"readout": "pooler"}))
    assert ours.card.peft == "SEQ_CLS"
    config = BertConfig.from_pretrained(tiny_folder("bert"), num_labels=2, problem_type="multi_label_classification")
    base = AutoModelForSequenceClassification.from_pretrained(tiny_folder("bert"), config=config)
    model = PeftModel.from_pretrained(base, ours.path).eval()
    data = data_of(tiny_backbone, task, task.test(), max_length=16)
    batch = data.encoded.batch(np.arange(len(data)))
    with torch.no_grad():
        theirs = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    found = predict_outputs(tiny_backbone, ours.prompt, ours.head, data.encoded)
    np.testing.assert_allclose(found, theirs.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("threshold", "fragment"),
    [
        (None, "a task of kind multi_label with the threshold None"),
        (0.5, "a task of kind multi_label with the threshold 0.5"),
        ([0.5], "1 thresholds for 2 labels"),
        ([0.5, 1.5], "a threshold that is not a probability"),
        ([0.5, "x"], "threshold"),
    ],
)
def test_a_card_with_other_thresholds_is_refused(threshold, fragment, tiny_backbone, tmp_path):
    bank = Bank(tmp_path / "bank")
    path = train(kind_task("multi_label", tmp_path, train=12), tiny_backbone, bank=bank, options=ONCE).path
    content = json.loads((path / "card.json").read_text())
    (path / "card.json").write_text(json.dumps(content | {"threshold": threshold}))
    with pytest.raises(PandaError) as refused:
        Card.read(path)
    assert fragment in str(refused.value)


def test_what_is_not_defined_for_several_labels_says_so(tiny_backbone, tmp_path):
    task = kind_task("multi_label", tmp_path)
    with pytest.raises(PandaError, match="contrastive is not defined for multi-label"):
        transfer(task, "auto", tiny_backbone, methods=["contrastive"], options=ONCE)
    with pytest.raises(PandaError, match="multi-label predicts none over classes of a whole text"):
        DistillationOptions(confidence=True).check(task.kind)


def test_auto_a_fusion_and_a_refit_keep_the_thresholds_of_the_validation_part(tiny_backbone, tmp_path):
    from promptpanda.transfers.selection import SelectionOptions

    bank = Bank(tmp_path / "bank")
    for kind in ("regression", "single_classification"):
        train(kind_task(kind, tmp_path, name=kind.replace("_", "-")), tiny_backbone, bank=bank, options=ONCE)
    task = kind_task("multi_label", tmp_path, seed=5)
    options = ONCE.model_copy(update={"epochs": 2})
    chosen = transfer(task, "auto", tiny_backbone, bank=bank, options=options, selection=SelectionOptions(refit=True))
    assert len(chosen.prompt.card.threshold) == 2
    assert chosen.prompt.card.validation_seen
    fused = transfer(
        task,
        "regression,single-classification",
        tiny_backbone,
        bank=bank,
        options=options,
        methods=["early_fusion", "late_fusion"],
    )
    assert set(fused.methods) == {"early_fusion", "late_fusion"}


def test_resampled_scores_are_those_of_the_rows_written_out(tmp_path):
    task = kind_task("multi_label", tmp_path, test=30)
    answers, rng = answers_of(task, task.test()), np.random.default_rng(0)
    said = (rng.random((30, 2)) < 0.4).astype(int)
    kept = plain(said)
    assert kept[0] == np.flatnonzero(said[0]).tolist()
    counts = TestRows.of(answers).draw(20, rng)
    for metric in ("micro_f1", "macro_f1"):
        rows = [np.repeat(np.arange(30), drawn.astype(int)) for drawn in counts]
        expected = [label_scores(task.test().labels[each], said[each])[metric] for each in rows]
        np.testing.assert_allclose(scorer(answers, metric, kept)(counts), expected, atol=1e-9)
    with pytest.raises(PandaError, match="a label beyond the 2 that there are"):
        scorer(answers, "micro_f1", [[2], *kept[1:]])


def test_the_commands_train_evaluate_and_predict(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [
        {"text": row["text"], "up": int("up" in row["label"]), "down": int("down" in row["label"])}
        for row in label_set_rows(40)
    ]
    table(tmp_path, ["text", "up", "down"], [list(row.values()) for row in rows])
    own = ["--text", "text", "--label", "up", "--label", "down", "--kind", "multi_label", "--name", "mood"]
    model = ["--model", str(tiny_folder("bert"))]
    fast = ["--epochs", "1", "--max-length", "24", "--prompt-length", "4", "--class-weights", "balanced"]

    def panda(*arguments):
        result = CliRunner().invoke(app, list(arguments))
        assert result.exit_code == 0, f"{result.stdout}\n{result.stderr}\n{result.exception!r}"
        return result.stdout

    trained = json.loads(panda("train", "--train", "own.csv", *own, *model, *fast, "--json"))
    assert trained["metric"] == "micro_f1"
    assert json.loads(Path(trained["prompts"][0], "card.json").read_text())["options"]["class_weights"] == "balanced"
    found = json.loads(panda("evaluate", "mood", "--test", "own.csv", *own, *model, "--json"))
    assert set(found["metrics"]) == {"micro_f1", "macro_f1", "all_labels_right"}
    assert set(found["per_class"]) == {"up", "down"}
    assert found["per_class"]["up"]["support"] == sum(row["up"] for row in rows)
    alone = json.loads(panda("evaluate", "mood", "own.csv", *model, "--json"))
    assert alone["metrics"]["micro_f1"] == found["metrics"]["micro_f1"]
    lines = [json.loads(line) for line in panda("predict", "mood", "own.csv", *model).splitlines()]
    assert len(lines) == 40
    assert all(set(line["probabilities"]) == {"up", "down"} and isinstance(line["labels"], list) for line in lines)
    panda("predict", "mood", "own.csv", *model, "--output", "out.csv", "--probabilities")
    with (tmp_path / "out.csv").open(newline="") as file:
        written = list(csv.DictReader(file))
    assert [row["prediction"] for row in written] == ["|".join(line["labels"]) for line in lines]
    assert set(written[0]) == {"text", "up", "down", "prediction", "confidence", "p_up", "p_down"}


def test_choices_of_label_studios_smaller_exports(tmp_path):
    """JSON-MIN has one choice as text and several as an object; CSV has the object as JSON in the cell."""
    rows = [{"text": "a", "mood": {"choices": ["up", "down"]}}, {"text": "b", "mood": "up"}]
    cells = [[row["text"], json.dumps(row["mood"]) if isinstance(row["mood"], dict) else row["mood"]] for row in rows]
    (tmp_path / "min.json").write_text(json.dumps(rows))
    for path in (tmp_path / "min.json", table(tmp_path, ["text", "mood"], cells)):
        split = own_task(train=path, label="mood", kind="multi_label").train()
        assert split.labels.tolist() == [[1, 1], [0, 1]]
