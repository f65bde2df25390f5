"""Sampling that starts from a picture, keeps part of one, or runs backwards into noise.

Pictures are whatever the denoiser denoises, [B,C,H,W]: images, or latents and masks of their size.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from izograf.core.types import Condition, Denoise, NoiseSource, OnStep, Sampler, ignore
from izograf.diffusion.euler import euler
from izograf.diffusion.steps import level
from izograf.schema.errors import InvalidInput


def start_from(
    image: Tensor, sigmas: Tensor, strength: float, noise: NoiseSource
) -> tuple[Tensor, Tensor]:
    """Where to start, and the levels left, to repaint a picture: SDEdit (Meng et al. 2022).

    Of N steps the last `strength` N, rounded down but at least one, are taken, from the picture
    under noise of their first level. Strength 1 takes all: only the picture's coarsest traces are
    left if sigmas[0] is far above its deviation.

    Returns:
        x [B,C,H,W] in image's dtype, and the rest of `sigmas`, which begins at x's level.

    Raises:
        InvalidInput: strength is not above 0 and at most 1.
    """
    if not 0 < strength <= 1:
        raise InvalidInput(
            f"strength must be above 0 (keep the picture) and at most 1 (repaint it), "
            f"got {strength:g}."
        )
    total = len(sigmas) - 1
    kept = sigmas[total - max(1, math.floor(total * strength + 1e-9)) :]
    return image + float(kept[0]) * noise().to(image.dtype), kept


def keep_known(denoise: Denoise, known: Tensor, mask: Tensor) -> Denoise:
    """Inpainting: the denoiser that knows part of the picture; mask [B,1,H,W] is 1 there.

    D(x) becomes mask * known + (1 - mask) * D(x): the expectation's known part is replaced (the
    projection of Wang et al. 2023, DDNM, for a mask without noise). Replacing the state after each
    step instead (Lugmayr et al. 2022, RePaint) would have to be told to every sampler, and breaks
    those that remember earlier answers or take inner points; this one is right for all of them.
    Known numbers then move on the line x = known + (sigma / sigma_0) (x_0 - known), or get fresh
    noise of the right deviation from a stochastic sampler; so the network sees them noised as it
    was trained to, and at sigma 0 they are `known` exactly. Start from `start_from(known, ...)`,
    or from pure noise where sigmas[0] is far above the picture.

    Like every replacement it is no exact posterior: the unknown part follows the known one too
    loosely. A stochastic sampler does better than a deterministic one, and `time_travel` better
    still, at its price (the tests measure this on two correlated pixels).

    Values of the mask between 0 and 1 blend: a soft edge.
    """

    def knowing(x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
        unknown = denoise(x, sigma, condition)
        return torch.lerp(unknown, known.to(x), mask.to(x).expand_as(x))

    return knowing


def time_travel(sampler: Sampler, repeats: int, length: int) -> Sampler:
    """The sampler that takes every `length` steps `repeats` times: RePaint's resampling.

    After a stretch of steps from level s to t, fresh noise of variance s^2 - t^2 leads back to s
    and the stretch is taken again (Lugmayr et al. 2022, section 4.2), so that what `keep_known`
    lets the unknown part ignore at one pass reaches it at the next. Every stretch is sampled by
    itself: a multistep sampler starts anew in it. `on_step` counts the steps that are taken.

    Raises:
        InvalidInput: repeats or length is less than 1.
    """
    if repeats < 1 or length < 1:
        raise InvalidInput(
            f"Time travel needs at least 1 pass over at least 1 step, got {repeats} over {length}."
        )

    def travelling(
        denoise: Denoise,
        x: Tensor,
        sigmas: Tensor,
        condition: Condition,
        noise: NoiseSource,
        on_step: OnStep,
    ) -> Tensor:
        levels, done = sigmas.tolist(), 0
        total = (len(levels) - 1) * repeats
        for first in range(0, len(levels) - 1, length):
            stretch = sigmas[first : first + length + 1]
            for turn in range(repeats):
                if turn > 0:
                    fresh = math.sqrt(levels[first] ** 2 - float(stretch[-1]) ** 2)
                    x = x + fresh * noise().to(x.dtype)
                x = sampler(denoise, x, stretch, condition, noise, _counting(on_step, done, total))
                done += len(stretch) - 1
        return x

    return travelling


def _counting(on_step: OnStep, done: int, total: int) -> OnStep:
    def counted(step: int, num_steps: int, preview: Tensor, /) -> None:
        del num_steps
        on_step(done + step, total, preview)

    return counted


def invert(
    denoise: Denoise,
    image: Tensor,
    sigmas: Tensor,
    condition: Condition,
    *,
    method: Sampler = euler,
    on_step: OnStep = ignore,
) -> Tensor:
    """The noisy x at sigmas[0] from which sampling leads back to `image`: DDIM inversion.

    The probability flow is followed upwards by `method`, any deterministic sampler (Euler's is
    DDIM's, Song et al. 2021, section 4.3; Mokady et al. 2023, eq. 3). `sigmas` is the schedule to
    sample with afterwards, decreasing. From 0 the first step takes the slope at the lowest level.
    Sampling back differs from `image` by an error of the method's order in the number of steps.
    Guidance makes it larger: invert without, as the authors advise.
    """
    rising = sigmas.flip(0)
    x = image
    if float(rising[0]) == 0:
        rising = rising[1:]
        x = 2 * x - denoise(x, level(rising[0], x), condition)
    return method(denoise, x, rising, condition, _no_noise, on_step)


def _no_noise() -> Tensor:
    raise InvalidInput("Inversion needs a deterministic sampler: this one draws noise.")


def slerp(first: Tensor, second: Tensor, share: float) -> Tensor:
    """Spherical interpolation of two noises [B,C,H,W], `share` of the way (Shoemake 1985).

    Along the great circle, with the angle that is really between them, picture by picture: for
    inverted pictures, whose noises are related. Nearly parallel ones are interpolated on a line.
    """
    a, b = first.flatten(1).double(), second.flatten(1).double()
    cosine = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)).clamp(min=1e-300)
    angle = cosine.clamp(-1, 1).acos()
    flat = (angle.sin() < 1e-6)[:, None]
    sine = angle.sin().clamp(min=1e-6)
    weights = torch.stack([((1 - share) * angle).sin() / sine, (share * angle).sin() / sine])
    weights = torch.where(flat.T, torch.tensor([[1 - share], [share]]).to(weights), weights)
    mixed = weights[0][:, None] * a + weights[1][:, None] * b
    return mixed.reshape(first.shape).to(first.dtype)
