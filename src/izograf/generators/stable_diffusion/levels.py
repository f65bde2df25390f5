"""Noise levels of a checkpoint: its saved scheduler configuration read as a table and schedules.

The configuration was written by some scheduler class of diffusers; a sampler reads it as its own
counterpart there would: keys that are present count, for those that are absent the counterpart's
default does. The checkpoint's own choice of a sampler is only a recommendation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from izograf.diffusion.precondition import PRECONDITIONERS, Preconditioner, Scalars
from izograf.diffusion.schedules import SCHEDULES, Schedule
from izograf.diffusion.tables import (
    cosine_betas,
    linear_betas,
    scaled_linear_betas,
    spaced,
    table_of,
    timestep_at,
)
from izograf.schema.errors import CardError

OWN = "native"  # the schedule that the checkpoint's configuration describes
SPACINGS = ("leading", "trailing", "linspace")
_SMALLEST_SIGNAL = 2.0**-24  # of the last timestep, where the training had none at all

_LEADING = frozenset({"ddpm", "ddim", "plms"})  # the others' counterparts default to linspace
_SPARING = frozenset({"dpm-solver", "dpm-solver++", "dpm-solver++-2s", "dpm-solver++-sde", "unipc"})
_ON_X = frozenset({"euler", "euler-ancestral", "heun"})
_PREDICTIONS = {"epsilon": "epsilon", "v_prediction": "velocity"}
_SAMPLERS = {
    "DDPMScheduler": "ddpm", "DDIMScheduler": "ddim", "PNDMScheduler": "plms",
    "EulerDiscreteScheduler": "euler", "EulerAncestralDiscreteScheduler": "euler-ancestral",
    "HeunDiscreteScheduler": "heun", "DPMSolverMultistepScheduler": "dpm-solver++",
    "DPMSolverSinglestepScheduler": "dpm-solver++-2s", "UniPCMultistepScheduler": "unipc",
}  # fmt: skip

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Levels:
    """The levels of one run, and what its first and last state mean.

    Attributes:
        sigmas: float64 [N+1], decreasing; the last is 0, or the table's smallest.
        unit_start: whether x starts as z sqrt(1 + sigma^2) for unit noise z, or as z sigma.
    """

    sigmas: Tensor
    unit_start: bool

    def start(self, noise: Tensor) -> Tensor:
        """x at the first level."""
        first = float(self.sigmas[0])
        return noise * ((1 + first**2) ** 0.5 if self.unit_start else first)


@dataclass(frozen=True)
class Discrete:
    """A preconditioner whose c_noise is the model's timestep, linear in sigma between two."""

    inner: Preconditioner
    table: Tensor

    def __call__(self, sigma: Tensor) -> Scalars:
        places = timestep_at(self.table, sigma.to(self.table.device))
        return self.inner(sigma)._replace(c_noise=places.to(sigma))


def table_from(config: Json) -> Tensor:
    """The table of levels, float64 [T], of a scheduler's configuration.

    Raises:
        CardError: an unknown beta schedule, or no betas.
    """
    steps = int(config.get("num_train_timesteps", 1000))
    ends = float(config.get("beta_start", 1e-4)), float(config.get("beta_end", 0.02))
    name = config.get("beta_schedule", "linear")
    if config.get("trained_betas"):
        betas = torch.tensor(config["trained_betas"], dtype=torch.float64)
    elif name == "linear":
        betas = linear_betas(steps, *ends)
    elif name == "scaled_linear":
        betas = scaled_linear_betas(steps, *ends)
    elif name == "squaredcos_cap_v2":
        betas = cosine_betas(steps)
    else:
        raise CardError(f"The checkpoint's scheduler has the unknown beta_schedule {name!r}.")
    if config.get("rescale_betas_zero_snr"):
        return _without_signal_at_the_end(table_of(betas))
    return table_of(betas)


def _without_signal_at_the_end(table: Tensor) -> Tensor:
    """The table shifted and scaled so that nothing of the picture is left at its end.

    Lin et al. 2024, algorithm 1, on sqrt(A) = 1 / sqrt(1 + sigma^2); the last level, which would
    be infinite, is that of a signal of 2^-24.
    """
    signal = (1 + table.square()).rsqrt()
    shifted = (signal - signal[-1]) * signal[0] / (signal[0] - signal[-1])
    kept = shifted.square().clamp(min=_SMALLEST_SIGNAL)
    return ((1 - kept) / kept).sqrt()


def prediction_of(config: Json) -> Preconditioner:
    """What the network predicts, as the preconditioner that reads it.

    Raises:
        CardError: something else than the noise or the velocity.
    """
    named = config.get("prediction_type", "epsilon")
    if named not in _PREDICTIONS:
        raise CardError(f"The checkpoint's scheduler has the unknown prediction_type {named!r}.")
    return PRECONDITIONERS[_PREDICTIONS[named]]()


def levels_for(config: Json, table: Tensor, *, sampler: str, schedule: str, steps: int) -> Levels:
    """The levels of `steps` steps of a sampler: the checkpoint's own, by spacing, or by a law.

    Raises:
        InvalidInput: more steps than the table has timesteps.
    """
    spacing = spacing_of(config, sampler) if schedule == OWN else schedule
    if spacing in SPACINGS:
        made = spaced(
            table, spacing,  # type: ignore[arg-type]
            offset=int(config.get("steps_offset", 0)), whole=sampler not in _ON_X,
            spare=sampler in _SPARING, ends_at=_end(config, sampler),
        )  # fmt: skip
    else:
        made = _within(SCHEDULES[spacing], table)
    return Levels(made(steps, 0.0, 0.0), unit_start=sampler not in _ON_X or spacing == "leading")


def spacing_of(config: Json, sampler: str) -> str:
    """Where the configuration puts the levels of a sampler: a spacing, or karras."""
    if config.get("use_karras_sigmas") and sampler not in _LEADING:
        return "karras"
    return str(config.get("timestep_spacing") or ("leading" if sampler in _LEADING else "linspace"))


def recommended_sampler(config: Json) -> str:
    """The sampler that is the counterpart of the scheduler which wrote the configuration."""
    name = _SAMPLERS.get(str(config.get("_class_name")), "dpm-solver++")
    if name == "dpm-solver++" and str(config.get("algorithm_type", "")).startswith("sde"):
        return "dpm-solver++-sde"
    return name


def _end(config: Json, sampler: str) -> Literal["zero", "table"]:
    """DDIM and PLMS end at the first timestep's level unless told otherwise, others at 0."""
    if sampler in ("ddim", "plms"):
        return "zero" if config.get("set_alpha_to_one", sampler == "ddim") else "table"
    ends_above = config.get("final_sigmas_type", "zero") == "sigma_min"
    return "table" if ends_above and sampler in _SPARING else "zero"


def _within(law: Schedule, table: Tensor) -> Schedule:
    """A law of levels between the table's ends."""
    return lambda steps, _low, _high: law(steps, float(table[0]), float(table[-1]))
