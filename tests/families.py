"""All families that prompts work on, as tiny configurations, and what each must prove to be listed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from conftest import CONFIGS, SIZES, SPECIAL, text_batch
from test_attention import at_tokens, gradient, prompts, with_peft
from transformers import (
    BartConfig,
    BloomConfig,
    CamembertConfig,
    DebertaConfig,
    DebertaV2Config,
    EuroBertConfig,
    FalconConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPTNeoXConfig,
    MistralConfig,
    MPNetConfig,
    NomicBertConfig,
    OPTConfig,
    Phi3Config,
    PreTrainedConfig,
    Qwen2Config,
    SmolLM3Config,
    T5Config,
    XLMRobertaConfig,
)

from promptpanda.backbone import Backbone, TextBatch
from promptpanda.depth import Below
from promptpanda.errors import PandaError
from promptpanda.prompts.prompt import PromptStack

GROUPED = SIZES | SPECIAL | {"num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0}
SLIDING_FIRST = ["sliding_attention", "full_attention"]
ROBERTA = SIZES | SPECIAL | {"max_position_embeddings": 66, "pad_token_id": 1}
DEBERTA = SIZES | {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "type_vocab_size": 2}
BLOCKS = {"hidden_size": 32, "vocab_size": 120, **SPECIAL}

FAMILIES: dict[str, PreTrainedConfig] = {
    "BERT": CONFIGS["bert"],
    "RoBERTa": CONFIGS["roberta"],
    "XLM-R": XLMRobertaConfig(**ROBERTA),
    "CamemBERT": CamembertConfig(**ROBERTA),
    "ELECTRA": CONFIGS["electra"],
    "DistilBERT": CONFIGS["distilbert"],
    "ALBERT": CONFIGS["albert"],
    "MPNet": MPNetConfig(**ROBERTA),
    "DeBERTa": DebertaConfig(**DEBERTA, max_relative_positions=6, position_biased_input=True),
    "DeBERTa v2/v3": DebertaV2Config(
        **DEBERTA, position_buckets=4, max_relative_positions=16, norm_rel_ebd="layer_norm", share_att_key=True,
        position_biased_input=False,
    ),
    "ModernBERT": CONFIGS["modernbert"],
    "NomicBERT": NomicBertConfig(**SIZES, **SPECIAL),
    "EuroBERT": EuroBertConfig(**GROUPED),
    "T5 (encoder)": T5Config(d_model=32, num_layers=2, num_heads=4, d_ff=64, vocab_size=120, d_kv=8),
    "BART (encoder)": BartConfig(
        d_model=32, encoder_layers=2, decoder_layers=1, encoder_attention_heads=4, decoder_attention_heads=4,
        encoder_ffn_dim=64, decoder_ffn_dim=64, vocab_size=120, max_position_embeddings=64, pad_token_id=1, **SPECIAL,
    ),
    "GPT-2": CONFIGS["gpt2"],
    "OPT": OPTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, ffn_dim=64, vocab_size=120,
        max_position_embeddings=64, word_embed_proj_dim=32, pad_token_id=1, **SPECIAL,
    ),
    "GPT-NeoX": GPTNeoXConfig(**SIZES, **SPECIAL),
    "BLOOM": BloomConfig(**BLOCKS, n_layer=2, n_head=4),
    "Falcon": FalconConfig(**BLOCKS, num_hidden_layers=2, num_attention_heads=4),
    "Llama": CONFIGS["llama"],
    "Mistral": MistralConfig(**GROUPED, sliding_window=16),
    "Qwen2": Qwen2Config(**SIZES, **SPECIAL, num_key_value_heads=2),
    "Qwen3": CONFIGS["qwen3"],
    "Gemma": GemmaConfig(**GROUPED),
    "Gemma 2": Gemma2Config(**GROUPED, sliding_window=16, attn_logit_softcapping=2.0, query_pre_attn_scalar=8),
    "Gemma 3": Gemma3TextConfig(**GROUPED, sliding_window=16, layer_types=SLIDING_FIRST),
    "Phi-3": Phi3Config(**GROUPED, sliding_window=None),
    "SmolLM3": SmolLM3Config(**GROUPED, no_rope_layers=[1, 0]),
}  # fmt: skip


def batch_of(backbone: Backbone, lengths: tuple[int, ...] = (9, 5, 7)) -> TextBatch:
    """Random tokens, with the padding of the family."""
    batch = text_batch("bert", lengths)
    pad = getattr(backbone.config, "pad_token_id", None)
    return TextBatch(torch.where(batch.attention_mask.bool(), batch.input_ids, pad or 0), batch.attention_mask)


def _rows_alone(backbone: Backbone, kind: str) -> None:
    """Each row of a padded batch that mixes prompts equals the row alone, unpadded, under its own prompt."""
    batch, stack, rows = batch_of(backbone), prompts(backbone, kind, 3), [2, 0, 2]
    with torch.no_grad():
        mixed = backbone.hidden(batch, PromptStack.of(stack, torch.tensor(rows)))
        for row, length in enumerate(batch.attention_mask.sum(1).tolist()):
            ids, mask = (side[row : row + 1, :length] for side in (batch.input_ids, batch.attention_mask))
            alone = backbone.hidden(TextBatch(ids, mask), PromptStack.of([stack[rows[row]]]))
            torch.testing.assert_close(mixed[row, :length], alone[0], atol=2e-5, rtol=1e-4)


def _matters(backbone: Backbone, kind: str) -> None:
    """Another prompt gives every token another state: the comparisons show something."""
    batch, stack = batch_of(backbone), prompts(backbone, kind, 2)
    with torch.no_grad():
        first, second = (backbone.hidden(batch, PromptStack.of([prompt])) for prompt in stack)
    assert bool(((first - second).abs().amax(-1) > 1e-3)[batch.attention_mask.bool()].all())


@contextmanager
def _untouched(backbone: Backbone) -> Iterator[None]:
    before = {name: tensor.clone() for name, tensor in backbone.model.state_dict().items()}
    yield
    assert all(torch.equal(before[name], tensor) for name, tensor in backbone.model.state_dict().items())
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in backbone.model.parameters())
    assert not any(module.training for module in backbone.model.modules())


def prefix(backbone: Backbone, folder: Path) -> None:
    """Padding changes nothing, keys and values of every layer get a gradient, the backbone stays as it was."""
    with _untouched(backbone):
        _rows_alone(backbone, "prefix")
        _matters(backbone, "prefix")
        grad = gradient(backbone, batch_of(backbone), prompts(backbone, "prefix")[0])
    assert bool((grad.abs().sum(dim=(2, 3, 4)) > 0).all())


def shallow(backbone: Backbone, folder: Path) -> None:
    """The same for prompts that are input embeddings."""
    with _untouched(backbone):
        _rows_alone(backbone, "shallow")
        _matters(backbone, "shallow")
        tensor = prompts(backbone, "shallow")[0].tensor.clone().requires_grad_()
        backbone.hidden(batch_of(backbone), PromptStack("shallow", tensor[None])).pow(2).sum().backward()
    assert tensor.grad is not None
    assert bool((tensor.grad.abs().sum(-1) > 0).all())


def mixed(backbone: Backbone, folder: Path) -> None:
    """A batch of several prompts is, row by row, the batch under each prompt."""
    batch, rows = batch_of(backbone, (6, 6, 4, 6)), [2, 0, 1, 0]
    for kind in ("prefix", "shallow"):
        stack = prompts(backbone, kind, 3)
        with torch.no_grad():
            together = backbone.hidden(batch, PromptStack.of(stack, torch.tensor(rows)))
            each = [backbone.hidden(batch, PromptStack.of([prompt])) for prompt in stack]
        expected = torch.stack([each[prompt][row] for row, prompt in enumerate(rows)])
        assert at_tokens(together - expected, batch) < 1e-5


def packed(backbone: Backbone, folder: Path) -> None:
    """Batches go through without padding, to the same result and gradient."""
    assert backbone._packs, "refused"
    batch, (prompt,) = batch_of(backbone), prompts(backbone, "prefix")
    with torch.no_grad():
        states = [one.hidden(batch, PromptStack.of([prompt])) for one in (backbone, backbone.padded())]
    assert at_tokens(states[0] - states[1], batch) < 1e-5
    of_packed, of_padded = (gradient(one, batch, prompt) for one in (backbone, backbone.padded()))
    torch.testing.assert_close(of_packed, of_padded, atol=1e-4, rtol=1e-3)


def checkpointing(backbone: Backbone, folder: Path) -> None:
    """Layers are computed twice, and gradients are equal to the last bit."""
    batch, (prompt,) = batch_of(backbone), prompts(backbone, "prefix")
    plain, calls = gradient(backbone, batch, prompt, count=True)
    try:
        backbone.set_gradient_checkpointing(True)
    except PandaError as error:
        raise AssertionError("refused") from error
    try:
        saved, recomputed = gradient(backbone, batch, prompt, count=True)
    finally:
        backbone.set_gradient_checkpointing(False)
    assert (calls, recomputed) == (backbone.shape.layers, 2 * backbone.shape.layers)
    assert torch.equal(plain, saved)


def peft(backbone: Backbone, folder: Path) -> None:
    """Equal to PEFT's prefix tuning of the same numbers."""
    batch, (prompt,) = batch_of(backbone), prompts(backbone, "prefix")
    with torch.no_grad():
        ours, bare = backbone.hidden(batch, PromptStack.of([prompt])), backbone.hidden(batch)
    try:
        theirs = with_peft(folder, prompt, batch)
    except (AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        raise AssertionError("PEFT does not run") from error
    assert at_tokens(theirs - bare, batch) > 1e-3, "PEFT leaves the prompt out"
    assert at_tokens(ours - theirs, batch) < 2e-5


def upper_layers(backbone: Backbone, folder: Path) -> None:
    """The last layer alone, from what was kept of the layers below, has the states and the gradient of the whole."""
    batch, (prompt,) = batch_of(backbone), prompts(backbone, "prefix")
    layer = backbone.shape.layers - 1
    with torch.no_grad():
        try:
            entering, last = backbone.entering(layer, batch, PromptStack.of([prompt]))
            backbone.check_divides(batch, PromptStack.of([prompt]), last, Below(layer, entering))
        except PandaError as error:
            raise AssertionError("refused") from error
    upper = prompt.tensor[layer:].clone().requires_grad_()
    hidden = backbone.hidden(batch, PromptStack("prefix", upper[None]), below=Below(layer, entering))
    assert at_tokens(hidden.detach() - last, batch) < 1e-5
    (hidden * batch.attention_mask[:, :, None]).pow(2).sum().backward()
    torch.testing.assert_close(upper.grad, gradient(backbone, batch, prompt)[layer:], atol=1e-4, rtol=1e-3)


def bfloat16(backbone: Backbone, folder: Path) -> None:
    """In bfloat16 the states are those of float32 but for its rounding, and the float32 prompt gets its gradient."""
    half = Backbone.load(str(folder), dtype="bfloat16")
    batch, (prompt,) = batch_of(backbone), prompts(backbone, "prefix")
    with torch.no_grad():
        exact, rounded = (one.hidden(batch, PromptStack.of([prompt])) for one in (backbone, half))
    there = batch.attention_mask.bool()
    assert rounded.dtype == torch.float32
    assert F.cosine_similarity(exact[there], rounded[there], dim=-1).min() > 0.99
    grad = gradient(half, batch, prompt)
    assert grad.dtype == torch.float32
    assert bool(torch.isfinite(grad).all())
    assert bool((grad.abs().sum(dim=(2, 3, 4)) > 0).all())


PROOFS: dict[str, Callable[[Backbone, Path], None]] = {
    "prefix": prefix,
    "shallow": shallow,
    "mixed batch": mixed,
    "packed": packed,
    "checkpointing": checkpointing,
    "upper layers": upper_layers,
    "equal to PEFT": peft,
    "bfloat16": bfloat16,
}
NEEDED = ("prefix", "shallow", "mixed batch", "bfloat16")  # to be listed at all
