"""Tiny random models of every family, made on disk, and small tasks that can be learnt."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # as many workers as cores: threads of each would wait for one another
    os.environ["OMP_NUM_THREADS"] = "1"

import torch

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.pop("PANDA_DATA", None)

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AlbertConfig,
    AutoModel,
    BertConfig,
    DistilBertConfig,
    ElectraConfig,
    GPT2Config,
    LlamaConfig,
    ModernBertConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
    RobertaConfig,
)

from promptpanda.backbone import Backbone, TextBatch
from promptpanda.quiet import quiet_libraries
from promptpanda.tasks.spec import TaskSpec
from promptpanda.tasks.task import Task

quiet_libraries()

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": 120,
    "max_position_embeddings": 64,
}
SPECIAL = {"bos_token_id": 2, "eos_token_id": 3}
CONFIGS: dict[str, PreTrainedConfig] = {
    "bert": BertConfig(**SIZES),
    "roberta": RobertaConfig(**SIZES | {"max_position_embeddings": 66}, pad_token_id=1, **SPECIAL),
    "electra": ElectraConfig(**SIZES, embedding_size=16),
    "distilbert": DistilBertConfig(
        dim=32, n_layers=2, n_heads=4, hidden_dim=64, vocab_size=120, max_position_embeddings=64
    ),
    "albert": AlbertConfig(**SIZES | {"num_hidden_layers": 3}, embedding_size=16, **SPECIAL),
    "modernbert": ModernBertConfig(
        **SIZES,
        **SPECIAL,
        pad_token_id=0,
        cls_token_id=2,
        sep_token_id=3,
        local_attention=4,
        global_attn_every_n_layers=2,
    ),
    "gpt2": GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=120, n_positions=64, **SPECIAL),
    "llama": LlamaConfig(**SIZES, num_key_value_heads=2, **SPECIAL),
    "qwen3": Qwen3Config(**SIZES, num_key_value_heads=2, head_dim=8, **SPECIAL),
}
FAMILIES = list(CONFIGS)
DECODERS = ("gpt2", "llama", "qwen3")
WORDS = ["good", "fine", "great", "nice", "fresh", "bad", "poor", "awful", "dull", "broken", "the", "a"]
WORDS += ["phone", "screen", "battery", "service", "food"]
WORDS += [f"w{number}" for number in range(60)]


def tiny_tokenizer(decoder: bool) -> PreTrainedTokenizerFast:
    vocabulary = {word: index for index, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])}
    model = models.WordLevel if decoder else models.WordPiece
    tokenizer = Tokenizer(model(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]"}
    if not decoder:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
        names |= {"cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def save_tiny(config: PreTrainedConfig, folder: Path, seed: int = 0, **options: object) -> Path:
    torch.manual_seed(seed)
    model = AutoModel.from_config(config, **options)
    # Random weights of the usual size give nearly constant outputs; these make texts and prompts matter.
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(4.0)
    model.save_pretrained(folder)
    tiny_tokenizer(config.model_type in DECODERS).save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def no_installed_banks(request, monkeypatch):
    """Banks that are installed on this machine play no part, but where a test is marked `installed_banks`."""
    if request.node.get_closest_marker("installed_banks") is None:
        for module in ("bank.bank", "bank.installed"):
            monkeypatch.setattr(f"promptpanda.{module}.installed_banks", lambda: ({}, ()))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Models this small are slowed down by more, above all where the cores are busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny model of a family."""
    root = tmp_path_factory.mktemp("models")

    def folder(family: str) -> Path:
        path = root / f"tiny-{family}"
        return path if path.exists() else save_tiny(CONFIGS[family], path)

    return folder


@pytest.fixture(scope="session")
def load_tiny(tiny_folder: Callable[[str], Path]) -> Callable[[str], Backbone]:
    """A tiny backbone of a family; loaded once a session."""
    loaded: dict[str, Backbone] = {}

    def load(family: str) -> Backbone:
        if family not in loaded:
            loaded[family] = Backbone.load(str(tiny_folder(family)))
        return loaded[family]

    return load


@pytest.fixture(scope="session")
def tiny_backbone(load_tiny: Callable[[str], Backbone]) -> Backbone:
    """A tiny BERT."""
    return load_tiny("bert")


def text_batch(family: str, lengths: tuple[int, ...] = (9, 5, 7)) -> TextBatch:
    """Random tokens of these lengths, padded on the right."""
    generator = torch.Generator().manual_seed(7)
    mask = (torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]).long()
    ids = torch.randint(5, 70, mask.shape, generator=generator)
    return TextBatch(torch.where(mask.bool(), ids, 1 if family == "roberta" else 0), mask)


def sentiment_rows(count: int, seed: int = 0) -> list[dict[str, object]]:
    """Rows whose label a bag of words tells: good words or bad ones."""
    generator = torch.Generator().manual_seed(seed)
    rows: list[dict[str, object]] = []
    for number in range(count):
        label = number % 2
        draw = torch.randint(0, 5, (2,), generator=generator).tolist()
        noun = WORDS[int(torch.randint(12, 17, (1,), generator=generator))]
        words = [WORDS[5 * label + index] for index in draw]
        filler = " ".join(
            f"w{index}" for index in torch.randint(0, 60, (1 + number % 5,), generator=generator).tolist()
        )
        rows.append({"text": f"the {noun} {words[0]} {words[1]} {filler}", "label": ("good", "bad")[label]})
    return rows


def write_jsonl(path: Path, rows: list[dict[str, object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def task_of(rows: list[dict[str, object]], root: Path, name: str = "own", **changes: object) -> Task:
    """A task with these training rows in a data root; its classes are those that occur, unless `changes` names them."""
    write_jsonl(root / name / "train.jsonl", rows)
    content = {"name": name, "kind": "single_classification", "segments": ["{text}"], "metrics": ["accuracy"]}
    return Task(TaskSpec.parse(content | changes, "a test"), root)


@pytest.fixture
def sentiment(tmp_path: Path) -> Callable[..., Task]:
    """A task of good and bad words with its files in a data root of the test's own."""

    def task(name: str = "mood", train: int = 60, test: int | None = 40, seed: int = 0, **changes: object) -> Task:
        root = tmp_path / "data"
        write_jsonl(root / name / "train.jsonl", sentiment_rows(train, seed))
        if test is not None:
            write_jsonl(root / name / "test.jsonl", sentiment_rows(test, seed + 1000))
        content = {
            "name": name,
            "kind": "single_classification",
            "segments": ["{text}"],
            "labels": ["good", "bad"],
            "metrics": ["accuracy", "macro_f1"],
        }
        return Task(TaskSpec.parse(content | changes, "a test"), root)

    return task


@pytest.fixture
def study(tmp_path, tiny_folder):
    """Of a sweep, not begun."""
    from sweeps import Study  # which imports this module

    return Study(tmp_path, tiny_folder("bert"))


@pytest.fixture(scope="session")
def finished(tmp_path_factory, tiny_folder):
    """A study that was swept once, to be copied."""
    from sweeps import Study

    study = Study(tmp_path_factory.mktemp("finished"), tiny_folder("bert"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    study.run()
    torch.set_num_threads(threads)
    return study


@pytest.fixture
def swept(finished, tmp_path):
    """A finished study of the test's own."""
    shutil.copytree(finished.folder, tmp_path / "copy", dirs_exist_ok=True)
    copy = object.__new__(type(finished))
    copy.folder, copy.model = tmp_path / "copy", finished.model
    return copy


@pytest.fixture(scope="session")
def four_prompts(tmp_path_factory, load_tiny):
    """A bank of four prompts of a tiny BERT, to be copied: books with three seeds, films with one."""
    from promptpanda.bank.bank import Bank
    from promptpanda.training.options import TrainingOptions
    from promptpanda.transfers.transfer import train

    root = tmp_path_factory.mktemp("four")
    options = TrainingOptions(epochs=1, prompt_length=4, max_length=24, readout="mean")
    for name, seeds in (("books", (0, 1, 2)), ("films", (0,))):
        task = task_of(sentiment_rows(24, 5), root / "data", name, labels=["good", "bad"])
        for seed in seeds:
            train(task, load_tiny("bert"), bank=Bank(root / "bank"), options=options, seed=seed)
    return root / "bank"


@pytest.fixture
def bank(four_prompts, tmp_path, monkeypatch):
    """`four_prompts` of the test's own, as ./bank."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(four_prompts, tmp_path / "bank")
    return tmp_path / "bank"


@pytest.fixture
def ids(bank):
    """Those of the four prompts, in order."""
    from promptpanda.bank.bank import Bank

    return Bank(bank, others={}).ids()


@pytest.fixture
def model(tiny_folder):
    """Options of a command that name the model of the four prompts."""
    return ["--model", str(tiny_folder("bert"))]
