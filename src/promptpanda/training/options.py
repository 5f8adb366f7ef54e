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
    """How a prompt is trained. Every method of a transfer shares them.

    Attributes:
        epochs: passes over the training part; left out, the amount of data decides (training/defaults.py).
        lr: peak learning rate of AdamW; it falls linearly to 0. `auto` tries three (transfers/rates.py).
        student_lr: of PANDA's student; None: the same.
        model_lr: of model tuning.
        batch_size: examples a step.
        prompt_kind: `prefix` or `shallow`.
        prompt_length: V, virtual tokens.
        init_std: standard deviation of a fresh prompt's normal distribution.
        reparameterize: width of the MLP that fresh prompts are trained through, or None for none.
        max_length: tokens an input is cut to, or a window has; left out, the kind of task decides.
        readout: how hidden states become one vector: auto, pooler, cls, mean or last; `compare` reads the two texts of
            a pair apart and compares their means.
        dropout: on the prompt and on the head's input; the backbone has none.
        weight_decay, max_grad_norm: of AdamW, and of gradient clipping.
        early_stopping: epochs without a better validation score after which training stops and the best epoch counts;
            None trains to the end and the last epoch counts.
        gradient_checkpointing: recompute activations to save memory.
        precision: no, bf16 or fp16 (mixed precision by accelerate).
        class_weights: `balanced` lets rare classes count as much in the loss as frequent ones, by scikit-learn's
            formula on the training part; of several labels, the presence of each as much as its absence.
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
    class_weights: Literal["balanced"] | None = None

    def check(self, kind: Kind) -> None:
        """Refuse what a kind of task has not. Raises PandaError."""
        if self.class_weights is not None and not (kind.classifies or kind == Kind.MULTI_LABEL):
            raise PandaError(
                f"--class-weights balances the classes or labels of whole texts, and {kind.words} has none; leave it "
                "out."
            )

    @classmethod
    def of(cls, **values: Any) -> TrainingOptions:
        """Options from values; None keeps a default. Raises PandaError that names the option."""
        try:
            return cls(**{name: value for name, value in values.items() if value is not None})
        except ValidationError as error:
            first = error.errors()[0]
            name = str(first["loc"][0]) if first["loc"] else "option"
            raise PandaError(
                f"--{name.replace('_', '-')} {first['input']} is out of range: {first['msg'].lower()}."
            ) from error
