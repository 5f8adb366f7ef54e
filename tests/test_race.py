"""Races: pieces of a training equal the whole, the better half goes on, no transfer always runs, kills do no harm."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from promptpanda.bank.bank import Bank
from promptpanda.bank.folder import SourcePrompt
from promptpanda.errors import PandaError
from promptpanda.progress import Silent
from promptpanda.tasks.encoding import encode
from promptpanda.tasks.protocol import partition
from promptpanda.training.distillation import Distillation
from promptpanda.training.inference import Data
from promptpanda.training.loop import Training, TrainingState
from promptpanda.training.objectives.kinds import objective_for
from promptpanda.training.options import TrainingOptions
from promptpanda.transfers.choice import Contestant, Resamples, posteriors, prior_of
from promptpanda.transfers.methods import POT, PROMPT_TUNING
from promptpanda.transfers.race import Rung, planned_cost, race, rungs
from promptpanda.transfers.transfer import train
from promptpanda.transfers.trial import Trial

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = ("books", "films", "games", "songs", "tools")
SOURCE = TrainingOptions(epochs=2, max_length=24, readout="mean", prompt_length=3)
OPTIONS = TrainingOptions(epochs=8, max_length=24, readout="mean", prompt_length=3, lr=3e-2)  # 16 steps of 16 examples


@pytest.fixture
def data(tiny_backbone, sentiment):
    task = sentiment()
    part = partition(task, seed=0)

    def of(split):
        return Data(encode(tiny_backbone, split.texts, 24), split, task.spec, task.labels)

    return of(part.train), of(part.validation), objective_for(task.spec, 2, part.train.labels)


@pytest.fixture
def sources(tiny_backbone, sentiment, tmp_path):
    """Prompts of five tasks, in a bank of their own."""
    bank = Bank(tmp_path / "sources")
    return tuple(
        SourcePrompt.of(train(sentiment(name, seed=5 + place), tiny_backbone, bank=bank, options=SOURCE))
        for place, name in enumerate(NAMES)
    )


@pytest.fixture
def trial_of(tiny_backbone, sentiment, sources, tmp_path):
    """A trial of 32 training and 8 validation examples with some of the sources and a bank."""

    def trial(bank="bank", count=5, progress=None, options=OPTIONS):
        task = sentiment()
        part = partition(task, train_examples=40, seed=1)
        where = None if bank is None else Bank(tmp_path / bank)
        return Trial(tiny_backbone, task, part, options, 1, sources[:count], bank=where, progress=progress or Silent())

    return trial


class Listener(Silent):
    """Counts steps; may stop everything after some of them, as Ctrl-C does."""

    def __init__(self, stop_after=None):
        self.steps, self.notes, self._stop_after = 0, [], stop_after

    def advance(self, units):
        self.steps += units
        if self.steps == self._stop_after:
            raise KeyboardInterrupt

    def note(self, message):
        self.notes.append(message)


def equal(a, b):
    return torch.equal(a.prompt.tensor, b.prompt.tensor) and torch.equal(a.head.weight, b.head.weight)


def through_disk(state):
    """As a state is after it was written and read."""
    return TrainingState(load(save(state.tensors)), json.loads(json.dumps(state.numbers)))


VARIANTS = {
    "plain": {},
    "reparameterised": {"reparameterize": 8},
    "early stopping": {"early_stopping": 2, "epochs": 12},
    "shallow": {"prompt_kind": "shallow"},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_training_in_pieces_equals_the_whole_to_the_bit(variant, tiny_backbone, data):
    """Cut within epochs and at their ends, looked at in between, put down and taken up by another object."""
    options = OPTIONS.model_copy(update=VARIANTS[variant])
    taught = Distillation(torch.randn(len(data[0]), 2, generator=torch.Generator().manual_seed(0)), 0.5)
    whole = Training(tiny_backbone, *data, options, seed=3, distillation=taught).run()

    def fresh():
        return Training(tiny_backbone, *data, options, seed=3, distillation=taught)

    training = fresh()
    for step in (1, 2, 3, 7, 8):  # three steps an epoch
        training.advance(step)
        before = training.state()
        training.validate()
        assert all(torch.equal(value, before.tensors[name]) for name, value in training.state().tensors.items())
        other = fresh()
        other.load_state(through_disk(before))
        assert other.done == step
        training = other
    torch.rand(3)  # the global stream plays no part
    training.advance()
    pieces = training.finish()
    assert equal(pieces, whole)
    assert (pieces.curve, pieces.validation, pieces.example_steps, pieces.forward_examples) == (
        whole.curve,
        whole.validation,
        whole.example_steps,
        whole.forward_examples,
    )


def test_a_models_training_in_pieces_equals_the_whole_too(tiny_backbone, data):
    """Its layers draw from torch's own stream."""
    options = OPTIONS.model_copy(update={"epochs": 2})
    whole = Training(tiny_backbone, *data, options, seed=3, trained="model").run()
    training = Training(tiny_backbone, *data, options, seed=3, trained="model")
    for step in (1, 4, 6):
        training.advance(step)
        torch.rand(3)
    found = training.finish()
    weights = found.backbone.model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in whole.backbone.model.state_dict().items())
    with pytest.raises(ValueError, match="cannot be put down"):
        training.state()


def test_a_training_is_not_finished_before_its_end(tiny_backbone, data):
    training = Training(tiny_backbone, *data, OPTIONS, seed=0)
    training.advance(2)
    with pytest.raises(ValueError, match="2 of 24 steps"):
        training.finish()


@pytest.mark.parametrize(
    ("sources", "total", "finalists", "expected"),
    [
        (8, 200, 2, [(25, 8, 4), (50, 4, 2), (100, 2, 2)]),
        (21, 200, 2, [(25, 21, 11), (50, 11, 6), (100, 6, 3)]),
        (5, 16, 1, [(2, 5, 3), (4, 3, 2), (8, 2, 1)]),
        (4, 16, 3, [(2, 4, 3), (4, 3, 3), (8, 3, 3)]),
        (1, 16, 2, [(2, 1, 1), (4, 1, 1), (8, 1, 1)]),
        (4, 3, 2, [(1, 4, 2), (2, 2, 2)]),
        (4, 1, 2, []),
    ],
)
def test_the_better_half_goes_on_and_never_fewer_than_the_finalists(sources, total, finalists, expected):
    assert rungs(sources, total, finalists) == tuple(Rung(*stop) for stop in expected)


def test_a_race_ranks_by_expected_scores_and_its_finalists_equal_full_trainings(trial_of, tiny_backbone):
    trial = trial_of()
    leads = {source.id: 0.1 * place for place, source in enumerate(trial.sources)}
    result = race(trial, leads, finalists=2)
    assert [step for step, _ in result.rungs] == [2, 4, 8, 16]
    alone = trial_of("other")

    def looked_at(source, step):
        training = alone.with_source(source).training(POT, start=source.prompt)
        training.advance(step)
        predictions, scores = training.validate()
        prior = prior_of(POT).of(leads[source.id])
        return Contestant(predictions, scores["accuracy"], scores["loss"], prior)

    running = list(trial.sources)
    for (step, standings), staying in zip(result.rungs, (3, 2), strict=False):
        seen = {source.id: looked_at(source, step) for source in running}
        means = {name: one.mean for name, one in posteriors(seen, Resamples(alone.validation_data)).items()}
        expected = sorted((-round(means[name], 12), one.loss, name, one.score) for name, one in seen.items())
        assert [(-round(at.expected, 12), at.loss, at.prompt, at.score) for at in standings] == expected
        assert [at.goes_on for at in standings] == [place < staying for place in range(len(expected))]
        running = [source for source in running if source.id in [name for _, _, name, _ in expected[:staying]]]
    last = result.rungs[-1][1]
    assert {at.prompt for at in last} == {None, *(source.id for source in running)}
    assert [source.id for source in result.finalists] == [at.prompt for at in last if at.prompt is not None]
    for source in result.finalists:
        direct = alone.with_source(source).outcome(POT)
        kept = trial.bank.load(direct.card.id, tiny_backbone)
        assert equal(direct, kept)
        assert direct.card.validation == kept.card.validation
        assert kept.card.method == "pot"
    direct = alone.outcome(PROMPT_TUNING)
    assert equal(direct, trial.bank.load(direct.card.id, tiny_backbone))
    assert len(trial.bank.ids()) == 3, "who stayed behind is not kept"
    assert sorted(path.name for path in trial.bank.folder.iterdir()) == trial.bank.ids(), "the states are removed"


def test_the_estimator_decides_where_validation_scores_do_not(trial_of):
    """Whatever source is promised much goes on, and is first in the end."""
    for place in range(5):
        trial = trial_of(None)
        promised = trial.sources[place].id
        result = race(trial, {promised: 100.0}, finalists=1)
        assert all(standings[0].prompt == promised for _, standings in result.rungs)
        assert result.finalists[0].id == promised


def test_finalists_stand_by_what_is_expected_of_them(trial_of):
    """The worse of two finalists by validation score is promised enough to come first."""
    plain = race(trial_of(None, count=2), finalists=2)
    second = plain.finalists[1].id
    promised = race(trial_of(None, count=2), {second: 100.0}, finalists=2)
    assert promised.finalists[0].id == second
    assert [at.prompt for at in promised.rungs[-1][1]][-1] is None


def test_no_transfer_runs_to_the_end_whatever_it_scores(trial_of):
    """Prompt tuning is at no rung compared with sources, and takes the place of none."""
    for finalists in (1, 4):
        result = race(trial_of(None), finalists=finalists)
        for _, standings in result.rungs[:-1]:
            assert None not in [at.prompt for at in standings]
        (none,) = [at for at in result.rungs[-1][1] if at.prompt is None]
        assert none.goes_on
        assert len(result.finalists) == max(finalists, 1)


def test_the_counted_cost_is_the_sum_over_runners_and_equals_the_planned(trial_of):
    trial = trial_of()
    result = race(trial, finalists=1)
    n_train, n_val, epochs = 32, 8, 8
    trainings = 2 * (epochs * n_train + (n_val + n_train) / 3)  # a finalist and no transfer, with their signatures
    behind = 2 * (2 * 16) + 1 * (4 * 16) + 1 * (8 * 16)  # 5 sources, of which 3, 2 and 1 go on
    looks = (5 + 3 + 2 + 1) * n_val / 3
    assert result.work == pytest.approx(trainings + behind + looks)
    planned = planned_cost(5, trial.options, n_train, n_val, finalists=1)
    assert planned == pytest.approx(result.work / (epochs * n_train))
    assert race(trial_of(), finalists=1).work == pytest.approx(result.work), "the same when the bank has the finalists"


@pytest.mark.parametrize("how", ["paper", "early stopping"])
def test_who_stays_behind_has_validated_its_epochs_too(how, trial_of):
    trial = trial_of()
    if how == "paper":
        trial.partition = replace(trial.partition, protocol="paper")
    else:
        trial.options = trial.options.model_copy(update={"early_stopping": 50})
    result = race(trial, finalists=1)
    n_train, n_val, epochs = 32, 8, 8
    trainings = 2 * (epochs * n_train + ((1 + epochs) * n_val + n_train) / 3)
    behind = 2 * (1 * n_train + 1 * n_val / 3) + (2 * n_train + 2 * n_val / 3) + (4 * n_train + 4 * n_val / 3)
    looks = (5 + 3 + 2 + 1) * n_val / 3
    assert result.work == pytest.approx(trainings + behind + looks)
    planned = planned_cost(5, trial.options, n_train, n_val, finalists=1, tracked=how == "paper")
    assert planned == pytest.approx(result.work / (epochs * n_train))


def test_a_race_repeats_and_another_seed_is_another_race(trial_of):
    one, two = race(trial_of("a")), race(trial_of("b"))
    assert (one.rungs, one.runs, one.work) == (two.rungs, two.runs, two.work)


def outcomes(bank, backbone):
    return {name: bank.load(name, backbone) for name in bank.ids()}


@pytest.mark.parametrize("stop_after", [1, 9, 17, 20, 26, 34, 45])
def test_a_race_that_was_interrupted_goes_on_from_its_last_rung_to_the_same_bits(stop_after, trial_of, tiny_backbone):
    whole = Listener()
    undisturbed = trial_of("undisturbed", progress=whole)
    leads = {source.id: 0.05 * place for place, source in enumerate(undisturbed.sources)}
    expected = race(undisturbed, leads, finalists=2)
    with pytest.raises(KeyboardInterrupt):
        race(trial_of("bank", progress=Listener(stop_after)), leads, finalists=2)
    again = Listener()
    trial = trial_of("bank", progress=again)
    # The last digits of an estimate depend on what went through the backbone beside it.
    result = race(trial, {name: lead + 1e-9 for name, lead in leads.items()}, finalists=2)
    assert (result.rungs, result.runs, result.work) == (expected.rungs, expected.runs, expected.work)
    found, same = outcomes(trial.bank, tiny_backbone), outcomes(undisturbed.bank, tiny_backbone)
    assert set(found) == set(same)
    assert all(equal(found[name], same[name]) for name in same)
    assert not (trial.bank.folder / ".races").exists()
    # At the first rung six have taken two steps each: from then on something is saved.
    assert (again.steps < whole.steps) == (stop_after > 12)


def test_a_damaged_state_is_told_and_the_race_begins_anew(trial_of, tmp_path):
    expected = race(trial_of(None), finalists=2)
    for damage in ("tensors", "numbers", "cut"):
        with pytest.raises(KeyboardInterrupt):
            race(trial_of(damage, progress=Listener(20)), finalists=2)
        (rung,) = (tmp_path / damage / ".races").glob("*/rung-*")
        if damage == "tensors":
            next(rung.glob("*.safetensors")).write_bytes(b"nothing")
        elif damage == "numbers":
            content = json.loads((rung / "race.json").read_text())
            del content["numbers"]["0"]["steps"]
            (rung / "race.json").write_text(json.dumps(content))
        else:
            (rung / "race.json").write_text("{")
        listener = Listener()
        result = race(trial_of(damage, progress=listener), finalists=2)
        assert any("is damaged; the race starts again" in note for note in listener.notes)
        assert (result.rungs, result.work) == (expected.rungs, expected.work)


def test_what_the_bank_has_is_not_trained_again(trial_of, sources):
    first = Listener()
    expected = race(trial_of(progress=first), finalists=2)
    again = Listener()
    result = race(trial_of(progress=again), finalists=2)
    assert (result.rungs, result.runs, result.work) == (expected.rungs, expected.runs, expected.work)
    assert again.steps == 5 * 2 + 3 * 2, "only the steps that are needed to compare: 5 sources to step 2, 3 to step 4"
    assert first.steps == 5 * 2 + 3 * 2 + 2 * 12 + 16
    two = Listener()
    race(trial_of(count=2), finalists=2)
    race(trial_of(count=2, progress=two), finalists=2)
    assert two.steps == 0, "with as many sources as finalists nothing is compared"


def test_a_source_whose_training_diverges_drops_out(trial_of):
    listener = Listener()
    trial = trial_of(progress=listener, count=3)
    broken = replace(
        trial.sources[0],
        prompt=replace(trial.sources[0].prompt, tensor=trial.sources[0].prompt.tensor * np.float32(1e38)),
        checksum="0" * 64,
    )
    result = race(replace(trial, sources=(broken, *trial.sources[1:]), cached={}), finalists=2)
    assert broken.id not in [source.id for source in result.finalists]
    assert len(result.finalists) == 2
    lost = race(replace(trial, sources=(broken,), cached={}, bank=None), finalists=1)
    assert lost.finalists == ()
    assert [at.prompt for at in lost.rungs[-1][1] if at.goes_on] == [None]


def test_a_race_without_finalists_is_refused(trial_of):
    with pytest.raises(PandaError, match="--finalists must be at least 1, found 0"):
        race(trial_of(), finalists=0)
