"""What every registered sampler promises, whatever its mathematics."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import pytest
import torch
from torch import Tensor

from izograf.core.rng import SeededNoise, generator
from izograf.core.types import Condition, Sampler, ignore
from izograf.diffusion.gaussian_mixture import GaussianMixture
from izograf.diffusion.samplers import SAMPLERS
from izograf.diffusion.schedules import SCHEDULES, karras
from izograf.schema.errors import Cancelled, InvalidInput

ANY = Condition()
SHAPE = (3, 2, 2)


def variants() -> list[tuple[str, dict[str, Any]]]:
    """Every sampler with its defaults, and with every other value of each option."""
    found: list[tuple[str, dict[str, Any]]] = []
    for name, registered in SAMPLERS.items():
        found.append((name, {}))
        for spec in registered.options:
            values: list[Any] = list(spec.choices)
            if spec.kind == "integer":
                assert spec.minimum is not None
                assert spec.maximum is not None
                values = list(range(int(spec.minimum), int(spec.maximum) + 1))
            elif spec.kind == "number":
                values = [spec.minimum, 0.5, spec.maximum]
            found += [(name, {spec.name: value}) for value in values if value != spec.default]
    return found


def label(value: Any) -> str | None:
    if isinstance(value, dict):
        return ",".join(f"{key}={chosen}" for key, chosen in value.items()) or "default"
    return None


VARIANTS = variants()
PARAMETERS = [f"{name}-{label(options)}" for name, options in VARIANTS]


@pytest.fixture(params=VARIANTS, ids=PARAMETERS)
def sampler(request: pytest.FixtureRequest) -> Sampler:
    name, options = request.param
    return functools.partial(SAMPLERS[name], **options)


def shrink(x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:  # noqa: ARG001
    """The denoiser of N(0, I), pixel by pixel, so that rounding cannot depend on the batch."""
    return x / (1 + sigma.square())[:, None, None, None]


def noise_of(*seeds: int) -> SeededNoise:
    return SeededNoise(SHAPE, seeds)


def start_of(noise: SeededNoise, sigmas: Tensor) -> Tensor:
    return noise().double() * sigmas[0]


@pytest.mark.parametrize("num_steps", [1, 2, 7])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_on_step_is_called_once_a_step_with_the_step_and_a_preview(
    sampler: Sampler, schedule: str, num_steps: int
) -> None:
    calls: list[tuple[int, int, torch.Size]] = []
    sigmas = SCHEDULES[schedule](num_steps, 0.02, 10.0)
    noise = noise_of(1, 2)
    sampler(
        shrink, start_of(noise, sigmas), sigmas, ANY, noise,
        lambda step, total, preview: calls.append((step, total, preview.shape)),
    )  # fmt: skip
    assert calls == [(i + 1, num_steps, torch.Size((2, *SHAPE))) for i in range(num_steps)]


def test_cancelled_in_on_step_stops_at_once(sampler: Sampler) -> None:
    evaluated: list[float] = []

    def counted(x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
        evaluated.append(float(sigma[0]))
        return shrink(x, sigma, condition)

    def cancel_third(step: int, num_steps: int, preview: Tensor) -> None:  # noqa: ARG001
        if step == 3:
            raise Cancelled

    sigmas, noise = karras(10, 0.02, 10.0), noise_of(1)
    with pytest.raises(Cancelled):
        sampler(counted, start_of(noise, sigmas), sigmas, ANY, noise, cancel_third)
    assert min(evaluated) >= float(sigmas[3]), "evaluated beyond the third step"


def test_a_picture_does_not_depend_on_its_batch_mates(sampler: Sampler) -> None:
    sigmas = karras(6, 0.02, 10.0)
    seeds = (11, 12, 13, 14, 15, 16, 17)

    def run(*batch: int) -> Tensor:
        noise = noise_of(*batch)
        return sampler(shrink, start_of(noise, sigmas), sigmas, ANY, noise, ignore)

    together = run(*seeds)
    assert torch.equal(together[:4], run(*seeds[:4]))
    assert torch.equal(together, torch.cat([run(seed) for seed in seeds]))
    assert not torch.equal(together[0], together[1])


def test_the_same_seeds_give_the_same_pictures(sampler: Sampler) -> None:
    sigmas = karras(6, 0.02, 10.0)
    runs = []
    for _ in range(2):
        noise = noise_of(5, 6)
        runs.append(sampler(shrink, start_of(noise, sigmas), sigmas, ANY, noise, ignore))
    assert torch.equal(*runs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("level_dtype", [torch.float32, torch.float64])
def test_x_keeps_its_dtype_and_the_denoiser_sees_levels_in_it(
    sampler: Sampler, dtype: torch.dtype, level_dtype: torch.dtype
) -> None:
    def checked(x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
        assert x.dtype == dtype
        assert sigma.dtype == dtype
        assert sigma.shape == (2,)
        return shrink(x, sigma, condition)

    sigmas, noise = karras(4, 0.02, 10.0).to(level_dtype), noise_of(1, 2)
    x = sampler(checked, start_of(noise, sigmas).to(dtype), sigmas, ANY, noise, ignore)
    assert x.dtype == dtype
    assert bool(x.isfinite().all())


def test_one_step_to_zero_is_the_denoiser_itself(
    sampler: Sampler, mixture: GaussianMixture
) -> None:
    sigmas = torch.tensor([2.0, 0.0], dtype=torch.float64)
    noise = noise_of(1, 2, 3)
    x = start_of(noise, sigmas)
    expected = mixture.denoise(x, torch.full((3,), 2.0, dtype=torch.float64), ANY)
    end = sampler(mixture.denoise, x, sigmas, ANY, noise, ignore)
    torch.testing.assert_close(end, expected)


def test_the_denoiser_is_asked_at_the_levels_of_the_schedule_and_never_at_zero(
    sampler: Sampler,
) -> None:
    """Levels in between are a sampler's own business."""
    levels: list[float] = []

    def recorded(x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
        levels.append(float(sigma[0]))
        return shrink(x, sigma, condition)

    sigmas, noise = karras(5, 0.02, 10.0), noise_of(1)
    sampler(recorded, start_of(noise, sigmas), sigmas, ANY, noise, ignore)
    assert set(sigmas[:-1].tolist()) <= set(levels)
    assert all(sigmas[-2] <= level <= sigmas[0] for level in levels)


def test_the_condition_reaches_the_denoiser_unchanged(sampler: Sampler) -> None:
    condition = Condition(class_ids=torch.tensor([1, 0]))
    seen: list[Condition] = []

    def recorded(x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
        seen.append(condition)
        return shrink(x, sigma, condition)

    sigmas, noise = karras(3, 0.02, 10.0), noise_of(1, 2)
    sampler(recorded, start_of(noise, sigmas), sigmas, condition, noise, ignore)
    assert len(seen) >= 3
    assert all(given is condition for given in seen)


def test_arguments_are_left_as_they_were(sampler: Sampler) -> None:
    sigmas = karras(5, 0.02, 10.0)
    x = torch.randn(2, *SHAPE, generator=generator("tests", "x"), dtype=torch.float64)
    before, levels = x.clone(), sigmas.clone()
    end = sampler(shrink, x, sigmas, ANY, noise_of(1, 2), ignore)
    assert torch.equal(x, before)
    assert torch.equal(sigmas, levels)
    assert not torch.equal(end, before)


NOT_OF_A_POINT = ({"variance": "forward"}, {"combines": "velocity"})


@pytest.mark.parametrize(
    ("name", "options"), [v for v in VARIANTS if v[1] not in NOT_OF_A_POINT], ids=label
)
def test_a_schedule_may_end_above_zero(name: str, options: dict[str, Any]) -> None:
    """What is left then is noise of that level: image-to-image and refiners hand over there.

    DDPM's forward variance is meant for data of unit variance, and these have none; velocities
    of successive steps combined are of first order even here, where noise is the same at each.
    """
    sigmas = torch.tensor([10.0, 3.0, 1.0, 0.5], dtype=torch.float64)
    seeds = range(400)
    noise = SeededNoise(SHAPE, seeds)
    point = torch.full((len(seeds), *SHAPE), 0.25, dtype=torch.float64)
    x = point + start_of(noise, sigmas)

    def knows(x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:  # noqa: ARG001
        return point

    end = SAMPLERS[name](knows, x, sigmas, ANY, noise, ignore, **options)
    assert float((end - point).std()) == pytest.approx(0.5, rel=0.05)


@pytest.mark.parametrize("name", SAMPLERS)
def test_options_are_the_keyword_arguments_of_the_function(name: str) -> None:
    registered = SAMPLERS[name]
    parameters = inspect.signature(registered.function).parameters.values()
    keywords = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    assert {spec.name: spec.default for spec in registered.options} == keywords
    assert all(spec.help for spec in registered.options)
    assert registered.name == name


@pytest.mark.parametrize("name", SAMPLERS)
def test_an_option_it_does_not_have_is_refused(name: str) -> None:
    noise, sigmas = noise_of(1), karras(3, 0.02, 10.0)
    with pytest.raises(InvalidInput, match=f"{name.replace('+', '.')}.* has no option 'swirl'"):
        SAMPLERS[name](shrink, start_of(noise, sigmas), sigmas, ANY, noise, ignore, swirl=1)


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [("ddim", "eta", 1.5), ("dpm-solver", "solver_order", 4), ("plms", "warm_up", "euler")],
)
def test_an_impossible_value_of_an_option_is_refused(name: str, option: str, value: Any) -> None:
    noise, sigmas = noise_of(1), karras(3, 0.02, 10.0)
    with pytest.raises(InvalidInput, match=option):
        SAMPLERS[name](
            shrink, start_of(noise, sigmas), sigmas, ANY, noise, ignore, **{option: value}
        )


@pytest.mark.parametrize("num_steps", [1, 2, 3, 4, 9])
@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=label)
def test_evaluations_are_as_many_as_are_stated(
    name: str, options: dict[str, Any], num_steps: int
) -> None:
    asked = 0

    def counted(x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
        nonlocal asked
        asked += 1
        return shrink(x, sigma, condition)

    noise, sigmas = noise_of(1), karras(num_steps, 0.02, 10.0)
    SAMPLERS[name](counted, start_of(noise, sigmas), sigmas, ANY, noise, ignore, **options)
    assert asked == SAMPLERS[name].evaluations(num_steps, **options)


@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=label)
def test_steps_within_a_budget_are_the_most_that_fit(name: str, options: dict[str, Any]) -> None:
    registered = SAMPLERS[name]
    for budget in (1, 5, 10, 50):
        steps = registered.steps_within(budget, **options)
        assert registered.evaluations(steps, **options) <= budget
        assert registered.evaluations(steps + 1, **options) > budget
    with pytest.raises(InvalidInput, match="more than the 0 allowed"):
        registered.steps_within(0, **options)
