"""The family of DDIM: a step towards x0 and fresh noise, in every proportion.

From level t to s < t, with x0 = D(x, t):

    x_s = x0 + sqrt(s^2 - u^2) (x - x0) / t + u n,      u = eta s sqrt(1 - s^2 / t^2).

For x = z / alpha this is Song et al. 2021 (DDIM), eq. 12 with the deviation of eq. 16. eta = 0 is
Euler's method on the probability flow, eta = 1 the posterior q(x_s | x_t, x0) of DDPM, and
whatever eta, x_s has the right distribution if x0 is the true picture.
"""

from __future__ import annotations

import math

from torch import Tensor

from izograf.core.types import Condition, Denoise, NoiseSource, OnStep
from izograf.diffusion.samplers import sampler
from izograf.diffusion.steps import level, number_pairs, pairs
from izograf.diffusion.variance import (
    DenoiseWithVariance,
    forward_variance,
    learned_log_variance,
    posterior_variance,
)
from izograf.schema.options import OptionSpec


def eta_option(default: float) -> OptionSpec:
    return OptionSpec(
        "eta", "number", default, minimum=0, maximum=1,
        help="how much fresh noise a step draws: 0 none, 1 as much as DDPM",
    )  # fmt: skip


@sampler("ddim", order=1, options=(eta_option(0.0),))
def ddim(
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor,
    condition: Condition,
    noise: NoiseSource,
    on_step: OnStep,
    *,
    eta: float = 0.0,
) -> Tensor:
    """DDIM (Song et al. 2021, eq. 12 and 16): order 1 for eta = 0, one evaluation a step."""
    for i, (sigma, following) in enumerate(number_pairs(sigmas)):
        x0 = denoise(x, level(sigma, x), condition)
        fresh = eta * following * math.sqrt(1 - (following / sigma) ** 2) if eta > 0 else 0.0
        x = x0 + (math.sqrt(following**2 - fresh**2) / sigma) * (x - x0)
        if fresh > 0:
            x = x + fresh * noise().to(x.dtype)
        on_step(i + 1, len(sigmas) - 1, x0)
    return x


@sampler("euler-ancestral", order=None, options=(eta_option(1.0),))
def euler_ancestral(
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor,
    condition: Condition,
    noise: NoiseSource,
    on_step: OnStep,
    *,
    eta: float = 1.0,
) -> Tensor:
    """Euler's method to sqrt(s^2 - u^2), then fresh noise of deviation u: one evaluation a step.

    Known by this name from k-diffusion; DDIM with another default of eta.
    """
    return ddim(denoise, x, sigmas, condition, noise, on_step, eta=eta)


@sampler(
    "ddpm",
    order=None,
    options=(
        OptionSpec(
            "variance", "choice", "model", choices=("model", "posterior", "forward"),
            help="of the noise of a step: the posterior's (beta~), the forward step's (beta), or "
            "what the model has learned, the posterior's where it has not",
        ),
    ),
)  # fmt: skip
def ddpm(
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor,
    condition: Condition,
    noise: NoiseSource,
    on_step: OnStep,
    *,
    variance: str = "model",
) -> Tensor:
    """Ancestral sampling from the posterior q(x_s | x_t, x0) (Ho et al. 2020, eq. 6-7).

    In sigma: mean x0 + (s^2/t^2)(x - x0), variance s^2 (t^2 - s^2) / t^2 for levels t > s.

    `variance="forward"` draws with the larger of the two choices of section 3.2, beta of the step
    of the variance-preserving process: (t^2 - s^2) (1 + s^2) / (1 + t^2) here. It is right for
    data of unit variance pixel by pixel, and too much for a long step otherwise.

    By default a network that was trained for it says where between the two, for every number of
    the picture (Nichol & Dhariwal 2021, eq. 15); any other has the posterior's. One evaluation a
    step; the step to 0 draws nothing.
    """
    for i, (sigma, following) in enumerate(pairs(sigmas)):
        share: Tensor | None = None
        if variance == "model":
            x0, share = _with_variance(denoise, x, level(sigma, x), condition)
        else:
            x0 = denoise(x, level(sigma, x), condition)
        x = x0 + (following / sigma) ** 2 * (x - x0)
        if following > 0:
            if share is not None:
                deviation = (learned_log_variance(sigma, following, share) / 2).exp()
            else:
                of_step = forward_variance if variance == "forward" else posterior_variance
                deviation = of_step(sigma, following).sqrt()
            x = x + deviation * noise().to(x.dtype)
        on_step(i + 1, len(sigmas) - 1, x0)
    return x


def _with_variance(
    denoise: Denoise, x: Tensor, sigma: Tensor, condition: Condition
) -> tuple[Tensor, Tensor | None]:
    if isinstance(denoise, DenoiseWithVariance):
        return denoise.with_variance(x, sigma, condition)
    return denoise(x, sigma, condition), None
