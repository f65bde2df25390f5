"""Our samplers and schedules against diffusers' schedulers: same model, same levels, same noise.

The models are the closed-form mixture and a small random network that predicts the noise. diffusers
computes in float32 and, but for the Euler and Heun schedulers, on the variance-preserving state
z = x / sqrt(sigma^2 + 1); ours run here in float64 on x. Levels are ours, from `tables`, and
must be theirs. Samples, of deviation about one, must agree to `TOLERANCE`.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import Any, Protocol

import pytest
import torch
from torch import Tensor, nn

from izograf.core.rng import generator, seeded_layers
from izograf.core.types import Condition, ignore
from izograf.diffusion.denoiser import Denoiser
from izograf.diffusion.gaussian_mixture import GaussianMixture
from izograf.diffusion.precondition import Epsilon
from izograf.diffusion.samplers import SAMPLERS
from izograf.diffusion.schedules import Schedule, karras
from izograf.diffusion.tables import (
    linear_betas,
    scaled_linear_betas,
    spaced,
    start_state,
    stored,
    table_of,
    unit_state,
)

pytest.importorskip("diffusers", reason="diffusers, the oracle of these tests, is not installed")

from diffusers import schedulers
from diffusers.schedulers.scheduling_utils import AysSchedules

TOLERANCE = 2e-4  # float32 rounding of sigma (up to 157) and of 30 steps
CONDITION = Condition(class_ids=torch.tensor([0, 1, 2, -1]))
SHAPE = (4, 3, 2, 2)
DDPM = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02}
SD = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
}
DDPM_TABLE = table_of(linear_betas())
SD_TABLE = table_of(scaled_linear_betas())


class Model(Protocol):
    """Both sides' model: what denoises."""

    def denoise(self, x: Tensor, sigma: Tensor, condition: Condition) -> Tensor: ...


class Network(nn.Module):
    """Noise from z, the level and the class, by random weights, in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 3, 3, padding=1)
        self.classes, self.level = nn.Embedding(4, 16), nn.Linear(1, 16)
        self.double()

    def forward(self, scaled: Tensor, c_noise: Tensor, condition: Condition) -> Tensor:
        assert condition.class_ids is not None
        context = self.classes(condition.class_ids + 1) + self.level(c_noise[:, None])
        noise: Tensor = self.last(torch.tanh(self.first(scaled) + context[:, :, None, None]))
        return noise + 0.6 * scaled  # a noise prediction resembles its input


@dataclass(frozen=True)
class Learned:
    denoise: Denoiser


@pytest.fixture(scope="module", params=["mixture", "network"])
def model(request: pytest.FixtureRequest, mixture: GaussianMixture) -> Model:
    if request.param == "mixture":
        return mixture
    with seeded_layers("tests", "parity"):
        network = Network()
    return Learned(Denoiser(network.requires_grad_(False), Epsilon()))


def stream() -> torch.Generator:
    """The one noise stream of both sides: the start first, then what the steps draw."""
    return generator("tests", "noise")


@dataclass(frozen=True)
class Case:
    """One sampler of ours with one schedule, and the scheduler it must agree with."""

    name: str
    scheduler: type[Any]
    config: dict[str, Any]
    schedule: Schedule
    options: dict[str, Any] = field(default_factory=dict)
    step: dict[str, Any] = field(default_factory=dict)
    steps: tuple[int, ...] = (5, 20)
    unit_start: bool = True
    given: list[float] | None = None


def case(
    name: str, scheduler: str, config: dict[str, Any], schedule: Schedule, **more: Any
) -> Case:
    return Case(name, getattr(schedulers, scheduler), config, schedule, **more)


LEADING = {"timestep_spacing": "leading", "steps_offset": 1}
NO_CLIP = {"clip_sample": False}
STABLE = {**SD, **LEADING, "set_alpha_to_one": False}
single = "DPMSolverSinglestepScheduler"
multi = "DPMSolverMultistepScheduler"
LINSPACE = spaced(SD_TABLE, "linspace", spare=True)
LAST = {"final_sigmas_type": "sigma_min"}


def ddim(eta: float) -> Case:
    return case(
        "ddim", "DDIMScheduler", {**STABLE, **NO_CLIP},
        spaced(SD_TABLE, "leading", offset=1, ends_at="table"),
        options={"eta": eta}, step={"eta": eta},
    )  # fmt: skip


def unipc(order: int) -> Case:
    return case(
        "unipc", "UniPCMultistepScheduler", {**SD, "solver_order": order, "solver_type": "bh2"},
        LINSPACE, options={"solver_order": order, "b_h": "bh2"}, steps=(2, 3, 10, 25),
    )  # fmt: skip


def unipc_above_zero(order: int, b_h: str) -> Case:
    """bh1 is compared here only: theirs is not a number at sigma 0."""
    config = {"solver_order": order, "solver_type": b_h, "lower_order_final": False}
    return case(
        "unipc", "UniPCMultistepScheduler", {**SD, **LAST, **config},
        spaced(SD_TABLE, "linspace", spare=True, ends_at="table"),
        options={"solver_order": order, "b_h": b_h}, steps=(2, 3, 10, 25),
    )  # fmt: skip


def dpm_solver(order: int, steps: tuple[int, ...], lower: bool) -> Case:
    config = {"algorithm_type": "dpmsolver", "solver_order": order, "lower_order_final": lower}
    return case(
        "dpm-solver", single, {**SD, **LAST, **config},
        spaced(SD_TABLE, "linspace", spare=True, ends_at="table"),
        options={"solver_order": order}, steps=steps,
    )  # fmt: skip


CASES = {
    "euler-linspace": case(
        "euler", "EulerDiscreteScheduler", {**SD, "timestep_spacing": "linspace"},
        spaced(SD_TABLE, "linspace", whole=False), unit_start=False, steps=(3, 7, 30),
    ),
    "euler-trailing": case(
        "euler", "EulerDiscreteScheduler", {**SD, "timestep_spacing": "trailing"},
        spaced(SD_TABLE, "trailing"), unit_start=False,
    ),
    "euler-leading": case(
        "euler", "EulerDiscreteScheduler", {**SD, **LEADING},
        spaced(SD_TABLE, "leading", offset=1),
    ),
    "euler-linear-betas": case(
        "euler", "EulerDiscreteScheduler", DDPM, spaced(DDPM_TABLE, "linspace", whole=False),
        unit_start=False, steps=(3, 5, 30),
    ),
    "euler-karras": case(
        "euler", "EulerDiscreteScheduler", {**SD, "use_karras_sigmas": True},
        lambda n, low, high: karras(n, float(SD_TABLE[0]), float(SD_TABLE[-1])),  # noqa: ARG005
        unit_start=False,
    ),
    "euler-align-your-steps": case(
        "euler", "EulerDiscreteScheduler", SD,
        stored(AysSchedules["StableDiffusionSigmas"]), unit_start=False, steps=(10,),
        given=AysSchedules["StableDiffusionSigmas"],
    ),
    "heun-karras": case(
        "heun", "HeunDiscreteScheduler", {**SD, "use_karras_sigmas": True},
        lambda n, low, high: karras(n, float(SD_TABLE[0]), float(SD_TABLE[-1])),  # noqa: ARG005
        unit_start=False, steps=(4, 8, 20),
    ),
    "heun-leading": case(
        "heun", "HeunDiscreteScheduler", {**SD, **LEADING},
        spaced(SD_TABLE, "leading", offset=1),
    ),
    "euler-ancestral": case(
        "euler-ancestral", "EulerAncestralDiscreteScheduler", {**SD, **LEADING},
        spaced(SD_TABLE, "leading", offset=1), steps=(4, 20),
    ),
    "ddim-0": ddim(0.0),
    "ddim-0.4": ddim(0.4),
    "ddim-1": ddim(1.0),
    "ddim-trailing": case(
        "ddim", "DDIMScheduler", {**DDPM, **NO_CLIP, "timestep_spacing": "trailing"},
        spaced(DDPM_TABLE, "trailing"),
    ),
    "ddpm-posterior": case(
        "ddpm", "DDPMScheduler",
        {**DDPM, **NO_CLIP, "variance_type": "fixed_small", "timestep_spacing": "trailing"},
        spaced(DDPM_TABLE, "trailing"),
    ),
    "ddpm-forward": case(
        "ddpm", "DDPMScheduler",
        {**SD, **NO_CLIP, "variance_type": "fixed_large", "timestep_spacing": "leading"},
        spaced(SD_TABLE, "leading"), options={"variance": "forward"}, steps=(10, 25),
    ),
    "plms": case(
        "plms", "PNDMScheduler", {**STABLE, "skip_prk_steps": True},
        spaced(SD_TABLE, "leading", offset=1, ends_at="table"), steps=(3, 5, 20, 50),
    ),
    "plms-linear-betas": case(
        "plms", "PNDMScheduler", {**DDPM, "skip_prk_steps": True, "set_alpha_to_one": True},
        spaced(DDPM_TABLE, "leading"),
    ),
    "dpm-solver-1": dpm_solver(1, (5, 20), lower=True),
    "dpm-solver-2": dpm_solver(2, (4, 20), lower=False),
    "dpm-solver-2-odd": dpm_solver(2, (5, 21), lower=True),
    "dpm-solver-3": dpm_solver(3, (3, 6, 21), lower=False),
    "dpm-solver-3-rest": dpm_solver(3, (5, 20), lower=True),
    "dpm-solver++-2s": case(
        "dpm-solver++-2s", single, {**SD, "solver_order": 2}, LINSPACE, steps=(2, 5, 10, 21),
    ),
    "dpm-solver++": case("dpm-solver++", multi, SD, LINSPACE, steps=(2, 8, 25)),
    "dpm-solver++-leading": case(
        "dpm-solver++", multi, {**SD, **LEADING},
        spaced(SD_TABLE, "leading", offset=1, spare=True), steps=(2, 8, 25),
    ),
    "dpm-solver++-trailing": case(
        "dpm-solver++", multi, {**DDPM, "timestep_spacing": "trailing"},
        spaced(DDPM_TABLE, "trailing"), steps=(2, 8, 25),
    ),
    "dpm-solver++-sde": case(
        "dpm-solver++-sde", multi, {**SD, "algorithm_type": "sde-dpmsolver++"}, LINSPACE,
        steps=(2, 8, 25),
    ),
    "unipc-1": unipc(1),
    "unipc-2": unipc(2),
    "unipc-3": unipc(3),
    "unipc-2-bh1": unipc_above_zero(2, "bh1"),
    "unipc-2-bh2": unipc_above_zero(2, "bh2"),
    "unipc-3-bh1": unipc_above_zero(3, "bh1"),
}  # fmt: skip
RUNS = [pytest.param(c, n, id=f"{name}-{n}") for name, c in CASES.items() for n in c.steps]


def ours(case: Case, model: Model, sigmas: Tensor) -> Tensor:
    """Our sample, as z where theirs is z and noise is left."""
    rng = stream()
    noise = torch.randn(SHAPE, generator=rng).double()
    start, end = float(sigmas[0]), float(sigmas[-1])
    x = start_state(noise, start) if case.unit_start else noise * start
    sampled = SAMPLERS[case.name](
        model.denoise, x, sigmas, CONDITION, lambda: torch.randn(SHAPE, generator=rng), ignore,
        **case.options,
    )  # fmt: skip
    return unit_state(sampled, end)


def epsilon(model: Model, x: Tensor, sigma: Tensor) -> Tensor:
    """The noise prediction, as diffusers' models give it."""
    x, level = x.double(), sigma.double()
    return ((x - model.denoise(x, level.expand(len(x)), CONDITION)) / level).float()


def theirs(case: Case, model: Model, scheduler: Any) -> Tensor:
    """Their sample: x for the schedulers of Euler and Heun, z for the others."""
    rng = stream()
    on_x = case.scheduler.__name__.startswith(("Euler", "Heun"))
    state = torch.randn(SHAPE, generator=rng)
    if on_x:
        state = state * scheduler.init_noise_sigma
    more = dict(case.step)
    if SAMPLERS[case.name].order is None or more.get("eta"):
        more["generator"] = rng
    for i, t in enumerate(scheduler.timesteps):
        sigma = level_of(scheduler, i, t)
        if on_x:
            scheduler.scale_model_input(state, t)  # finds the step's index
        x = state if on_x else state * (1 + sigma**2).sqrt()
        as_in_the_paper(scheduler, i)
        state = scheduler.step(epsilon(model, x, sigma), t, state, **more).prev_sample
    return state


def level_of(scheduler: Any, index: int, t: Tensor) -> Tensor:
    if hasattr(scheduler, "sigmas"):
        level: Tensor = scheduler.sigmas[index]
        return level
    kept = scheduler.alphas_cumprod[t]
    return ((1 - kept) / kept).sqrt()


def as_in_the_paper(scheduler: Any, index: int) -> None:
    """DPM-Solver-3 as published: diffusers' `heun` for u2 and its `midpoint` for the result.

    Algorithm 2 of Lu et al. 2022a weighs the difference by the exponential's second function in
    both; diffusers offers it for both kinds of updates, but under different names.
    """
    if scheduler.config.get("algorithm_type") == "dpmsolver" and scheduler.config.solver_order == 3:
        orders = [*scheduler.order_list, 1]
        inner = orders[index : index + 2] == [2, 3]
        scheduler.register_to_config(solver_type="heun" if inner else "midpoint")


def visited(scheduler: Any) -> Tensor:
    """Their levels, with the last."""
    if hasattr(scheduler, "sigmas"):
        levels: Tensor = scheduler.sigmas
        return torch.unique_consecutive(levels)
    kept = scheduler.alphas_cumprod[torch.unique_consecutive(scheduler.timesteps)]
    final = getattr(scheduler, "final_alpha_cumprod", torch.tensor(1.0))
    kept = torch.cat([kept, final[None]])
    return ((1 - kept) / kept).sqrt()


@pytest.mark.parametrize(("case", "steps"), RUNS)
def test_sampler_and_schedule_are_diffusers(case: Case, steps: int, model: Model) -> None:
    scheduler = case.scheduler(**case.config)
    scheduler.set_timesteps(
        **({"sigmas": case.given} if case.given else {"num_inference_steps": steps})
    )
    sigmas = case.schedule(steps, 0.0, math.inf)
    assert len(sigmas) == steps + 1
    torch.testing.assert_close(sigmas.float(), visited(scheduler), rtol=3e-4, atol=1e-6)
    expected = theirs(case, model, scheduler)
    end = ours(case, model, sigmas)
    torch.testing.assert_close(end.float(), expected, rtol=0, atol=TOLERANCE)
    assert float(end.std()) > 0.3, "the samples have collapsed: equality would mean little"


def test_plms_warms_up_as_pndm_does(model: Model) -> None:
    """On a table uniform in sigma, where the middle timestep is the middle level."""
    levels = torch.linspace(0.05, 12.05, 241, dtype=torch.float64)
    kept = 1 / (1 + levels**2)
    betas = 1 - kept / torch.cat([kept.new_ones(1), kept[:-1]])
    config = {"skip_prk_steps": False, "set_alpha_to_one": False, "timestep_spacing": "leading"}
    scheduler = schedulers.PNDMScheduler(
        num_train_timesteps=241, trained_betas=betas.tolist(), steps_offset=12, **config
    )
    schedule = spaced(table_of(betas), "leading", offset=12, ends_at="table")
    case = Case("plms", schedulers.PNDMScheduler, {}, schedule, {"warm_up": "runge-kutta"})
    scheduler.set_timesteps(20)
    expected = theirs(case, model, scheduler)
    end = ours(case, model, schedule(20, 0.0, math.inf))
    torch.testing.assert_close(end.float(), expected, rtol=0, atol=TOLERANCE)


def test_plms_evaluates_where_stable_diffusion_does(mixture: GaussianMixture) -> None:
    scheduler = schedulers.PNDMScheduler(**STABLE, skip_prk_steps=True)
    scheduler.set_timesteps(50)
    assert scheduler.timesteps[:4].tolist() == [981, 961, 961, 941]
    asked: list[float] = []

    def recorded(x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
        asked.append(float(sigma[0]))
        return mixture.denoise(x, sigma, condition)

    sigmas = spaced(SD_TABLE, "leading", offset=1, ends_at="table")(50, 0.0, math.inf)
    x = torch.zeros(SHAPE, dtype=torch.float64)
    SAMPLERS["plms"](recorded, x, sigmas, CONDITION, lambda: x, ignore)
    assert asked == SD_TABLE[scheduler.timesteps].tolist()
    assert float(sigmas[-1]) == pytest.approx(0.0292, abs=1e-4)


def test_the_oracles_differ_from_each_other(mixture: GaussianMixture) -> None:
    """Otherwise every test above could pass with any sampler."""
    sigmas = torch.tensor([14.0, 8.0, 3.0, 1.0, 0.4, 0.1, 0.0], dtype=torch.float64)
    same = {
        frozenset(pair)
        for pair in [("euler", "ddim-0"), ("ddpm-posterior", "ddim-1"), ("euler", "dpm-solver-1"),
                     ("ddim-0", "dpm-solver-1"), ("euler-ancestral", "ddim-1"),
                     ("euler-ancestral", "ddpm-posterior")]
    }  # fmt: skip
    names = [
        "euler-leading", "heun-leading", "ddim-0.4", "ddim-1", "plms", "dpm-solver-2",
        "dpm-solver-3", "dpm-solver++-2s", "dpm-solver++", "dpm-solver++-sde", "unipc-1",
        "unipc-2-bh1", "unipc-2-bh2", "unipc-3-bh1", "ddpm-forward",
    ]  # fmt: skip
    ends = {name: ours(CASES[name], mixture, sigmas) for name in names}
    for first, second in itertools.combinations(names, 2):
        if frozenset((first, second)) not in same:
            gap = float((ends[first] - ends[second]).abs().max())
            assert gap > 5 * TOLERANCE, f"{first} and {second} differ by {gap:.1e}"
