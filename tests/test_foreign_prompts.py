"""Prompts of other programs, in the layout that those write, become sources with the same effect."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch
from conftest import text_batch
from shared_banks import panda, refused
from torch import nn
from transformers import AutoModel, DynamicCache

from promptpanda.bank.folder import read_source
from promptpanda.prompts.prompt import PromptStack

pytestmark = pytest.mark.usefixtures("one_thread")


class PrefixEncoder(nn.Module):
    """The layout of P-tuning v2: an embedding, and an MLP behind it if asked for."""

    def __init__(self, length, hidden, layers, projection):
        super().__init__()
        width = layers * 2 * hidden
        self.embedding = nn.Embedding(length, hidden if projection else width)
        if projection:
            self.trans = nn.Sequential(nn.Linear(hidden, 16), nn.Tanh(), nn.Linear(16, width))

    def forward(self):
        values = self.embedding.weight
        return self.trans(values) if hasattr(self, "trans") else values


@pytest.mark.parametrize("projection", [False, True])
def test_a_prefix_of_p_tuning_v2_does_here_what_it_does_there(
    projection, tiny_folder, load_tiny, tmp_path, monkeypatch
):
    """Their way: (V, layers x 2, heads, head_dim), permuted to key and value of every layer, as past key values."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(1)
    encoder = PrefixEncoder(5, 32, 2, projection)
    state = {f"prefix_encoder.{name}": value for name, value in encoder.state_dict().items()}
    torch.save(state | {"classifier.weight": torch.zeros(2, 32)}, "pytorch_model.bin")
    told = json.loads(panda("bank", "import", "pytorch_model.bin", "--model", tiny_folder("bert"), "--json"))
    assert told == {"source": "bank/pytorch_model", "kind": "prefix", "length": 5}
    backbone, batch = load_tiny("bert"), text_batch("bert")
    source = read_source(tmp_path / "bank" / "pytorch_model", backbone)
    with torch.no_grad():
        past = encoder().view(5, 4, 4, 8)[None].expand(3, -1, -1, -1, -1).permute(2, 0, 3, 1, 4).split(2)
        cache = DynamicCache()
        for layer, (key, value) in enumerate(past):
            cache.update(key.contiguous(), value.contiguous(), layer)
        model = AutoModel.from_pretrained(tiny_folder("bert"), is_decoder=False)
        mask = torch.cat([torch.ones(3, 5, dtype=torch.long), batch.attention_mask], dim=1)
        positions = (torch.arange(batch.input_ids.shape[1]) + 5).expand(3, -1)
        theirs = model(
            input_ids=batch.input_ids, attention_mask=mask, position_ids=positions, past_key_values=cache
        ).last_hidden_state
        ours = backbone.hidden(batch, PromptStack.of([source.prompt]))
    there = batch.attention_mask.bool()
    torch.testing.assert_close(ours[there], theirs[there], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("form", ["task_prompt", "pytorch_model.bin", "prompt.npy", "prompt.safetensors"])
def test_shallow_prompts_of_others(form, tiny_folder, load_tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(2)
    values = torch.randn(6, 32)
    if form == "prompt.npy":
        np.save(form, values.numpy())
    elif form == "prompt.safetensors":
        from safetensors.torch import save_file

        save_file({"prompt_model.template.soft_embeds": values}, form)
    else:
        torch.save(values[None] if form == "task_prompt" else {"prompt_model.template.soft_embeds": values}, form)
    told = json.loads(panda("bank", "import", form, "--name", "sst2", "--model", tiny_folder("roberta"), "--json"))
    assert told == {"source": "bank/sst2", "kind": "shallow", "length": 6}
    assert torch.equal(read_source(tmp_path / "bank" / "sst2", load_tiny("roberta")).prompt.tensor, values)
    assert "already exists" in refused("bank", "import", form, "--name", "sst2", "--model", tiny_folder("roberta"))


class Evil:
    def __reduce__(self):
        return (open, ("was-run", "w"))


def test_what_is_no_prompt_is_refused_and_runs_nothing(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.bin").write_bytes(pickle.dumps(Evil()))
    torch.save({"x": Evil()}, "evil.pt")
    np.save("objects.npy", np.array([Evil()]), allow_pickle=True)
    torch.save(torch.full((4, 32), float("nan")), "nan.pt")
    torch.save(torch.randn(4, 31), "narrow.pt")
    torch.save({"prefix_encoder.embedding.weight": torch.randn(4, 100)}, "other.pt")
    torch.save({"bert.x": torch.randn(4, 32)}, "none.pt")
    torch.save(torch.randn(2, 4, 32), "three.pt")
    (tmp_path / "text.npy").write_text("hello")
    model = ["--model", tiny_folder("bert")]
    for name, sentence in {
        "evil.bin": "cannot be read as tensors",
        "evil.pt": "cannot be read as tensors",
        "objects.npy": "cannot be read as tensors",
        "text.npy": "cannot be read as tensors",
        "nan.pt": "not finite",
        "narrow.pt": "use the backbone it was trained on",
        "other.pt": "give the model that it was trained on",
        "none.pt": "no known prompt",
        "three.pt": "expected (virtual tokens, size)",
        "missing.pt": "There is no file",
    }.items():
        assert sentence in refused("bank", "import", name, *model), name
    assert not (tmp_path / "was-run").exists()
    assert not (tmp_path / "bank").exists()
