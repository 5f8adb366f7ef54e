"""Every kind of task is trained, distilled, kept and used alike, and one prompt artefact serves them all."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from conftest import FAMILIES
from kinds import KINDS, MARKER, NEW, SPECS, data_of, kind_task, question_rows

from promptpanda.bank.bank import Bank
from promptpanda.prompts.prompt import Prompt, PromptStack
from promptpanda.tasks.answers import squad_scores
from promptpanda.tasks.encoding import encode
from promptpanda.tasks.inputs import Passage, Words
from promptpanda.tasks.tags import span_scores
from promptpanda.training.distillation import Distillation
from promptpanda.training.heads import Head
from promptpanda.training.inference import predict_outputs, scores_of
from promptpanda.training.loop import Training
from promptpanda.training.objectives.kinds import objective_for
from promptpanda.training.options import TrainingOptions
from promptpanda.transfers.evaluate import evaluate, with_labels_of
from promptpanda.transfers.predict import predict
from promptpanda.transfers.transfer import train, transfer

FAST = {"epochs": 3, "prompt_length": 4, "max_length": 16, "readout": "mean", "lr": 3e-2}
ONCE = TrainingOptions(**FAST | {"epochs": 1})


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def parts(tiny_backbone, tmp_path):
    """Training and test data of a kind, and its objective."""

    def of(kind, **changes):
        task = kind_task(kind, tmp_path, **changes)
        training = data_of(tiny_backbone, task, max_length=16)
        test = data_of(tiny_backbone, task, task.test(), max_length=16)
        return training, test, objective_for(task.spec, len(task.labels), training.split.labels)

    return of


@cache
def fresh(kind, shape, length=4):
    return Prompt.fresh(kind, shape, length, 1.0, torch.Generator().manual_seed(0))


def random_head(backbone, objective):
    draws = torch.Generator().manual_seed(1)
    readout = "token" if objective.reads_tokens else "mean"
    return Head(torch.randn(objective.outputs, backbone.hidden_size, generator=draws), None, readout)


def equal(a, b):
    return (
        torch.equal(a.prompt.tensor, b.prompt.tensor)
        and torch.equal(a.head.weight, b.head.weight)
        and torch.equal(a.head.bias, b.head.bias)
    )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("prompt_kind", ["prefix", "shallow"])
@pytest.mark.parametrize("kind", NEW)
def test_an_example_alone_has_the_outputs_it_has_among_others(kind, prompt_kind, family, load_tiny, tmp_path):
    backbone, task = load_tiny(family), kind_task(kind, tmp_path, train=10)
    data = data_of(backbone, task, max_length=16)
    objective = objective_for(task.spec, len(task.labels))
    prompt, head = fresh(prompt_kind, backbone.shape), random_head(backbone, objective)
    together = predict_outputs(backbone, prompt, head, data.encoded)
    for example in (0, 3, 7):
        one = encode(backbone, [data.split.texts[example]], 16)
        alone = predict_outputs(backbone, prompt, head, one)
        rows = list(data.encoded.rows_of(example))
        assert len(alone) == len(rows)
        for own, row in zip(alone, rows, strict=True):
            shared = together[row] if own.ndim == 1 else together[row][: len(own)]
            np.testing.assert_allclose(own, shared, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("kind", ["token_classification", "extractive_qa"])
def test_a_shallow_prompt_stands_before_the_tokens_and_moves_none(kind, tiny_backbone, parts):
    data, _, objective = parts(kind)
    prompt, head = fresh("shallow", tiny_backbone.shape), random_head(tiny_backbone, objective)
    outputs = predict_outputs(tiny_backbone, prompt, head, data.encoded)
    embed = tiny_backbone.model.get_input_embeddings()
    for row in (0, 1, 5):
        words = embed(torch.from_numpy(data.encoded.input_ids[row])[None])
        with torch.no_grad():
            hidden = tiny_backbone.model(
                inputs_embeds=torch.cat([prompt.tensor[None], words], dim=1),
                attention_mask=torch.ones(1, 4 + words.shape[1]),
            ).last_hidden_state[0]
            expected = hidden[4 + data.encoded.units[row]] @ head.weight.T
        np.testing.assert_allclose(outputs[row, : len(expected)], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("prompt_kind", ["prefix", "shallow"])
@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_predictions_have_a_tag_a_word_and_answers_out_of_their_context(prompt_kind, family, load_tiny, tmp_path):
    backbone = load_tiny(family)
    options = TrainingOptions(**FAST | {"epochs": 1, "prompt_kind": prompt_kind})
    tagger = train(kind_task("token_classification", tmp_path), backbone, options=options)
    sentences = [Words(("good",)), Words(tuple(["good", "bad", "w1"] * 15)), Words(("w1.w2", "a-b"))]
    for one, found in zip(sentences, predict(tagger, backbone, sentences), strict=True):
        assert len(found["tags"]) == len(one.words)
        for span in found["spans"]:
            assert span["text"] == " ".join(one.words[span["start"] : span["end"]])
    reader = train(kind_task("extractive_qa", tmp_path), backbone, options=options)
    passages = [Passage("a w1", "w3  good, w4"), Passage("a", " ".join(f"w{n}" for n in range(40))), Passage("a", "w1")]
    for one, found in zip(passages, predict(reader, backbone, passages), strict=True):
        assert found["answer"], "every question has one, unless the spec says otherwise"
        assert sum(entry["probability"] for entry in found["nbest"]) == pytest.approx(1.0)
        assert (found["nbest"][0]["answer"], found["nbest"][0]["start"]) == (found["answer"], found["start"])
        for entry in found["nbest"]:
            assert one.context[entry["start"] :].startswith(entry["answer"])


@pytest.mark.parametrize("kind", NEW)
def test_a_seed_repeats_to_the_bit_and_another_differs(kind, tiny_backbone, parts):
    training, validation, objective = parts(kind)
    options = TrainingOptions(**FAST)
    first = Training(tiny_backbone, training, validation, objective, options, seed=3).run()
    torch.rand(5)  # the global generator plays no part
    assert equal(first, Training(tiny_backbone, training, validation, objective, options, seed=3).run())
    assert not equal(first, Training(tiny_backbone, training, validation, objective, options, seed=4).run())


def strange_teacher(data, objective, seed=0):
    draws = torch.Generator().manual_seed(seed)
    shape = [len(data.encoded.input_ids)]
    shape += [max(map(len, data.encoded.units))] if objective.reads_tokens else []
    return torch.randn(*shape, objective.outputs, generator=draws)


@pytest.mark.parametrize("distance", ["mse", "kl"])
@pytest.mark.parametrize("kind", NEW)
def test_coefficient_zero_is_no_distillation_to_the_bit(kind, distance, tiny_backbone, parts):
    training, validation, objective = parts(kind)
    options = TrainingOptions(**FAST)
    teacher = strange_teacher(training, objective)

    def distilled(coefficient):
        term = Distillation(teacher, coefficient, distance)
        return Training(tiny_backbone, training, validation, objective, options, seed=0, distillation=term).run()

    plain = Training(tiny_backbone, training, validation, objective, options, seed=0).run()
    assert equal(plain, distilled(0.0))
    assert not equal(plain, distilled(0.5))


def wrong_teacher(kind, data, objective):
    """Outputs that say the opposite of the labels: bad choices, the other type, the marker for an answer."""
    teacher = strange_teacher(data, objective) * 0
    targets = objective.targets(data.encoded, data.split.labels)
    if kind == "multiple_choice":
        return torch.where(targets, -4.0, 4.0)[:, None].float()
    if kind == "token_classification":
        # O, B-UP, I-UP, B-DOWN, I-DOWN
        turned = torch.tensor([0, 3, 4, 1, 2])[targets.clamp(min=0)]
        return torch.nn.functional.one_hot(turned, 5).float() * 8 - 4
    for row, (start, _) in enumerate(targets.tolist()):
        teacher[row] = -4.0
        teacher[row, start - 1 if start else 0] = 4.0
    return teacher


@pytest.mark.parametrize("distance", ["mse", "kl"])
@pytest.mark.parametrize("kind", NEW)
def test_a_strong_wrong_teacher_is_followed_example_by_example(kind, distance, tiny_backbone, parts):
    """The cached outputs reach the right rows and units although batches are shuffled, sorted and padded."""
    changes = {"rows": [row for row in question_rows(60) if not row["context"].startswith(MARKER)]}
    training, validation, objective = parts(kind, **(changes if kind == "extractive_qa" else {}))
    teacher = wrong_teacher(kind, training, objective)
    options = TrainingOptions(**FAST | {"epochs": 40 if kind == "token_classification" else 15})
    distillation = Distillation(teacher, 10.0, distance)
    fitted = Training(tiny_backbone, training, validation, objective, options, seed=0, distillation=distillation).run()
    outputs = predict_outputs(tiny_backbone, fitted.prompt, fitted.head, training.encoded)
    found = objective.predictions(outputs, training.encoded, training.split.texts)
    wanted = objective.predictions(teacher.numpy(), training.encoded, training.split.texts)
    if kind == "multiple_choice":  # several are wrong, and the teacher likes each of them
        followed = [
            float(teacher[training.encoded.rows_of(number)[taken], 0]) > 0 for number, taken in enumerate(found)
        ]
    elif kind == "token_classification":
        followed = [a == b for own, taught in zip(found, wanted, strict=True) for a, b in zip(own, taught, strict=True)]
    else:
        followed = [a == b for a, b in zip(found, wanted, strict=True)]
    assert np.mean(followed) > 0.9
    assert scores_of(outputs, training, objective)[training.spec.metric] < 0.15


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", NEW)
def test_save_load_predict_is_identical_and_predict_agrees_with_the_scores(kind, family, load_tiny, tmp_path):
    backbone, task = load_tiny(family), kind_task(kind, tmp_path, no_answer=True) if kind == "extractive_qa" else None
    task = task or kind_task(kind, tmp_path)
    bank = Bank(tmp_path / "bank")
    options = TrainingOptions(**FAST | {"epochs": 1, "readout": "auto"})
    kept_in_memory = train(task, backbone, options=options)
    saved = train(task, backbone, bank=bank, options=options)
    loaded = bank.load(saved.card.id, backbone)
    bank.verify(saved.card.id)
    test = task.test()
    expected = predict(kept_in_memory, backbone, test.texts)
    assert predict(saved, backbone, test.texts) == predict(loaded, backbone, test.texts) == expected
    scores = evaluate(loaded, backbone, task, test)
    assert scores == evaluate(kept_in_memory, backbone, task, test)
    assert list(scores) == list(task.spec.metrics)
    if kind == "multiple_choice":
        right = [
            one.names.index(found["label"]) in gold
            for one, found, gold in zip(test.texts, expected, test.labels, strict=True)
        ]
        assert scores["accuracy"] == pytest.approx(np.mean(right))
        for one, found in zip(test.texts, expected, strict=True):
            assert tuple(found["probabilities"]) == one.names
            assert sum(found["probabilities"].values()) == pytest.approx(1.0)
    elif kind == "token_classification":
        gold = [[task.labels[tag] for tag in tags] for tags in test.labels]
        assert scores == span_scores(gold, [found["tags"] for found in expected]) or pytest.fail(str(scores))
    else:
        golds = [[answer.text for answer in answers] for answers in test.labels]
        known = squad_scores([found["answer"] for found in expected], golds)
        assert scores == {name: known[name] for name in task.spec.metrics}
        assert loaded.card.threshold == saved.card.threshold is not None


@pytest.mark.parametrize("kind", NEW)
def test_the_tests_of_a_trial_are_those_of_evaluate(kind, tiny_backbone, tmp_path):
    changes = {"no_answer": True} if kind == "extractive_qa" else {}
    task, bank = kind_task(kind, tmp_path, **changes), Bank(tmp_path / "bank")
    result = transfer(task, "none", tiny_backbone, bank=bank, options=ONCE, methods=["prompt_tuning"])
    outcome = result.methods["prompt_tuning"].outcomes[0]
    found = evaluate(bank.load(outcome.card.id, tiny_backbone), tiny_backbone, task, task.test())
    assert {name: outcome.card.test.scores[name] for name in found} == pytest.approx(found)


def test_tags_are_scored_alike_whatever_the_order_of_their_types(tiny_backbone, tmp_path):
    """Also where the task names none and takes the prompt's."""
    task = kind_task("token_classification", tmp_path, name="one")
    trained = train(task, tiny_backbone, options=TrainingOptions(**FAST | {"epochs": 6}))
    expected = evaluate(trained, tiny_backbone, task, task.test())
    assert expected["span_f1"] > 0.2
    for labels in (["DOWN", "UP"], []):
        other = kind_task("token_classification", tmp_path, name="two", labels=labels)
        other = with_labels_of(trained.card, other)
        assert other.labels == (("O", "B-DOWN", "I-DOWN", "B-UP", "I-UP") if labels else task.labels)
        assert evaluate(trained, tiny_backbone, other, other.test()) == expected


def test_tags_are_learnt(tiny_backbone, parts):
    training, test, objective = parts("token_classification", train=100)
    fitted = Training(tiny_backbone, training, test, objective, TrainingOptions(**FAST | {"epochs": 15}), seed=0).run()
    assert fitted.validation["span_f1"] > 0.9
    assert not fitted.warnings


def test_choices_are_learnt(load_tiny, tmp_path):
    """On a model without a pooler: the tiny BERT's, which is random, hides what the words are."""
    backbone, task = load_tiny("modernbert"), kind_task("multiple_choice", tmp_path, train=60)
    training, test = (data_of(backbone, task, split, max_length=16) for split in (task.train(), task.test()))
    objective = objective_for(task.spec, 0)
    fitted = Training(backbone, training, test, objective, TrainingOptions(**FAST | {"epochs": 25}), seed=0).run()
    assert fitted.head.readout == "mean"
    assert fitted.validation["accuracy"] > 0.9 > 0.6 > np.mean([gold == (0,) for gold in test.split.labels])


@pytest.mark.parametrize("kind", NEW)
def test_the_readout_concerns_none_of_them(kind, tiny_backbone, parts):
    """`--readout` is for whole texts; choices have the backbone's own, tags and answers their tokens'."""
    training, validation, objective = parts(kind)

    def with_readout(readout):
        options = TrainingOptions(**FAST | {"epochs": 1, "readout": readout})
        return Training(tiny_backbone, training, validation, objective, options, seed=0).run()

    assert equal(with_readout("mean"), with_readout("auto"))
    assert with_readout("cls").head.readout == ("pooler" if kind == "multiple_choice" else "token")


def test_answers_are_learnt(tiny_backbone, parts):
    training, test, objective = parts("extractive_qa", train=80)
    fitted = Training(tiny_backbone, training, test, objective, TrainingOptions(**FAST | {"epochs": 25}), seed=0).run()
    assert fitted.validation["squad_f1"] > 0.9
    assert fitted.objective.threshold is None


def test_no_answer_is_learnt_with_a_threshold_from_validation(tiny_backbone, tmp_path):
    task, bank = kind_task("extractive_qa", tmp_path, train=120, no_answer=True), Bank(tmp_path / "bank")
    options = TrainingOptions(**FAST | {"epochs": 25})
    trained = train(task, tiny_backbone, bank=bank, options=options)
    loaded = bank.load(trained.card.id, tiny_backbone)
    assert loaded.card.threshold is not None
    assert evaluate(loaded, tiny_backbone, task, task.test())["squad_f1"] > 0.85
    answerable, none = predict(
        loaded, tiny_backbone, [Passage("a w1", "w1 w2 phone great w3 w4"), Passage("a w1", "w1 w2 w9 w12 w3 w4")]
    )
    assert (answerable["answer"], answerable["start"]) == ("great", 12)
    assert (none["answer"], none["start"]) == ("", -1)
    assert ("", -1) in {(entry["answer"], entry["start"]) for entry in none["nbest"]}
    # The threshold decides, and it is the card's.
    eager = trained.card.model_copy(update={"threshold": -1e9})
    never = trained.card.model_copy(update={"threshold": 1e9})
    passages = [Passage("a w1", "w1 w2 w9 w12 w3 w4")]
    for card, start in ((eager, 0), (never, -1)):
        changed = type(trained)(trained.prompt, trained.head, None, card)
        assert min(predict(changed, tiny_backbone, passages)[0]["start"], 0) == start


def test_the_threshold_is_the_best_on_the_validation_part(tiny_backbone, parts):
    """Any other gives no better F1 there."""
    training, validation, objective = parts("extractive_qa", no_answer=True)
    fitted = Training(
        tiny_backbone, training, validation, objective, TrainingOptions(**FAST | {"epochs": 2}), seed=0
    ).run()
    outputs = predict_outputs(tiny_backbone, fitted.prompt, fitted.head, validation.encoded)
    best = scores_of(outputs, validation, fitted.objective)["squad_f1"]
    assert fitted.validation["squad_f1"] == best
    others = [
        scores_of(outputs, validation, type(objective)(threshold=value))["squad_f1"]
        for value in np.linspace(-20, 20, 81)
    ]
    assert best >= max(others)
    assert min(others) < best, "it matters"


@pytest.fixture(scope="module")
def sources(tiny_backbone, tmp_path_factory):
    """A bank with one prompt of every kind."""
    root = tmp_path_factory.mktemp("sources")
    bank = Bank(root / "bank")
    for kind in KINDS:
        train(kind_task(kind, root, name=f"from-{kind.replace('_', '-')}"), tiny_backbone, bank=bank, options=ONCE)
    return bank


@pytest.mark.parametrize("target", KINDS)
@pytest.mark.parametrize("source", KINDS)
def test_a_prompt_of_any_kind_serves_any_other(source, target, sources, tiny_backbone, tmp_path):
    task = kind_task(target, tmp_path, train=24, test=8, seed=7)
    name = f"from-{source.replace('_', '-')}"
    result = transfer(task, name, tiny_backbone, bank=sources, options=ONCE)
    assert list(result.methods) == ["prompt_tuning", "pot", "panda"]
    assert result.source.startswith(name)
    start = sources.load(result.source, tiny_backbone)
    for name, method in result.methods.items():
        (outcome,) = method.outcomes
        assert outcome.prompt.fits(tiny_backbone.shape)
        assert outcome.prompt.length == start.prompt.length
        assert not torch.equal(outcome.prompt.tensor, start.prompt.tensor)
        assert list(outcome.card.test.scores) == [*SPECS[target]["metrics"], "loss"]
        assert np.isfinite(list(outcome.card.test.scores.values())).all()
        assert [one.id for one in outcome.card.sources] == ([] if name == "prompt_tuning" else [result.source])
    assert result.methods["panda"].outcomes[0].card.distillation.coefficient == pytest.approx(
        np.clip(result.transferability["cosine"], 0, 1)
    )
    json = result.to_json()
    assert json["metric"] == SPECS[target]["metrics"][0]


@pytest.mark.parametrize("kind", NEW)
def test_panda_by_kl(kind, sources, tiny_backbone, tmp_path):
    from promptpanda.transfers.trial import DistillationOptions

    task = kind_task(kind, tmp_path, train=24, test=None, seed=8)
    distillation = DistillationOptions(coefficient="0.5", distance="kl", temperature=2.0)
    result = transfer(
        task, "from-regression", tiny_backbone, bank=sources, options=ONCE, methods=["panda"], distillation=distillation
    )
    assert result.prompt.card.distillation.distance == "kl"
    assert result.n_test == 0


def test_the_stack_of_a_prompt_reaches_every_row(tiny_backbone, parts):
    """One prompt and the same prompt named row by row are one."""
    data, _, objective = parts("multiple_choice")
    prompt, head = fresh("prefix", tiny_backbone.shape), random_head(tiny_backbone, objective)
    rows = np.arange(len(data.encoded.input_ids))
    batch = data.encoded.batch(rows)
    with torch.no_grad():
        hidden = tiny_backbone.hidden(batch, PromptStack("prefix", prompt.tensor[None]))
        expected = head(tiny_backbone.read(hidden, batch.attention_mask, "mean"))
    np.testing.assert_allclose(predict_outputs(tiny_backbone, prompt, head, data.encoded), expected, atol=1e-4)
