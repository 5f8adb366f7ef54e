"""What makes training fast changes no result: packed batches and a cut last layer, against padded and whole ones."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from conftest import text_batch
from kinds import data_of, kind_task

from promptpanda.backbone import Backbone
from promptpanda.prompts.dropout import keep_mask
from promptpanda.prompts.packing import Packing
from promptpanda.prompts.prompt import Prompt, PromptStack
from promptpanda.tasks.spec import Kind
from promptpanda.training.distillation import Distillation
from promptpanda.training.inference import predict_outputs
from promptpanda.training.loop import Training
from promptpanda.training.objectives.kinds import objective_for
from promptpanda.training.options import TrainingOptions


def padded(backbone: Backbone) -> Backbone:
    """The same backbone, whose batches go through padded and whole."""
    assert backbone._packs
    plain = copy.copy(backbone)
    plain._packs = plain._cuts_last_layer = False
    return plain


@pytest.mark.parametrize("prompt_kind", ["prefix", "shallow"])
@pytest.mark.parametrize("kind", list(Kind))
def test_a_training_reaches_the_same_tensors_and_scores(kind, prompt_kind, tiny_backbone, tmp_path):
    """Prompt, head, loss curve and validation scores of a student with a teacher, dropout included."""
    task = kind_task(kind, tmp_path)
    data = data_of(tiny_backbone, task)
    objective = objective_for(task.spec, len(task.labels), data.split.labels)
    readout = "pooler" if objective.takes_readout else "auto"
    options = TrainingOptions(
        epochs=2, prompt_length=4, max_length=32, lr=3e-3, prompt_kind=prompt_kind, readout=readout
    )
    teacher = Training(tiny_backbone, data, data, objective, options, seed=1).run()
    outputs = [
        predict_outputs(b, teacher.prompt, teacher.head, data.encoded) for b in (tiny_backbone, padded(tiny_backbone))
    ]
    np.testing.assert_allclose(*(np.nan_to_num(one, neginf=-1e9) for one in outputs), atol=1e-4, rtol=1e-4)
    distillation = Distillation(torch.from_numpy(objective.unfold(outputs[0])).float(), 0.5)

    def trained(backbone):
        return Training(
            backbone, data, data, objective, options, seed=0, distillation=distillation, best_epoch=True
        ).run()

    fast, plain = trained(tiny_backbone), trained(padded(tiny_backbone))
    torch.testing.assert_close(fast.prompt.tensor, plain.prompt.tensor, atol=2e-4, rtol=1e-3)
    torch.testing.assert_close(fast.head.weight, plain.head.weight, atol=2e-4, rtol=1e-3)
    for one, other in zip(fast.curve, plain.curve, strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, rel=1e-3, abs=1e-4)
        assert one.validation == pytest.approx(other.validation, rel=1e-3, abs=1e-3)
    start = Training(tiny_backbone, data, data, objective, options.model_copy(update={"lr": 1e-9}), seed=0).run()
    assert (fast.prompt.tensor - start.prompt.tensor).abs().max() > 3e-3  # far beyond what they differ by


@pytest.mark.parametrize("family", ["bert", "roberta", "electra", "albert"])
@pytest.mark.parametrize("first_only", [False, True])
def test_hidden_states_and_gradients_are_those_of_a_padded_batch(family, first_only, load_tiny):
    backbone = load_tiny(family)
    batch = text_batch(family)
    prompt = Prompt.fresh("prefix", backbone.shape, 4, 1.0, torch.Generator().manual_seed(0))
    found = []
    for one in (backbone, padded(backbone)):
        tensor = prompt.tensor.clone().requires_grad_()
        hidden = one.hidden(batch, PromptStack("prefix", tensor[None]), first_only=first_only)
        hidden = hidden if first_only else hidden * batch.attention_mask[:, :, None]
        hidden.pow(2).sum().backward()
        found.append((hidden.detach(), tensor.grad))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_a_grid_and_back_is_the_identity():
    mask = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1]])
    packing = Packing(mask, virtual=2)
    tokens = torch.randn(int(mask.sum()) + 2 * len(mask), 3, dtype=torch.float64, requires_grad=True)
    grid = packing.to_grid(tokens)
    assert grid.shape == (3, 6, 3)
    torch.testing.assert_close(packing.from_grid(grid), tokens)
    # The first tokens of all rows come first; virtual tokens stand before them in the grid, and last in the pack.
    torch.testing.assert_close(grid[:, 2], tokens[:3])
    torch.testing.assert_close(grid[1, :2], tokens[-4:-2])
    assert packing.occupied.tolist() == torch.cat([torch.ones(3, 2), mask], dim=1).bool().tolist()
    weights = torch.randn(3, 6, 3, dtype=torch.float64) * packing.occupied[:, :, None]
    torch.autograd.gradcheck(lambda given: (packing.to_grid(given) * weights).sum(), (tokens,))
    torch.autograd.gradcheck(lambda given: packing.from_grid(packing.to_grid(given) * 2), (tokens,))


def test_a_keep_mask_has_its_probability_and_repeats():
    def drawn(seed, dropout):
        return keep_mask((3, 50, 1001), dropout, torch.device("cpu"), torch.Generator().manual_seed(seed))

    for dropout in (0.1, 0.5):
        mask = drawn(0, dropout)
        assert set(mask.unique().tolist()) == {0.0, 1.0}
        error = np.sqrt(dropout * (1 - dropout) / mask.numel())
        assert abs(float(mask.mean()) - (1 - dropout)) < 5 * error
        # Neighbours come from one draw, and must still be independent.
        assert abs(float(np.corrcoef(mask.flatten()[:-1], mask.flatten()[1:])[0, 1])) < 5 / np.sqrt(mask.numel())
        assert torch.equal(mask, drawn(0, dropout))
        assert not torch.equal(mask, drawn(1, dropout))
