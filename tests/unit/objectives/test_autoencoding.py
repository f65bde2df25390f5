"""The terms of an autoencoder's loss, and when the discriminator takes part."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from izograf.core.rng import generator
from izograf.core.types import Batch, Condition
from izograf.models.autoencoder import KLAutoencoder, KLAutoencoderConfig
from izograf.models.patchgan import PatchGAN, PatchGANConfig
from izograf.objectives.autoencoding import (
    PIXEL_LOSSES,
    AutoencodingObjective,
    LossWeights,
    Parties,
    adaptive_weight,
    kl_to_standard_normal,
)
from izograf.objectives.perceptual import feature_distance

IMAGES = 100


def noise(*key: int | str, shape: tuple[int, ...] = (4, 3, 16, 16)) -> Tensor:
    return torch.randn(shape, generator=generator("tests", "autoencoding", *key))


def objective(*, features=None, pixels: str = "l1", **weights: float) -> AutoencodingObjective:
    torch.manual_seed(0)
    network = KLAutoencoder(KLAutoencoderConfig(16, width=8))
    discriminator = PatchGAN(PatchGANConfig(width=4, depth=1))
    return AutoencodingObjective(
        Parties(
            network,
            discriminator,
            torch.optim.Adam(network.parameters()),
            torch.optim.Adam(discriminator.parameters()),
        ),
        pixel_loss=PIXEL_LOSSES[pixels],
        features=features,
        weights=LossWeights(**weights),
        images=IMAGES,
    )


def batch() -> Batch:
    return Batch(noise("images").clamp(-1, 1), Condition())


def loss_of(of: AutoencodingObjective, phase: int = 0) -> tuple[Tensor, dict[str, Tensor]]:
    loss, stats = of.phases()[phase].loss(batch(), generator("tests", "draw"))
    return loss, dict(stats)


def test_the_divergence_is_that_of_the_distributions() -> None:
    mean, log_variance = noise("mean"), noise("variance")
    ours = kl_to_standard_normal(mean, log_variance)
    theirs = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0))
    torch.testing.assert_close(ours, theirs.sum((1, 2, 3)))
    assert float(kl_to_standard_normal(torch.zeros(1, 2), torch.zeros(1, 2))) == 0


def test_the_adaptive_weight_makes_both_terms_pull_alike() -> None:
    last = noise("last", shape=(5, 7)).requires_grad_(True)
    likeness = (last * noise("g1", shape=(5, 7))).sum()
    verdict = (last * noise("g2", shape=(5, 7))).sum()
    weight = adaptive_weight(likeness, verdict, last)
    assert not weight.requires_grad
    (pull,) = torch.autograd.grad(weight * verdict, last, retain_graph=True)
    (wanted,) = torch.autograd.grad(likeness, last, retain_graph=True)
    assert float(pull.norm()) == pytest.approx(float(wanted.norm()), rel=1e-3)
    assert float(adaptive_weight(likeness, 1e-9 * verdict, last)) == pytest.approx(1e4)


def test_before_its_time_the_discriminator_takes_no_part() -> None:
    early = objective(kl=0.5)
    loss, stats = loss_of(early)
    image, network = batch().image, early.modules["autoencoder"]
    mean, log_variance = network.posterior(image)
    drawn = torch.randn(mean.shape, generator=generator("tests", "draw"))
    found = network.decoder(mean + (log_variance / 2).exp() * drawn)
    divergence = kl_to_standard_normal(mean, log_variance).mean()
    expected = (found - image).abs().mean() + 0.5 * divergence / (3 * 16 * 16)
    torch.testing.assert_close(loss, expected)
    assert set(stats) == {"pixels", "kl"}
    assert [phase.after for phase in early.phases()] == [0, 45]
    assert [phase.after for phase in objective(adversarial_start=0.0).phases()] == [0, 0]


def test_from_then_on_it_does_and_a_checkpoint_knows() -> None:
    late = objective()
    before, _ = loss_of(late)
    late.after_step(IMAGES // 2 - 1, {})
    assert "adversarial" not in loss_of(late)[1]
    late.after_step(IMAGES // 2, {})
    loss, stats = loss_of(late)
    assert not torch.equal(loss, before)
    expected = stats["pixels"] + 1e-6 * stats["kl"] / 768
    expected = expected + 0.5 * stats["adaptive_weight"] * stats["adversarial"]
    torch.testing.assert_close(loss, expected)

    resumed = objective()
    resumed.modules.load_state_dict(late.modules.state_dict())
    assert "adversarial" in loss_of(resumed)[1]


def test_both_sides_of_the_game_are_played_against_each_other() -> None:
    game = objective(adversarial_start=0.0)
    game.after_step(1, {})
    discriminator = game.optimizers()["discriminator"]
    judged = []
    for _ in range(30):
        loss, stats = loss_of(game, phase=1)
        discriminator.zero_grad()
        loss.backward()
        discriminator.step()
        judged.append(float((stats["real"] - stats["fake"]).detach()))
    assert judged[-1] > judged[0]
    assert all(p.grad is None for p in game.modules["autoencoder"].parameters())


def test_without_an_adversary_there_is_one_phase_and_one_optimizer() -> None:
    alone = objective(adversarial=0.0)
    alone.after_step(IMAGES, {})
    assert len(alone.phases()) == len(alone.optimizers()) == 1
    assert "discriminator" not in alone.modules
    assert "adversarial" not in loss_of(alone)[1]


def test_the_perceptual_term_is_the_weighted_feature_distance() -> None:
    def features(picture: Tensor) -> list[Tensor]:
        return [picture, picture[..., ::2, ::2]]

    seen = objective(features=features, perceptual=3.0, pixels="l2")
    image, other = batch().image, noise("other")
    expected = (other - image).square().mean() + 3 * feature_distance(features, other, image).mean()
    torch.testing.assert_close(seen.likeness(other, image), expected)
    _, stats = loss_of(seen)
    assert float(stats["perceptual"].detach()) > 0


@pytest.mark.parametrize(
    "wrong", [{"kl": -1.0}, {"adversarial": -0.1}, {"perceptual": -1.0}, {"adversarial_start": 1.5}]
)
def test_impossible_weights_are_refused(wrong) -> None:
    with pytest.raises(ValueError, match="must"):
        LossWeights(**wrong)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_patch_of_the_discriminator_sees_what_its_config_says(depth: int) -> None:
    network = PatchGAN(PatchGANConfig(width=4, depth=depth)).eval()
    size = 9 * 2**depth - 2
    image = torch.zeros(1, 3, 3 * size, 3 * size, requires_grad=True)
    logits = network(image)
    middle = logits.shape[-1] // 2
    logits[0, 0, middle, middle].backward()
    rows = image.grad.abs().sum((0, 1, 3)).nonzero()
    assert int(rows.max() - rows.min()) + 1 == size


@pytest.mark.parametrize("wrong", [{"width": 0}, {"depth": 0}])
def test_an_impossible_discriminator_is_refused(wrong) -> None:
    with pytest.raises(ValueError, match="positive"):
        PatchGANConfig(**wrong)
