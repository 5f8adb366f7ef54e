"""Several sources at once: weights by their formula, fusions of one source equal transfers, teachers are shared."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import sentiment_rows, write_jsonl
from kinds import kind_task
from scipy.special import softmax
from test_bank import foreign

from promptpanda.bank.bank import Bank
from promptpanda.bank.card import Card, SourceCard
from promptpanda.bank.folder import SourcePrompt, read_source
from promptpanda.errors import PandaError
from promptpanda.files import digest
from promptpanda.tasks.protocol import partition
from promptpanda.training.distillation import Distillation
from promptpanda.training.inference import predict_outputs
from promptpanda.training.options import TrainingOptions
from promptpanda.transfers.fusion import fused_outputs, fused_prompt, fusion_weights
from promptpanda.transfers.method import options_used
from promptpanda.transfers.methods import (
    EARLY_FUSION,
    LATE_FUSION,
    PANDA,
    POT,
    PROMPT_TUNING,
)
from promptpanda.transfers.transfer import train, transfer
from promptpanda.transfers.trial import DistillationOptions, Trial
from promptpanda.version import __version__

OPTIONS = TrainingOptions(epochs=2, max_length=24, readout="mean", prompt_length=5)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def bank(tiny_backbone, sentiment, tmp_path):
    """A bank with the prompts of three tasks."""
    bank = Bank(tmp_path / "bank")
    for name, seed in (("books", 5), ("films", 6), ("songs", 7)):
        train(sentiment(name, seed=seed), tiny_backbone, bank=bank, options=OPTIONS)
    return bank


@pytest.fixture
def sources(bank, tiny_backbone):
    return {name: SourcePrompt.of(bank.load(name, tiny_backbone)) for name in ("books", "films", "songs")}


@pytest.fixture
def trial_of(tiny_backbone, sentiment):
    task = sentiment()
    part = partition(task, train_examples=40, seed=0)

    def trial(*sources, **changes):
        options = changes.pop("options", OPTIONS)
        return Trial(tiny_backbone, task, part, options, 0, sources, **changes)

    return trial


def same(one, other):
    return torch.equal(one.prompt.tensor, other.prompt.tensor) and torch.equal(one.head.weight, other.head.weight)


def test_weights_are_the_softmax_of_standardised_scores():
    scores = [0.91, 0.62, 0.75, 0.70]
    z = (np.asarray(scores) - np.mean(scores)) / np.std(scores)
    np.testing.assert_allclose(fusion_weights(scores), softmax(z), rtol=1e-12)
    assert fusion_weights(scores).sum() == pytest.approx(1.0)
    # Nearer than 0.02 to each other: in units of that, so that nearly equal scores have nearly equal weights.
    near = [0.900, 0.904]
    np.testing.assert_allclose(fusion_weights(near), softmax(np.asarray(near) / 0.02), rtol=1e-9)
    np.testing.assert_array_equal(fusion_weights([0.3, 0.3, 0.3]), np.full(3, 1 / 3))
    np.testing.assert_array_equal(fusion_weights([0.3, None, 0.9]), np.full(3, 1 / 3))
    np.testing.assert_array_equal(fusion_weights([-2.5]), [1.0])
    np.testing.assert_array_equal(fusion_weights([0.5, 0.7]), fusion_weights([0.500001, 0.700001]))
    with pytest.raises(ValueError, match="no source"):
        fusion_weights([])


def test_fused_prompts_and_outputs_are_weighted_means(sources):
    some = [sources["books"], sources["films"]]
    weights = np.asarray([0.75, 0.25])
    mean = 0.75 * some[0].prompt.tensor + 0.25 * some[1].prompt.tensor
    torch.testing.assert_close(fused_prompt(some, weights).tensor, mean)
    assert fused_prompt(some[:1], np.ones(1)) is some[0].prompt
    outputs = [np.random.default_rng(seed).normal(size=(4, 3, 2)).astype(np.float32) for seed in (0, 1)]
    np.testing.assert_allclose(fused_outputs(outputs, weights), 0.75 * outputs[0] + 0.25 * outputs[1], rtol=1e-6)


def test_prompts_of_two_shapes_are_not_averaged(bank, sources, sentiment, tiny_backbone, trial_of):
    longer = TrainingOptions(**OPTIONS.model_dump() | {"prompt_length": 7})
    other = SourcePrompt.of(train(sentiment("plays", seed=8), tiny_backbone, bank=bank, options=longer))
    trial = trial_of(sources["books"], other)
    message = "prompt of 7.*prompt of 5|prompt of 5.*prompt of 7"
    with pytest.raises(PandaError, match=message):
        trial.check(EARLY_FUSION)
    with pytest.raises(PandaError, match=message):
        trial.outcome(EARLY_FUSION)
    before = bank.ids()
    with pytest.raises(PandaError, match="only prompts of one kind and length can be averaged"):
        transfer(
            sentiment(),
            "books,plays",
            tiny_backbone,
            bank=bank,
            options=TrainingOptions(epochs=1, max_length=24, readout="mean"),
            methods=["early_fusion"],
            train_examples=40,
        )
    assert bank.ids() == before, "found out before anything is trained"
    # Teachers of any length can teach together: outputs are averaged, not prompts.
    assert trial.outcome(LATE_FUSION).prompt.length == 5
    assert [one.prompt.length for one in trial.teachers(LATE_FUSION)] == [
        source.prompt.length for source in trial.sources_of(LATE_FUSION)
    ]


def test_fusions_of_one_source_are_pot_and_panda_to_the_bit(sources, trial_of):
    trial = trial_of(sources["films"])
    assert same(trial.outcome(EARLY_FUSION), trial.outcome(POT))
    assert same(trial.outcome(LATE_FUSION), trial.outcome(PANDA))
    assert (
        trial.outcome(LATE_FUSION).card.distillation.coefficient == trial.outcome(PANDA).card.distillation.coefficient
    )
    assert not same(trial.outcome(POT), trial.outcome(PANDA))


def test_early_fusion_starts_from_the_mean_of_the_prompts(sources, trial_of):
    still = OPTIONS.model_copy(update={"epochs": 1, "lr": 1e-12})
    trial = trial_of(*sources.values(), options=still)
    ordered = sorted(sources.values(), key=lambda source: source.checksum)
    scores = [trial_of(source).transferability["cosine"] for source in ordered]
    weights = fusion_weights(scores)
    mean = sum(weight * source.prompt.tensor for weight, source in zip(weights, ordered, strict=True))
    outcome = trial.outcome(EARLY_FUSION)
    torch.testing.assert_close(outcome.prompt.tensor, mean.float())
    assert [one.id for one in outcome.card.sources] == [source.id for source in ordered]
    assert [one.weight for one in outcome.card.sources] == pytest.approx(list(weights))


def test_late_fusion_learns_from_the_mean_of_the_teachers_outputs(sources, trial_of, tiny_backbone):
    trial = trial_of(sources["books"], sources["films"])
    ordered = trial.sources_of(LATE_FUSION)
    teachers = [trial_of(source).outcome(POT) for source in ordered]
    assert all(same(one, other) for one, other in zip(trial.teachers(LATE_FUSION), teachers, strict=True))
    outputs = [predict_outputs(tiny_backbone, one.prompt, one.head, trial.train_data.encoded) for one in teachers]
    weights = trial.weights(LATE_FUSION)
    mean = torch.from_numpy(np.average(outputs, axis=0, weights=weights)).float()
    coefficient = float(np.dot(weights, [trial_of(source).transferability["cosine"] for source in ordered]))
    assert trial.coefficient_of(LATE_FUSION) == pytest.approx(coefficient)
    by_hand = trial.training(LATE_FUSION, distillation=Distillation(mean, coefficient)).run()
    outcome = trial.outcome(LATE_FUSION)
    torch.testing.assert_close(outcome.prompt.tensor, by_hand.prompt.tensor, rtol=1e-4, atol=1e-4)
    card = outcome.card
    assert [card.distillation.teacher, *card.distillation.fused_with] == [one.card.id for one in teachers]
    # The cost: one training, validation and signature, and what two teachers read.
    assert card.example_steps == 2 * 32
    assert card.forward_examples == 8 + 32 + 2 * 32


def test_the_order_of_naming_sources_is_no_matter_to_fusions(sources, trial_of):
    one, other = trial_of(sources["books"], sources["films"]), trial_of(sources["films"], sources["books"])
    assert one.identity(LATE_FUSION) == other.identity(LATE_FUSION)
    assert one.identity(POT) != other.identity(POT), "methods of one source take the first"
    assert same(one.outcome(EARLY_FUSION), other.outcome(EARLY_FUSION))
    with pytest.raises(PandaError, match="is named twice"):
        trial_of(sources["books"], sources["books"])


def test_teachers_are_trained_once_and_shared_through_the_bank(bank, sources, tiny_backbone, sentiment):
    def run(source, methods):
        return transfer(
            sentiment(),
            source,
            tiny_backbone,
            bank=bank,
            options=TrainingOptions(epochs=2, max_length=24, readout="mean"),
            methods=methods,
            train_examples=40,
        )

    pots = [run(name, ["pot"]).prompt.card.id for name in ("books", "films")]
    made = {path: path.stat().st_mtime_ns for path in bank.folder.rglob("*.safetensors")}
    result = run("books, films", ["late_fusion", "pot"])
    card = result.methods["late_fusion"].outcomes[0].card
    assert {card.distillation.teacher, *card.distillation.fused_with} == set(pots)
    assert result.methods["pot"].outcomes[0].card.id == pots[0]
    assert {path: path.stat().st_mtime_ns for path in made} == made
    works = [Card.read(bank.folder / name).work for name in (*pots, card.id)]
    assert result.cost == pytest.approx(sum(works) / (2 * 32)), "both teachers count, each once"
    assert result.methods["late_fusion"].seconds == pytest.approx(
        sum(Card.read(bank.folder / name).seconds for name in (*pots, card.id))
    )


def test_a_foreign_prompt_has_no_signature_and_so_all_weights_are_equal(
    sources, trial_of, tiny_folder, tiny_backbone, tmp_path
):
    foreign(tiny_folder("bert"), tmp_path / "theirs")
    theirs = read_source(tmp_path / "theirs", tiny_backbone)
    trial = trial_of(sources["books"], theirs, distillation=DistillationOptions(coefficient="0.5"))
    np.testing.assert_array_equal(trial.weights(LATE_FUSION), [0.5, 0.5])
    trial.check(LATE_FUSION)
    with pytest.raises(PandaError, match="signature.*give a number, or published"):
        trial_of(sources["books"], theirs).check(LATE_FUSION)


def test_identities_of_the_older_methods_are_what_they_were(sources, trial_of, tiny_backbone):
    """The formula as it was before there were fusions: prompts of older banks stay valid."""
    trial = trial_of(sources["books"])
    part = trial.partition
    later = {"title", "templates", "hub", "package", "files"}  # these change no example; the others were not there
    later |= {"origin", "licence", "label_separator", "label_columns"}
    for method, source in ((PROMPT_TUNING, None), (POT, sources["books"]), (PANDA, sources["books"])):
        distilled = {"coefficient": "adaptive", "distance": "mse", "scale": 1.0}
        distilled["cosine"] = {"layer": -1, "pooling": "mean", "examples": 100, "prompt": "source"}
        series = {
            "version": __version__,
            "method": method.name,
            "task": trial.task.spec.model_dump(mode="json", exclude=later),
            "labels": trial.task.labels,
            "backbone": tiny_backbone.fingerprint,
            "readout": "mean",
            "options": options_used(OPTIONS, method),
            "protocol": "clean",
            "budget": 40,
            "distillation": distilled if method is PANDA else None,
            "source": None if source is None else source.series,
            "threads": 1,
        }
        run = series | {"seed": 0, "train": part.train.fingerprint, "validation": part.validation.fingerprint}
        run["source"] = None if source is None else source.checksum
        assert trial.identity(method) == (digest(run), digest(series))


def test_cards_from_before_there_were_weights_are_read():
    old = {"id": "books-s0-00000000", "task": "books", "checksum": "0"}
    assert SourceCard.model_validate(old).weight is None


@pytest.mark.parametrize("kind", ["regression", "token_classification", "multiple_choice", "extractive_qa"])
def test_other_kinds_are_fused_too(kind, sources, tiny_backbone, tmp_path):
    task = kind_task(kind, tmp_path)
    options = TrainingOptions(epochs=1, max_length=32, readout="mean", prompt_length=5)
    some = (sources["books"], sources["films"])
    trial = Trial(tiny_backbone, task, partition(task, train_examples=30, seed=0), options, 0, some)
    for method in (EARLY_FUSION, LATE_FUSION):
        trial.check(method)
        assert np.isfinite(trial.outcome(method).card.validation["loss"])


def test_a_method_without_its_source_says_so(trial_of, sentiment, tiny_backbone):
    with pytest.raises(PandaError, match="late_fusion starts from a source prompt, and there is none"):
        trial_of().check(LATE_FUSION)


def test_names_with_commas_are_several_sources(bank, tiny_backbone, sentiment, tmp_path):
    write_jsonl(tmp_path / "data" / "mood" / "train.jsonl", sentiment_rows(60))

    def run(source):
        return transfer(
            sentiment(), source, tiny_backbone, bank=bank, options=OPTIONS, methods=["early_fusion"], train_examples=40
        )

    result = run("songs,books")
    assert result.source.startswith("songs-s0")
    assert {one.task for one in result.prompt.card.sources} == {"songs", "books"}
    with pytest.raises(PandaError, match="No prompt 'nobody'"):
        run("songs,nobody")
    with pytest.raises(PandaError, match="named twice"):
        run("songs,songs")


def test_the_selection_fuses_its_finalists(bank, tiny_backbone, sentiment):
    """With `auto` the sources are those that reached the end of the race; fusions compete beside PANDA."""
    rows = [{"text": row["text"]} for row in sentiment_rows(20, seed=55)]
    result = transfer(
        sentiment(),
        "auto",
        tiny_backbone,
        bank=bank,
        options=TrainingOptions(epochs=2, max_length=24, readout="mean"),
        methods=["panda", "early_fusion", "late_fusion", "late_fusion_unlabeled"],
        train_examples=40,
        unlabeled=rows,
    )
    assert set(result.methods) == {"prompt_tuning", "panda", "early_fusion", "late_fusion", "late_fusion_unlabeled"}
    (selection,) = result.selection
    assert len(selection.trial.sources) == 2
    assert set(selection.posterior) == set(result.methods)
    card = result.methods["late_fusion_unlabeled"].outcomes[0].card
    assert {one.id for one in card.sources} == {source.id for source in selection.trial.sources}
    assert selection.cost > 2 + 3, "two finalists, prompt tuning, and four methods more"
