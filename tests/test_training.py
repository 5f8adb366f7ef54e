"""Training: repeatable to the bit, what distillation adds, and what is kept when it goes wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import write_jsonl

from promptpanda.backbone import Backbone
from promptpanda.errors import PandaError
from promptpanda.prompts.prompt import Prompt, PromptStack
from promptpanda.prompts.trainable import ReparameterizedPrompt
from promptpanda.tasks.encoding import Layout, encode
from promptpanda.tasks.protocol import partition
from promptpanda.tasks.spec import Kind, TaskSpec
from promptpanda.tasks.task import Task
from promptpanda.training.batching import shuffled_batches
from promptpanda.training.distillation import Distillation, check_distance, coefficient_value
from promptpanda.training.heads import Head
from promptpanda.training.inference import Data, predict_outputs, score
from promptpanda.training.loop import Training
from promptpanda.training.objectives.kinds import objective_for
from promptpanda.training.objectives.sequence import Classification
from promptpanda.training.options import TrainingOptions

FAST = {"epochs": 3, "prompt_length": 4, "max_length": 24, "readout": "mean", "lr": 3e-2}


@pytest.fixture
def data(tiny_backbone, sentiment):
    task = sentiment()
    part = partition(task, seed=0)

    def of(split):
        return Data(encode(tiny_backbone, split.texts, 24), split, task.spec, task.labels)

    return of(part.train), of(part.validation), objective_for(task.spec, 2, part.train.labels)


def equal(a, b):
    return torch.equal(a.prompt.tensor, b.prompt.tensor) and torch.equal(a.head.weight, b.head.weight)


def test_a_seed_repeats_to_the_bit_and_another_differs(tiny_backbone, data):
    train, validation, objective = data
    options = TrainingOptions(**FAST)
    first = Training(tiny_backbone, train, validation, objective, options, seed=3).run()
    torch.rand(5)  # the global generator plays no part
    assert equal(first, Training(tiny_backbone, train, validation, objective, options, seed=3).run())
    assert not equal(first, Training(tiny_backbone, train, validation, objective, options, seed=4).run())


def test_it_learns_and_the_backbone_does_not_change(tiny_backbone, data):
    train, validation, objective = data
    before = {name: tensor.clone() for name, tensor in tiny_backbone.model.state_dict().items()}
    fitted = Training(
        tiny_backbone, train, validation, objective, TrainingOptions(**FAST | {"epochs": 20}), seed=0
    ).run()
    after = tiny_backbone.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert fitted.curve[-1].train_loss < 0.5 * fitted.curve[0].train_loss
    assert score(tiny_backbone, fitted.prompt, fitted.head, train, objective)["accuracy"] > 0.95
    assert fitted.example_steps == 20 * len(train)


def test_gradient_checkpointing_trains_to_the_same_bits(tiny_backbone, data):
    train, validation, objective = data
    plain = Training(tiny_backbone, train, validation, objective, TrainingOptions(**FAST), seed=0).run()
    saved = Training(
        tiny_backbone, train, validation, objective, TrainingOptions(**FAST, gradient_checkpointing=True), seed=0
    ).run()
    tiny_backbone.set_gradient_checkpointing(False)
    assert equal(plain, saved)


def test_gradient_checkpointing_leaves_the_model_as_it_was(tiny_folder, data):
    train, validation, objective = data
    backbone = Backbone.load(str(tiny_folder("bert")))
    Training(backbone, train, validation, objective, TrainingOptions(**FAST, gradient_checkpointing=True), seed=0).run()
    assert not backbone.model.get_input_embeddings()(torch.ones(1, 2, dtype=torch.long)).requires_grad
    assert not any(module.training for module in backbone.model.modules())


def test_bf16_trains_close_to_full_precision(tiny_backbone, data):
    train, validation, objective = data
    options = TrainingOptions(**FAST, dropout=0.0)
    full = Training(tiny_backbone, train, validation, objective, options, seed=0).run()
    options = TrainingOptions(**FAST, dropout=0.0, precision="bf16")
    half = Training(tiny_backbone, train, validation, objective, options, seed=0).run()
    assert not equal(full, half)
    assert half.curve[-1].train_loss == pytest.approx(full.curve[-1].train_loss, abs=0.1)


@pytest.mark.parametrize("kind", ["prefix", "shallow"])
def test_a_reparameterised_prompt_folds_to_the_same_outputs(kind, tiny_backbone, data):
    train, validation, objective = data
    options = TrainingOptions(**FAST, reparameterize=16, prompt_kind=kind)
    fitted = Training(tiny_backbone, train, validation, objective, options, seed=0).run()
    assert fitted.prompt.fits(tiny_backbone.shape)
    assert fitted.curve[-1].train_loss < fitted.curve[0].train_loss
    start = Prompt.fresh(kind, tiny_backbone.shape, 4, 1.0, torch.Generator().manual_seed(0))
    module = ReparameterizedPrompt(start, 32, 16, torch.Generator().manual_seed(0))
    tokens = module.mlp(module.embedding)  # (V, everything of one virtual token)
    for position in range(4):
        torch.testing.assert_close(module().select(-2, position).flatten(), tokens[position])


def test_init_std_scales_the_fresh_prompt(tiny_backbone):
    draws = [
        Prompt.fresh("prefix", tiny_backbone.shape, 50, std, torch.Generator().manual_seed(0)) for std in (1.0, 0.02)
    ]
    torch.testing.assert_close(draws[0].tensor * 0.02, draws[1].tensor)
    assert draws[0].tensor.std() == pytest.approx(1.0, abs=0.03)


def test_early_stopping_keeps_the_best_epoch(tiny_backbone, data):
    train, validation, objective = data
    options = TrainingOptions(**FAST | {"epochs": 30}, early_stopping=3)
    fitted = Training(tiny_backbone, train, validation, objective, options, seed=0).run()
    scores = [epoch.validation["accuracy"] for epoch in fitted.curve]
    assert len(scores) < 30
    assert scores.index(max(scores)) == len(scores) - 4
    assert fitted.validation == fitted.curve[-4].validation


def test_best_epoch_runs_to_the_end(tiny_backbone, data):
    train, validation, objective = data
    fitted = Training(
        tiny_backbone, train, validation, objective, TrainingOptions(**FAST), seed=0, best_epoch=True
    ).run()
    assert len(fitted.curve) == 3
    assert fitted.validation["accuracy"] == max(epoch.validation["accuracy"] for epoch in fitted.curve)


def test_coefficient_zero_is_no_distillation_to_the_bit(tiny_backbone, data):
    train, validation, objective = data
    options = TrainingOptions(**FAST)
    teacher = torch.randn(len(train), 2)
    plain = Training(tiny_backbone, train, validation, objective, options, seed=0).run()
    zero = Training(
        tiny_backbone, train, validation, objective, options, seed=0, distillation=Distillation(teacher, 0.0)
    ).run()
    half = Training(
        tiny_backbone, train, validation, objective, options, seed=0, distillation=Distillation(teacher, 0.5)
    ).run()
    assert equal(plain, zero)
    assert not equal(plain, half)


def test_a_strong_teacher_is_followed_example_by_example(tiny_backbone, data):
    """The cached outputs reach the right examples although batches are shuffled and sorted by length."""
    train, validation, objective = data
    flipped = torch.nn.functional.one_hot(torch.from_numpy(1 - train.split.labels), 2).float() * 8 - 4
    options = TrainingOptions(**FAST | {"epochs": 20})
    distillation = Distillation(flipped, coefficient=10.0)
    fitted = Training(tiny_backbone, train, validation, objective, options, seed=0, distillation=distillation).run()
    assert score(tiny_backbone, fitted.prompt, fitted.head, train, objective)["accuracy"] < 0.1


def test_distances_equal_their_formulas():
    logits, teacher = torch.randn(2, 7, 3, generator=torch.Generator().manual_seed(0))
    everything = torch.arange(7)
    layout, objective = Layout(everything, everything, everything), Classification(3)
    mse = Distillation(teacher, 0.3).loss(logits, teacher, objective, layout)
    assert float(mse) == pytest.approx(0.3 * float(((logits - teacher) ** 2).sum()) / 21)
    temperature = 2.0

    def probabilities(values):
        shifted = np.exp(values.numpy() / temperature)
        return shifted / shifted.sum(1, keepdims=True)

    p, q = probabilities(teacher), probabilities(logits)
    by_hand = 0.3 * temperature**2 * float((p * (np.log(p) - np.log(q))).sum()) / 7
    kl = Distillation(teacher, 0.3, "kl", temperature).loss(logits, teacher, objective, layout)
    assert float(kl) == pytest.approx(by_hand, rel=1e-5)
    with pytest.raises(PandaError, match="regression"):
        check_distance("kl", Kind.REGRESSION)


@pytest.mark.parametrize(
    ("rule", "value"), [("published", 0.1 * 0.1 / 16), ("adaptive", 0.5 * 0.8), ("0.25", 0.25), ("0", 0.0)]
)
def test_coefficients(rule, value):
    given = {"scale": 0.5, "beta": 0.1, "batch_size": 16}
    assert coefficient_value(rule, transferability=0.8, **given) == pytest.approx(value)
    assert coefficient_value("adaptive", transferability=-0.3, **given) == 0.0
    assert coefficient_value("adaptive", transferability=1.3, **given) == 0.5
    for wrong in ("-1", "nan", "inf", "much"):
        with pytest.raises(PandaError, match="--coefficient"):
            coefficient_value(wrong, transferability=0.8, **given)
    with pytest.raises(PandaError, match="signature"):
        coefficient_value("adaptive", transferability=None, **given)


def test_regression_learns_in_any_unit_and_predicts_in_it(tiny_backbone, tmp_path):
    rows = [
        {"text": " ".join(["good"] * count + ["bad"] * (6 - count)), "label": 1000.0 + 50.0 * count}
        for _ in range(8)
        for count in range(7)
    ]
    write_jsonl(tmp_path / "price" / "train.jsonl", rows)
    spec = {"name": "price", "kind": "regression", "segments": ["{text}"], "metrics": ["pearson_spearman"]}
    task = Task(TaskSpec.parse(spec, "a test"), tmp_path)
    split = task.train()
    objective = objective_for(task.spec, 0, split.labels)
    data = Data(encode(tiny_backbone, split.texts, 24), split, task.spec, ())
    fitted = Training(tiny_backbone, data, data, objective, TrainingOptions(**FAST | {"epochs": 20}), seed=0).run()
    values = predict_outputs(tiny_backbone, fitted.prompt, fitted.head, data.encoded)[:, 0]
    assert np.abs(values - split.labels).mean() < 40
    assert fitted.validation["pearson_spearman"] > 0.9
    assert fitted.validation["loss"] == pytest.approx(
        np.mean(((values - split.labels) / split.labels.std()) ** 2), rel=1e-3
    )


def test_a_loss_that_is_never_finite_keeps_nothing_and_says_what_to_change(tiny_backbone, data):
    train, validation, objective = data
    broken = Distillation(torch.full((len(train), 2), float("nan")), 1.0)
    with pytest.raises(PandaError, match="loss became nan in epoch 1 of 3.*lower --lr"):
        Training(
            tiny_backbone, train, validation, objective, TrainingOptions(**FAST), seed=0, distillation=broken
        ).run()


def test_a_training_that_breaks_later_keeps_the_last_sound_prompt(tiny_backbone, data):
    """Steps of an absurd length: the first leaves huge but finite numbers, of the second nothing is left."""
    train, validation, objective = data
    absurd = FAST | {"lr": 1e14, "batch_size": 64}
    fitted = Training(
        tiny_backbone, train, validation, objective, TrainingOptions(**absurd | {"epochs": 6}), seed=0
    ).run()
    assert "no longer finite in epoch 2 of 6" in fitted.diverged
    assert len(fitted.curve) == 1
    assert all(np.isfinite(value) for value in fitted.validation.values())
    # The first step's learning rate does not depend on the number of epochs, so this is the prompt after epoch 1.
    assert equal(
        fitted,
        Training(tiny_backbone, train, validation, objective, TrainingOptions(**absurd | {"epochs": 1}), seed=0).run(),
    )


def test_batches_hold_every_example_once_and_pad_less():
    lengths = np.random.default_rng(0).integers(3, 60, size=333)
    batches = shuffled_batches(lengths, 16, np.random.default_rng(1))
    assert sorted(np.concatenate(batches)) == list(range(333))
    assert {len(batch) for batch in batches} <= {16, 333 % 16}
    assert all(
        np.array_equal(a, b)
        for a, b in zip(batches, shuffled_batches(lengths, 16, np.random.default_rng(1)), strict=True)
    )
    other = shuffled_batches(lengths, 16, np.random.default_rng(2))
    assert any(not np.array_equal(a, b) for a, b in zip(batches, other, strict=True))
    padded = sum(len(batch) * lengths[batch].max() for batch in batches)
    mixed = np.random.default_rng(3).permutation(333)
    unsorted = sum(16 * lengths[mixed[start : start + 16]].max() for start in range(0, 333, 16))
    assert padded < 0.7 * unsorted


def test_evaluation_uses_no_dropout(tiny_backbone, data):
    train = data[0]
    prompt = Prompt.fresh("prefix", tiny_backbone.shape, 4, 1.0, torch.Generator().manual_seed(0))
    head = Head(torch.ones(2, 32), None, "mean")
    assert np.array_equal(*(predict_outputs(tiny_backbone, prompt, head, train.encoded) for _ in range(2)))
    assert PromptStack.of([prompt]).dropout == 0.0


def test_a_learning_rate_that_breaks_the_first_epoch_names_lr(tiny_backbone, data):
    train, validation, objective = data
    options = TrainingOptions(**FAST | {"lr": 1e30})
    with pytest.raises(PandaError, match=r"nan in epoch 1 of 3 .*with no valid epoch before it; lower --lr .*1e\+30"):
        Training(tiny_backbone, train, validation, objective, options, seed=0).run()


def test_a_finite_prompt_with_outputs_that_are_not_is_diverged_too(tiny_backbone, data):
    """One step of an absurd length: the parameters are finite, but nothing that they compute is."""
    train, validation, objective = data
    options = TrainingOptions(**FAST | {"epochs": 1, "lr": 1e20, "batch_size": 64})
    with pytest.raises(PandaError, match="lower --lr"):
        Training(tiny_backbone, train, validation, objective, options, seed=0).run()


def test_a_separable_task_is_learnt_by_heart(tiny_backbone, data):
    train, validation, objective = data
    options = TrainingOptions(**FAST | {"epochs": 40, "dropout": 0.0})
    fitted = Training(tiny_backbone, train, validation, objective, options, seed=0).run()
    majority = max(np.bincount(train.split.labels)) / len(train)
    assert score(tiny_backbone, fitted.prompt, fitted.head, train, objective)["accuracy"] == 1.0 > majority


def test_the_best_epochs_prompt_is_the_one_that_is_returned(tiny_backbone, data):
    """Scored again from its tensors, it has the highest validation score of the curve."""
    train, validation, objective = data
    options = TrainingOptions(**FAST | {"epochs": 8, "lr": 0.3})
    fitted = Training(tiny_backbone, train, validation, objective, options, seed=1, best_epoch=True).run()
    scores = [epoch.validation["accuracy"] for epoch in fitted.curve]
    assert min(scores) < max(scores), "all epochs are alike, so this shows nothing"
    assert score(tiny_backbone, fitted.prompt, fitted.head, validation, objective) == fitted.validation
    assert fitted.validation == fitted.curve[scores.index(max(scores))].validation
