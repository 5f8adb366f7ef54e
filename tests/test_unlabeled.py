"""Unlabelled text: what is read, what a student learns from it, what that costs, and what is left out."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import sentiment_rows, write_jsonl
from kinds import KINDS, ROWS, kind_task
from scipy.stats import entropy
from typer.testing import CliRunner

from promptpanda.bank.bank import Bank
from promptpanda.bank.folder import SourcePrompt
from promptpanda.cli.main import app
from promptpanda.errors import PandaError
from promptpanda.tasks.encoding import encode
from promptpanda.tasks.inputs import Words
from promptpanda.tasks.protocol import partition
from promptpanda.tasks.unlabeled import read_inputs, rest_of_train, unlabeled_rows, without
from promptpanda.training.batching import Cycle
from promptpanda.training.distillation import Distillation, DistillationOptions, Unlabeled, confidences
from promptpanda.training.inference import predict_outputs
from promptpanda.training.objectives.sequence import Classification
from promptpanda.training.options import TrainingOptions
from promptpanda.transfers.methods import (
    LATE_FUSION,
    LATE_FUSION_UNLABELED,
    PANDA,
    PANDA_UNLABELED,
    POT,
    PROMPT_TUNING,
)
from promptpanda.transfers.transfer import train, transfer
from promptpanda.transfers.trial import Trial

OPTIONS = TrainingOptions(epochs=2, max_length=24, readout="mean", prompt_length=5)
NO_SUCH_DISTANCE = ("regression", "kl")

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def sources(tiny_backbone, sentiment):
    trained = [train(sentiment(name, seed=seed), tiny_backbone, options=OPTIONS) for name, seed in (("a", 5), ("b", 6))]
    return tuple(map(SourcePrompt.of, trained))


@pytest.fixture
def texts(sentiment):
    return tuple((row["text"],) for row in sentiment_rows(50, seed=77))


@pytest.fixture
def trial_of(tiny_backbone, sentiment, sources, texts):
    task = sentiment()
    part = partition(task, train_examples=40, seed=0)

    def trial(unlabeled=texts, count=1, **settings):
        distillation = DistillationOptions(**settings)
        return Trial(tiny_backbone, task, part, OPTIONS, 0, sources[:count], distillation, unlabeled=unlabeled)

    return trial


def same(one, other):
    return torch.equal(one.prompt.tensor, other.prompt.tensor) and torch.equal(one.head.weight, other.head.weight)


def test_without_weight_it_is_panda_to_the_bit(trial_of):
    trial = trial_of(unlabeled_weight=0.0, count=2)
    assert same(trial.outcome(PANDA_UNLABELED), trial.outcome(PANDA))
    assert same(trial.outcome(LATE_FUSION_UNLABELED), trial.outcome(LATE_FUSION))
    nothing = trial_of(unlabeled_weight=0.0, coefficient="0")
    assert same(nothing.outcome(PANDA_UNLABELED), nothing.outcome(PROMPT_TUNING))


def test_with_coefficient_zero_the_unlabelled_term_is_still_there(trial_of):
    trial = trial_of(coefficient="0")
    assert not same(trial.outcome(PANDA_UNLABELED), trial.outcome(PROMPT_TUNING))
    assert trial.outcome(PANDA_UNLABELED).card.distillation.coefficient == 0.0
    assert trial.outcome(PANDA_UNLABELED).card.distillation.unlabeled_weight == 1.0


def test_a_step_is_the_task_loss_and_both_distances(trial_of, tiny_backbone, texts):
    """One batch without dropout, by hand: the gradient of task loss + coefficient x distance + weight x distance."""
    trial = trial_of(coefficient="0.7", unlabeled_weight=0.3)
    still = OPTIONS.model_copy(update={"epochs": 1, "batch_size": 32, "dropout": 0.0})
    trial.options = still
    teacher = trial.outcome(POT)
    encoded = encode(tiny_backbone, texts[:32], 24)
    soft, hard = (
        torch.from_numpy(predict_outputs(tiny_backbone, teacher.prompt, teacher.head, one))
        for one in (encoded, trial.train_data.encoded)
    )
    training = trial.training(
        PANDA_UNLABELED,
        distillation=Distillation(hard, 0.7),
        unlabeled=Unlabeled(encoded, Distillation(soft, 0.3)),
    )
    prompt, head = training._learner.frozen(trial.objective)
    fresh_hard, fresh_soft = (
        torch.from_numpy(predict_outputs(tiny_backbone, prompt, head, one))
        for one in (trial.train_data.encoded, encoded)
    )
    labels = torch.from_numpy(trial.partition.train.labels)
    expected = F.cross_entropy(fresh_hard, labels) + 0.7 * F.mse_loss(fresh_hard, hard)
    expected += 0.3 * F.mse_loss(fresh_soft, soft)
    fitted = training.run()
    assert len(trial.partition.train) == 32
    assert fitted.curve[0].train_loss == pytest.approx(float(expected), rel=1e-4)
    assert fitted.example_steps == 64


def test_a_student_believes_its_teacher_on_unlabelled_text(trial_of, tiny_backbone, texts):
    """A teacher that turns labels round, heard on unlabelled text alone, turns the student's predictions round."""
    trial = trial_of()
    trial.options = OPTIONS.model_copy(update={"epochs": 20, "lr": 3e-2})
    encoded = encode(tiny_backbone, texts, 24)
    labels = np.asarray([number % 2 for number in range(len(texts))])  # as sentiment_rows makes them
    flipped = torch.from_numpy(np.stack([labels, 1 - labels], 1) * 4.0 - 2.0).float()

    def accuracy(unlabeled):
        fitted = trial.training(PANDA_UNLABELED, unlabeled=unlabeled).run()
        return (predict_outputs(tiny_backbone, fitted.prompt, fitted.head, encoded).argmax(1) == labels).mean()

    assert accuracy(None) > 0.8
    assert accuracy(Unlabeled(encoded, Distillation(flipped, 10.0))) < 0.2


def test_confidences_are_one_minus_normalised_entropy():
    logits = np.random.default_rng(0).normal(size=(20, 5)) * 3
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    found = confidences(torch.from_numpy(logits))
    np.testing.assert_allclose(found, 1 - entropy(probabilities, axis=1, base=5), atol=1e-6)
    assert float(confidences(torch.zeros(1, 4))) == 0.0
    assert float(confidences(torch.tensor([[100.0, 0.0, 0.0]]))) == pytest.approx(1.0)


@pytest.mark.parametrize("distance", ["mse", "kl"])
def test_an_example_counts_by_its_weight(distance, trial_of):
    trial = trial_of()
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(6, 3, generator=generator), torch.randn(6, 3, generator=generator)
    weights = torch.tensor([0.0, 1.0, 0.5, 0.25, 1.0, 0.0])
    layout = trial.train_data.encoded.layout(np.arange(6))

    def loss(**given):
        return float(Distillation(teacher, 2.0, distance, **given).loss(student, teacher, Classification(3), layout))

    each = F.mse_loss(student, teacher, reduction="none").mean(1)
    if distance == "kl":
        each = F.kl_div(student.log_softmax(1), teacher.softmax(1), reduction="none").sum(1)
    assert loss(weights=weights) == pytest.approx(float(2 * (weights * each).mean()), rel=1e-5)
    assert loss(weights=torch.ones(6)) == pytest.approx(loss(), rel=1e-6)


def test_confidence_changes_what_is_learnt_and_the_identity(trial_of):
    plain, sure = trial_of(), trial_of(confidence=True)
    assert not same(plain.outcome(PANDA_UNLABELED), sure.outcome(PANDA_UNLABELED))
    assert plain.identity(PANDA) == sure.identity(PANDA), "no matter to methods without unlabelled text"
    assert sure.outcome(PANDA_UNLABELED).card.distillation.confidence is True


def test_the_texts_are_part_of_the_identity_of_what_learns_from_them(trial_of, texts):
    one, other, none = trial_of(), trial_of(texts[:-1]), trial_of(None)
    assert one.identity(PANDA_UNLABELED) != other.identity(PANDA_UNLABELED)
    assert one.identity(PANDA) == other.identity(PANDA) == none.identity(PANDA)
    with pytest.raises(PandaError, match="panda_unlabeled learns from unlabelled text; give it with --unlabeled"):
        none.check(PANDA_UNLABELED)


def test_what_it_costs(trial_of, texts):
    trial = trial_of(count=2)
    n_train, n_val = 32, 8
    for method, teachers in ((PANDA_UNLABELED, 1), (LATE_FUSION_UNLABELED, 2)):
        card = trial.outcome(method).card
        assert card.example_steps == 2 * OPTIONS.epochs * n_train, "as many unlabelled as labelled examples"
        assert card.forward_examples == n_val + n_train + teachers * (n_train + len(texts))
        assert card.distillation.n_unlabeled == len(texts)


def test_draws_go_through_all_texts_before_any_comes_again():
    cycle = Cycle(7, np.random.default_rng(0))
    drawn = np.concatenate([cycle.draw(3) for _ in range(7)])
    for start in range(0, 21, 7):
        assert sorted(drawn[start : start + 7]) == list(range(7))
    assert list(drawn[:7]) != list(drawn[7:14])
    assert sorted(Cycle(2, np.random.default_rng(0)).draw(5))[:2] == [0, 0]


def test_a_training_with_unlabelled_text_goes_on_from_where_it_was_put_down(trial_of, tiny_backbone, texts):
    trial = trial_of()
    teacher = trial.outcome(POT)
    encoded = encode(tiny_backbone, texts, 24)
    soft = torch.from_numpy(predict_outputs(tiny_backbone, teacher.prompt, teacher.head, encoded))

    def training():
        return trial.training(PANDA_UNLABELED, unlabeled=Unlabeled(encoded, Distillation(soft, 1.0)))

    whole, first, second = training(), training(), training()
    expected = whole.run()
    first.advance(3)
    second.load_state(first.state())
    found = second.run()
    assert torch.equal(found.prompt.tensor, expected.prompt.tensor)
    assert found.example_steps == expected.example_steps


@pytest.mark.parametrize(
    ("kind", "distance"), [(kind, name) for kind in KINDS for name in ("mse", "kl") if (kind, name) != NO_SUCH_DISTANCE]
)
def test_every_kind_learns_from_unlabelled_text(kind, distance, tiny_backbone, tmp_path, sources):
    task = kind_task(kind, tmp_path)
    options = TrainingOptions(epochs=2, max_length=32, readout="mean", prompt_length=5)
    rows = [{k: v for k, v in row.items() if k != task.spec.label} for row in ROWS[kind](20, 50)]
    unlabeled = read_inputs(task.spec, rows, "a test")
    assert len(unlabeled) == 20
    trial = Trial(
        tiny_backbone,
        task,
        partition(task, train_examples=30, seed=0),
        options,
        0,
        sources[:1],
        DistillationOptions(distance=distance),
        unlabeled=unlabeled,
    )
    trial.check(PANDA_UNLABELED)
    outcome = trial.outcome(PANDA_UNLABELED)
    assert np.isfinite(outcome.card.validation["loss"])
    assert not same(outcome, trial.outcome(PANDA))
    if not task.kind.classifies:
        with pytest.raises(PandaError, match="--confidence weights texts by their class probabilities"):
            DistillationOptions(confidence=True).check(task.kind)


def test_the_rest_of_train_holds_nothing_that_is_scored_or_labelled(sentiment, tmp_path):
    task = sentiment()
    rows = sentiment_rows(60)
    write_jsonl(tmp_path / "data" / "mood" / "test.jsonl", rows[:5])
    part = partition(task, train_examples=20, seed=3)
    rest = rest_of_train(task, part, 1000, seed=3)
    seen = set(part.train.texts) | set(part.validation.texts) | set(task.test().texts)
    assert set(rest) == set(task.train().texts) - seen
    few = rest_of_train(task, part, 7, seed=3)
    assert len(few) == 7
    assert set(few) < set(rest)
    assert few == rest_of_train(task, part, 7, seed=3) != rest_of_train(task, part, 7, seed=4)
    whole = partition(task, seed=3)
    with pytest.raises(PandaError, match="leaves no text of task 'mood'"):
        rest_of_train(task, whole, 5, seed=3)


class Notes:
    def __init__(self):
        self.notes = []

    def begin(self, label, total): ...

    def advance(self, units): ...

    def note(self, message):
        self.notes.append(message)


def test_texts_of_test_and_validation_data_are_left_out(sources, sentiment, tiny_backbone, tmp_path):
    task = sentiment()
    known = [{"text": text} for (text,) in task.test().texts[:6]]
    fresh = [{"text": row["text"], "label": "nonsense"} for row in sentiment_rows(20, seed=99)]
    held = [{"text": text} for (text,) in partition(task, train_examples=40, seed=0).validation.texts]

    def run(rows, **changes):
        return transfer(
            task,
            sources[0],
            tiny_backbone,
            options=TrainingOptions(epochs=1, max_length=24, readout="mean"),
            methods=["panda"],
            train_examples=40,
            unlabeled=rows,
            **changes,
        )

    notes = Notes()
    result = run([*known, *fresh, *held, fresh[0]], progress=notes, test_examples=3)
    assert list(result.methods) == ["panda", "panda_unlabeled"]
    distinct = {row["text"] for row in fresh} - {row["text"] for row in (*known, *held)}
    assert result.methods["panda_unlabeled"].outcomes[0].card.distillation.n_unlabeled == len(distinct)
    (note,) = [note for note in notes.notes if "unlabelled" in note]
    assert note.startswith(f"{6 + 20 + 8 + 1 - len(distinct)} of 35 unlabelled texts are left out")
    with pytest.raises(PandaError, match="All 6 unlabelled texts are in the test or validation data"):
        run(known)
    with pytest.raises(PandaError, match="Row 1 of the unlabelled text has no field 'text'"):
        run([{"body": "x"}])
    assert without([("a",), ("b",), ("a",)], None) == (("a",), ("b",))


def test_a_file_of_lines_or_of_rows(sentiment, tmp_path):
    spec = sentiment().spec
    (tmp_path / "texts.txt").write_text("the phone\r\n\n  good food \n", encoding="utf-8")
    rows = unlabeled_rows(tmp_path / "texts.txt", spec)
    assert rows == [{"text": "the phone"}, {"text": "  good food "}]
    tags = kind_task("token_classification", tmp_path).spec
    assert read_inputs(tags, unlabeled_rows(tmp_path / "texts.txt", tags), "x")[1] == Words(("good", "food"))
    (tmp_path / "texts.csv").write_text("id,text\n1,the phone\n", encoding="utf-8")
    assert read_inputs(spec, unlabeled_rows(tmp_path / "texts.csv", spec), "x") == (("the phone",),)


@pytest.fixture
def refused(tiny_folder, tmp_path, monkeypatch):
    """What `panda transfer` says of an --unlabeled file, in one sentence with exit code 2."""
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "mood.jsonl", sentiment_rows(40))
    pairs = [{"a": row["text"], "b": "w1", "label": row["label"]} for row in sentiment_rows(40)]
    write_jsonl(tmp_path / "pairs.jsonl", pairs)

    def run(*arguments):
        command = ["transfer", "--model", str(tiny_folder("bert")), "--label", "label", *arguments]
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 2, result.output
        assert result.stdout == ""
        (sentence,) = result.stderr.strip().splitlines()
        return sentence

    return run


def test_wrong_files_are_refused_in_one_sentence(refused, tmp_path):
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "other.csv").write_text("body\nx\n")
    (tmp_path / "gap.jsonl").write_text('{"text": "a"}\n{"text": ""}\n')
    (tmp_path / "broken.jsonl").write_text('{"text": \n')
    (tmp_path / "bytes.txt").write_bytes(b"good\n\xff\n")
    (tmp_path / "texts.doc").write_text("x")
    mood = ["--train", "mood.jsonl", "--text", "text", "--unlabeled"]
    for name, message in {
        "none.txt": "No file none.txt; check the path.",
        "empty.txt": "empty.txt is empty: expected at least one text.",
        "empty.jsonl": "empty.jsonl is empty",
        "other.csv": "Row 1 of other.csv has no field 'text'; it has 'body'.",
        "gap.jsonl": "Row 2 of gap.jsonl has an empty text in 'text'",
        "broken.jsonl": "Line 1 of broken.jsonl is not valid JSON",
        "bytes.txt": "bytes.txt is not UTF-8: line 2",
        "texts.doc": "texts.doc has an unknown format",
    }.items():
        assert message in refused(*mood, name)
    (tmp_path / "lines.txt").write_text("good\n")
    pairs = ["--train", "pairs.jsonl", "--text", "a", "--text2", "b", "--unlabeled", "lines.txt"]
    assert "lines.txt has one text per line, and task 'pairs' needs the fields a, b" in refused(*pairs)


def test_a_transfer_with_unlabelled_text_on_the_command_line(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, seed in (("books", 5), ("mood", 0)):
        write_jsonl(tmp_path / f"{name}.jsonl", sentiment_rows(40, seed))
    write_jsonl(tmp_path / "test.jsonl", sentiment_rows(20, 9))
    (tmp_path / "texts.txt").write_text("".join(f"{row['text']}\n" for row in sentiment_rows(30, 66)))
    shared = ["--model", str(tiny_folder("bert")), "--text", "text", "--label", "label", "--epochs", "1"]
    shared += ["--max-length", "24", "--json"]
    trained = CliRunner().invoke(app, ["train", "--train", "books.jsonl", *shared])
    assert trained.exit_code == 0, trained.output
    command = ["transfer", "--train", "mood.jsonl", "--test", "test.jsonl", "--source", "books", *shared]
    unlabeled = ["--unlabeled", "texts.txt", "--confidence", "--unlabeled-weight"]
    result = CliRunner().invoke(app, [*command, *unlabeled, "0.5"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert list(found["methods"]) == ["prompt_tuning", "pot", "panda", "panda_unlabeled"]
    bank = Bank(tmp_path / "bank")
    (card,) = [card for card in bank.cards() if card.method == "panda_unlabeled"]
    assert (card.distillation.n_unlabeled, card.distillation.unlabeled_weight) == (30, 0.5)
    assert card.distillation.confidence is True
    again = CliRunner().invoke(app, [*command, *unlabeled, "inf"])
    assert again.exit_code == 2
    assert "--unlabeled-weight must be a finite number" in again.stderr
