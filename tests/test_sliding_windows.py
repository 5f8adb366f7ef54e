"""Beyond a sliding window a prefix stays visible, in every layer and from every position; by decision unlike PEFT."""

from __future__ import annotations

import pytest
import torch
from conftest import SIZES, SPECIAL, save_tiny, text_batch
from test_attention import V, prompts, with_peft
from transformers import Gemma2Config, Gemma3TextConfig, MistralConfig, ModernBertConfig

from promptpanda.backbone import Backbone, TextBatch
from promptpanda.prompts.prompt import PromptStack

pytestmark = pytest.mark.usefixtures("one_thread")

WINDOW = 12
SLIDING_FIRST = ["sliding_attention", "full_attention"]
GROUPED = SIZES | SPECIAL | {"num_key_value_heads": 2, "head_dim": 8, "sliding_window": WINDOW}
WINDOWED = {
    "mistral, window shorter than the prompt": MistralConfig(**GROUPED | {"sliding_window": V - 1}),
    "gemma2": Gemma2Config(**GROUPED | {"layer_types": SLIDING_FIRST, "pad_token_id": 0}),
    "mistral": MistralConfig(**GROUPED),
    "gemma3_text": Gemma3TextConfig(**GROUPED | {"layer_types": SLIDING_FIRST, "pad_token_id": 0}),
    "modernbert": ModernBertConfig(
        **SIZES | SPECIAL, pad_token_id=0, local_attention=4, cls_token_id=2, sep_token_id=3, layer_types=SLIDING_FIRST
    ),
}
TEXTS = {"padded": (23, 9, 17), "unpadded": (23, 23, 23), "alone": (23,)}


@pytest.fixture(scope="module")
def windowed(tmp_path_factory):
    """Tiny models of two layers whose windows are shorter than the texts, and where they lie."""
    folders = {name: save_tiny(config, tmp_path_factory.mktemp("windowed") / name) for name, config in WINDOWED.items()}
    return {name: (folder, Backbone.load(str(folder))) for name, folder in folders.items()}


def direct_gradients(backbone, batch, prompt):
    """How much each layer's prefix does to that layer's own output, at every token.

    Later layers' outputs would depend on it by way of other tokens, whatever the windows. *Shape:* (layers, tokens).
    """
    tensor = prompt.tensor.clone().requires_grad_()
    states = backbone.all_hidden(batch, PromptStack("prefix", tensor[None]))
    found = []
    for layer, hidden in enumerate(states[1:]):
        weights = torch.randn(hidden.shape[-1], generator=torch.Generator().manual_seed(layer))
        outputs = (hidden @ weights)[batch.attention_mask.bool()]
        gradients = [torch.autograd.grad(output, tensor, retain_graph=True)[0][layer] for output in outputs]
        found.append([float(gradient.abs().flatten(2).amax(-1).min()) for gradient in gradients])
    return torch.tensor(found)


@pytest.mark.parametrize("lengths", list(TEXTS))
@pytest.mark.parametrize("name", list(WINDOWED))
def test_every_position_sees_the_prefix_of_every_layer(name, lengths, windowed):
    _, backbone = windowed[name]
    batch = text_batch(name, TEXTS[lengths])
    gradients = direct_gradients(backbone, batch, prompts(backbone, "prefix")[0])
    assert gradients.shape == (2, int(batch.attention_mask.sum()))
    assert (gradients > 1e-6).all(), gradients


@pytest.mark.parametrize("name", list(WINDOWED))
def test_the_windows_are_shorter_than_the_texts(name, windowed):
    """Else the test above shows nothing: a sliding layer does not see the first token from the last."""
    _, backbone = windowed[name]
    batch = text_batch(name, (23,))
    other = TextBatch(batch.input_ids.clone(), batch.attention_mask)
    other.input_ids[0, 0] += 1
    stack = PromptStack.of(prompts(backbone, "prefix"))
    with torch.no_grad():
        first, second = (backbone.all_hidden(one, stack) for one in (batch, other))
    assert torch.equal(first[1][0, -1], second[1][0, -1])
    assert not torch.equal(first[1][0, 1], second[1][0, 1])


@pytest.mark.parametrize("name", ["bert", "albert"])
def test_every_position_of_a_packed_batch_sees_the_prefix(name, load_tiny):
    """Families with windows are never packed; of those that are, every token sees the prefix too."""
    backbone, batch = load_tiny(name), text_batch(name, TEXTS["padded"])
    tensor = prompts(backbone, "prefix")[0].tensor.clone().requires_grad_()
    assert backbone._packs
    hidden = backbone.hidden(batch, PromptStack("prefix", tensor[None]))
    weights = torch.randn(hidden.shape[-1], generator=torch.Generator().manual_seed(0))
    for output in (hidden @ weights)[batch.attention_mask.bool()]:
        (gradient,) = torch.autograd.grad(output, tensor, retain_graph=True)
        assert (gradient.abs().flatten(2).amax(-1) > 1e-6).all()


@pytest.mark.parametrize("name", list(WINDOWED))
def test_families_with_windows_are_not_packed(name, windowed):
    assert not windowed[name][1]._packs


def test_equals_peft_up_to_the_window_and_not_beyond(windowed):
    folder, backbone = windowed["mistral"]
    batch = text_batch("mistral", (23,))
    (prompt,) = prompts(backbone, "prefix")
    with torch.no_grad():
        ours = backbone.hidden(batch, PromptStack.of([prompt]))
    theirs = with_peft(folder, prompt, batch)
    difference = (ours - theirs).abs().amax(-1)[0]
    assert (difference[: WINDOW - V] < 1e-5).all()
    assert (difference[WINDOW - V + 1 :] > 1e-3).all()
