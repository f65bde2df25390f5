"""Classifier-free guidance on the closed-form world."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from izograf.core.rng import generator
from izograf.core.types import Condition, Denoise, ignore
from izograf.diffusion.gaussian_mixture import GaussianMixture
from izograf.diffusion.guidance import classifier_free
from izograf.diffusion.samplers import euler
from izograf.diffusion.schedules import karras


class Counted:
    """A denoiser that remembers the level and the number of pictures of every evaluation."""

    def __init__(self, denoise: Denoise) -> None:
        self.calls: list[tuple[float, int]] = []
        self._denoise = denoise

    def __call__(self, x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
        self.calls.append((float(sigma[0]), len(x)))
        return self._denoise(x, sigma, condition)


def noisy(count: int) -> Tensor:
    rng = generator("tests", "guided")
    return torch.randn(count, 1, 1, 1, generator=rng, dtype=torch.float64)


def levels(sigma: float, count: int) -> Tensor:
    return torch.full((count,), sigma, dtype=torch.float64)


CLASSES = Condition(class_ids=torch.tensor([0, 1, 1, 0]))


def test_scale_one_is_the_conditional_model_at_no_extra_cost(overlapping: GaussianMixture) -> None:
    counted = Counted(overlapping.denoise)
    guided = classifier_free(1.0)(counted)
    result = guided(noisy(4), levels(0.5, 4), CLASSES)
    assert torch.equal(result, overlapping.denoise(noisy(4), levels(0.5, 4), CLASSES))
    assert counted.calls == [(0.5, 4)]


def test_scale_zero_is_the_unconditional_model(overlapping: GaussianMixture) -> None:
    guided = classifier_free(0.0)(overlapping.denoise)
    result = guided(noisy(4), levels(0.5, 4), CLASSES)
    torch.testing.assert_close(
        result, overlapping.denoise(noisy(4), levels(0.5, 4), Condition()), rtol=0, atol=1e-14
    )
    conditional = overlapping.denoise(noisy(4), levels(0.5, 4), CLASSES)
    assert not torch.allclose(result, conditional, atol=1e-3)


@pytest.mark.parametrize("scale", [0.5, 1.5, 4.0])
def test_guidance_is_the_straight_line_through_both_models(
    overlapping: GaussianMixture, scale: float
) -> None:
    x, sigma = noisy(4), levels(0.5, 4)
    conditional = overlapping.denoise(x, sigma, CLASSES)
    unconditional = overlapping.denoise(x, sigma, Condition())
    expected = unconditional + scale * (conditional - unconditional)
    guided = classifier_free(scale)(overlapping.denoise)
    torch.testing.assert_close(guided(x, sigma, CLASSES), expected)


def test_guided_score_is_that_of_the_sharpened_class(overlapping: GaussianMixture) -> None:
    """Scale w follows the gradient of ln p(x) + w ln p(class | x) (Ho & Salimans 2022, eq. 3)."""
    x, sigma, scale = noisy(4).requires_grad_(True), levels(0.5, 4), 3.0
    assert CLASSES.class_ids is not None
    log_class = overlapping.class_probabilities(x, sigma).log()
    chosen = log_class[torch.arange(4), CLASSES.class_ids].sum()
    (pull,) = torch.autograd.grad(chosen, x)
    expected = overlapping.score(x.detach(), sigma, Condition()) + scale * pull
    guided = classifier_free(scale)(overlapping.denoise)
    score = (guided(x.detach(), sigma, CLASSES) - x.detach()) / 0.5**2
    torch.testing.assert_close(score, expected)


def test_both_branches_are_evaluated_in_one_batch(overlapping: GaussianMixture) -> None:
    counted = Counted(overlapping.denoise)
    classifier_free(2.0)(counted)(noisy(4), levels(0.5, 4), CLASSES)
    assert counted.calls == [(0.5, 8)]


def test_outside_the_interval_the_null_branch_is_not_evaluated(
    overlapping: GaussianMixture,
) -> None:
    counted = Counted(overlapping.denoise)
    guided = classifier_free(2.0, sigma_low=0.2, sigma_high=1.0)(counted)
    for sigma in (1.5, 1.0, 0.5, 0.2, 0.1):
        result = guided(noisy(4), levels(sigma, 4), CLASSES)
        plain = overlapping.denoise(noisy(4), levels(sigma, 4), CLASSES)
        assert torch.equal(result, plain) == (sigma in (1.5, 0.2, 0.1))
    assert counted.calls == [(1.5, 4), (1.0, 8), (0.5, 8), (0.2, 4), (0.1, 4)]


def test_guidance_sharpens_samples_towards_their_class(overlapping: GaussianMixture) -> None:
    count, sigmas = 1_500, karras(24, 0.01, 10.0)
    condition = Condition(class_ids=torch.ones(count, dtype=torch.int64))
    start = 10 * noisy(count)

    def share_of_class(scale: float) -> float:
        guided = classifier_free(scale)(overlapping.denoise)
        x = euler(guided, start, sigmas, condition, lambda: start, ignore)
        return float(overlapping.class_probabilities(x, levels(0.01, count))[:, 1].mean())

    shares = [share_of_class(scale) for scale in (0.0, 1.0, 2.0, 4.0)]
    assert shares == sorted(shares)
    assert shares[0] == pytest.approx(0.5, abs=0.06)
    assert shares[1] > shares[0] + 0.2
    assert shares[3] > shares[1] + 0.05
    assert shares[3] > 0.97


def test_unconditioned_pictures_pass_through_guidance_unchanged(
    overlapping: GaussianMixture,
) -> None:
    guided = classifier_free(3.0)(overlapping.denoise)
    plain = overlapping.denoise(noisy(4), levels(0.5, 4), Condition())
    torch.testing.assert_close(guided(noisy(4), levels(0.5, 4), Condition()), plain)


def test_text_can_be_guided_although_its_null_has_none() -> None:
    """A network that is given no text must get its own null text for the second branch."""

    def denoise(x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:  # noqa: ARG001
        if condition.text is None:
            return torch.zeros_like(x)
        return torch.ones_like(x) * condition.text.mean((1, 2))[:, None, None, None]

    condition = Condition(text=torch.ones(4, 2, 3, dtype=torch.float64))
    result = classifier_free(3.0)(denoise)(noisy(4), levels(0.5, 4), condition)
    torch.testing.assert_close(result, torch.full_like(result, 3.0))
