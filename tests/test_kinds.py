"""Outputs and losses of choices, tags and spans equal transformers' models, and written formulas."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from kinds import NEW, SPECS, data_of, kind_task
from transformers import BertForMultipleChoice, BertForQuestionAnswering, BertForTokenClassification

from promptpanda.errors import PandaError
from promptpanda.tasks.encoding import encode
from promptpanda.tasks.inputs import Answer, Choices, Passage, Words, ragged
from promptpanda.tasks.spec import Kind, TaskSpec
from promptpanda.training.distillation import Distillation, check_distance
from promptpanda.training.heads import Head, features
from promptpanda.training.inference import predict_outputs, scores_of
from promptpanda.training.objectives.choice import MultipleChoice
from promptpanda.training.objectives.kinds import objective_for
from promptpanda.training.objectives.spans import Spans
from promptpanda.training.objectives.tokens import TokenClassification

# Rows of different length, one sentence and one context that go on in a second row.
CHOICES = [
    Choices((("the w1", "good"), ("the w1", "bad w2 w3"), ("the w1", "w4")), ("a", "b", "c")),
    Choices((("a phone w9 w8", "dull"), ("a phone w9 w8", "fine w5"), ("a phone w9 w8", "w6 w7")), ("a", "b", "c")),
]
SENTENCES = [Words(("good", "w1.w2", "bad")), Words(("w3", "awful")), Words(tuple(f"w{n}" for n in range(20)))]
TAGS = ragged([(1, 0, 3), (0, 4), tuple(n % 5 for n in range(20))])
CONTEXTS = ["the good phone w1 w2 w3", "a screen w9", " ".join(f"w{n}" for n in range(20))]
PASSAGES = [Passage("a w4", CONTEXTS[0]), Passage("the w5 w6", CONTEXTS[1]), Passage("w7", CONTEXTS[2])]
ANSWERS = ragged([(Answer(4, "good phone"),), (), (Answer(CONTEXTS[2].index("w11"), "w11 w12"),)])
MAX = 16


def head(outputs, readout, seed=0, hidden=32):
    draws = torch.Generator().manual_seed(seed)
    return Head(torch.randn(outputs, hidden, generator=draws), torch.randn(outputs, generator=draws), readout)


def reference(kind, backbone, ours, **options):
    """transformers' model of the same weights, and our head in it."""
    config = copy.deepcopy(backbone.config)
    config._attn_implementation = "eager"
    for name, value in options.items():
        setattr(config, name, value)
    model = kind(config).eval()
    model.bert.load_state_dict(backbone.model.state_dict(), strict=False)
    linear = model.qa_outputs if kind is BertForQuestionAnswering else model.classifier
    with torch.no_grad():
        linear.weight.copy_(ours.weight)
        linear.bias.copy_(ours.bias)
    return model


def learnt(backbone, ours, encoded, objective, labels, examples):
    """Outputs and loss of one batch, as the training loop takes them."""
    layout = encoded.layout(np.asarray(examples))
    batch = encoded.batch(layout.rows.numpy())
    with torch.no_grad():
        outputs = ours(features(backbone, batch, layout, None, ours.readout))
        loss = objective.loss(outputs, objective.targets(encoded, labels), layout)
    return outputs, float(loss), batch, layout


def cross_entropy(logits, target):
    """-log softmax(logits)[target], in numpy."""
    logits = np.asarray(logits, dtype=np.float64)
    return float(np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[target])


def test_multiple_choice_equals_transformers(tiny_backbone):
    ours, encoded = head(1, "pooler"), encode(tiny_backbone, CHOICES, MAX)
    labels = ragged([(2,), (0,)])
    outputs, loss, batch, _ = learnt(tiny_backbone, ours, encoded, MultipleChoice(), labels, [0, 1])
    theirs = reference(BertForMultipleChoice, tiny_backbone, ours)
    with torch.no_grad():
        known = theirs(
            input_ids=batch.input_ids.view(2, 3, -1),
            attention_mask=batch.attention_mask.view(2, 3, -1),
            labels=torch.tensor([2, 0]),
        )
    torch.testing.assert_close(outputs.view(2, 3), known.logits, atol=1e-5, rtol=1e-5)
    assert loss == pytest.approx(float(known.loss), rel=1e-5)
    found = predict_outputs(tiny_backbone, None, ours, encoded)
    np.testing.assert_allclose(found.reshape(2, 3), known.logits.numpy(), atol=1e-5)
    assert MultipleChoice().predictions(found, encoded, tuple(CHOICES)).tolist() == known.logits.argmax(1).tolist()


def test_token_classification_equals_transformers(tiny_backbone):
    ours, encoded = head(5, "token"), encode(tiny_backbone, SENTENCES, 64)
    outputs, loss, batch, layout = learnt(tiny_backbone, ours, encoded, TokenClassification(5), TAGS, [0, 1, 2])
    theirs = reference(BertForTokenClassification, tiny_backbone, ours, num_labels=5)
    labels = torch.full(batch.input_ids.shape, -100)
    positions = [[1, 2, 5], [1, 2], list(range(1, 21))]  # "w1.w2" is three tokens
    for row, (places, tags) in enumerate(zip(positions, TAGS, strict=True)):
        labels[row, places] = torch.tensor(tags)
    with torch.no_grad():
        known = theirs(input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=labels)
    for row, places in enumerate(positions):
        torch.testing.assert_close(outputs[row, : len(places)], known.logits[row, places], atol=1e-5, rtol=1e-5)
        assert layout.real[row].sum() == len(places)
    assert loss == pytest.approx(float(known.loss), rel=1e-5)
    predictions = TokenClassification(5).predictions(outputs.numpy(), encoded, tuple(SENTENCES))
    assert predictions == [tuple(known.logits[row, places].argmax(1).tolist()) for row, places in enumerate(positions)]


def test_spans_equal_transformers_at_the_context_and_the_loss_its_formula(tiny_backbone):
    """transformers normalises over all tokens of a row; ours over those of the context and the one for no answer."""
    ours, encoded = head(2, "token"), encode(tiny_backbone, PASSAGES, MAX)
    assert np.diff(encoded.starts).tolist() == [1, 1, 2]
    outputs, loss, batch, _ = learnt(tiny_backbone, ours, encoded, Spans(threshold=0.0), ANSWERS, [0, 1, 2])
    theirs = reference(BertForQuestionAnswering, tiny_backbone, ours, num_labels=2)
    with torch.no_grad():
        known = theirs(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
    logits = torch.stack([known.start_logits, known.end_logits], dim=2).numpy()
    losses = []
    for row in range(len(batch.input_ids)):
        ids = encoded.input_ids[row].tolist()
        separator = ids.index(3)
        context = list(range(separator + 1, len(ids) - 1))
        units = [0, *context]
        np.testing.assert_allclose(outputs[row, : len(units)].numpy(), logits[row, units], atol=1e-5)
        words = tiny_backbone.tokenizer.convert_ids_to_tokens(ids)
        first, last = {0: ("good", "phone"), 1: (None, None)}.get(row, ("w11", "w12"))
        inside = first in words[separator:] and last in words[separator:]
        start, end = (
            (1 + context.index(separator + words[separator:].index(word)) for word in (first, last))
            if inside
            else (0, 0)
        )
        losses += [cross_entropy(logits[row, units, 0], start), cross_entropy(logits[row, units, 1], end)]
    assert loss == pytest.approx(np.mean(losses), rel=1e-5)


def test_the_target_of_an_answer_is_in_the_windows_that_hold_it_whole(tiny_backbone):
    encoded = encode(tiny_backbone, PASSAGES, MAX)
    targets = Spans().targets(encoded, ANSWERS)
    found = []
    for row, (start, end) in enumerate(targets.tolist()):
        places = encoded.places[row]
        example = int(np.searchsorted(encoded.starts, row, side="right")) - 1
        found.append(CONTEXTS[example][places[start, 0] : places[end, 1]] if start else None)
    assert found[:2] == ["good phone", None]
    assert "w11 w12" in found[2:]
    assert set(found[2:]) == {"w11 w12", None}


def test_an_answer_that_ends_inside_a_token_takes_the_whole_token(tiny_backbone):
    encoded = encode(tiny_backbone, [Passage("a", "the phone screen")], MAX)
    targets = Spans().targets(encoded, ragged([(Answer(6, "one scr"),)]))
    assert targets.tolist() == [[2, 3]]


def test_the_right_choices_share_their_probability(tiny_backbone):
    ours = head(1, "mean")
    inputs = [CHOICES[0], Choices(CHOICES[1].texts[:2], ("a", "b")), CHOICES[1]]
    encoded = encode(tiny_backbone, inputs, MAX)
    labels = ragged([(0, 2), (1,), (0, 1, 2)])
    outputs, loss, _, layout = learnt(tiny_backbone, ours, encoded, MultipleChoice(), labels, [0, 1, 2])
    by_hand = []
    for example, right in enumerate(labels):
        scores = outputs[list(encoded.rows_of(example)), 0].double().numpy()
        by_hand.append(-np.log(np.exp(scores)[list(right)].sum() / np.exp(scores).sum()))
    assert by_hand[2] == pytest.approx(0.0)
    assert loss == pytest.approx(np.mean(by_hand), rel=1e-5)
    assert MultipleChoice().logits(outputs, layout)[1].tolist()[2] == -np.inf


def test_a_batch_in_another_order_has_the_same_loss_and_targets(tiny_backbone):
    """Targets are of all examples; a batch takes its own by the layout."""
    cases = [
        (CHOICES, MultipleChoice(), head(1, "mean"), ragged([(2,), (0,)])),
        (SENTENCES, TokenClassification(5), head(5, "token"), TAGS),
        (PASSAGES, Spans(), head(2, "token"), ANSWERS),
    ]
    for inputs, objective, ours, labels in cases:
        encoded = encode(tiny_backbone, inputs, MAX)
        order = list(range(len(inputs)))
        _, forward, _, _ = learnt(tiny_backbone, ours, encoded, objective, labels, order)
        _, backward, _, _ = learnt(tiny_backbone, ours, encoded, objective, labels, order[::-1])
        assert forward == pytest.approx(backward, rel=1e-5)
        if objective.outputs != 5:  # a word counts as much as another, whatever its sentence
            parts = [learnt(tiny_backbone, ours, encoded, objective, labels, [one]) for one in order]
            weights = [1 if objective.outputs == 1 else len(encoded.rows_of(one)) for one in order]
            assert forward == pytest.approx(np.average([part[1] for part in parts], weights=weights), rel=1e-5)


def test_a_batch_without_any_word_left_has_a_finite_loss(tiny_backbone):
    """A sentence of control characters alone may be the last batch of an epoch."""
    encoded = encode(tiny_backbone, [Words(("good",)), Words((" ", " "))], MAX)
    assert len(encoded.units[1]) == 0
    objective, ours = TokenClassification(5), head(5, "token")
    _, loss, _, _ = learnt(tiny_backbone, ours, encoded, objective, ragged([(1,), (0, 0)]), [1])
    assert loss == 0.0


@pytest.mark.parametrize("distance", ["mse", "kl"])
def test_a_batch_without_any_word_left_has_a_finite_distance(distance, tiny_backbone):
    encoded = encode(tiny_backbone, [Words(("good",)), Words((" ", " "))], MAX)
    teacher, layout = torch.zeros(2, 1, 5), encoded.layout([1])
    found = Distillation(teacher, 1.0, distance).loss(torch.ones(1, 1, 5), teacher, TokenClassification(5), layout)
    assert float(found) == 0.0


def distilled(kind, tiny_backbone):
    """An encoding, its objective, and the classes of every distribution as (row, unit, output) of the outputs."""
    if kind == "multiple_choice":
        inputs = [CHOICES[0], Choices(CHOICES[1].texts[:2], ("a", "b"))]
        encoded = encode(tiny_backbone, inputs, MAX)
        return encoded, MultipleChoice(), [[(row, 0) for row in encoded.rows_of(example)] for example in range(2)]
    if kind == "token_classification":
        encoded = encode(tiny_backbone, SENTENCES, MAX)
        places = [(row, unit) for row, units in enumerate(encoded.units) for unit in range(len(units))]
        return encoded, TokenClassification(5), [[(*place, tag) for tag in range(5)] for place in places]
    encoded = encode(tiny_backbone, PASSAGES, MAX)
    sides = [(row, side) for row in range(len(encoded.units)) for side in (0, 1)]
    return encoded, Spans(), [[(row, unit, side) for unit in range(len(encoded.units[row]))] for row, side in sides]


def drawn(encoded, objective, seed):
    draws = torch.Generator().manual_seed(seed)
    rows = len(encoded.input_ids)
    if not objective.reads_tokens:
        return torch.randn(rows, objective.outputs, generator=draws)
    return torch.randn(rows, max(map(len, encoded.units)), objective.outputs, generator=draws)


def softmax(values):
    shifted = np.exp(np.asarray(values, dtype=np.float64))
    return shifted / shifted.sum()


@pytest.mark.parametrize("kind", NEW)
def test_distances_equal_their_formulas(kind, tiny_backbone):
    encoded, objective, distributions = distilled(kind, tiny_backbone)
    student, teacher = drawn(encoded, objective, 1), drawn(encoded, objective, 2)
    layout = encoded.layout(np.arange(len(encoded)))
    everything = [place for classes in distributions for place in classes]
    squares = [float(student[place] - teacher[place]) ** 2 for place in everything]
    found = Distillation(teacher, 0.3).loss(student, teacher, objective, layout)
    assert float(found) == pytest.approx(0.3 * np.mean(squares), rel=1e-5)
    temperature = 2.0
    divergences = []
    for classes in distributions:
        p = softmax([float(teacher[place]) / temperature for place in classes])
        q = softmax([float(student[place]) / temperature for place in classes])
        divergences.append(float((p * (np.log(p) - np.log(q))).sum()))
    found = Distillation(teacher, 0.3, "kl", temperature).loss(student, teacher, objective, layout)
    assert float(found) == pytest.approx(0.3 * temperature**2 * np.mean(divergences), rel=1e-5)


@pytest.mark.parametrize("kind", NEW)
@pytest.mark.parametrize("distance", ["mse", "kl"])
def test_a_student_equal_to_its_teacher_has_no_distance_and_gradients_are_finite(kind, distance, tiny_backbone):
    encoded, objective, distributions = distilled(kind, tiny_backbone)
    teacher = drawn(encoded, objective, 2)
    layout = encoded.layout(np.arange(len(encoded)))
    distillation = Distillation(teacher, 1.0, distance)
    assert float(distillation.loss(teacher, teacher, objective, layout)) == pytest.approx(0.0, abs=1e-6)
    student = drawn(encoded, objective, 1).requires_grad_()
    labels = {
        "multiple_choice": ragged([(0,), (1,)]),
        "token_classification": TAGS,
        "extractive_qa": ANSWERS,
    }[kind]
    loss = objective.loss(student, objective.targets(encoded, labels), layout)
    (loss + distillation.loss(student, teacher, objective, layout)).backward()
    assert bool(student.grad.isfinite().all())
    used = torch.zeros_like(student, dtype=torch.bool)
    for classes in distributions:
        for place in classes:
            used[place] = True
    assert bool((student.grad[used] != 0).all())
    assert bool((student.grad[~used] == 0).all()), "padding teaches nothing"


@pytest.mark.parametrize("kind", NEW)
def test_a_smaller_batch_takes_its_part_of_the_teacher(kind, tiny_backbone):
    encoded, objective, _ = distilled(kind, tiny_backbone)
    teacher = drawn(encoded, objective, 2)
    for distance in ("mse", "kl"):
        distillation = Distillation(teacher, 1.0, distance)
        for example in range(len(encoded)):
            layout = encoded.layout([example])
            own = teacher[layout.rows]
            if layout.units is not None:
                own = own[:, : layout.units.shape[1]]
            same = distillation.loss(own, teacher, objective, layout)
            other = distillation.loss(
                own + drawn(encoded, objective, 5)[layout.rows][:, : own.shape[1]], teacher, objective, layout
            )
            assert float(same) == pytest.approx(0.0, abs=1e-6)
            assert float(other) > 1e-3


def test_kl_is_for_every_kind_but_regression():
    for kind in NEW:
        check_distance("kl", kind)
    with pytest.raises(PandaError, match="regression"):
        check_distance("kl", "regression")


@pytest.mark.parametrize("kind", NEW)
def test_the_validation_loss_is_that_of_the_training_loop(kind, tiny_backbone, tmp_path):
    task = kind_task(kind, tmp_path, train=12, no_answer=True) if kind == "extractive_qa" else kind_task(kind, tmp_path)
    data = data_of(tiny_backbone, task, max_length=16)
    objective = objective_for(task.spec, len(task.labels))
    ours = head(objective.outputs, "token" if objective.reads_tokens else "mean")
    _, loss, _, _ = learnt(tiny_backbone, ours, data.encoded, objective, data.split.labels, range(len(data)))
    scores = scores_of(predict_outputs(tiny_backbone, None, ours, data.encoded), data, objective)
    assert scores["loss"] == pytest.approx(loss, rel=1e-5)
    assert list(scores) == [*task.spec.metrics, "loss"]


@pytest.mark.parametrize("kind", list(Kind))
def test_a_kind_knows_its_head_as_its_objective_does(kind):
    spec = TaskSpec.parse({"name": "x", "kind": kind} | SPECS[kind], "a test")
    objective = objective_for(spec, 5)
    assert (kind.reads_tokens, kind.outputs(5)) == (objective.reads_tokens, objective.outputs)
