"""`--source auto`: what is pruned, who competes, how the choice is shrunk, what it costs; test data plays no part."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import sentiment_rows, task_of, write_jsonl
from kinds import equal_pairs, kind_task
from typer.testing import CliRunner

from promptpanda.bank.bank import Bank
from promptpanda.bank.folder import SourcePrompt
from promptpanda.cli.main import app
from promptpanda.errors import PandaError
from promptpanda.progress import Silent
from promptpanda.tasks.encoding import encode
from promptpanda.tasks.protocol import partition
from promptpanda.training.loop import UntrainableError
from promptpanda.training.options import TrainingOptions
from promptpanda.transfers.choice import Contestant, Resamples, posteriors
from promptpanda.transfers.estimators import DEFAULT_ESTIMATOR, TargetFeatures
from promptpanda.transfers.methods import PANDA, POT, check_methods
from promptpanda.transfers.ranking import rank
from promptpanda.transfers.selection import SelectionOptions, choose, contestants_of, refit_trial
from promptpanda.transfers.transfer import train, transfer
from promptpanda.transfers.trial import Trial

pytestmark = pytest.mark.usefixtures("one_thread")

SOURCE = TrainingOptions(epochs=2, max_length=24, readout="mean", prompt_length=3)
OPTIONS = TrainingOptions(epochs=4, max_length=24, readout="mean", lr=3e-2)
N_TRAIN, N_VAL = 32, 8
PLAIN = SelectionOptions(refit=False)
TASKS = ("books", "films", "games", "songs", "tools")


class Notes(Silent):
    def __init__(self):
        self.notes = []

    def note(self, message):
        self.notes.append(message)


@pytest.fixture
def bank(tiny_backbone, sentiment, tmp_path):
    """Prompts of five tasks, one of them with seeds 0 and 1."""
    bank = Bank(tmp_path / "bank")
    for place, name in enumerate(TASKS):
        train(sentiment(name, seed=5 + place), tiny_backbone, bank=bank, options=SOURCE)
    train(sentiment("books", seed=5), tiny_backbone, bank=bank, options=SOURCE, seed=1)
    return bank


@pytest.fixture
def auto(bank, tiny_backbone, sentiment):
    """Run the selection on 40 examples of a task."""

    def run(task=None, **changes):
        given = {"bank": bank, "options": OPTIONS, "train_examples": 40, "selection": PLAIN} | changes
        return transfer(task or sentiment(), "auto", tiny_backbone, **given)

    return run


def test_auto_prunes_races_and_chooses(auto, bank, tiny_backbone, sentiment):
    result = auto(seeds=(0, 1), selection=SelectionOptions(survivors=3, finalists=2, refit=False))
    assert list(result.methods) == ["prompt_tuning", "pot", "contrastive_pot", "linear_probe", "source_probe"]
    for place, one in enumerate(result.selection):
        part = partition(sentiment(), train_examples=40, seed=place)
        view = TargetFeatures.of(tiny_backbone, sentiment(), part, OPTIONS)
        entries = rank(sentiment(), tiny_backbone, bank, view)
        # Of a task with prompts of both seeds this seed's counts, of the others the only one.
        mine = [entry for entry in entries if entry.task != "books" or f"-s{place}-" in entry.prompt]
        mine.sort(key=lambda entry: (-entry.scores[DEFAULT_ESTIMATOR], entry.prompt))
        assert [source.id for source in one.pruned.survivors] == [entry.prompt for entry in mine[:3]]
        winner = next(at.prompt for at in one.race.rungs[-1][1] if at.prompt is not None)
        assert one.trial.source.id == winner
        for name in ("pot", "contrastive_pot", "source_probe"):
            assert [source.id for source in result.methods[name].outcomes[place].card.sources] == [winner]
        assert set(one.posterior) == set(result.methods)
        assert one.chosen == max(one.posterior, key=lambda name: (one.posterior[name].mean, name == one.chosen))
        base = result.methods["prompt_tuning"].validation[place]
        assert one.gain.mean == pytest.approx(result.methods[one.chosen].validation[place] - base)
        assert result.auto.scores[place] == result.methods[one.chosen].scores[place]
    means = {name: np.mean([one.posterior[name].mean for one in result.selection]) for name in result.methods}
    assert means[result.chosen] == pytest.approx(max(means.values()))
    assert {outcome.prompt.length for outcome in result.methods["prompt_tuning"].outcomes} == {3}


def test_the_race_and_the_choice_expect_what_the_estimator_promises(auto):
    """Posteriors put together again from what was estimated and what was scored."""
    one = auto(selection=SelectionOptions(survivors=4, finalists=2, refit=False)).selection[0]
    leads = {source.id: one.pruned.scores[source.id] - one.pruned.no_transfer for source in one.pruned.survivors}
    assert all(abs(lead) > 1e-3 for lead in leads.values()), "or this shows nothing"
    lead = leads[one.trial.source.id]
    again = {
        method.name: Contestant.of(one.trial, method, lead if method.needs_source else 0.0)
        for method in check_methods(tuple(one.posterior))
    }
    resamples = Resamples(one.trial.validation_data)
    for name, posterior in posteriors(again, resamples).items():
        assert one.posterior[name].mean == pytest.approx(posterior.mean)
    finalists = {
        source.id: Contestant.of(one.trial.with_source(source), POT, leads[source.id]) for source in one.trial.sources
    }
    expected = {name: posterior.mean for name, posterior in posteriors(finalists, resamples).items()}
    last = one.race.rungs[-1][1]
    assert {at.prompt: at.expected for at in last} == pytest.approx(expected | {None: None}, abs=1e-4)
    order = {
        at.prompt: (at.expected, -at.loss) for at in last if at.prompt is not None
    }  # the loss decides between equals
    assert [source.id for source in one.trial.sources] == sorted(order, key=order.get, reverse=True)


def test_the_counted_cost_is_what_was_done(auto):
    result = auto(selection=SelectionOptions(survivors=4, finalists=2, refit=False))
    training = OPTIONS.epochs * N_TRAIN
    prompt = training + (N_VAL + N_TRAIN) / 3  # with validation and signature
    seen = (5 + 1) * 40 / 3  # five prompts and the bare backbone
    steps = 2 * OPTIONS.epochs  # two an epoch; the first rung is at step 1
    first = 2 * training * 1 / steps + 4 * N_VAL / 3  # two of four stay behind there
    contrastive = 75 * N_TRAIN  # 150 steps, two an epoch
    probes = 3 * (N_TRAIN + N_VAL) / 3 + 2 * N_TRAIN / 3  # two of them with a prompt, which gets a signature
    choosing = (4 + 2) * N_VAL / 3  # of both finalists at the end of the race, and of the contestants beside its winner
    race = 3 * prompt + first
    assert result.cost == pytest.approx((seen + race + contrastive + probes + choosing) / training)
    assert result.selection[0].planned == pytest.approx(result.cost)


@pytest.mark.parametrize("how", ["paper", "early stopping", "unlabelled"])
def test_the_cost_is_told_beforehand_in_other_set_ups_too(how, auto, sentiment, tmp_path):
    task = sentiment()
    if how == "paper":
        write_jsonl(tmp_path / "data" / "mood" / "validation.jsonl", sentiment_rows(10, 77))
        given = {"protocol": "paper", "train_examples": 32}  # two batches of equal size, as the plan takes them
    elif how == "early stopping":
        given = {"options": OPTIONS.model_copy(update={"early_stopping": 50})}
    else:
        methods = ["pot", "panda_unlabeled", "late_fusion_unlabeled"]
        given = {"methods": methods, "unlabeled": [{"text": row["text"]} for row in sentiment_rows(30, 55)]}
    result = auto(task, **given)
    assert result.selection[0].planned == pytest.approx(result.cost)


def test_where_every_source_diverges_the_others_are_chosen_among(bank, tiny_backbone, sentiment):
    """As a sweep's worker selects, which has no bank."""
    task = sentiment()
    part = partition(task, train_examples=40, seed=0)
    sources = [SourcePrompt.of(bank.load(name, tiny_backbone)) for name in bank.ids()[:2]]
    broken = tuple(
        replace(one, prompt=replace(one.prompt, tensor=one.prompt.tensor * np.float32(1e38)), checksum=str(place) * 64)
        for place, one in enumerate(sources)
    )
    trial = Trial(tiny_backbone, task, part, OPTIONS.model_copy(update={"prompt_length": 3}), 0, broken)
    one = choose(trial, contestants_of(task.kind), PLAIN)
    assert set(one.posterior) == {"prompt_tuning", "contrastive", "linear_probe"}


def test_it_repeats_and_trains_nothing_twice(auto, bank):
    first = auto()
    created = {path: path.stat().st_mtime_ns for path in bank.folder.rglob("*.safetensors")}
    second = auto()
    assert {path: path.stat().st_mtime_ns for path in bank.folder.rglob("*.safetensors")} == created
    assert second.to_json() == first.to_json()


def test_test_labels_do_not_change_the_choice(auto, bank, sentiment, tmp_path):
    """Every label of the test data turned round: other test scores, and nothing else."""
    first = auto(seeds=(0, 1)).to_json()
    task = sentiment()
    turned = [row | {"label": {"good": "bad", "bad": "good"}[row["label"]]} for row in sentiment_rows(40, 1000)]
    write_jsonl(tmp_path / "data" / "mood" / "test.jsonl", turned)
    second = auto(task, seeds=(0, 1)).to_json()
    for name in ("chosen", "prompt", "cost", "selection", "source", "transferability"):
        assert second[name] == first[name]
    assert second["auto"]["validation"] == first["auto"]["validation"]
    for before, after in zip(first["auto"]["scores"], second["auto"]["scores"], strict=True):
        assert after == pytest.approx(1 - before)


def test_prompt_tuning_competes_whatever_is_asked_for(auto):
    assert list(auto(methods=["panda"]).methods) == ["prompt_tuning", "panda"]
    result = auto(methods=["head_only", "model_tuning"], selection=None)
    assert list(result.methods) == ["head_only", "model_tuning"]
    assert (result.selection, result.chosen) == (None, "head_only"), "without a method that transfers nothing races"


@pytest.mark.parametrize("where", ["none", "empty", "another length"])
def test_where_nothing_can_be_transferred_the_others_compete(where, auto, tmp_path):
    notes = Notes()
    changes = {"bank": None if where == "none" else Bank(tmp_path / "empty"), "progress": notes}
    if where == "another length":
        del changes["bank"]
        changes["options"] = TrainingOptions(**OPTIONS.model_dump(exclude_unset=True), prompt_length=7)
    result = auto(**changes)
    assert list(result.methods) == ["prompt_tuning", "contrastive", "linear_probe"]
    assert any("nothing to transfer: only methods without a source compete" in note for note in notes.notes)
    (one,) = result.selection
    assert (one.race, one.trial.source, one.pruned.survivors) == (None, None, ())
    assert result.to_json()["selection"]["survivors"] == [[]]
    assert result.cost == pytest.approx(one.planned)
    if where == "another length":
        assert result.methods["prompt_tuning"].outcomes[0].prompt.length == 7


def test_prompts_of_another_length_than_the_best_are_left_out(auto, bank, tiny_backbone, sentiment):
    longer = TrainingOptions(**SOURCE.model_dump(exclude_unset=True) | {"prompt_length": 6})
    train(sentiment("extra", seed=30), tiny_backbone, bank=bank, options=longer)
    notes = Notes()
    result = auto(progress=notes, selection=SelectionOptions(survivors=6, refit=False))
    lengths = {source.prompt.length for source in result.selection[0].pruned.survivors}
    assert len(lengths) == 1
    assert any("left out" in note for note in notes.notes)
    # Asked for explicitly, it is the only one.
    asked = auto(options=TrainingOptions(**OPTIONS.model_dump(exclude_unset=True), prompt_length=6))
    assert [source.task for source in asked.selection[0].pruned.survivors] == ["extra"]


def test_one_prompt_under_two_names_is_one_survivor(auto, bank, tiny_backbone, sentiment):
    """The same rows, trained on twice under two names of a task, give the same prompt, bit for bit."""
    train(sentiment("volumes", seed=5), tiny_backbone, bank=bank, options=SOURCE)
    checksums = {
        bank.load(name, tiny_backbone).card.files["adapter_model.safetensors"] for name in ("books", "volumes")
    }
    assert len(checksums) == 1
    survivors = auto(selection=SelectionOptions(survivors=6, refit=False)).selection[0].pruned.survivors
    assert sorted(source.task for source in survivors if source.checksum in checksums) == ["books"]
    assert len(survivors) == len(TASKS)


def test_a_refit_trains_the_chosen_method_on_all_examples(auto, bank, tiny_backbone):
    plain, refitted = auto(), auto(selection=SelectionOptions(refit=True))
    assert refitted.chosen == plain.chosen
    (outcome,) = refitted.auto.outcomes
    assert outcome.card.method == plain.chosen
    assert (outcome.card.n_train, plain.auto.outcomes[0].card.n_train) == (40, N_TRAIN)
    assert outcome.card.example_steps in (40 * OPTIONS.epochs, 40 * 50, 0)  # 150 contrastive steps are 50 epochs
    assert outcome.card.validation_seen
    assert refitted.prompt.card.id == outcome.card.id
    assert refitted.auto.scores == (outcome.card.test.scores["accuracy"],)
    (one,) = refitted.selection
    assert one.posterior == plain.selection[0].posterior, "it is chosen before"
    assert refitted.cost > plain.cost + 1 / 40


def test_a_refit_is_what_a_task_s_name_means(auto, bank, tiny_backbone):
    """Its validation score is that of the training which it repeats, so that it can be compared with others."""
    plain, refitted = auto(), auto(selection=SelectionOptions(refit=True))
    card, first = refitted.prompt.card, plain.prompt.card
    assert (card.validation_seen, first.validation_seen) == (True, False)
    assert (card.refit_of, first.refit_of) == (first.id, None)
    assert (card.validation, card.is_judged) == (first.validation, True)
    assert refitted.auto.validation == plain.auto.validation, "what it was chosen by"
    best = max(one.validation["accuracy"] for one in bank.cards() if one.task.name == card.task.name)
    for one in (first, card):
        raised = one.model_copy(update={"validation": {"accuracy": best, "loss": 0.0}})
        raised.write(bank.folder / one.id)
    assert bank.resolve(card.task.name).name == card.id, "it has the most training examples"


def test_without_a_word_it_refits_where_it_can(auto):
    assert auto(selection=None).prompt.card.n_train == 40
    assert auto(selection=PLAIN).prompt.card.n_train == N_TRAIN
    stopping = OPTIONS.model_copy(update={"early_stopping": 2})
    assert auto(selection=None, options=stopping).prompt.card.n_train == N_TRAIN


def test_a_refit_that_diverges_leaves_what_was_chosen(auto, monkeypatch):
    plain, notes = auto(), Notes()
    outcome = Trial.outcome

    def failing(self, method):
        if self.earlier is not None:
            raise UntrainableError("Training 'mood' stopped: the loss became nan.")
        return outcome(self, method)

    monkeypatch.setattr(Trial, "outcome", failing)
    result = auto(selection=None, progress=notes)
    assert result.prompt.card.id == plain.prompt.card.id
    assert (result.auto.scores, result.cost) == (plain.auto.scores, plain.cost)
    assert any("is kept as it was trained without the validation part" in note for note in notes.notes)


def test_an_own_score_on_rows_it_was_trained_on_counts_for_nothing(auto, bank):
    refitted = auto(selection=SelectionOptions(refit=True)).prompt
    name = refitted.card.task.name
    raised = refitted.card.model_copy(update={"refit_of": None, "validation": {"accuracy": 1.0, "loss": 0.0}})
    raised.write(refitted.path)
    assert bank.resolve(name).name != refitted.card.id
    for prompt_id in [card.id for card in bank.cards() if card.task.name == name and card.id != refitted.card.id]:
        bank.remove(prompt_id)
    assert bank.resolve(name).name == refitted.card.id, "better than none"


def test_a_refit_counts_with_all_that_it_trains(auto):
    """The method chosen over all seeds, and those of the seeds."""
    result = auto(selection=SelectionOptions(refit=True), seeds=(0, 1, 2))
    plain = auto(seeds=(0, 1, 2))
    cards = {outcome.card.id: outcome.card for outcome in result.auto.outcomes}
    cards[result.prompt.card.id] = result.prompt.card
    work = sum(card.work for card in cards.values()) / (OPTIONS.epochs * N_TRAIN)
    assert 3 * (result.cost - plain.cost) >= work - 1e-9


@pytest.mark.parametrize("with_bank", [False, True])
def test_a_refit_keeps_the_threshold_that_was_chosen_on_examples_it_had_not_seen(with_bank, tiny_backbone, tmp_path):
    """On those that it was trained on, questions without answers look easier than they are."""
    source = train(kind_task("extractive_qa", tmp_path, "other", no_answer=True), tiny_backbone, options=SOURCE)
    task, sources = kind_task("extractive_qa", tmp_path, no_answer=True), (SourcePrompt.of(source),)
    options = OPTIONS.model_copy(update={"prompt_length": 3, "readout": "auto"})
    part = partition(task, train_examples=40, seed=0)
    bank = Bank(tmp_path / "bank") if with_bank else None
    trial = Trial(tiny_backbone, task, part, options, 0, sources, bank=bank)
    again = refit_trial(trial)
    without = replace(again, earlier=None, bank=None, cached={})
    for method in check_methods(("prompt_tuning", "panda")):
        kept = trial.outcome(method).card.threshold
        refitted = again.outcome(method).card
        assert refitted.n_train == 40
        assert (refitted.threshold, again.with_source(sources[0]).outcome(method).card.threshold) == (kept, kept)
        assert without.outcome(method).card.threshold != kept, "or this shows nothing"
        assert without.identity(method) != again.identity(method), "nor is the other taken for it"
    teacher = again.teachers(PANDA)[0].card
    assert teacher.threshold == trial.teachers(PANDA)[0].card.threshold
    if bank is not None:  # a later process, which has trained nothing
        later = refit_trial(replace(trial, cached={}))
        assert later.outcome(PANDA).card.created == again.outcome(PANDA).card.created


def test_prompts_that_saw_the_target_s_texts_are_no_sources(bank, tiny_backbone, sentiment):
    """A prompt that was started from the target's, one whose set shares texts with it, and what came of that."""
    mood = transfer(sentiment(), "books", tiny_backbone, bank=bank, options=OPTIONS, methods=["pot"], train_examples=40)
    again = transfer(
        sentiment("notes", seed=31),
        mood.prompt.card.id,
        tiny_backbone,
        bank=bank,
        options=OPTIONS,
        methods=["pot"],
        train_examples=40,
    )
    notes = Notes()
    view = TargetFeatures(tiny_backbone, encode(tiny_backbone, (("a good phone",),), 24))
    named = {entry.prompt for entry in rank(sentiment("books", seed=5), tiny_backbone, bank, view, progress=notes)}
    assert named
    assert not named & {mood.prompt.card.id, again.prompt.card.id}
    assert any("2 prompts" in note and "trained on texts of books" in note for note in notes.notes)
    others = {entry.prompt for entry in rank(sentiment("films", seed=6), tiny_backbone, bank, view)}
    assert {mood.prompt.card.id, again.prompt.card.id} <= others

    train(sentiment("sst2", seed=40), tiny_backbone, bank=bank, options=SOURCE)
    found = transfer(sentiment("mr", seed=41), "auto", tiny_backbone, bank=bank, options=OPTIONS, train_examples=40)
    assert not any(name.startswith("sst2") for name in found.selection[0].pruned.scores)
    notes = Notes()
    transfer(
        sentiment("mr", seed=41), "sst2", tiny_backbone, bank=bank, options=OPTIONS, methods=["pot"], progress=notes
    )
    assert any("sst2 and mr share texts" in note for note in notes.notes), "named, it is taken, and told"


def test_a_contestant_that_diverges_is_left_behind(bank, tiny_backbone, sentiment):
    notes = Notes()
    wild = OPTIONS.model_copy(update={"student_lr": 1e30})
    given = {"bank": bank, "train_examples": 40, "seeds": (0, 1), "methods": ["pot", "panda", "head_only"]}
    result = transfer(sentiment(), "auto", tiny_backbone, options=wild, progress=notes, **given)
    assert set(result.methods) == {"prompt_tuning", "pot", "head_only"}
    assert all(set(one.posterior) == set(result.methods) for one in result.selection)
    assert any("The choice is made from the others" in note for note in notes.notes)
    with pytest.raises(PandaError, match="stopped"):
        transfer(sentiment(), "auto", tiny_backbone, bank=bank, options=OPTIONS.model_copy(update={"lr": 1e30}))


def test_a_bank_of_damaged_prompts_is_as_good_as_none(bank, auto):
    for prompt_id in bank.ids():
        weights = bank.folder / prompt_id / "adapter_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-8])
    notes = Notes()
    result = auto(progress=notes)
    assert set(result.methods) == {"prompt_tuning", "contrastive", "linear_probe"}
    assert sum("adapter_model.safetensors" in note for note in notes.notes) >= len(TASKS)


def test_a_probe_that_reads_pairs_apart_is_expected_to_gain_what_it_gains_in_cross_validation(auto, tmp_path):
    """Without it the promise of a source, which is one of pairs that are read together, outweighs a few examples."""
    task = kind_task("pair_classification", tmp_path / "pairs", "equal", rows=equal_pairs(60), test=None)
    result = auto(task)
    assert result.chosen in ("linear_probe", "source_probe")
    assert result.prompt.card.readout == "compare"
    selection = result.selection[0]
    assert selection.posterior["linear_probe"].mean > selection.posterior["pot"].mean + 0.1
    assert selection.planned == pytest.approx(selection.cost, rel=0.2)


def test_a_selection_needs_something_to_select(auto):
    with pytest.raises(PandaError, match="no method starts from one"):
        auto(methods=["head_only"], selection=SelectionOptions(refit=True))
    with pytest.raises(PandaError, match="names no prompt"):
        transfer(auto().task, ",", auto().prompt.backbone, bank=None)


def test_a_token_task_is_selected_for_too(bank, tiny_backbone, tmp_path):
    """Another kind, whose metric is no mean over examples."""
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(40):
        words = rng.choice(["good", "fine", "the", "phone", "w1", "w2"], 6).tolist()
        rows.append({"tokens": words, "tags": ["B-NICE" if word in ("good", "fine") else "O" for word in words]})
    task = task_of(
        rows, tmp_path, "spans", kind="token_classification", segments=["{tokens}"], label="tags", metrics=["span_f1"]
    )
    result = transfer(task, "auto", tiny_backbone, bank=bank, options=OPTIONS)
    (one,) = result.selection
    assert all(np.isfinite([posterior.mean, posterior.se]).all() for posterior in one.posterior.values())
    assert result.cost == pytest.approx(one.planned, rel=0.05)


@pytest.mark.parametrize(
    ("selection", "sentence"),
    [
        ({"survivors": 0}, "--survivors must be at least 1, found 0"),
        ({"finalists": 0}, r"--finalists must be from 1 to the number of survivors \(4\), found 0"),
        ({"survivors": 2, "finalists": 3}, r"the number of survivors \(2\), found 3"),
    ],
)
def test_numbers_that_cannot_be_are_refused(selection, sentence, auto):
    with pytest.raises(PandaError, match=sentence):
        auto(selection=SelectionOptions(**selection))


def test_a_refit_needs_a_part_of_its_own_to_choose_on(auto):
    early = OPTIONS.model_copy(update={"early_stopping": 2})
    with pytest.raises(PandaError, match="nothing is left for --early-stopping"):
        auto(options=early, selection=SelectionOptions(refit=True))
    with pytest.raises(PandaError, match="use --protocol clean"):
        auto(protocol="paper", selection=SelectionOptions(refit=True))


def test_auto_is_the_default_of_the_library_and_of_the_command(
    bank, tiny_folder, tiny_backbone, sentiment, tmp_path, monkeypatch
):
    assert transfer(sentiment(), backbone=tiny_backbone, bank=bank, options=OPTIONS).selection is not None
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "mood.jsonl", sentiment_rows(40))
    write_jsonl(tmp_path / "mood-test.jsonl", sentiment_rows(20, 100))

    def panda(*arguments, code=0):
        own = ["--train", "mood.jsonl", "--test", "mood-test.jsonl", "--text", "text", "--label", "label"]
        fast = ["--epochs", "2", "--max-length", "24", "--model", str(tiny_folder("bert")), "--readout", "mean"]
        result = CliRunner().invoke(app, ["transfer", *own, *fast, *arguments])
        assert result.exit_code == code, f"{result.stdout}\n{result.stderr}\n{result.exception!r}"
        return result

    shown = panda("--json", "--seeds", "0,1", "--survivors", "3", "--finalists", "1")
    assert "--source auto will take about" in shown.stderr
    assert "Race, step" in shown.stderr
    found = json.loads(shown.stdout)
    assert set(found["auto"]) == {"mean", "std", "scores", "validation"}
    selection = found["selection"]
    keys = ("estimator", "survivors", "no_transfer", "race", "winner", "posterior", "chosen")
    assert set(selection) == {*keys, "gain_over_prompt_tuning", "cost_planned", "cost", "cross_validation"}
    assert all(len(values) == 2 for values in selection.values())
    assert [len(survivors) for survivors in selection["survivors"]] == [3, 3]
    assert set(selection["survivors"][0][0]) == {"prompt", "task", "estimate"}
    probes = {"linear_probe", "source_probe"}
    assert set(selection["posterior"][0]) == {"prompt_tuning", "pot", "contrastive_pot", *probes}
    assert set(selection["posterior"][0]["pot"]) == {"mean", "se"}
    assert set(selection["gain_over_prompt_tuning"][0]) == {"mean", "low", "high", "distinguishable"}
    assert found["source"] == selection["winner"][0]
    assert found["cost"] == pytest.approx(np.mean(selection["cost"]))
    table = panda("--seeds", "0,1", "--survivors", "3", "--finalists", "1").stdout
    assert "winner of the race" in table
    assert f"Cost: {found['cost']:.1f} trainings per seed" in table
    for arguments in (["--source", "best", "--survivors", "3"], ["--source", "books", "--refit"]):
        assert "are for --source auto" in panda(*arguments, code=2).stderr.splitlines()[-1]
    assert "--survivors must be at least 1" in panda("--survivors", "0", code=2).stderr


def test_a_choice_does_not_depend_on_what_was_drawn_before(auto, bank):
    """In two copies of the bank, so that everything is trained twice."""
    copies = [Bank(shutil.copytree(bank.folder, bank.folder.parent / name)) for name in ("one", "two")]
    first = auto(bank=copies[0])
    torch.rand(7)
    np.random.random(7)
    second = auto(bank=copies[1])
    assert first.to_json()["selection"] == second.to_json()["selection"]
    assert first.auto.scores == second.auto.scores
    assert copies[0].ids() == copies[1].ids()
