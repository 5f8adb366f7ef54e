"""Prompt folders that somebody changed anywhere: what is read is sound, what is refused is told in one sentence."""

from __future__ import annotations

import copy
import json
import math
import shutil
from typing import Any

import pytest
import torch
from banks import forge, read_card, replace_file, trained_in, write_card
from conftest import WORDS
from hypothesis import given, settings
from hypothesis import strategies as st

from promptpanda.bank.bank import Bank
from promptpanda.bank.folder import read_folder
from promptpanda.errors import PandaError
from promptpanda.transfers.predict import predict

pytestmark = pytest.mark.usefixtures("one_thread")

SEEDED = settings(derandomize=True, deadline=None, max_examples=100, database=None)
FILES = ("adapter_model.safetensors", "head.safetensors", "signature.safetensors")

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(
        ["", "\ud800", "../x", "NaN", "token", "pooler", "prefix", "shallow", "regression", "f1", "0" * 64]
    ),
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)


@pytest.fixture(scope="module")
def original(tiny_backbone, tmp_path_factory):
    """A bank with one sound prompt."""
    folder = tmp_path_factory.mktemp("generated") / "bank"
    return trained_in(folder, tiny_backbone).path


@pytest.fixture(scope="module")
def judge(original, tiny_backbone):
    """Change a copy of the prompt, and compare what becomes of it; True where it is read."""
    bank = Bank(original.parent.parent / "copy")
    folder = bank.folder / original.name

    def judged(change) -> bool:
        shutil.rmtree(bank.folder, ignore_errors=True)
        shutil.copytree(original, folder)
        change(folder)
        listed = len(bank.readable_cards()[0])
        sound = is_intact(bank, folder.name)
        try:
            trained = read_folder(folder, tiny_backbone)
        except PandaError as error:
            refusal = str(error)
            assert refusal.endswith((".", ")")), refusal
            assert len(refusal) < 1500
            assert not sound or is_about_the_model(refusal), f"verify accepts, reading refuses: {refusal}"
            return False
        # The folder's name is the bank's business: a prompt that goes by another name is read by its path.
        assert sound or trained.card.id != folder.name, "reading accepts, verify refuses"
        assert listed == int(trained.card.id == folder.name)
        check_use(trained, tiny_backbone)
        return True

    return judged


def is_intact(bank: Bank, name: str) -> bool:
    try:
        bank.verify(name)
    except PandaError:
        return False
    return True


def is_about_the_model(refusal: str) -> bool:
    """Verifying knows no backbone."""
    return any(words in refusal for words in (", but /", "was trained on", "positions, and", "Readout 'pooler' needs"))


def check_use(trained: Any, backbone: Any) -> None:
    """What is read can be used, and gives JSON."""
    text = tuple(WORDS[:3]) if len(trained.card.task.segments) == 1 else ("good", "bad")
    try:
        found = predict(trained, backbone, [" ".join(text) if len(trained.card.task.segments) == 1 else text])
    except PandaError:
        return
    json.dumps(found, allow_nan=False)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """All places in a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, one in inner for place in places(one, (*path, key)))]


def mutated(content: Any, draw: Any) -> Any:
    """The content with one value replaced, one key removed, one key added, or one key called otherwise."""
    content = copy.deepcopy(content)
    place = draw(st.sampled_from(places(content)[1:]))
    parent = content
    for key in place[:-1]:
        parent = parent[key]
    action = draw(st.sampled_from(["replace", "replace", "replace", "remove", "add", "rename"]))
    if action == "replace":
        parent[place[-1]] = draw(values)
    elif action == "remove" or isinstance(parent, list):
        del parent[place[-1]]
    elif action == "add":
        parent[draw(st.text(max_size=6))] = draw(values)
    else:
        parent[draw(st.text(max_size=6))] = parent.pop(place[-1])
    return content


def test_the_prompt_itself_is_accepted(judge):
    assert judge(lambda folder: None)


def test_a_card_with_one_value_or_key_changed(judge, original):
    card, read = read_card(original), []

    @SEEDED
    @given(st.data())
    def changed(data):
        content = mutated(card, data.draw)
        read.append(judge(lambda folder: write_card(folder, content)))

    changed()
    assert 0 < sum(read) < len(read)


def test_a_configuration_with_one_value_or_key_changed(judge, original):
    config, read = json.loads((original / "adapter_config.json").read_text()), []

    @SEEDED
    @given(st.data())
    def changed(data):
        content = json.dumps(mutated(config, data.draw)).encode()
        read.append(judge(lambda folder: replace_file(folder, "adapter_config.json", content)))

    changed()
    assert 0 < sum(read) < len(read)


def tensor_change(draw: Any) -> Any:
    """A change of the tensors of one file."""
    action = draw(st.sampled_from(["shape", "type", "value", "remove", "add", "scale", "none"]))
    at = draw(st.integers(0, 2))
    number = draw(st.sampled_from([math.nan, math.inf, -math.inf, 0.0, 1.0, 3e38, -1e-45]))
    kind = draw(
        st.sampled_from([torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool, torch.float8_e5m2])
    )
    cut = draw(st.integers(0, 3))

    def change(tensors: dict[str, torch.Tensor]) -> None:
        key = sorted(tensors)[at % len(tensors)]
        one = tensors[key]
        if action == "shape":
            choices = (one[:cut], one[..., :cut], one.flatten(), one[None], torch.cat([one] * (cut + 1)))
            tensors[key] = choices[at + cut % 3].clone()
        elif action == "type":
            tensors[key] = one.to(kind)
        elif action == "value":
            tensors[key].view(-1)[cut % one.numel()] = number
        elif action == "remove":
            del tensors[key]
        elif action == "add":
            tensors[f"{key}{'.weight' * at}x"] = one.clone()
        elif action == "scale":
            tensors[key] = (one.float() * number).to(one.dtype)

    return change


def test_tensors_changed_and_checksums_made_right_again(judge):
    read = []

    @SEEDED
    @given(st.data())
    def changed(data):
        name, change = data.draw(st.sampled_from(FILES)), tensor_change(data.draw)
        read.append(judge(lambda folder: forge(folder, name, change)))

    changed()
    assert 0 < sum(read) < len(read)


def test_bytes_changed_and_checksums_made_right_again(judge, original):
    contents, read = {name: (original / name).read_bytes() for name in (*FILES, "adapter_config.json")}, []

    @SEEDED
    @given(st.data())
    def changed(data):
        name = data.draw(st.sampled_from(sorted(contents)))
        content = bytearray(contents[name])
        place = data.draw(st.integers(0, min(len(content) - 1, 400)))
        what = data.draw(st.sampled_from(["cut", "flip", "insert"]))
        if what == "cut":
            del content[place:]
        elif what == "flip":
            content[place] ^= data.draw(st.integers(1, 255))
        else:
            content[place:place] = data.draw(st.binary(min_size=1, max_size=8))
        read.append(judge(lambda folder: replace_file(folder, name, bytes(content))))

    changed()
    assert 0 < sum(read) < len(read)


def test_a_card_of_any_bytes(judge, original):
    card = (original / "card.json").read_bytes()

    @SEEDED
    @given(
        st.one_of(st.binary(max_size=40), st.builds(lambda one: json.dumps(one).encode(), values)), st.integers(0, 900)
    )
    def changed(content, place):
        judge(lambda folder: (folder / "card.json").write_bytes(content))
        judge(lambda folder: (folder / "card.json").write_bytes(card[:place] + content + card[place:]))

    changed()
