"""Samplers: integrate the probability-flow equation, or its stochastic relatives, in sigma.

    dx/dsigma = (x - D(x, sigma)) / sigma                       (Karras et al. 2022, eq. 3)

Each takes (denoise, x at sigmas[0], sigmas [N+1] decreasing, condition, noise, on_step), and its
own options by keyword, and returns x at sigmas[-1], which may be 0. A sampler never asks what the
network predicts, and knows neither guidance nor precision. x [B,C,H,W] keeps its dtype.

Papers that write z = alpha x0 + s n are read with x = z / alpha and sigma = s / alpha: every
method here commutes with that scaling, so its formulas appear with alpha = 1, lambda = -ln sigma.

A new one is one file in this package with one decorated function.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from izograf.core.registry import Registry
from izograf.core.types import Condition, Denoise, NoiseSource, OnStep
from izograf.schema.errors import InvalidInput
from izograf.schema.options import OptionSpec, OptionValue


def once_a_step(num_steps: int, **options: OptionValue) -> int:
    """Evaluations of a method that asks the denoiser once at every level."""
    del options
    return num_steps


@dataclass(frozen=True)
class RegisteredSampler:
    """A sampler, called like its function, and what its author promises of it.

    Attributes:
        name: what a user types.
        function: (denoise, x, sigmas, condition, noise, on_step, *, its options) -> x.
        order: of convergence to the probability flow with the default options, error ~ (number of
            steps)^-order on smoothly spaced levels; `None` for a stochastic sampler, which follows
            the distribution and no path.
        options: its keyword-only arguments, with their defaults and bounds.
        count: see `evaluations`.
        any_model: whether it samples any denoiser; False for one that needs a student trained for
            it, whose card then names it.
    """

    name: str
    function: Callable[..., Tensor]
    order: int | None
    options: tuple[OptionSpec, ...] = ()
    count: Callable[..., int] = once_a_step
    any_model: bool = True

    def __call__(
        self,
        denoise: Denoise,
        x: Tensor,
        sigmas: Tensor,
        condition: Condition,
        noise: NoiseSource,
        on_step: OnStep,
        **options: OptionValue,
    ) -> Tensor:
        chosen = self.parse(options)
        return self.function(denoise, x, sigmas, condition, noise, on_step, **chosen)

    def parse(self, options: Mapping[str, OptionValue]) -> dict[str, Any]:
        """Every option with its given or default value.

        Raises:
            InvalidInput: this sampler has no such option, or the value is impossible.
        """
        if unknown := sorted(set(options) - {spec.name for spec in self.options}):
            known = ", ".join(spec.name for spec in self.options) or "none"
            raise InvalidInput(
                f"The sampler {self.name!r} has no option {unknown[0]!r}; its options are: {known}."
            )
        return {
            spec.name: spec.parse(options.get(spec.name, spec.default)) for spec in self.options
        }

    def evaluations(self, num_steps: int, **options: OptionValue) -> int:
        """How often the denoiser is evaluated in `num_steps` steps that end at sigma 0.

        Samplers are compared at equal numbers of it, not at equal steps.
        """
        return self.count(num_steps, **self.parse(options))

    def steps_within(self, budget: int, **options: OptionValue) -> int:
        """The most steps that cost at most `budget` evaluations.

        Raises:
            InvalidInput: not even one step does.
        """
        steps = next(
            (n for n in range(budget, 0, -1) if self.evaluations(n, **options) <= budget), 0
        )
        if steps == 0:
            raise InvalidInput(
                f"The sampler {self.name!r} needs {self.evaluations(1, **options)} evaluations for "
                f"one step, more than the {budget} allowed."
            )
        return steps


SAMPLERS: Registry[RegisteredSampler] = Registry("sampler", package="izograf.diffusion")

Function = Callable[..., Tensor]


def sampler(
    name: str,
    *,
    order: int | None,
    options: tuple[OptionSpec, ...] = (),
    evaluations: Callable[..., int] = once_a_step,
    any_model: bool = True,
) -> Callable[[Function], Function]:
    """Registers the decorated function as the sampler `name`; returns the function unchanged.

    Args:
        name: what a user types.
        order: see `RegisteredSampler`; `None` if it draws noise by default.
        options: one for every keyword-only argument of the function, with the same default.
        evaluations: (num_steps, **options) -> number of evaluations when the levels end at 0.
        any_model: see `RegisteredSampler`.
    """

    def add(function: Function) -> Function:
        registered = RegisteredSampler(name, function, order, options, evaluations, any_model)
        SAMPLERS.register(name)(registered)
        return function

    return add
