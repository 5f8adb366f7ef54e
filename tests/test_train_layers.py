"""`--train-layers`: training the upper layers alone equals training all with the gradient of the lower ones masked."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import save_tiny, sentiment_rows
from families import FAMILIES
from kinds import KINDS, kind_task
from transformers import BertConfig
from typer.testing import CliRunner

from promptpanda.backbone import Backbone
from promptpanda.bank.bank import Bank
from promptpanda.bank.folder import SourcePrompt
from promptpanda.cli.main import app
from promptpanda.errors import PandaError
from promptpanda.progress import Silent
from promptpanda.prompts.prompt import Prompt, PromptStack
from promptpanda.prompts.trainable import DirectPrompt
from promptpanda.tasks.encoding import encode
from promptpanda.tasks.protocol import partition
from promptpanda.training.below import RowsBelow
from promptpanda.training.options import TrainingOptions
from promptpanda.transfers.method import options_used
from promptpanda.transfers.methods import CONTRASTIVE_POT, MODEL_TUNING, PANDA, PANDA_UNLABELED, POT, PROMPT_TUNING
from promptpanda.transfers.race import race
from promptpanda.transfers.transfer import train, transfer
from promptpanda.transfers.trial import Trial

pytestmark = pytest.mark.usefixtures("one_thread")

LAYERS = 3
EXACT = TrainingOptions(epochs=3, max_length=24, readout="mean", prompt_length=4, lr=3e-2, dropout=0.0)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """A tiny BERT of three layers."""
    sizes = FAMILIES["BERT"].to_diff_dict() | {"num_hidden_layers": LAYERS}
    return Backbone.load(str(save_tiny(BertConfig(**sizes), tmp_path_factory.mktemp("model") / "bert")))


@pytest.fixture(scope="module", params=["GPT-2", "Llama", "DistilBERT", "ModernBERT", "DeBERTa v2/v3", "BLOOM"])
def other(request, tmp_path_factory):
    """Tiny models of families whose batches are padded; some of their layers give tuples."""
    return Backbone.load(str(save_tiny(FAMILIES[request.param], tmp_path_factory.mktemp("model") / "tiny")))


@pytest.fixture
def masked(monkeypatch):
    """A switch: from now on all layers are run, and the gradient of the lower ones is zero."""

    def switch(train_layers: int) -> None:
        def init(self: DirectPrompt, start: Prompt, _: int | None = None) -> None:
            torch.nn.Module.__init__(self)
            self.kind, self.fixed = start.kind, None
            self.tensor = torch.nn.Parameter(start.tensor.clone())
            mask = torch.zeros_like(start.tensor)
            mask[-train_layers:] = 1
            self.tensor.register_hook(lambda gradient: gradient * mask)

        monkeypatch.setattr(DirectPrompt, "__init__", init)

    return switch


def compared(trial_of, method, masked, layers):
    """A method with upper layers alone, and the same with a mask."""
    alone = trial_of(layers).outcome(method)
    masked(layers)
    return alone, trial_of(None).outcome(method)


def assert_same(alone, whole, layers):
    start = len(alone.prompt.tensor) - layers
    assert alone.prompt.tensor.shape == whole.prompt.tensor.shape
    torch.testing.assert_close(alone.prompt.tensor, whole.prompt.tensor, atol=2e-3, rtol=2e-3)
    assert torch.equal(alone.prompt.tensor[:start], whole.prompt.tensor[:start])
    torch.testing.assert_close(alone.head.weight, whole.head.weight, atol=2e-3, rtol=2e-3)


def trials(backbone, task, *, train_layers, source=None, unlabeled=None, examples=None, **options):
    part = partition(task, train_examples=examples, seed=0)
    settings = EXACT.model_copy(update={"train_layers": train_layers, **options})
    sources = () if source is None else (source,)
    return Trial(backbone, task, part, settings, 0, sources, unlabeled=unlabeled)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_trains_as_with_a_masked_gradient(kind, backbone, tmp_path, masked):
    task = kind_task(kind, tmp_path)

    def trial_of(train_layers):
        return trials(backbone, task, train_layers=train_layers, max_length=32)

    alone, whole = compared(trial_of, PROMPT_TUNING, masked, 2)
    assert_same(alone, whole, 2)
    start = trials(backbone, task, train_layers=2, max_length=32, epochs=1, lr=1e-30).outcome(PROMPT_TUNING)
    assert torch.equal(alone.prompt.tensor[0], start.prompt.tensor[0])
    assert not torch.equal(alone.prompt.tensor[1:], start.prompt.tensor[1:])


def test_families_without_packing_do_too(other, sentiment, masked):
    task = sentiment()

    def trial_of(train_layers):
        return trials(other, task, train_layers=train_layers, readout="auto")

    assert_same(*compared(trial_of, PROMPT_TUNING, masked, 1), 1)


def test_pairs_that_are_read_apart_do_too(backbone, tmp_path, masked):
    task = kind_task("pair_classification", tmp_path)

    def trial_of(train_layers):
        return trials(backbone, task, train_layers=train_layers, readout="compare")

    assert_same(*compared(trial_of, PROMPT_TUNING, masked, 1), 1)


@pytest.mark.parametrize("method", [POT, PANDA, PANDA_UNLABELED, CONTRASTIVE_POT], ids=lambda one: one.name)
def test_teachers_students_and_contrastive_trainings_do_too(method, backbone, sentiment, masked):
    source = SourcePrompt.of(train(sentiment("films", seed=5), backbone, options=EXACT))
    task, texts = sentiment(), tuple((row["text"],) for row in sentiment_rows(50, seed=77))

    def trial_of(train_layers):
        return trials(backbone, task, train_layers=train_layers, source=source, unlabeled=texts)

    alone, whole = compared(trial_of, method, masked, 2)
    assert_same(alone, whole, 2)
    if method in (POT, CONTRASTIVE_POT):
        assert torch.equal(alone.prompt.tensor[0], source.prompt.tensor[0])


def test_dropout_spares_the_layers_that_do_not_learn(backbone, sentiment):
    task = sentiment()
    first, second = (
        trials(backbone, task, train_layers=layers, dropout=0.2).outcome(PROMPT_TUNING) for layers in (1, LAYERS)
    )
    again = trials(backbone, task, train_layers=None, dropout=0.2).outcome(PROMPT_TUNING)
    assert not torch.equal(first.prompt.tensor, second.prompt.tensor)
    assert torch.equal(second.prompt.tensor, again.prompt.tensor)  # as many as there are: all


def test_a_race_goes_on_to_the_same_bits(backbone, sentiment, tmp_path):
    task = sentiment()
    found = [
        SourcePrompt.of(train(sentiment(name, seed=seed), backbone, options=EXACT))
        for name, seed in (("films", 5), ("books", 6), ("games", 7))
    ]
    trial = trials(backbone, task, train_layers=1)
    racing = trial.with_sources(tuple(found), {})
    result = race(racing, {source.id: 0.0 for source in found}, finalists=1)
    winner = result.finalists[0]
    raced = racing.with_source(winner).outcome(POT)
    assert torch.equal(raced.prompt.tensor, trial.with_sources((winner,), {}).outcome(POT).prompt.tensor)


def test_states_in_a_file_are_those_in_memory(backbone, sentiment):
    class Told(Silent):
        def note(self, text: str) -> None:
            notes.append(text)

    notes: list[str] = []
    encoded = encode(backbone, sentiment().train().texts, 24)
    prompt = Prompt.fresh("prefix", backbone.shape, 4, 1.0, torch.Generator().manual_seed(0))
    kept, filed = (RowsBelow.of(backbone, prompt, 2, encoded, Told(), limit) for limit in (10**9, 0))
    assert len(notes) == 1
    assert "GB; they are kept in" in notes[0]
    assert torch.equal(kept.states, filed.states)
    rows = np.asarray([7, 3, 11])
    taken = filed.take(rows, backbone.device)
    batch = encoded.batch(rows)
    with torch.no_grad():
        entering, _ = backbone.entering(2, batch, PromptStack.of([prompt]))
    real = batch.attention_mask.bool()
    torch.testing.assert_close(taken.states[real], entering[real], atol=1e-5, rtol=1e-4)


def test_a_full_disk_is_told(backbone, sentiment, monkeypatch):
    encoded = encode(backbone, sentiment().train().texts, 24)
    prompt = Prompt.fresh("prefix", backbone.shape, 4, 1.0, torch.Generator().manual_seed(0))
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 3})())
    with pytest.raises(PandaError, match=r"keeps 0\.0 GB of hidden states .* set TMPDIR"):
        RowsBelow.of(backbone, prompt, 2, encoded, Silent(), 0)


def test_the_card_says_which_layers_learnt(backbone, sentiment, tmp_path):
    bank = Bank(tmp_path / "bank")
    options = EXACT.model_copy(update={"train_layers": 1})
    trained = train(sentiment(), backbone, bank=bank, options=options)
    assert bank.load(trained.card.id, backbone).card.options.train_layers == 1
    usual = train(sentiment(), backbone, bank=bank, options=EXACT)
    assert trained.card.run != usual.card.run


def test_a_transfer_takes_it(backbone, sentiment):
    source = train(sentiment("films", seed=5), backbone, options=EXACT)
    options = EXACT.model_copy(update={"train_layers": 1})
    result = transfer(sentiment(), source, backbone, options=options, methods=["prompt_tuning", "pot"])
    assert result.chosen in ("prompt_tuning", "pot")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--train-layers", "9"], "--train-layers 9 is more than the 2 layers of"),
        (["--train-layers", "0"], "--train-layers 0 is out of range"),
        (["--train-layers", "1", "--prompt-kind", "shallow"], "a shallow prompt stands before the first layer"),
        (["--train-layers", "1", "--reparameterize", "8"], "leave one of them out"),
    ],
)
def test_wrong_numbers_are_told_before_training(given, told, tiny_folder, sentiment, tmp_path):
    sentiment()
    data, model = str(tmp_path / "data" / "mood" / "train.jsonl"), str(tiny_folder("bert"))
    command = ["train", "--train", data, "--text", "text", "--label", "label", "--model", model]
    result = CliRunner().invoke(app, [*command, "--bank", str(tmp_path / "bank"), *given])
    assert result.exit_code == 2
    assert told in " ".join(result.output.split())
    assert not (tmp_path / "bank").exists()


@pytest.mark.parametrize("family", ["ALBERT", "T5 (encoder)"])
def test_families_whose_layers_hang_together_are_refused(family, sentiment, tmp_path):
    backbone = Backbone.load(str(save_tiny(FAMILIES[family], tmp_path / "model")))
    with pytest.raises(PandaError, match="--train-layers runs the upper layers of a model alone"):
        trials(backbone, sentiment(), train_layers=1, readout="auto").outcome(PROMPT_TUNING)


def test_runs_from_before_keep_their_identity():
    assert "train_layers" not in options_used(EXACT, PROMPT_TUNING)
    assert options_used(EXACT.model_copy(update={"train_layers": 1}), PROMPT_TUNING)["train_layers"] == 1
    assert "train_layers" not in options_used(EXACT.model_copy(update={"train_layers": 1}), MODEL_TUNING)
