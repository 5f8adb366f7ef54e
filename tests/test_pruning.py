"""Pruning: halves of the target's examples, read one after the other, and what that takes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from kinds import KINDS, kind_task

from promptpanda.bank.folder import SourcePrompt
from promptpanda.progress import Silent
from promptpanda.tasks.protocol import partition
from promptpanda.training.defaults import settled
from promptpanda.training.options import TrainingOptions
from promptpanda.transfers import pruning
from promptpanda.transfers.estimators import Cosine, TargetFeatures
from promptpanda.transfers.pruning import HALVED, planned_reading, prune
from promptpanda.transfers.transfer import train

OPTIONS = TrainingOptions(epochs=1, max_length=24, readout="mean", prompt_length=3)


def target_of(backbone, task, **options):
    part = partition(task, seed=0)
    settings = settled(OPTIONS.model_copy(update=options), task.kind, part.train, backbone)
    return TargetFeatures.of(backbone, task, part, settings)


@pytest.fixture
def sources(tiny_backbone, sentiment):
    """As many prompts as are halved, each of a task of its own."""
    found = []
    for seed in range(HALVED):
        source = SourcePrompt.of(train(sentiment(f"task{seed}", seed=seed), tiny_backbone, options=OPTIONS, seed=seed))
        found.append(source)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_halves_have_every_example_once_and_join_to_the_whole(kind, tiny_backbone, tmp_path, sentiment):
    task = kind_task(kind, tmp_path)
    source = SourcePrompt.of(train(sentiment("films", seed=5), tiny_backbone, options=OPTIONS))
    whole, parts = (target_of(tiny_backbone, task, max_length=32) for _ in range(2))
    halves = parts.halves()
    owners = [set(half.readings.owner.tolist()) for half in halves]
    assert not owners[0] & owners[1]
    assert owners[0] | owners[1] == set(whole.readings.owner.tolist())
    assert len(owners[0]) - len(owners[1]) in (0, 1)
    parts.join(halves, [source])
    np.testing.assert_allclose(parts.vectors(source), whole.vectors(source), atol=1e-4)


def test_pairs_that_are_read_apart_too(tiny_backbone, tmp_path, sentiment):
    task = kind_task("pair_classification", tmp_path)
    source = SourcePrompt.of(train(sentiment("films", seed=5), tiny_backbone, options=OPTIONS))
    whole, parts = (target_of(tiny_backbone, task, readout="compare") for _ in range(2))
    parts.join(parts.halves(), [source])
    np.testing.assert_allclose(parts.vectors(source), whole.vectors(source), atol=1e-4)


def test_the_better_half_goes_on_and_is_scored_as_without_halving(tiny_backbone, sentiment, sources, monkeypatch):
    target = target_of(tiny_backbone, sentiment())
    found = prune(sources, target, Cosine(), 4, Silent())
    assert len(found.scores) == HALVED // 2
    assert found.work == planned_reading(HALVED, len(target.texts)) / 3
    monkeypatch.setattr(pruning, "HALVED", HALVED + 1)
    everything = prune(sources, target_of(tiny_backbone, sentiment()), Cosine(), 4, Silent())
    assert len(everything.scores) == HALVED
    assert everything.work > found.work
    for name, score in found.scores.items():
        assert score == pytest.approx(everything.scores[name], abs=1e-4)
    dropped = [everything.scores[name] for name in everything.scores.keys() - found.scores.keys()]
    assert np.mean(dropped) < np.mean(list(found.scores.values()))
    assert found.no_transfer == pytest.approx(everything.no_transfer, abs=1e-6)


def test_questions_count_once_however_many_choices_they_have(tiny_backbone, tmp_path, sources):
    target = target_of(tiny_backbone, kind_task("multiple_choice", tmp_path), max_length=32)
    assert len(target.texts.input_ids) > len(target.texts)
    found = prune(sources, target, Cosine(), 4, Silent())
    assert found.work == pytest.approx(planned_reading(HALVED, len(target.texts)) / 3)


def test_one_label_alone_leaves_the_choice_to_another_estimator(tiny_backbone, sentiment, sources, tmp_path):
    task = sentiment()
    part = partition(task, seed=0)
    target = TargetFeatures.of(tiny_backbone, task, part, settled(OPTIONS, task.kind, part.train, tiny_backbone))
    alike = np.zeros_like(target.readings.labels)
    object.__setattr__(target.readings, "labels", alike)
    found = prune(sources, target, Cosine(), 4, Silent())
    assert found.estimator not in (None, "probe_shrunk")
    assert len(found.survivors) == 4


def test_what_overflows_in_either_half_is_left_out(tiny_backbone, sentiment, sources):
    broken = sources[0]
    object.__setattr__(broken.prompt, "tensor", torch.full_like(broken.prompt.tensor, 1e38))
    notes = []

    class Listener(Silent):
        def note(self, message):
            notes.append(message)

    found = prune(sources, target_of(tiny_backbone, sentiment()), Cosine(), 4, Listener())
    assert broken.id not in found.scores
    assert any(broken.id in note and "not finite" in note for note in notes)


def test_few_prompts_are_read_whole():
    assert planned_reading(0, 64) == 0
    assert planned_reading(HALVED - 1, 64) == HALVED * 64
    assert planned_reading(30, 64) == 30 * 32 + 15 * 32 + 64
    assert planned_reading(17, 7) == 17 * 4 + 9 * 3 + 7


def test_no_prompt_gives_nothing():
    assert prune([], None, Cosine(), 4, Silent()).survivors == ()  # the target is not even looked at
