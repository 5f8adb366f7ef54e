"""All settings of one training, validated, with the defaults that measurements chose (docs/log.md)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from promptpanda.errors import PandaError
from promptpanda.names import PromptKind
from promptpanda.tasks.kinds import Kind

# Beyond these no training is meant: single precision overflows, the tokenizer's integers do, or no end is in sight.
_MOST = 1_000_000  # epochs, examples, tokens
_WIDEST = 65_536  # units of an MLP
_LARGEST = 1e6  # of what is multiplied into tensors


class TrainingOptions(BaseModel):
    """How a prompt is trained. All methods of a transfer share these options.

    A value out of range raises a `pydantic.ValidationError`; `TrainingOptions.of` raises PandaError instead.

    Attributes:
        epochs: passes over the training part, at least 1. If it is not given, the amount of data decides: as many as
            make about 200 steps, from 3 to 40.
        lr: peak learning rate of AdamW, .01 by default; it falls linearly to 0. `auto` tries .003, .01 and .03 on
            validation data.
        student_lr: learning rate of PANDA's student; None, the default, takes `lr`.
        model_lr: learning rate of model tuning, .0001 by default.
        batch_size: examples per step, 16 by default.
        prompt_kind: `prefix`, the default (keys and values for every layer), or `shallow` (input embeddings).
        prompt_length: V, the number of virtual tokens, 20 by default.
        init_std: standard deviation of a fresh prompt's values, 1 by default.
        reparameterize: width (units) of the MLP that fresh prompts are trained through; None, the default, for no MLP.
        max_length: the length in tokens that an input is cut to, or that a window over a long text has; at least 4. If
            it is not given, it is 128, or more for longer training texts and for questions, up to 384.
        readout: how hidden states become one vector: `auto` (the default, see `Backbone.auto_readout`), `pooler`,
            `cls`, `mean` or `last`; `compare` reads the two texts of a pair separately and compares their means.
        dropout: probability, from 0 to below 1, .1 by default, with which elements of the prompt and of the head's
            input are zeroed in training; the backbone has no dropout.
        weight_decay: of AdamW, 0 by default.
        max_grad_norm: the norm that gradients are clipped to, 1 by default.
        early_stopping: training stops after this many epochs without a better validation score, and the best epoch
            counts. None, the default: all epochs are trained and the last one counts.
        gradient_checkpointing: whether to recompute activations in the backward pass, which saves memory and takes
            time; off by default.
        precision: mixed precision by accelerate: `no` (the default), `bf16` or `fp16`.
        train_layers: how many layers, from the top, learn the keys and values of their prefixes; those below keep what
            they start from, and what they make of a text is computed once. None, the default: all layers learn.
        beside: how many trainings of a transfer go through the model together (those of a race, of several seeds, of
            `lr="auto"`). 1, the default: one after the other. More use a machine better where batches are small and
            texts short, and give the same up to rounding.
        class_weights: `balanced` weights classes in the loss by scikit-learn's formula on the training part, so that
            a rare class counts as much as a frequent one (with several labels: the presence of each as much as its
            absence). None, the default, weights all examples equally.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(default=12, ge=1, le=_MOST)
    lr: Annotated[float, Field(gt=0, le=1e30)] | Literal["auto"] = 1e-2
    student_lr: float | None = Field(default=None, gt=0, le=1e30)
    model_lr: float = Field(default=1e-4, gt=0, le=1e30)
    batch_size: int = Field(default=16, ge=1, le=_MOST)
    prompt_kind: PromptKind = "prefix"
    prompt_length: int = Field(default=20, ge=1)
    init_std: float = Field(default=1.0, ge=0, le=_LARGEST)
    reparameterize: int | None = Field(default=None, ge=1, le=_WIDEST)
    max_length: int = Field(default=128, ge=4, le=_MOST)
    readout: Literal["auto", "pooler", "cls", "mean", "last", "compare"] = "auto"
    dropout: float = Field(default=0.1, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0, le=_LARGEST)
    max_grad_norm: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    early_stopping: int | None = Field(default=None, ge=1, le=_MOST)
    gradient_checkpointing: bool = False
    precision: Literal["no", "bf16", "fp16"] = "no"
    train_layers: int | None = Field(default=None, ge=1)
    beside: int = Field(default=1, ge=1, le=64)
    class_weights: Literal["balanced"] | None = None

    def check(self, kind: Kind) -> None:
        """Raises PandaError for an option that does not apply to a kind of task."""
        if self.class_weights is not None and not (kind.classifies or kind == Kind.MULTI_LABEL):
            raise PandaError(
                f"--class-weights balances the classes or labels of whole texts, and {kind.words} has none; leave it "
                "out."
            )
        if self.train_layers is not None and self.prompt_kind == "shallow":
            raise PandaError(
                "--train-layers chooses among the layers' prefixes, and a shallow prompt stands before the first layer "
                "alone; use --prompt-kind prefix, or leave it out."
            )
        if self.train_layers is not None and self.reparameterize is not None:
            raise PandaError(
                "--reparameterize makes the prefixes of all layers with one MLP, and --train-layers trains those of "
                "some; leave one of them out."
            )

    @classmethod
    def of(cls, **values: Any) -> TrainingOptions:
        """Options from keyword values; None keeps a default. Raises PandaError, naming the option, for a bad value."""
        try:
            return cls(**{name: value for name, value in values.items() if value is not None})
        except ValidationError as error:
            first = error.errors()[0]
            name = str(first["loc"][0]) if first["loc"] else "option"
            raise PandaError(
                f"--{name.replace('_', '-')} {first['input']} is out of range: {first['msg'].lower()}."
            ) from error
