"""Trials, estimators and transfers: equal conditions, choices on validation, nothing trained twice."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import FAMILIES, sentiment_rows, task_of
from test_bank import foreign

from promptpanda.backbone import Backbone
from promptpanda.bank.bank import Bank
from promptpanda.bank.signature import Signature
from promptpanda.errors import PandaError
from promptpanda.progress import Silent
from promptpanda.tasks.encoding import encode
from promptpanda.tasks.protocol import partition
from promptpanda.tasks.task import Task
from promptpanda.training.options import TrainingOptions
from promptpanda.transfers.estimators import Cosine, TargetFeatures, estimates, estimators
from promptpanda.transfers.evaluate import evaluate, with_labels_of
from promptpanda.transfers.predict import predict
from promptpanda.transfers.ranking import rank
from promptpanda.transfers.transfer import train, transfer
from promptpanda.transfers.trial import DistillationOptions

OPTIONS = TrainingOptions(epochs=2, max_length=24, readout="mean")
SOURCE_OPTIONS = TrainingOptions(epochs=2, max_length=24, readout="mean", prompt_length=5)


@pytest.fixture
def bank(tiny_backbone, sentiment, tmp_path):
    """A bank with prompts of two tasks, one of them with seeds 0 and 1."""
    bank = Bank(tmp_path / "bank")
    for seed in (0, 1):
        train(sentiment("books", seed=5), tiny_backbone, bank=bank, options=SOURCE_OPTIONS, seed=seed)
    train(sentiment("films", seed=6), tiny_backbone, bank=bank, options=SOURCE_OPTIONS)
    return bank


class Notes(Silent):
    def __init__(self):
        self.said = []

    def note(self, message):
        self.said.append(message)


def tensors(result):
    return {
        (name, outcome.card.seed): outcome.prompt.tensor
        for name, method in result.methods.items()
        for outcome in method.outcomes
    }


def test_a_transfer_tries_all_methods_and_chooses_on_validation(bank, tiny_backbone, sentiment):
    result = transfer(
        sentiment(), "books", tiny_backbone, bank=bank, options=OPTIONS, train_examples=40, seeds=(0, 1, 2)
    )
    assert list(result.methods) == ["prompt_tuning", "pot", "panda"]
    assert (result.n_train, result.n_val, result.n_test) == (32, 8, 40)
    best = max(result.methods.values(), key=lambda m: (np.mean(m.validation), -m.validation_loss))
    assert result.methods[result.chosen] is best
    assert result.prompt.card.score == max(best.validation)
    for method in result.methods.values():
        assert method.std == pytest.approx(np.std(method.scores, ddof=1))
        assert method.mean == pytest.approx(np.mean(method.scores))
    assert set(result.transferability) == set(estimators())
    used = [outcome.card.sources[0].id for outcome in result.methods["pot"].outcomes]
    seeds = [bank_id.split("-s")[1][0] for bank_id in used]
    assert seeds == ["0", "1", "0"], "seed s takes the source of seed s, else of the lowest"
    assert {outcome.prompt.length for m in result.methods.values() for outcome in m.outcomes} == {5}
    # Three trainings; validation, signatures and what the teacher reads as forward passes; nothing else.
    forward = sum(m.outcomes[0].card.forward_examples for m in result.methods.values())
    assert forward == 3 * (8 + 32) + 32
    assert result.cost == pytest.approx(3 + forward / 3 / (2 * 32))


def test_resume_equals_uninterrupted_and_nothing_is_trained_twice(bank, tiny_backbone, sentiment):
    def run():
        return transfer(
            sentiment(), "books", tiny_backbone, bank=bank, options=OPTIONS, train_examples=40, seeds=(0, 1)
        )

    first = run()
    created = {path: path.stat().st_mtime_ns for path in bank.folder.rglob("*.safetensors")}
    second = run()
    assert {path: path.stat().st_mtime_ns for path in bank.folder.rglob("*.safetensors")} == created
    assert second.to_json() == first.to_json()
    # As if the process had been killed after the first method, with one prompt lost.
    for name in ("pot", "panda"):
        bank.remove(first.methods[name].outcomes[1].card.id)
    third = run()
    assert all(torch.equal(value, tensors(third)[key]) for key, value in tensors(first).items())
    assert third.methods["panda"].scores == first.methods["panda"].scores


def test_panda_with_coefficient_zero_is_prompt_tuning_to_the_bit(bank, tiny_backbone, sentiment):
    result = transfer(
        sentiment(),
        "films",
        tiny_backbone,
        bank=bank,
        options=OPTIONS,
        train_examples=40,
        distillation=DistillationOptions(coefficient="0"),
    )
    tuned, panda = (result.methods[name].outcomes[0] for name in ("prompt_tuning", "panda"))
    assert torch.equal(tuned.prompt.tensor, panda.prompt.tensor)
    assert torch.equal(tuned.head.weight, panda.head.weight)
    assert panda.card.distillation.coefficient == 0.0


def test_the_adaptive_coefficient_is_the_clipped_transferability(bank, tiny_backbone, sentiment):
    result = transfer(
        sentiment(),
        "films",
        tiny_backbone,
        bank=bank,
        options=OPTIONS,
        train_examples=40,
        methods=["panda"],
        distillation=DistillationOptions(scale=0.5, distance="kl", temperature=2.0),
    )
    card = result.methods["panda"].outcomes[0].card
    assert card.distillation.coefficient == pytest.approx(0.5 * np.clip(card.transferability["cosine"], 0, 1))
    assert (card.distillation.distance, card.distillation.temperature) == ("kl", 2.0)
    assert bank.load(card.distillation.teacher, tiny_backbone).card.method == "pot"


def test_pot_starts_from_the_source_prompt_and_a_fresh_head(bank, tiny_backbone, sentiment):
    source = bank.load("films", tiny_backbone)
    still = OPTIONS.model_copy(update={"epochs": 1, "lr": 1e-12})
    result = transfer(
        sentiment(),
        "films",
        tiny_backbone,
        options=still,
        bank=bank,
        train_examples=40,
        methods=["pot", "prompt_tuning"],
    )
    pot, tuned = (result.methods[name].outcomes[0] for name in ("pot", "prompt_tuning"))
    torch.testing.assert_close(pot.prompt.tensor, source.prompt.tensor)
    torch.testing.assert_close(pot.head.weight, tuned.head.weight)
    assert not torch.allclose(pot.head.weight, source.head.weight, atol=1e-3)


def test_best_is_the_top_of_the_ranking_and_the_target_itself_is_no_source(bank, tiny_backbone, sentiment):
    task = sentiment()
    train(task, tiny_backbone, bank=bank, options=SOURCE_OPTIONS)
    part = partition(task, train_examples=40, seed=0)
    view = TargetFeatures(tiny_backbone, encode(tiny_backbone, part.train.texts, 24))
    texts_alone = rank(task, tiny_backbone, bank, view)
    ranking = rank(task, tiny_backbone, bank, TargetFeatures.of(tiny_backbone, task, part, OPTIONS))
    for found, by in ((texts_alone, "cosine"), (ranking, "probe_shrunk")):
        assert {entry.task for entry in found} == {"books", "films"}
        assert len(found) == 3
        values = [entry.scores[by] for entry in found]
        assert values == sorted(values, reverse=True)
    result = transfer(
        task, "best", tiny_backbone, bank=bank, options=OPTIONS, train_examples=40, seeds=(0,), methods=["pot"]
    )
    assert result.source.split("-s")[0] == ranking[0].task


def test_training_reads_no_test_data(tiny_backbone, sentiment, tmp_path):
    task = sentiment()
    (tmp_path / "data" / "mood" / "test.jsonl").write_text("this is no JSON")
    train(task, tiny_backbone, options=OPTIONS)
    with pytest.raises(PandaError, match="Line 1 of .*test.jsonl"):
        task.test()


def test_a_wrong_test_label_is_found_before_anything_is_trained(bank, tiny_backbone, sentiment, tmp_path):
    task = sentiment()
    with (tmp_path / "data" / "mood" / "test.jsonl").open("a") as file:
        file.write('{"text": "the phone", "label": "odd"}\n')
    before = bank.ids()
    with pytest.raises(PandaError, match="Row 41 of test of task 'mood' has the label 'odd'"):
        transfer(task, "books", tiny_backbone, bank=bank, options=OPTIONS)
    assert bank.ids() == before


def test_without_test_data_validation_scores_are_reported(bank, tiny_backbone, sentiment):
    result = transfer(
        sentiment("alone", test=None), "books", tiny_backbone, bank=bank, options=OPTIONS, train_examples=40
    )
    assert result.n_test == 0
    for method in result.to_json()["methods"].values():
        assert method["scores"] is method["mean"] is method["std"] is None
        assert len(method["validation"]) == 1


def test_test_examples_cap_the_test_data_alike_for_all_methods(bank, tiny_backbone, sentiment):
    result = transfer(
        sentiment(), "books", tiny_backbone, bank=bank, options=OPTIONS, train_examples=40, test_examples=10
    )
    cards = [method.outcomes[0].card for method in result.methods.values()]
    assert {card.test.n_test for card in cards} == {10}
    assert len({card.test.data_fingerprint for card in cards}) == 1


def test_another_prompt_length_than_the_sources_is_refused(bank, tiny_backbone, sentiment):
    explicit = OPTIONS.model_copy(update={"prompt_length": 7})
    explicit = TrainingOptions(**explicit.model_dump())
    with pytest.raises(PandaError, match="--prompt-length 7 differs from the source .*, whose is 5"):
        transfer(sentiment(), "books", tiny_backbone, bank=bank, options=explicit, train_examples=40)


def test_a_foreign_source_transfers_and_says_what_it_lacks(bank, tiny_backbone, tiny_folder, sentiment, tmp_path):
    foreign(tiny_folder("bert"), tmp_path / "theirs")

    def run(coefficient, **options):
        return transfer(
            sentiment(),
            str(tmp_path / "theirs"),
            tiny_backbone,
            **options,
            bank=bank,
            options=OPTIONS,
            train_examples=40,
            distillation=DistillationOptions(coefficient=coefficient),
        )

    notes = Notes()
    result = run("adaptive", progress=notes)
    assert set(result.methods) == {"prompt_tuning", "pot"}
    assert any("panda is left out" in said and "--coefficient published" in said for said in notes.said)
    with pytest.raises(PandaError, match="signature.*give a number, or published"):
        run("adaptive", methods=["panda"])
    # The target's own texts serve what compares prompts or reads labels; under one prompt they are like themselves.
    assert set(result.transferability) >= {"probe_r2", "e_avg", "cosine_own", "on_own"}
    assert not {"cosine", "on"} & set(result.transferability)
    result = run("published")
    coefficient = result.methods["panda"].outcomes[0].card.distillation.coefficient
    assert coefficient == pytest.approx(0.1 * 0.1 / 16)


def test_the_paper_protocol_reports_the_best_epoch_on_official_validation(bank, tiny_backbone, sentiment, tmp_path):
    from conftest import sentiment_rows, write_jsonl

    task = sentiment()
    write_jsonl(tmp_path / "data" / "mood" / "validation.jsonl", sentiment_rows(30, 9))
    result = transfer(
        task, "books", tiny_backbone, bank=bank, options=OPTIONS, train_examples=40, protocol="paper", methods=["pot"]
    )
    assert (result.n_train, result.n_val, result.n_test, result.protocol) == (40, 30, 30, "paper")
    card = result.methods["pot"].outcomes[0].card
    assert card.score == max(epoch.validation["accuracy"] for epoch in card.curve)
    assert result.methods["pot"].scores == result.methods["pot"].validation


@pytest.mark.parametrize("kind", ["prefix", "shallow"])
@pytest.mark.parametrize("family", FAMILIES)
def test_signatures_equal_the_formulas(family, kind, load_tiny, sentiment):
    """Mean embedding and activated neurons recomputed text by text, without batches."""
    from promptpanda.prompts.prompt import Prompt, PromptStack

    backbone = load_tiny(family)
    prompt = Prompt.fresh(kind, backbone.shape, 3, 1.0, torch.Generator().manual_seed(0))
    encoded = encode(backbone, sentiment().train().texts[:6], 24)
    signature = Signature.of(backbone, prompt, encoded, examples=6)
    first = 3 if kind == "shallow" else 0
    activations = ("GELUActivation", "NewGELUActivation", "SiLU", "SiLUActivation")
    states, active = [], []
    for index in range(6):
        outputs = []
        hooks = [
            module.register_forward_hook(lambda _, __, output, into=outputs: into.append(output))
            for name, module in backbone.model.named_modules()
            if "pooler" not in name and type(module).__name__ in activations
        ]
        with torch.no_grad():
            layers = backbone.all_hidden(encoded.batch([index]), PromptStack.of([prompt]))
            last = backbone.hidden(encoded.batch([index]), PromptStack.of([prompt]))
        torch.testing.assert_close(layers[-1], last)
        assert len(layers) == backbone.shape.layers + 1
        states.append(torch.stack([torch.stack([layer[0].mean(0), layer[0, 0]]) for layer in layers]))
        for hook in hooks:
            hook.remove()
        assert len(outputs) == 2 * backbone.shape.layers
        outputs = outputs[: backbone.shape.layers]
        active.append(torch.stack([output.reshape(-1, output.shape[-1])[first] for output in outputs]))
    torch.testing.assert_close(signature.embeddings, torch.stack(states).mean(0), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(signature.task_embedding(-1, "first"), signature.embeddings[-1, 1])
    with pytest.raises(PandaError, match="--cosine-layer 9 is out of range"):
        signature.task_embedding(9, "mean")
    expected = torch.stack(active).mean(0)
    sure = expected.abs() > 1e-5
    assert torch.equal(signature.activated_neurons.view(expected.shape)[sure], (expected > 0)[sure])
    assert 0 < int(signature.activated_neurons.sum()) < signature.activated_neurons.numel()
    torch.testing.assert_close(signature.pooled_prompt, prompt.tensor.mean(-2).flatten())


def test_estimators_are_cosines_of_signatures(bank, tiny_backbone, sentiment):
    from promptpanda.bank.folder import SourcePrompt

    source = SourcePrompt.of(bank.load("books", tiny_backbone))
    view = TargetFeatures(tiny_backbone, encode(tiny_backbone, sentiment().train().texts, 24))
    view.own = bank.load("films", tiny_backbone).signature
    under = Signature.of(tiny_backbone, source.prompt, view.texts)
    a, b, own = source.signature, under, view.own

    def cosine(x, y):
        return float(F.cosine_similarity(x.double(), y.double(), dim=0))

    expected = {
        "cosine": cosine(a.embeddings[-1, 0], b.embeddings[-1, 0]),
        "on": cosine(a.activated_neurons, b.activated_neurons),
        "cosine_own": cosine(a.embeddings[-1, 0], own.embeddings[-1, 0]),
        "on_own": cosine(a.activated_neurons, own.activated_neurons),
        "e_avg": cosine(a.pooled_prompt, own.pooled_prompt),
    }
    assert estimates(source, view) == pytest.approx(expected)
    few = Signature.of(tiny_backbone, source.prompt, view.texts, examples=3)
    option = Cosine(layer=1, pooling="first", examples=3)
    assert option.score(source, view) == pytest.approx(cosine(a.embeddings[1, 1], few.embeddings[1, 1]))
    view.own = source.signature
    for name in ("cosine_own", "on_own", "e_avg"):
        assert estimators()[name].score(source, view) == pytest.approx(1.0)


def test_a_task_is_its_own_nearest_neighbour(tiny_backbone, sentiment, bank):
    """The same texts under the same prompt: similarity 1."""
    from promptpanda.bank.folder import SourcePrompt

    trained = bank.load("books", tiny_backbone)
    part = partition(sentiment("books", seed=5), seed=trained.card.seed)
    view = TargetFeatures(tiny_backbone, encode(tiny_backbone, part.train.texts, 24))
    assert Cosine().score(SourcePrompt.of(trained), view) == pytest.approx(1.0, abs=1e-6)


def test_predictions_agree_with_scores(bank, tiny_backbone, sentiment):
    trained, test = bank.load("books", tiny_backbone), sentiment().test()
    predictions = predict(trained, tiny_backbone, test.texts)
    assert all(sum(row["probabilities"].values()) == pytest.approx(1.0) for row in predictions)
    assert all(row["label"] == max(row["probabilities"], key=row["probabilities"].get) for row in predictions)
    right = np.mean(
        [row["label"] == ("good", "bad")[label] for row, label in zip(predictions, test.labels, strict=True)]
    )
    assert evaluate(trained, tiny_backbone, sentiment(), test)["accuracy"] == pytest.approx(right)
    turned = sentiment(labels=["bad", "good"])
    assert evaluate(trained, tiny_backbone, turned, turned.test())["accuracy"] == pytest.approx(right)
    nameless = sentiment(labels=[])
    assert with_labels_of(trained.card, Task(nameless.spec, nameless.data_dir)).labels == ("good", "bad")
    with pytest.raises(PandaError, match="predicts 'good', 'bad', but task 'mood' has 'yes', 'no'"):
        with_labels_of(trained.card, sentiment(labels=["yes", "no"]))
    with pytest.raises(PandaError, match="Text 2 is empty"):
        predict(trained, tiny_backbone, ["a phone", "  "])
    with pytest.raises(PandaError, match="Text 1 has 2 segments"):
        predict(trained, tiny_backbone, [("a", "b")])


def test_an_empty_bank_is_said_to_be_empty(tiny_backbone, sentiment, tmp_path):
    empty = Bank(tmp_path / "none")
    with pytest.raises(PandaError, match="holds no prompt.*panda train"):
        transfer(sentiment(), "best", tiny_backbone, bank=empty, options=OPTIONS, train_examples=40)
    with pytest.raises(PandaError, match="which is empty"):
        transfer(sentiment(), "books", tiny_backbone, bank=empty, options=OPTIONS, train_examples=40)


def test_estimators_are_symmetric(bank, tiny_backbone, sentiment):
    """Two prompts compared on the same texts are as near to each other from either side."""
    from promptpanda.bank.folder import SourcePrompt

    encoded = encode(tiny_backbone, sentiment().train().texts, 24)
    first, second = (bank.load(name, tiny_backbone) for name in ("books", "films"))

    def score(estimator, source, own):
        return estimator.score(SourcePrompt.of(source), TargetFeatures(tiny_backbone, encoded, own.signature))

    for name, estimator in estimators().items():
        if estimator.needs_target_prompt:
            assert score(estimator, first, second) == pytest.approx(score(estimator, second, first), abs=1e-12), name
            assert score(estimator, first, second) < 1.0


@pytest.mark.parametrize("reference", ["id", "path"])
def test_an_id_and_a_path_mean_that_prompt_for_every_seed(reference, bank, tiny_backbone, sentiment):
    (prompt_id,) = (name for name in bank.ids() if name.startswith("books-s0"))
    source = prompt_id if reference == "id" else str(bank.folder / prompt_id)
    result = transfer(
        sentiment(), source, tiny_backbone, bank=bank, options=OPTIONS, train_examples=40, seeds=(0, 1), methods=["pot"]
    )
    used = [outcome.card.sources[0].id for outcome in result.methods["pot"].outcomes]
    assert used == [prompt_id, prompt_id]


def test_another_metric_is_computed_for_prompts_that_the_bank_has_already(bank, tiny_backbone, sentiment):
    def run(metric, **given):
        return transfer(
            sentiment(metrics=[metric]), "books", tiny_backbone, options=OPTIONS, methods=["pot"], **given
        ).methods["pot"]

    untouched = Bank(shutil.copytree(bank.folder, bank.folder.parent / "untouched"))
    run("accuracy", bank=bank)
    again = run("macro_f1", bank=bank)
    fresh = run("macro_f1", bank=untouched)
    assert again.scores == fresh.scores
    assert again.validation == fresh.validation


def test_renamed_classes_are_not_predicted_by_their_old_names(tiny_backbone, tmp_path):
    """The same texts and the same order of classes, but other names: the bank's prompt is not the one asked for."""
    bank, rows = Bank(tmp_path / "bank"), sentiment_rows(40)
    train(task_of(rows, tmp_path), tiny_backbone, bank=bank, options=OPTIONS)
    renamed = [row | {"label": {"good": "up", "bad": "down"}[row["label"]]} for row in rows]
    trained = train(task_of(renamed, tmp_path), tiny_backbone, bank=bank, options=OPTIONS)
    assert trained.card.labels == ("down", "up")


def test_another_automatic_readout_is_another_training(tiny_backbone, tiny_folder, sentiment, tmp_path):
    """Two folders with equal weights, of which one says how sentences are pooled."""
    folder = shutil.copytree(tiny_folder("bert"), tmp_path / "sentence")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    options = OPTIONS.model_copy(update={"readout": "auto"})
    bank = Bank(tmp_path / "bank")
    readouts = [
        train(sentiment(), backbone, bank=bank, options=options).card.readout
        for backbone in (tiny_backbone, Backbone.load(str(folder)))
    ]
    assert readouts == ["pooler", "cls"]


@pytest.mark.parametrize("coefficient", ["much", "-1", "adaptive"])
def test_a_coefficient_that_cannot_be_is_found_before_anything_is_trained(
    coefficient, bank, tiny_backbone, tiny_folder, sentiment, tmp_path
):
    foreign(tiny_folder("bert"), tmp_path / "theirs")  # without a signature, so not for `adaptive`
    before = bank.ids()
    with pytest.raises(PandaError, match="--coefficient"):
        transfer(
            sentiment(),
            str(tmp_path / "theirs"),
            tiny_backbone,
            bank=bank,
            options=OPTIONS,
            train_examples=40,
            methods=["pot", "panda"],
            distillation=DistillationOptions(coefficient=coefficient),
        )
    assert bank.ids() == before
