"""`--source auto --effort quick`: the estimator decides, one training on all labelled examples follows."""

from __future__ import annotations

import numpy as np
import pytest
from kinds import equal_pairs, kind_task
from typer.testing import CliRunner

from promptpanda.bank.bank import Bank
from promptpanda.cli.main import app
from promptpanda.errors import PandaError
from promptpanda.tasks.catalog import own_task
from promptpanda.tasks.protocol import partition
from promptpanda.training.options import TrainingOptions
from promptpanda.transfers import selection
from promptpanda.transfers.estimators import TargetFeatures
from promptpanda.transfers.linear_probe import best_probe
from promptpanda.transfers.methods import CONTRASTIVE, CONTRASTIVE_POT, POT, PROMPT_TUNING
from promptpanda.transfers.pruning import Pruned
from promptpanda.transfers.quick import first_choice
from promptpanda.transfers.ranking import rank
from promptpanda.transfers.selection import SelectionOptions, one_contrastive, refit_trial
from promptpanda.transfers.transfer import train, transfer
from promptpanda.transfers.trial import Trial

pytestmark = pytest.mark.usefixtures("one_thread")

SOURCE = TrainingOptions(epochs=2, max_length=24, prompt_length=3)
OPTIONS = TrainingOptions(epochs=3, max_length=24, lr=3e-2)
QUICK = SelectionOptions(effort="quick")


@pytest.fixture
def bank(tiny_backbone, sentiment, tmp_path):
    bank = Bank(tmp_path / "bank")
    for place, name in enumerate(("books", "films", "games")):
        train(sentiment(name, seed=5 + place), tiny_backbone, bank=bank, options=SOURCE)
    return bank


def quick(bank, tiny_backbone, sentiment, **changes):
    given = {"bank": bank, "options": OPTIONS, "train_examples": 40, "selection": QUICK} | changes
    return transfer(sentiment(), "auto", tiny_backbone, **given)


def test_the_first_of_the_ranking_is_trained_on_all_labelled_examples(bank, tiny_backbone, sentiment):
    result = quick(bank, tiny_backbone, sentiment)
    part = partition(sentiment(), train_examples=40, seed=0)
    view = TargetFeatures.of(tiny_backbone, sentiment(), part, OPTIONS)
    pruned = result.selection[0].pruned
    first = rank(sentiment(), tiny_backbone, bank, view)[0]
    ahead = pruned.scores[first.prompt] > pruned.no_transfer
    assert result.chosen == ("pot" if ahead else "prompt_tuning")
    card = result.prompt.card
    assert [source.id for source in card.sources] == ([first.prompt] if ahead else [])
    assert card.n_train == 40
    assert card.validation_seen
    assert result.methods[result.chosen].validation is None
    assert result.to_json()["selection"]["gain_over_prompt_tuning"] == [None]
    assert np.isnan(result.to_frame().validation[0])
    # The same training, asked for by itself.
    used = result.selection[0].trial
    alone = refit_trial(Trial(tiny_backbone, sentiment(), part, used.options, 0, used.sources))
    again = alone.outcome(POT if ahead else PROMPT_TUNING)
    assert again.card.run == card.run
    probe = best_probe(alone, alone.sources[0].prompt if ahead else None)
    assert result.selection[0].cross_validation == probe.cross_validation
    passes = ((3 + 1) * 40 + 40) / 3  # the last are the probe's
    assert result.cost == pytest.approx((passes + again.card.work) / (3 * 32))
    assert result.selection[0].planned == pytest.approx(result.cost, rel=0.2)


def test_no_source_ahead_of_the_bare_model_means_prompt_tuning(tiny_backbone, sentiment):
    class Source:
        id = "books"

    behind = Pruned((Source(),), "probe", {"books": 0.2}, 0.3)
    ahead = Pruned((Source(),), "probe", {"books": 0.5}, 0.3)
    trials = [Trial(tiny_backbone, sentiment(), partition(sentiment(), seed=0), OPTIONS, 0, ())]
    for pruned, method in (
        ([behind], PROMPT_TUNING),
        ([ahead], POT),
        ([ahead, behind], POT),  # the mean over seeds decides
        ([Pruned()], PROMPT_TUNING),
        ([ahead, Pruned()], PROMPT_TUNING),  # one method serves all seeds
    ):
        assert first_choice(trials, pruned) == (method, 0.0)


def test_pairs_that_are_best_read_apart_need_no_training(tiny_backbone, tmp_path):
    task = kind_task("pair_classification", tmp_path / "data", "equal", rows=equal_pairs(60), test=None)
    result = transfer(task, "auto", tiny_backbone, options=OPTIONS, selection=QUICK, train_examples=40)
    assert (result.chosen, result.prompt.card.readout) == ("linear_probe", "compare")
    # Two readings of the 32 training examples to decide, and of all 40 to fit and to tell the score; one of the 8 that
    # would be held out.
    assert result.cost == pytest.approx((2 * 32 + 2 * 40 + 2 * 40 + 8) / 3 / (OPTIONS.epochs * 32))


def test_without_a_bank_prompt_tuning_is_trained_once(tiny_backbone, sentiment):
    result = quick(None, tiny_backbone, sentiment, seeds=(0, 1))
    assert list(result.methods) == ["prompt_tuning"]
    assert result.prompt.card.seed == 0, "no validation score tells the seeds apart"
    assert len(result.auto.scores) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": ["pot"]}, "leave --methods and --unlabeled out"),
        ({"selection": SelectionOptions(effort="quick", refit=True)}, "holds no race"),
        ({"selection": SelectionOptions(effort="quick", survivors=2)}, "holds no race"),
        ({"protocol": "paper"}, "use --protocol clean"),
    ],
)
def test_what_does_not_go_with_little_effort_is_refused(bank, tiny_backbone, sentiment, changes, message):
    with pytest.raises(PandaError, match=message):
        quick(bank, tiny_backbone, sentiment, **changes)


def test_effort_is_for_auto(bank, tiny_backbone, sentiment):
    with pytest.raises(PandaError, match="are for --source auto"):
        transfer(sentiment(), "books", tiny_backbone, bank=bank, options=OPTIONS, selection=QUICK)


def test_the_table_says_how_good_it_is_at_least(bank, tiny_folder, sentiment, tmp_path):
    sentiment()
    data, model = str(tmp_path / "data" / "mood" / "train.jsonl"), str(tiny_folder("bert"))
    command = ["transfer", "--train", data, "--text", "text", "--label", "label", "--model", model]
    command += ["--bank", str(bank.folder), "--effort", "quick", "--train-examples", "40", "--epochs", "2"]
    result = CliRunner().invoke(app, [*command, "--max-length", "24"])
    assert result.exit_code == 0, result.output
    told = " ".join(result.output.split())
    assert "40 labelled examples, all trained on, no test data;" in told
    assert "cross-validated)" in told
    assert "(linear probe of" in told
    assert "Chosen by the estimator:" in told
    assert "their score says little" not in told


def many_classes(count, each):
    """Rows whose class is how often a word is repeated; how often another is, tells rows of a class apart."""
    rows = [
        {"text": " ".join(["good"] * (2 * label + 1) + ["bad"] * other), "label": f"c{label}"}
        for label in range(count)
        for other in range(each)
    ]
    return own_task(train=rows, text="text", label="label", name="counts")


def test_many_classes_are_trained_contrastively(bank, tiny_backbone):
    given = {"bank": bank, "options": OPTIONS, "selection": QUICK}
    result = transfer(many_classes(6, 8), "auto", tiny_backbone, **given)
    assert result.chosen == "contrastive"
    assert result.prompt.card.n_train == 48
    assert result.selection[0].cross_validation is not None
    assert transfer(many_classes(5, 8), "auto", tiny_backbone, **given).chosen != "contrastive"


def test_many_classes_with_too_few_rows_are_not(bank, tiny_backbone):
    result = transfer(many_classes(8, 2), "auto", tiny_backbone, bank=bank, options=OPTIONS, selection=QUICK)
    assert result.chosen != "contrastive"


def test_the_contrastive_contestant_starts_afresh_with_many_classes():
    class Source:
        id = "books"

    ahead = Pruned((Source(),), "probe", {"books": 0.5}, 0.3)
    both = (CONTRASTIVE, CONTRASTIVE_POT)
    assert one_contrastive(both, [ahead], 5) == (CONTRASTIVE_POT,)
    assert one_contrastive(both, [ahead], 6) == (CONTRASTIVE,)


def test_the_full_selection_expects_more_of_it_with_many_classes(tiny_backbone, monkeypatch):
    def expected():
        given = {"options": OPTIONS, "selection": SelectionOptions(refit=False)}
        result = transfer(many_classes(6, 8), "auto", tiny_backbone, **given)
        return {name: one.mean for name, one in result.selection[0].posterior.items()}

    found = expected()
    monkeypatch.setattr(selection, "MANY_CLASSES_GAIN", 0.0)
    without = expected()
    assert found.pop("contrastive") > without.pop("contrastive")
    assert found == pytest.approx(without, abs=0.06)
