"""The lines of docs/extending.md: our prompts and heads in PEFT's own classes, without promptpanda."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import sentiment_rows, task_of

from promptpanda.backbone import Backbone
from promptpanda.bank.peft_format import adapter_config, check_base_model
from promptpanda.models import EMBEDDED
from promptpanda.training.options import TrainingOptions
from promptpanda.transfers.predict import predict
from promptpanda.transfers.transfer import train

pytestmark = pytest.mark.usefixtures("one_thread")

PAGE = Path(__file__).parent.parent / "docs" / "extending.md"
TEXTS = ["the phone good w1", "bad food w2 w3 w7 awful"]


def page_lines(folder):
    """The page's code for a folder and our texts."""
    section = PAGE.read_text(encoding="utf-8").split("## With PEFT, without promptpanda")[1]
    code = re.search(r"```python\n(.*?)```", section, re.S).group(1)
    code = re.sub(r'FOLDER = ".*"', f"FOLDER = {str(folder)!r}", code)
    return re.sub(r"texts = \[.*\]", f"texts = {TEXTS!r}", code)


@pytest.mark.parametrize(
    ("family", "readout", "form"),
    [
        ("bert", "pooler", "SEQ_CLS"),
        ("bert", "mean", "FEATURE_EXTRACTION"),
        ("roberta", "cls", "FEATURE_EXTRACTION"),
        ("electra", "last", "FEATURE_EXTRACTION"),
        ("llama", "last", "SEQ_CLS"),
        ("gpt2", "mean", "FEATURE_EXTRACTION"),
    ],
)
def test_the_lines_of_the_page_predict_what_we_predict(family, readout, form, load_tiny, tmp_path, capsys):
    rows = [row | {"label": "abc"[number % 3]} for number, row in enumerate(sentiment_rows(40))]
    backbone = load_tiny(family)
    options = TrainingOptions(epochs=2, max_length=24, prompt_length=4, readout=readout)
    trained = train(task_of(rows, tmp_path / "data"), backbone, bank=tmp_path / "bank", options=options)
    assert trained.card.peft == form
    names: dict[str, object] = {}
    exec(page_lines(trained.path), names)
    ours = predict(trained, backbone, TEXTS)
    assert capsys.readouterr().out.strip() == str([one["label"] for one in ours])
    shares = names["scores"].softmax(-1)
    for row, one in zip(shares.tolist(), ours, strict=True):
        assert row == pytest.approx([one["probabilities"][name] for name in trained.card.labels], abs=1e-5)


def test_the_embedded_model_is_named_as_on_the_hub(load_tiny, tmp_path):
    backbone = load_tiny("bert")
    trained = train(
        task_of(sentiment_rows(40), tmp_path / "data"),
        backbone,
        bank=tmp_path / "bank",
        options=TrainingOptions(epochs=1, max_length=24, prompt_length=4),
    )
    renamed = object.__new__(Backbone)
    renamed.__dict__.update(vars(backbone) | {"name": EMBEDDED})
    config = adapter_config(renamed, trained.prompt, "FEATURE_EXTRACTION")
    assert config["base_model_name_or_path"] == "sentence-transformers/all-MiniLM-L6-v2"
    (tmp_path / "adapter_config.json").write_text(
        f'{{"base_model_name_or_path": "{config["base_model_name_or_path"]}"}}'
    )
    check_base_model(tmp_path, renamed)
