"""What prompt tuning of a model takes: told from its shape before anything is downloaded, or measured."""

from __future__ import annotations

import contextlib
import inspect
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel

from promptpanda.backbone import Backbone, TextBatch
from promptpanda.errors import PandaError
from promptpanda.models import refusal
from promptpanda.names import Precision
from promptpanda.positions import position_limit
from promptpanda.precision import FORMATS
from promptpanda.prompts import attention, families
from promptpanda.prompts.attention import LayerIndex, PromptCall, RecordingCall
from promptpanda.prompts.prompt import Prompt, PromptShape, PromptStack

_FLOAT = 4  # bytes of an fp32 value
_DROPOUT = 0.1
_CLASSES = 2
_RESERVE = 1.4  # what the allocator holds, over what is in use
_SETUP = 10_000_000  # bytes that the libraries set up in the first step
_LARGEST = 10**13  # attention weights of one head for a batch; sizes in bytes stay far below 2**63


@dataclass(frozen=True)
class Estimate:
    """What a model and its prompts take, told from the configuration. Sizes are in bytes.

    Attributes:
        parameters: values of the base model (no language-modelling head), shared ones counted once.
        prompt_parameters: values of one prefix: layers * 2 * key/value heads * V * head_dim.
        weights: 4 * parameters in float32, else 2 *.
        prompt: what one prompt takes in a bank, 4 * prompt_parameters (the head and the card are small beside it).
        activations: tensors that autograd keeps for the backward pass of prompt tuning.
        prompt_tuning: peak of a training step of prompt and head; see `estimate`.
        model_tuning: peak of a training step of the whole model, for comparison; see `estimate`.
        positions: how many positions text and prompt may take together, or None if there is no limit.
        fits: whether text of the given length and the prompt take no more than that.
    """

    parameters: int
    prompt_parameters: int
    weights: int
    prompt: int
    activations: int
    prompt_tuning: int
    model_tuning: int
    positions: int | None
    fits: bool


@dataclass(frozen=True)
class Measured:
    """One training step of prompt and head with random weights, in a process of its own.

    Attributes:
        prompt_tuning: peak resident memory less what Python and the libraries take, in bytes.
        seconds: wall time of the step (the first, with whatever the libraries set up in it).
    """

    prompt_tuning: int
    seconds: float


def estimate(
    config: PreTrainedConfig, *, prompt_length: int, batch_size: int, length: int, dtype: Precision = "float32"
) -> Estimate:
    """Tell what prompt tuning on a model takes, without its weights: the model is built on torch's meta device.

    A forward pass there, with tensors that have shapes and no values, shows exactly which tensors autograd keeps for
    the backward pass; their sizes are the activations. With P the prompt's bytes and H the head's:

        prompt_tuning = weights + 4 * (P + H) + 1.4 * (activations + 2 * batch_size * P + 2 * largest) + 10 MB
        model_tuning = 7 * float32 weights + 4 * H + 1.4 * (activations' + 2 * largest') + 10 MB

    The factor 4 stands for values, gradients and AdamW's two moments; 7 for these, the frozen model that is kept beside
    the tuned one, and copies of the last two epochs' ends. Every row of a batch has a copy of the prompt
    (its own dropout), which takes twice its size again in the backward pass; `largest` is the largest tensor that is
    kept, of which the backward pass holds a gradient before and after the activation function. activations' are those
    of a pass in which all weights have gradients; no dropout of the model is counted there.

    The terms in brackets are what is in use at the peak, to a few percent. The factor 1.4 and the 10 MB were measured:
    what the C library keeps of freed blocks, and what the libraries set up. The factor varies between 1.0 (blocks of
    more than 32 MB go back to the system at once) and 2. With batches of 4 x 64 tokens, all of the catalogue were
    within 15 % of the whole; with large blocks it can be too high by up to 1.4. On other devices and in mixed precision
    the error is larger.

    Args:
        prompt_length: V, virtual tokens of a prefix.
        batch_size: examples a step.
        length: tokens of each example, padding included.
        dtype: the number format of the frozen model. Model tuning is in float32 in any case.

    Raises:
        PandaError: a format that is not told (auto, int8, nf4), a number below 1 or beyond all machines, or a family
            that prompts cannot be attached to.
    """
    _check(prompt_length, batch_size, length)
    if dtype not in FORMATS:
        raise PandaError(f"Memory can be estimated for {', '.join(FORMATS)}; found --dtype {dtype}.")
    model, shape, layers = _on_meta(config, FORMATS[dtype])
    parameters = sum(parameter.numel() for parameter in model.parameters())
    weights = FORMATS[dtype].itemsize * parameters
    tensor = torch.zeros(shape.of("prefix", prompt_length), device="meta", requires_grad=True)
    prompt = _FLOAT * tensor.numel()
    head = _FLOAT * _CLASSES * (int(config.hidden_size) + 1)

    def forward_with_prompt() -> None:
        prompts = PromptStack("prefix", tensor[None], None, _DROPOUT)
        _run_on_meta(model, batch_size, length, PromptCall(layers, batch_size, prompts))

    kept = _kept(forward_with_prompt, [tensor, *_tensors(model)])
    in_use = sum(kept) + 2 * batch_size * prompt + 2 * max(kept)
    model.float().requires_grad_(True)
    kept_of_all = _kept(lambda: _run_on_meta(model, batch_size, length, None), _tensors(model))
    in_use_of_all = sum(kept_of_all) + 2 * max(kept_of_all)
    positions = position_limit(model)
    return Estimate(
        parameters=parameters,
        prompt_parameters=tensor.numel(),
        weights=weights,
        prompt=prompt,
        activations=sum(kept),
        prompt_tuning=weights + 4 * (prompt + head) + int(_RESERVE * in_use) + _SETUP,
        model_tuning=7 * _FLOAT * parameters + 4 * head + int(_RESERVE * in_use_of_all) + _SETUP,
        positions=positions,
        fits=positions is None or length + prompt_length <= positions,
    )


def measure(config: PreTrainedConfig, *, prompt_length: int, batch_size: int, length: int) -> Measured:
    """Take one training step of a random prompt and head on a model of this shape with random weights.

    It runs in a fresh Python process on the CPU, with a prefix, in fp32, so that nothing else counts.

    Args:
        prompt_length, batch_size, length: as for `estimate`.

    Raises:
        PandaError: as for `estimate`; or text and prompt do not fit the model, or the process ended early (most likely
            for want of memory).
    """
    _check(prompt_length, batch_size, length)
    order = {
        "config": config.to_dict(),
        "sizes": {"prompt_length": prompt_length, "batch_size": batch_size, "length": length},
    }
    command = [sys.executable, "-c", "from promptpanda.footprint import _measuring_process as run; run()"]
    done = subprocess.run(command, input=json.dumps(order), capture_output=True, text=True)
    answer = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {}
    if "refusal" in answer:
        raise PandaError(answer["refusal"])
    if not answer:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise PandaError(
            f"Measuring the '{config.model_type}' model ended early ({last[0][:200].rstrip('.')}), most likely for "
            "lack of memory; lower --batch-size or --max-length, or leave --measure off."
        )
    return Measured(**answer)


def _measuring_process() -> None:
    """The process that `measure` starts: the order comes on stdin, the answer goes to stdout; both are JSON."""
    order = json.loads(sys.stdin.read())
    config = AutoConfig.for_model(**order["config"])
    try:
        answer = asdict(_measured_here(config, **order["sizes"]))
    except PandaError as error:
        answer = {"refusal": str(error)}
    print(json.dumps(answer))


def _measured_here(config: PreTrainedConfig, *, prompt_length: int, batch_size: int, length: int) -> Measured:
    torch.manual_seed(0)
    _on_meta(config)  # so that the family's code is imported
    _step_of_nothing()
    before = _peak_memory()
    attention.register()
    model = AutoModel.from_config(config, attn_implementation=families.implementation(config), dtype=torch.float32)
    model = families.prepare(model)
    # Nothing is tokenised here.
    backbone = Backbone(model, None, name=f"the '{config.model_type}' model")  # type: ignore[arg-type]
    backbone.check_length(length, prompt_length)
    ids = torch.randint(int(config.vocab_size), (batch_size, length))
    mask = torch.ones_like(ids)
    mask[1:2, length // 2 :] = 0  # padding, as in most batches; the models leave the mask out where there is none
    fresh = Prompt.fresh("prefix", backbone.shape, prompt_length, 1.0, torch.default_generator)
    prompt = nn.Parameter(fresh.tensor)
    head = nn.Linear(backbone.hidden_size, _CLASSES)
    optimizer = torch.optim.AdamW([prompt, *head.parameters()], lr=1e-2)

    began = time.perf_counter()
    stack = PromptStack("prefix", prompt[None], None, _DROPOUT)
    hidden = backbone.hidden(TextBatch(ids, mask), stack)
    outputs = head(backbone.read(hidden, mask, backbone.auto_readout))
    nn.functional.cross_entropy(outputs, torch.zeros(batch_size, dtype=torch.long)).backward()
    optimizer.step()
    return Measured(_peak_memory() - before, time.perf_counter() - began)


def _step_of_nothing() -> None:
    """Let torch load what it loads at the first product, the first backward pass and the first step of AdamW."""
    layer = nn.Linear(64, 64)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.zeros(64, 64)).sum().backward()
    optimizer.step()


def _peak_memory() -> int:
    """Peak resident memory of this process, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux; getrusage would count the parent's memory, which a child starts with there
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError as error:
        raise PandaError("Memory can be measured only on Linux and macOS; leave --measure off.") from error
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * (1 if sys.platform == "darwin" else 1024)


def _check(prompt_length: int, batch_size: int, length: int) -> None:
    for name, value in (("prompt length", prompt_length), ("batch size", batch_size), ("length", length)):
        if value < 1:
            raise PandaError(f"The {name} must be at least 1, found {value}.")
    if batch_size * (prompt_length + length) ** 2 > _LARGEST:
        raise PandaError(
            f"Batches of {batch_size} x {length} tokens with a prompt of {prompt_length} are more than any machine "
            "holds; lower --batch-size, --max-length or --prompt-length."
        )


def _on_meta(
    config: PreTrainedConfig, dtype: torch.dtype = torch.float32
) -> tuple[PreTrainedModel, PromptShape, LayerIndex]:
    """The model without values, and what prompts must look like; found as `Backbone` finds it."""
    attention.register()
    record = RecordingCall()
    probed = None
    # What a family does instead of taking the prompt differs, as in Backbone; that it cannot is all that matters.
    with contextlib.suppress(AttributeError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError):
        with torch.device("meta"):
            implementation = families.implementation(config)
            model = AutoModel.from_config(config, attn_implementation=implementation, dtype=dtype)
        model = families.prepare(model)
        model.config.use_cache = False
        model.eval().requires_grad_(False)
        _run_on_meta(model, 1, 2, record)
        if hasattr(config, "hidden_size"):
            probed = attention.probed_shape(record, cast(nn.Embedding, model.get_input_embeddings()).weight.shape[1])
    if probed is None:
        raise refusal(config)
    return model, *probed


def _run_on_meta(model: PreTrainedModel, rows: int, tokens: int, prompt: PromptCall | RecordingCall | None) -> None:
    ids = torch.zeros(rows, tokens, dtype=torch.long, device="meta")
    inputs = {
        "input_ids": ids,
        "position_ids": ids,
        "attention_mask": _mask_on_meta(model, rows, tokens),
    }
    if getattr(model.config, "type_vocab_size", None):
        inputs["token_type_ids"] = ids
    known = inspect.signature(model.forward).parameters
    model(**{name: value for name, value in inputs.items() if name in known}, prompt=prompt)


def _mask_on_meta(model: PreTrainedModel, rows: int, tokens: int) -> Tensor:
    """Most models look into a mask of two dimensions, where nothing can be seen; one of four they take as it is."""
    if model.config.model_type in ("bloom", "deberta", "deberta-v2"):  # these make more of it, without a look
        return torch.ones(rows, tokens, dtype=torch.long, device="meta")
    return torch.ones(rows, 1, tokens, tokens, dtype=torch.bool, device="meta")


def _kept(forward: Callable[[], None], given: Sequence[Tensor]) -> list[int]:
    """Sizes in bytes of the tensors that autograd keeps of a forward pass, without those that were `given`."""
    known = {tensor.untyped_storage()._cdata for tensor in given}
    found: dict[int, torch.UntypedStorage] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in known:
            found[storage._cdata] = storage
        return tensor

    with _FusedEverywhere(), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        forward()
    return [storage.nbytes() for storage in found.values()]


class _FusedEverywhere(TorchFunctionMode):
    """Lets attention on the meta device keep what the kernels of real devices keep.

    torch computes attention step by step there and would keep all attention weights.
    """

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function is not nn.functional.scaled_dot_product_attention:
            return function(*args, **(kwargs or {}))
        return _FusedAttention.apply(*args[:3], (kwargs or {}).get("attn_mask"))  # type: ignore[no-untyped-call]


class _FusedAttention(torch.autograd.Function):
    """Keeps query, key, value, output, one number a row of attention weights, and the mask in floating point."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        output = torch.empty_like(query)
        kept = [query, key, value, output, query.new_empty(query.shape[:-1])]
        if mask is not None:
            kept.append(mask.to(query.dtype))
        ctx.save_for_backward(*kept)
        return output


def _tensors(model: PreTrainedModel) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]
