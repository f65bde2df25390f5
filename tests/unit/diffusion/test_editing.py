"""Starting from a picture, keeping part of one, and running backwards, on the closed-form world."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from izograf.core.rng import SeededNoise, generator
from izograf.core.types import Condition, NoiseSource, Sampler, ignore
from izograf.diffusion.editing import invert, keep_known, slerp, start_from, time_travel
from izograf.diffusion.gaussian_mixture import GaussianMixture
from izograf.diffusion.samplers import SAMPLERS
from izograf.diffusion.schedules import exponential, karras
from izograf.schema.errors import InvalidInput

Noise = Callable[..., NoiseSource]
ANY = Condition()
METHODS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in SAMPLERS),
    ("ddim", {"eta": 1.0}),
    ("plms", {"warm_up": "runge-kutta"}),
]


@pytest.mark.parametrize(("strength", "steps"), [(1.0, 10), (0.7, 7), (0.55, 5), (0.01, 1)])
def test_strength_is_the_share_of_the_steps_that_are_taken(strength: float, steps: int) -> None:
    sigmas = karras(10, 0.02, 10.0)
    noise, image = SeededNoise((3, 2, 2), [1, 2]), torch.rand(2, 3, 2, 2)
    x, rest = start_from(image, sigmas, strength, noise)
    assert torch.equal(rest, sigmas[10 - steps :])
    expected = SeededNoise((3, 2, 2), [1, 2])()
    torch.testing.assert_close((x - image) / float(rest[0]), expected, rtol=1e-4, atol=1e-4)
    assert x.dtype == image.dtype


@pytest.mark.parametrize("strength", [0.0, -0.5, 1.1, math.nan])
def test_an_impossible_strength_is_refused(strength: float) -> None:
    with pytest.raises(InvalidInput, match="strength must be above 0"):
        start_from(torch.zeros(1, 3, 2, 2), karras(5, 0.1, 5.0), strength, lambda: torch.zeros(1))


def test_more_strength_goes_further_from_the_picture_and_less_stays_with_it(
    mixture: GaussianMixture, batch_noise: Noise
) -> None:
    image = mixture.sample(300, generator("tests", "pictures"))
    distances = []
    for strength in (0.1, 0.4, 0.7, 1.0):
        noise = batch_noise(*image.shape, seed=1)
        x, rest = start_from(image, karras(30, 0.01, 20.0), strength, noise)
        end = SAMPLERS["euler"](mixture.denoise, x, rest, ANY, noise, ignore)
        distances.append(float((end - image).square().mean().sqrt()))
    assert distances == sorted(distances)
    assert distances[0] < 0.1 * distances[-1]


def half(shape: tuple[int, ...]) -> Tensor:
    mask = torch.zeros(1, 1, *shape[-2:])
    mask[..., 0] = 1
    return mask


@pytest.mark.parametrize(("name", "options"), METHODS)
def test_the_known_part_is_exact_at_the_end_whatever_the_sampler(
    name: str, options: dict[str, Any], mixture: GaussianMixture, batch_noise: Noise
) -> None:
    known = mixture.sample(4, generator("tests", "known"))
    mask = half(mixture.shape).expand(4, -1, -1, -1)
    noise = batch_noise(4, *mixture.shape, seed=2)
    sigmas = karras(12, 0.02, 20.0)
    x, sigmas = start_from(known, sigmas, 1.0, noise)
    denoise = keep_known(mixture.denoise, known, mask)
    end = SAMPLERS[name](denoise, x, sigmas, ANY, noise, ignore, **options)
    kept = mask.bool().expand_as(end)
    torch.testing.assert_close(end[kept], known[kept], rtol=0, atol=1e-9)
    assert float((end - known)[~kept].abs().mean()) > 0.01


@pytest.mark.parametrize(("name", "options"), METHODS)
def test_the_network_sees_the_known_part_under_noise_of_its_level(
    name: str, options: dict[str, Any], batch_noise: Noise
) -> None:
    known = torch.full((200, 3, 2, 2), 0.6, dtype=torch.float64)
    seen: list[tuple[float, float, float]] = []

    def recorded(x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:  # noqa: ARG001
        off = (x - known)[..., 0]
        seen.append((float(sigma[0]), float(off.mean()), float(off.std())))
        return torch.zeros_like(x)

    noise = batch_noise(*known.shape, seed=3)
    x, sigmas = start_from(known, karras(10, 0.05, 20.0), 1.0, noise)
    denoise = keep_known(recorded, known, half((3, 2, 2)))
    if options.get("variance") == "forward":
        pytest.skip("draws more noise than the level has")
    SAMPLERS[name](denoise, x, sigmas, ANY, noise, ignore, **options)
    for level, mean, deviation in seen:
        assert mean == pytest.approx(0, abs=0.2 * level)
        assert deviation == pytest.approx(level, rel=0.1)


def inpainted_slope(sampler: Sampler, batch_noise: Noise) -> float:
    """How far a free pixel follows a known one of correlation 0.9: exactly 0.9 of the way."""
    covariance = torch.tensor([[[1.0, 0.9], [0.9, 1.0]]])
    world = GaussianMixture(torch.ones(1), torch.zeros(1, 1, 1, 2), covariance)
    known = torch.randn(2_000, 1, 1, 2, generator=generator("tests", "y"), dtype=torch.float64)
    mask = torch.tensor([1.0, 0.0]).reshape(1, 1, 1, 2)
    noise = batch_noise(*known.shape, seed=4)
    x, sigmas = start_from(known, karras(20, 0.01, 30.0), 1.0, noise)
    denoise = keep_known(world.denoise, known, mask)
    end = sampler(denoise, x, sigmas, ANY, noise, ignore)
    given, drawn = end.flatten(1).T
    return float((given * drawn).mean() / given.square().mean())


def test_the_free_part_follows_the_known_one_better_with_noise_and_best_with_time_travel(
    batch_noise: Noise,
) -> None:
    """A counting error of the slope is 0.01; with the mask turned round it would be 0."""
    straight = inpainted_slope(SAMPLERS["euler"], batch_noise)
    noisy = inpainted_slope(SAMPLERS["euler-ancestral"], batch_noise)
    travelled = inpainted_slope(time_travel(SAMPLERS["euler-ancestral"], 10, 4), batch_noise)
    assert 0.3 < straight < noisy - 0.05 < noisy + 0.15 < travelled
    assert travelled == pytest.approx(0.9, abs=0.1)


@pytest.mark.parametrize("length", [1, 3, 4, 12, 50])
def test_time_travel_takes_every_stretch_as_often_as_asked(
    length: int, mixture: GaussianMixture, batch_noise: Noise
) -> None:
    sigmas, calls, evaluated = karras(12, 0.05, 20.0), list[tuple[int, int]](), 0

    def counted(x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
        nonlocal evaluated
        evaluated += 1
        return mixture.denoise(x, sigma, condition)

    noise = batch_noise(2, *mixture.shape, seed=5)
    time_travel(SAMPLERS["euler"], 3, length)(
        counted,
        20 * noise(),
        sigmas,
        ANY,
        noise,
        lambda step, total, preview: calls.append((step, total)),  # noqa: ARG005
    )
    assert evaluated == 36
    assert calls == [(step, 36) for step in range(1, 37)]


def test_time_travel_of_one_pass_is_the_sampler_and_of_more_has_the_same_noise_at_the_end(
    batch_noise: Noise,
) -> None:
    point = torch.full((3_000, 1, 1, 1), 0.3, dtype=torch.float64)

    def knows(x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:  # noqa: ARG001
        return point

    sigmas = torch.tensor([9.0, 5.0, 2.0, 0.5], dtype=torch.float64)
    noise = batch_noise(*point.shape, seed=6)
    x = point + 9 * noise()
    plain = SAMPLERS["euler"](knows, x, sigmas, ANY, noise, ignore)
    once = time_travel(SAMPLERS["euler"], 1, 2)(knows, x, sigmas, ANY, noise, ignore)
    often = time_travel(SAMPLERS["euler"], 3, 2)(knows, x, sigmas, ANY, noise, ignore)
    assert torch.equal(plain, once)
    assert float((often - point).std()) == pytest.approx(0.5, rel=0.06)
    assert not torch.allclose(often, plain, atol=0.1)


@pytest.mark.parametrize(("repeats", "length"), [(0, 5), (3, 0)])
def test_impossible_time_travel_is_refused(repeats: int, length: int) -> None:
    with pytest.raises(InvalidInput, match="at least 1 pass"):
        time_travel(SAMPLERS["euler"], repeats, length)


def test_a_soft_mask_blends(mixture: GaussianMixture) -> None:
    known = torch.ones(2, *mixture.shape, dtype=torch.float64)
    x, sigma = torch.zeros_like(known), torch.full((2,), 0.5, dtype=torch.float64)
    plain = mixture.denoise(x, sigma, ANY)
    blended = keep_known(mixture.denoise, known, torch.full((2, 1, 2, 2), 0.25))(x, sigma, ANY)
    torch.testing.assert_close(blended, 0.25 * known + 0.75 * plain)


def round_trip(
    world: GaussianMixture, steps: int, name: str, sigma_min: float, condition: Condition
) -> float:
    image = world.sample(len(condition.class_ids), generator("tests", "round"), condition)  # type: ignore[arg-type]
    sigmas = exponential(steps, sigma_min, 10.0)
    method = SAMPLERS[name]
    noise = invert(world.denoise, image, sigmas, condition, method=method)
    assert float(noise.std()) == pytest.approx(10.0, rel=0.4), "inversion did not reach the noise"
    back = method(world.denoise, noise, sigmas, condition, noise_that_is_not_drawn, ignore)
    return float((back - image).square().mean().sqrt())


def noise_that_is_not_drawn() -> Tensor:
    raise AssertionError("deterministic")


CLASSES = Condition(class_ids=torch.tensor([0, 1, 2] * 8))


@pytest.mark.parametrize(("name", "gain"), [("euler", 1.7), ("ddim", 1.7), ("heun", 3.2)])
def test_the_error_of_a_round_trip_falls_with_the_order_of_the_method(
    mixture: GaussianMixture, name: str, gain: float
) -> None:
    errors = [round_trip(mixture, steps, name, 1e-3, CLASSES) for steps in (20, 40, 80)]
    assert errors[0] > gain * errors[1] > gain**2 * errors[2], errors
    assert errors[0] < 0.5


@pytest.mark.parametrize("name", sorted(n for n in SAMPLERS if SAMPLERS[n].order is not None))
def test_any_deterministic_sampler_inverts(mixture: GaussianMixture, name: str) -> None:
    assert round_trip(mixture, 120, name, 1e-3, CLASSES) < 0.06


def test_inversion_finds_the_exact_noise(mixture: GaussianMixture) -> None:
    """Against the closed form of the probability flow, which starts at the picture itself."""
    image = mixture.sample(24, generator("tests", "exact"), CLASSES)
    exact = mixture.probability_flow(image, 0.0, 10.0, CLASSES)
    errors = []
    for steps in (40, 160):
        sigmas = exponential(steps, 1e-3, 10.0)
        found = invert(mixture.denoise, image, sigmas, CLASSES, method=SAMPLERS["heun"])
        errors.append(float((found - exact).square().mean().sqrt()))
    assert errors[1] < 0.02
    assert errors[1] < errors[0] / 8


def test_a_schedule_that_ends_above_zero_is_inverted_from_there(mixture: GaussianMixture) -> None:
    sigmas = exponential(200, 0.05, 5.0)[:-1]
    x = mixture.sample(24, generator("tests", "above"), CLASSES)
    exact = mixture.probability_flow(x, 0.05, 5.0, CLASSES)
    found = invert(mixture.denoise, x, sigmas, CLASSES, method=SAMPLERS["heun"])
    torch.testing.assert_close(found, exact, rtol=0, atol=0.01)


def test_a_sampler_that_draws_noise_cannot_invert(mixture: GaussianMixture) -> None:
    image = mixture.sample(2, generator("tests", "r"))
    with pytest.raises(InvalidInput, match="deterministic sampler"):
        invert(mixture.denoise, image, karras(5, 0.1, 5.0), ANY, method=SAMPLERS["ddpm"])


def test_slerp_meets_its_ends_and_keeps_the_length() -> None:
    rng = generator("tests", "slerp")
    first, second = torch.randn(2, 4, 3, 8, 8, generator=rng)
    torch.testing.assert_close(slerp(first, second, 0.0), first)
    torch.testing.assert_close(slerp(first, second, 1.0), second)
    second = second * (first.flatten(1).norm(dim=1) / second.flatten(1).norm(dim=1)).reshape(
        -1, 1, 1, 1
    )
    middle = slerp(first, second, 0.3)
    torch.testing.assert_close(middle.flatten(1).norm(dim=1), first.flatten(1).norm(dim=1))
    angles = [
        torch.nn.functional.cosine_similarity(a.flatten(1), middle.flatten(1)).acos()
        for a in (first, second)
    ]
    torch.testing.assert_close(angles[0] / (angles[0] + angles[1]), torch.full((4,), 0.3))


def test_slerp_of_a_noise_with_itself_is_that_noise() -> None:
    noise = torch.randn(2, 3, 4, 4, generator=generator("tests", "same"))
    torch.testing.assert_close(slerp(noise, noise, 0.4), noise)
