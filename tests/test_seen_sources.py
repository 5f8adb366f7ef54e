"""Sources that saw the target's rows: left out of `rank`, `best`, `auto`, fusions and sweeps, told where named."""

from __future__ import annotations

import json
import random

import pytest
from conftest import WORDS, sentiment_rows, task_of, write_jsonl
from sweeps import TASKS
from typer.testing import CliRunner

from promptpanda.bank.bank import Bank
from promptpanda.bank.card import Card
from promptpanda.bank.folder import SourcePrompt
from promptpanda.bank.seen_texts import SEEN_NAME
from promptpanda.cli.main import app
from promptpanda.progress import Silent
from promptpanda.tasks.protocol import partition
from promptpanda.training.options import TrainingOptions
from promptpanda.transfers.overlap import TargetRows
from promptpanda.transfers.ranking import rank
from promptpanda.transfers.transfer import train, transfer

pytestmark = pytest.mark.usefixtures("one_thread")

OPTIONS = TrainingOptions(epochs=1, max_length=24, readout="mean", prompt_length=3)
CLASSES = {"labels": ["good", "bad"]}


class Notes(Silent):
    def __init__(self):
        self.said = []

    def note(self, message):
        self.said.append(message)


def noise(count, seed):
    """Rows of eight random words with random labels: no two are equal, and nothing can be learnt."""
    draw = random.Random(seed)
    return [{"text": " ".join(draw.choices(WORDS, k=8)), "label": draw.choice(["good", "bad"])} for _ in range(count)]


@pytest.fixture
def bank(tmp_path):
    return Bank(tmp_path / "bank")


@pytest.fixture
def make(tmp_path):
    """A task with these rows under a name of its own."""

    def task(name, rows, test=None):
        if test is not None:
            write_jsonl(tmp_path / "data" / name / "test.jsonl", test)
        return task_of(rows, tmp_path / "data", name, **CLASSES)

    return task


def run(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout), result.stderr


def test_a_copy_under_another_name_is_no_source_for_itself(tmp_path, tiny_folder, bank, tiny_backbone, make):
    """Random labels cannot be learnt: validation scores of a source that knows them are memory."""
    rows = noise(100, 0)
    source = train(make("noise", rows), tiny_backbone, bank=bank, options=OPTIONS)
    fair = train(make("fair", noise(60, 1)), tiny_backbone, bank=bank, options=OPTIONS)
    copied = write_jsonl(tmp_path / "noise-copy.jsonl", rows)
    test = write_jsonl(tmp_path / "noise-test.jsonl", noise(40, 2))
    data = ["--train", copied, "--test", test, "--text", "text", "--label", "label", "--name", "noise_copy"]
    data += ["--model", tiny_folder("bert"), "--bank", bank.folder, "--max-length", "24", "--json"]
    left_out = [{"prompt": source.card.id, "rows": 100}]
    found, said = run("rank", *data)
    assert (found["left_out"], [one["prompt"] for one in found["ranking"]]) == (left_out, [fair.card.id])
    assert f"{source.card.id} saw 100 of the target's 100 rows" in said
    settings = [*data, "--epochs", "1"]
    for asked in ("auto", "best"):
        found, said = run("transfer", *settings, "--source", asked, "--methods", "pot")
        assert (found["left_out"], found["source"]) == (left_out, fair.card.id)
        assert f"{source.card.id} saw 100 of the target's 100 rows" in said
    found, said = run("transfer", *settings, "--source", "noise", "--methods", "pot")
    assert (found["left_out"], found["source"]) == ([], source.card.id)
    assert f"{source.card.id}, or what it started from, saw 100 of the target's 100 rows" in said


def test_rows_of_the_budget_and_of_the_test_data_count_each(bank, tiny_backbone, make):
    rows, other = noise(60, 3), noise(60, 4)
    source = train(make("source", rows), tiny_backbone, bank=bank, options=OPTIONS)
    notes = Notes()
    target = make("target", other, test=[*noise(10, 5), *rows[:7]])
    result = transfer(target, "auto", tiny_backbone, bank=bank, options=OPTIONS, progress=notes)
    assert [one.to_json() for one in result.left_out] == [{"prompt": source.card.id, "rows": 7}]
    assert any("saw 7 of the target's 17 test rows" in note for note in notes.said)
    both = make("both", [*other[:50], *rows[:10]], test=rows[20:24])
    part = partition(both)
    overlap = TargetRows.of([part], both.test()).overlap(source.seen)
    assert (overlap.labelled, overlap.test, overlap.rows) == (10, 4, 14)
    assert str(overlap) == "10 of the target's 60 rows and 4 of its 4 test rows"
    twice = TargetRows.of([part, partition(both, seed=1)], both.test())
    assert twice.labelled.count == 60, "a row that two seeds draw counts once"


def test_rows_beyond_the_budget_do_not_count(bank, tiny_backbone, make):
    """What is never looked at is no leak: a source of the other half of a set is a fair one."""
    rows = noise(80, 6)
    target = make("target", rows)
    drawn = partition(target, train_examples=30)
    kept = {text for (text,) in drawn.train.texts + drawn.validation.texts}
    rest = [row for row in rows if row["text"] not in kept]
    source = train(make("rest", rest), tiny_backbone, bank=bank, options=OPTIONS)
    assert [one.prompt for one in rank(target, tiny_backbone, bank, train_examples=30)] == [source.card.id]
    wider = transfer(target, "auto", tiny_backbone, bank=bank, options=OPTIONS, train_examples=60)
    assert wider.source is None
    assert wider.left_out[0].rows > 0


def test_ancestors_are_remembered_though_they_are_gone(bank, tiny_backbone, make):
    rows = noise(40, 7)
    first = train(make("first", rows), tiny_backbone, bank=bank, options=OPTIONS)
    given = {"bank": bank, "options": OPTIONS}
    second = transfer(make("second", noise(40, 8)), first.card.id, tiny_backbone, methods=["pot"], **given).prompt
    third = transfer(make("third", noise(40, 9)), second.card.id, tiny_backbone, methods=["pot"], **given).prompt
    fused = transfer(
        make("fused", noise(40, 10)),
        f"{second.card.id},{third.card.id}",
        tiny_backbone,
        methods=["early_fusion"],
        **given,
    ).prompt
    assert len(third.seen.hashes) == 120
    assert len(fused.seen.hashes) == 160
    bank.remove(first.card.id)
    bank.remove(second.card.id)
    result = transfer(make("copy", rows), "auto", tiny_backbone, **given)
    assert {one.prompt: one.rows for one in result.left_out} == {third.card.id: 40, fused.card.id: 40}
    in_memory = transfer(
        make("mine", noise(40, 11)), SourcePrompt.of(third), tiny_backbone, methods=["pot"], options=OPTIONS
    )
    assert len(in_memory.prompt.seen.hashes) == 160, "also without a bank"


def test_unlabelled_text_counts_as_seen(bank, tiny_backbone, make):
    """A student that learnt from a target's test texts knows them, labels or not."""
    extra = noise(12, 12)
    source = train(make("source", noise(40, 13)), tiny_backbone, bank=bank, options=OPTIONS)
    result = transfer(
        make("student", noise(40, 14)),
        source.card.id,
        tiny_backbone,
        bank=bank,
        options=OPTIONS,
        methods=["panda", "panda_unlabeled"],
        unlabeled=extra,
    )
    seen = {name: len(one.outcomes[0].seen.hashes) for name, one in result.methods.items()}
    assert seen == {"panda": 80, "panda_unlabeled": 92}


def test_best_takes_no_sibling_that_saw_the_rows(bank, tiny_backbone, make):
    """Prompts of one series differ in the rows that their seed drew."""
    rows = noise(60, 15)
    series = make("series", rows)
    cards = [
        train(series, tiny_backbone, bank=bank, options=OPTIONS, train_examples=30, seed=seed).card for seed in (0, 1)
    ]
    drawn = [partition(series, train_examples=30, seed=seed) for seed in (0, 1)]
    first, second = ({text for (text,) in part.train.texts + part.validation.texts} for part in drawn)
    mixed = [row for row in rows if row["text"] in second - first]
    target = make("target", [*noise(30, 16), *mixed])
    result = transfer(target, "best", tiny_backbone, bank=bank, options=OPTIONS, methods=["pot"], seeds=(0, 1))
    assert [one.to_json() for one in result.left_out] == [{"prompt": cards[1].id, "rows": len(mixed)}]
    used = [outcome.card.sources[0].id for outcome in result.methods["pot"].outcomes]
    assert used == [cards[0].id, cards[0].id]


def test_the_record_changes_no_identity(bank, tiny_backbone, make):
    """A source with the record and the same without it are one source: runs from before are found again."""
    source = train(make("source", noise(40, 17)), tiny_backbone, bank=bank, options=OPTIONS)
    target = make("target", noise(40, 18))
    given = {"options": OPTIONS, "methods": ["pot"]}
    with_record = transfer(target, SourcePrompt.of(source), tiny_backbone, **given).prompt.card
    (source.path / SEEN_NAME).unlink()
    content = json.loads((source.path / "card.json").read_text())
    del content["files"][SEEN_NAME]
    (source.path / "card.json").write_text(json.dumps(content))
    without = transfer(target, source.card.id, tiny_backbone, bank=bank, **given).prompt.card
    assert (with_record.id, with_record.run, with_record.series) == (without.id, without.run, without.series)


def test_sweeps_fuse_and_select_without_sources_that_saw_the_target(study):
    """The set `films` is the target `mood` under another name."""
    study.write_task("films", TASKS["mood"])
    study.run(recipe=study.recipe(methods=["prompt_tuning", "pot", "early_fusion", "late_fusion", "auto"]))
    rows = {(row.method, row.source): row for row in study.rows() if row.kind == "target"}
    assert {row.status for row in rows.values()} == {"finished"}, [row.reason for row in rows.values()]
    bank = study.bank()
    for method in ("early_fusion", "late_fusion"):
        card = Card.read(bank.path(rows[method, None].prompt))
        assert [source.task for source in card.sources] == ["books"]
    (left_out,) = rows["auto", None].selection["left_out"]
    assert left_out["prompt"].startswith("films-s0")
    assert left_out["rows"] >= 24
    assert [one["task"] for one in rows["auto", None].selection["survivors"]] == ["books"]
    assert rows["pot", "films"].status == "finished", "asked for by name, it is run"


def test_a_sweep_says_that_no_source_is_left_to_fuse(study):
    for name in ("films", "books"):
        study.write_task(name, TASKS["mood"])
    study.run(
        recipe=study.recipe(
            methods=["prompt_tuning", "early_fusion", "auto"],
            sources=study.content()["sources"] | {"tasks": ["books.yaml"]},
        )
    )
    rows = {row.method: row for row in study.rows() if row.kind == "target"}
    assert rows["early_fusion"].reason == (
        "Every source of this fusion saw rows of 'mood', so that nothing is left to fuse."
    )
    assert rows["auto"].status == "finished"
    assert rows["auto"].selection["survivors"] == []


def test_equal_words_of_sentiment_rows_are_rare():
    """The other tests' sets are distinct enough, so that their sources are not left out by chance."""
    texts = [{row["text"] for row in sentiment_rows(60, seed)} for seed in (0, 5, 6, 7)]
    assert all(not one & other for place, one in enumerate(texts) for other in texts[:place])
