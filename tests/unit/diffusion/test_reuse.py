"""Deep layers reused between steps: when they are computed, and what a sampling then costs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from izograf.core.types import Condition
from izograf.diffusion.denoiser import Denoiser
from izograf.diffusion.guidance import classifier_free
from izograf.diffusion.precondition import PRECONDITIONERS
from izograf.diffusion.reuse import DeepReuse, reusing_deep


class Recording(nn.Module):
    """A network that notes how it is called; what its deep layers gave is the call's number."""

    reuses = True

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.calls: list[str] = []

    def forward(self, x: Tensor, c_noise: Tensor, condition: Condition) -> Tensor:
        del c_noise, condition
        self.calls.append("plain")
        return x

    def keeping(self, x: Tensor, c_noise: Tensor, condition: Condition) -> tuple[Tensor, Tensor]:
        del c_noise, condition
        self.calls.append("keeping")
        return x, torch.full((len(x), 1), float(len(self.calls)))

    def reusing(self, x: Tensor, c_noise: Tensor, condition: Condition, kept: Tensor) -> Tensor:
        del c_noise, condition
        assert len(kept) == len(x)
        self.calls.append(f"reusing {kept[0].item():g}")
        return x


def answered(reuse: DeepReuse, levels: list[float], condition: Condition, count: int = 2) -> None:
    for level in levels:
        reuse(torch.zeros(count, 3, 4, 4), torch.full((count,), level), condition)


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        (2, ["keeping", "reusing 1", "keeping", "reusing 3", "keeping"]),
        (3, ["keeping", "reusing 1", "reusing 1", "keeping", "reusing 4"]),
    ],
)
def test_every_so_many_levels_are_computed_in_full(interval: int, expected: list[str]) -> None:
    network = Recording()
    answered(DeepReuse(network, interval), [5.0, 4.0, 3.0, 2.0, 1.0], Condition())
    assert network.calls == expected


def test_branches_evaluated_apart_keep_answers_of_their_own() -> None:
    """With a text and without one, at each level: neither counts as the other's next step."""
    network = Recording()
    reuse = DeepReuse(network, 2)
    for level in (3.0, 2.0, 1.0):
        answered(reuse, [level], Condition(text=torch.ones(2, 1, 1)))
        answered(reuse, [level], Condition())
    both_full = ["keeping", "keeping"]
    assert network.calls == [*both_full, "reusing 1", "reusing 2", *both_full]


def test_what_was_kept_long_ago_is_not_taken_up_again() -> None:
    """Guidance over an interval: one picture, then two branches of it, then one again."""
    network = Recording()
    reuse = DeepReuse(network, 2)
    answered(reuse, [6.0], Condition(), count=1)
    answered(reuse, [5.0, 4.0], Condition(), count=2)
    answered(reuse, [3.0, 2.0], Condition(), count=1)
    assert network.calls == ["keeping", "keeping", "reusing 2", "keeping", "reusing 4"]


def test_a_denoiser_reuses_under_guidance_and_stays_itself_otherwise() -> None:
    network = Recording()
    denoiser = Denoiser(network, PRECONDITIONERS["flow"]())
    assert reusing_deep(denoiser, 1) is denoiser
    assert reusing_deep(Denoiser(nn.Linear(1, 1), denoiser.precondition), 4).network is not network
    guided = classifier_free(2.0)(reusing_deep(denoiser, 2))
    condition = Condition(class_ids=torch.tensor([0]))
    for level in (2.0, 1.0):
        guided(torch.zeros(1, 3, 4, 4), torch.tensor([level]), condition)
    assert network.calls == ["keeping", "reusing 1"]
