"""Classifier-free guidance on the closed-form world."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from izograf.core.rng import generator
from izograf.core.types import Condition, Denoise, ignore
from izograf.diffusion.euler import euler
from izograf.diffusion.gaussian_mixture import GaussianMixture
from izograf.diffusion.guidance import autoguidance, classifier_free, rescaled
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


def test_a_negative_class_takes_the_place_of_no_class(overlapping: GaussianMixture) -> None:
    x, sigma = noisy(4), levels(0.5, 4)
    negative = Condition(class_ids=torch.tensor([1, 0, 0, 1]))
    away = overlapping.denoise(x, sigma, negative)
    towards = overlapping.denoise(x, sigma, CLASSES)
    counted = Counted(overlapping.denoise)
    result = classifier_free(3.0, negative=negative)(counted)(x, sigma, CLASSES)
    torch.testing.assert_close(result, away + 3.0 * (towards - away))
    assert counted.calls == [(0.5, 8)]
    plain = classifier_free(3.0)(overlapping.denoise)(x, sigma, CLASSES)
    assert not torch.allclose(result, plain, atol=1e-3)


def test_what_a_negative_condition_leaves_out_is_null_and_the_task_stays() -> None:
    seen: list[Condition] = []

    def denoise(x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:  # noqa: ARG001
        seen.append(condition)
        return x

    picture = torch.rand(2, 3, 4, 4)
    condition = Condition(
        class_ids=torch.tensor([0, 1]), towards_ids=torch.tensor([1, 0]),
        share=torch.tensor([0.2, 0.3]), text=torch.ones(2, 5, 3), image=picture,
    )  # fmt: skip
    negative = Condition(
        class_ids=torch.tensor([2, 2]), text=torch.zeros(2, 9, 3), image=torch.zeros_like(picture)
    )
    classifier_free(2.0, negative=negative)(denoise)(picture, torch.ones(2), condition)
    positive, other = seen  # texts of two lengths do not fit into one batch
    assert positive is condition
    assert other.image is picture
    assert other.text is negative.text
    assert other.class_ids is other.towards_ids is negative.class_ids
    seen.clear()
    only_text = Condition(text=torch.zeros(2, 9, 3))
    classifier_free(2.0, negative=only_text)(denoise)(picture, torch.ones(2), condition)
    assert seen[1].class_ids is not None
    assert seen[1].class_ids.tolist() == [-1, -1]


def test_negative_guidance_moves_samples_away(overlapping: GaussianMixture) -> None:
    count, sigmas = 600, karras(24, 0.01, 10.0)
    start = 10 * noisy(count)
    nothing = Condition(class_ids=torch.full((count,), -1))
    negative = Condition(class_ids=torch.zeros(count, dtype=torch.int64))

    def share_of_the_other(scale: float) -> float:
        guided = classifier_free(scale, negative=negative)(overlapping.denoise)
        x = euler(guided, start, sigmas, nothing, lambda: start, ignore)
        return float(overlapping.class_probabilities(x, levels(0.01, count))[:, 1].mean())

    assert share_of_the_other(3.0) > share_of_the_other(1.0) + 0.2


@pytest.mark.parametrize("scale", [0.0, 1.5, 4.0])
def test_autoguidance_is_the_straight_line_through_the_bad_and_the_good(
    overlapping: GaussianMixture, scale: float
) -> None:
    x, sigma = noisy(4), levels(0.5, 4)

    def bad(x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
        return 0.8 * overlapping.denoise(x, 1.3 * sigma, condition)

    good, worse = overlapping.denoise(x, sigma, CLASSES), bad(x, sigma, CLASSES)
    result = autoguidance(bad, scale)(overlapping.denoise)(x, sigma, CLASSES)
    torch.testing.assert_close(result, worse + scale * (good - worse))


def test_autoguidance_asks_the_bad_model_only_where_it_guides(
    overlapping: GaussianMixture,
) -> None:
    good, bad = Counted(overlapping.denoise), Counted(overlapping.denoise)
    guided = autoguidance(bad, 2.0, sigma_low=0.2, sigma_high=1.0)(good)
    for sigma in (1.5, 1.0, 0.2):
        guided(noisy(4), levels(sigma, 4), CLASSES)
    assert [level for level, _ in good.calls] == [1.5, 1.0, 0.2]
    assert [level for level, _ in bad.calls] == [1.0]
    assert autoguidance(bad, 1.0)(good) is good


def test_autoguidance_sharpens_what_both_models_blur(overlapping: GaussianMixture) -> None:
    """Two models of too much variance, the bad one worse: the guided samples are between them
    and the truth (Karras et al. 2024, section 3)."""
    count, sigmas = 1_500, karras(24, 0.01, 10.0)
    start = 10 * noisy(count)
    condition = Condition(class_ids=torch.ones(count, dtype=torch.int64))

    def blurred(extra: float) -> Denoise:
        world = GaussianMixture(
            overlapping.weights, overlapping.means,
            overlapping.covariances + extra * torch.eye(1), classes=overlapping.classes,
        )  # fmt: skip
        return world.denoise

    def variance(denoise: Denoise) -> float:
        return float(euler(denoise, start, sigmas, condition, lambda: start, ignore).var())

    good, bad = blurred(0.05), blurred(0.2)
    truth, plain = variance(overlapping.denoise), variance(good)
    guided = variance(autoguidance(bad, 1.4)(good))
    assert truth < plain < variance(bad)
    assert abs(guided - truth) < abs(plain - truth) / 2


def test_rescaling_gives_back_the_deviation_of_every_picture() -> None:
    rng = generator("tests", "contrast")
    plain = torch.randn(3, 3, 4, 4, generator=rng)
    guided = (
        0.3
        + torch.randn(3, 3, 4, 4, generator=rng) * torch.tensor([1.0, 3, 9])[:, None, None, None]
    )
    deviation = plain.std((1, 2, 3))
    torch.testing.assert_close(rescaled(guided, plain, 1.0).std((1, 2, 3)), deviation)
    halfway = (deviation + guided.std((1, 2, 3))) / 2
    torch.testing.assert_close(rescaled(guided, plain, 0.5).std((1, 2, 3)), halfway)
    assert rescaled(guided, plain, 0.0) is guided
    torch.testing.assert_close(
        rescaled(guided, plain, 1.0) / rescaled(guided, plain, 1.0).std((1, 2, 3), keepdim=True),
        guided / guided.std((1, 2, 3), keepdim=True),
    )


def test_both_guidances_rescale(mixture: GaussianMixture) -> None:
    x = torch.randn(3, *mixture.shape, generator=generator("tests", "x"), dtype=torch.float64)
    sigma, condition = levels(0.7, 3), Condition(class_ids=torch.tensor([0, 1, 2]))
    plain = mixture.denoise(x, sigma, condition).std((1, 2, 3))

    def bad(x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
        return 0.5 * mixture.denoise(x, 2 * sigma, condition)

    for make in (classifier_free, lambda *a, **k: autoguidance(bad, *a, **k)):
        loud = make(5.0)(mixture.denoise)(x, sigma, condition).std((1, 2, 3))
        same = make(5.0, rescale=1.0)(mixture.denoise)(x, sigma, condition).std((1, 2, 3))
        torch.testing.assert_close(same, plain)
        assert not torch.allclose(loud, plain, rtol=0.05)
