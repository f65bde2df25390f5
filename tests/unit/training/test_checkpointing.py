"""Gradient checkpointing: the same gradients, bit for bit, from less memory."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from izograf.core.rng import generator, seeded_layers
from izograf.core.types import Condition
from izograf.models.registry import NETWORKS
from izograf.schema.errors import InvalidInput
from izograf.training.checkpointing import blocks, checkpointed_blocks

CONFIGS = {
    "unet": {
        "image_size": 16, "num_classes": 2, "patch_size": 2, "width": 32, "multipliers": (1, 2),
        "depth": 2, "attention": (4,), "head_dim": 16, "dropout": 0.2,
    },
    "dit": {
        "image_size": 16, "num_classes": 2, "patch_size": 2, "width": 32, "depth": 4,
        "head_dim": 16, "dropout": 0.2,
    },
    "uvit": {
        "image_size": 16, "num_classes": 2, "patch_size": 2, "width": 32, "depth": 5,
        "head_dim": 16, "dropout": 0.2,
    },
}  # fmt: skip


@pytest.fixture(params=CONFIGS)
def network(request: pytest.FixtureRequest) -> nn.Module:
    entry = NETWORKS[request.param]
    with seeded_layers("tests", request.param):
        built = entry.build(entry.config(**CONFIGS[request.param]))
    rng = generator("tests", request.param)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=rng)
    return built.train()


def step(network: nn.Module, *, enabled: bool) -> tuple[Tensor, dict[str, Tensor], int]:
    """Loss, gradients, and the bytes that were kept for the backward pass."""
    rng = generator("tests", "x")
    x, level = torch.randn(4, 3, 16, 16, generator=rng), torch.randn(4, generator=rng)
    condition = Condition(class_ids=torch.tensor([0, 1, -1, 0]))
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    network.zero_grad(set_to_none=True)
    parameters = list(network.parameters())
    with (
        seeded_layers("tests", "dropout"),
        checkpointed_blocks(network, enabled=enabled),
    ):
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = network(x, level, condition).square().mean()
        loss.backward(inputs=parameters)
    gradients = {key: p.grad.clone() for key, p in network.named_parameters() if p.grad is not None}
    weights = {p.untyped_storage().data_ptr() for p in parameters}
    return loss.detach(), gradients, sum(b for key, b in kept.items() if key not in weights)


def test_gradients_are_bitwise_those_without_and_memory_falls(network: nn.Module) -> None:
    loss, gradients, kept = step(network, enabled=False)
    again, recomputed, kept_less = step(network, enabled=True)
    assert torch.equal(loss, again)
    assert set(gradients) == {key for key, _ in network.named_parameters()}
    assert gradients.keys() == recomputed.keys()
    assert all(torch.equal(gradients[key], recomputed[key]) for key in gradients)
    assert kept_less < 0.5 * kept, f"{kept_less:,} of {kept:,} bytes"


def test_the_network_is_untouched_afterwards_and_copies_are_their_own(network: nn.Module) -> None:
    found = list(blocks(network))
    assert len(found) >= 4
    before = set(network.state_dict())
    with checkpointed_blocks(network):
        assert all("forward" in vars(block) for block in found)
        assert set(network.state_dict()) == before
    assert not any("forward" in vars(block) for block in found)
    with pytest.raises(RuntimeError, match="an error inside"), checkpointed_blocks(network):
        raise RuntimeError("an error inside")
    assert not any("forward" in vars(block) for block in found)


def test_evaluation_of_a_copy_made_before_is_not_affected(network: nn.Module) -> None:
    average = copy.deepcopy(network)
    with checkpointed_blocks(network):
        assert not any("forward" in vars(block) for block in blocks(average))


def test_a_network_without_blocks_is_refused() -> None:
    simple = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    with pytest.raises(InvalidInput, match="leave out --gradient-checkpointing"):
        checkpointed_blocks(simple).__enter__()
    with checkpointed_blocks(simple, enabled=False):
        simple(torch.zeros(1, 2))
