"""Contrastive learning: the loss in closed form, its symmetry, and a toy world that is learned."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from izograf.core.rng import generator
from izograf.core.types import Batch, Condition
from izograf.objectives.contrastive import ContrastiveObjective


class Table(nn.Module):
    """Text i is the row i of a table; a picture is its first `dim` numbers."""

    def __init__(self, texts: Tensor, scale: float = 20.0) -> None:
        super().__init__()
        self.texts = nn.Parameter(texts)
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))

    def embed_text(self, ids: Tensor) -> Tensor:
        return F.normalize(self.texts[ids[:, 0]], dim=-1)

    def embed_image(self, images: Tensor) -> Tensor:
        return F.normalize(images.flatten(1)[:, : self.texts.shape[1]], dim=-1)

    @property
    def scale(self) -> Tensor:
        return self.log_scale.exp()


def same(image: Tensor, rng: torch.Generator) -> Tensor:
    del rng
    return image


def objective_of(clip: nn.Module) -> ContrastiveObjective:
    return ContrastiveObjective(clip, torch.optim.Adam(clip.parameters(), 0.05), augment=same)


def pairs(first: list[int], second: list[int], vectors: Tensor) -> Batch:
    """Pictures whose numbers are `vectors` [B,4], with a text in each language."""
    text = torch.tensor([first, second]).T[..., None]
    return Batch(vectors.reshape(-1, 1, 2, 2), Condition(text=text))


def loss_of(clip: nn.Module, batch: Batch) -> float:
    with torch.no_grad():
        return float(objective_of(clip).held_out_loss(clip, batch, generator("tests")))


def test_perfect_pairs_cost_next_to_nothing_and_swapped_ones_the_scale() -> None:
    clip = Table(torch.eye(4))
    right = pairs([0, 1, 2, 3], [0, 1, 2, 3], torch.eye(4))
    assert loss_of(clip, right) == pytest.approx(math.log1p(3 * math.exp(-20)), abs=1e-6)
    wrong = pairs([1, 0, 3, 2], [1, 0, 3, 2], torch.eye(4))
    assert loss_of(clip, wrong) == pytest.approx(2 / 3 * 20, abs=1e-3), "both languages still agree"


def test_texts_that_all_look_alike_cost_the_logarithm_of_the_batch() -> None:
    batch = pairs([0, 1, 2, 3], [0, 1, 2, 3], torch.eye(4))
    assert loss_of(Table(torch.ones(4, 4)), batch) == pytest.approx(math.log(4), abs=1e-5)


def test_the_loss_does_not_care_which_language_is_first_nor_for_the_order_of_pairs() -> None:
    rng = generator("tests", "contrastive")
    clip = Table(torch.randn(8, 4, generator=rng))
    vectors = torch.randn(4, 4, generator=rng)
    expected = loss_of(clip, pairs([0, 1, 2, 3], [4, 5, 6, 7], vectors))
    assert loss_of(clip, pairs([4, 5, 6, 7], [0, 1, 2, 3], vectors)) == pytest.approx(expected)
    order = [2, 0, 3, 1]
    moved = pairs(order, [4 + i for i in order], vectors[order])
    assert loss_of(clip, moved) == pytest.approx(expected)
    assert loss_of(clip, pairs([1, 0, 2, 3], [4, 5, 6, 7], vectors)) != pytest.approx(expected)


def test_what_is_told_is_how_often_the_right_text_is_the_nearest() -> None:
    objective = objective_of(Table(torch.eye(4)))
    batch = pairs([0, 1, 3, 2], [0, 1, 2, 3], torch.eye(4))
    _, told = objective.phases()[0].loss(batch, generator("tests"))
    assert {name: float(value) for name, value in told.items()} == pytest.approx(
        {"top1_first": 0.5, "top1_second": 1.0, "top1_both": 0.5, "scale": 20.0}
    )


def test_a_toy_world_is_learned_in_both_languages() -> None:
    rng = generator("tests", "toy")
    clip = Table(torch.randn(8, 4, generator=rng), scale=5.0)
    objective = objective_of(clip)
    batch = pairs([0, 1, 2, 3], [4, 5, 6, 7], torch.eye(4))
    before = loss_of(clip, batch)
    phase, optimizer = objective.phases()[0], objective.optimizers()["clip"]
    for _ in range(60):
        optimizer.zero_grad()
        phase.loss(batch, rng)[0].backward()
        optimizer.step()
    assert loss_of(clip, batch) < 0.2 < before
    _, told = phase.loss(batch, rng)
    assert all(float(told[f"top1_{name}"]) == 1 for name in ("first", "second", "both"))


def test_pictures_are_augmented_while_training_and_not_when_judged() -> None:
    clip, batch = Table(torch.eye(4)), pairs([0, 1, 2, 3], [0, 1, 2, 3], torch.eye(4))

    def swapped(image: Tensor, rng: torch.Generator) -> Tensor:
        del rng
        return image.flip(0)

    objective = ContrastiveObjective(clip, torch.optim.SGD(clip.parameters()), augment=swapped)
    trained, _ = objective.phases()[0].loss(batch, generator("tests"))
    assert float(trained.detach()) > 5
    assert loss_of(clip, batch) < 0.01
