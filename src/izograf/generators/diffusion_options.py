"""What may be chosen when a diffusion model is sampled: the options of its card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from izograf.diffusion.reuse import INTERVAL
from izograf.diffusion.samplers import SAMPLERS, RegisteredSampler
from izograf.diffusion.schedules import SCHEDULES
from izograf.diffusion.tables import Spacing
from izograf.schema.options import OptionSpec, OptionValue

TRAINED = "trained"  # the schedule of a card that carries the levels of its few steps
NO_CLASS = "none"
TABLE_SPACINGS: tuple[Spacing, ...] = ("trailing", "leading")  # over the levels trained at


def diffusion_options(
    *,
    num_inference_steps: int = 18,
    guidance_scale: float = 1.5,
    conditional: bool = True,
    classes: Sequence[str] = (),
    table: bool = False,
    guide: bool = False,
    reuses: bool = False,
) -> tuple[OptionSpec, ...]:
    """The options a diffusion model's card offers, with this model's recommended defaults.

    `classes` are those that guidance may be told to move away from. `table` says that the model
    was trained at the levels of a beta schedule, `guide` that it has a network for autoguidance,
    `reuses` that the deep layers of its network can be told apart.
    """
    samplers = {name: known for name, known in SAMPLERS.items() if known.any_model}
    return (
        OptionSpec(
            "num_inference_steps", "integer", num_inference_steps, minimum=1, maximum=1000,
            help="denoising steps: more is slower and usually better",
        ),
        *((_guidance_scale(guidance_scale),) if conditional else ()),
        *((_AUTOGUIDANCE,) if guide else ()),
        *(_GUIDED_LEVELS if conditional or guide else ()),
        *((_negative(classes),) if conditional and classes else ()),
        OptionSpec(
            "sampler", "choice", "dpm-solver++", choices=tuple(samplers),
            help="the numerical method",
        ),
        OptionSpec(
            "schedule", "choice", "karras",
            choices=(*SCHEDULES, *(TABLE_SPACINGS if table else ())),
            help="where the noise levels of the steps lie",
        ),
        OptionSpec(
            "strength", "number", 0.75, minimum=0.01, maximum=1,
            help="with a picture to start from: how much of it is repainted, 1 is all",
        ),
        *((CACHE_INTERVAL,) if reuses else ()),
        *(
            replace(spec, name=f"{name}.{spec.name}")
            for name, known in samplers.items()
            for spec in known.options
        ),
    )  # fmt: skip


def _guidance_scale(scale: float) -> OptionSpec:
    return OptionSpec(
        "guidance_scale", "number", scale, minimum=0, maximum=20,
        help="how strongly the condition is enforced; 1 is the plain conditional model",
    )  # fmt: skip


def _negative(classes: Sequence[str]) -> OptionSpec:
    return OptionSpec(
        "negative_class", "choice", NO_CLASS, choices=(NO_CLASS, *classes),
        help="what to move away from; none is the picture without a class",
    )  # fmt: skip


_AUTOGUIDANCE = OptionSpec(
    "autoguidance_scale", "number", 1.0, minimum=1, maximum=20,
    help="how far to move away from an early snapshot of the model; 1 is off, more takes "
    "guidance_scale 1",
)  # fmt: skip

_GUIDED_LEVELS = (
    OptionSpec(
        "guidance_low", "number", 0.0, minimum=0, maximum=1000,
        help="no guidance at noise levels (sigma) up to this",
    ),
    OptionSpec(
        "guidance_high", "number", 1000.0, minimum=0, maximum=1000,
        help="no guidance at noise levels (sigma) above this",
    ),
    OptionSpec(
        "guidance_rescale", "number", 0.0, minimum=0, maximum=1,
        help="how much of the contrast that strong guidance adds is taken back",
    ),
)  # fmt: skip


def fast_preset(*, conditional: bool) -> dict[str, OptionValue]:
    """What a diffusion model's card offers as `--fast`.

    Measured on `scenes` (`benchmarks/accelerations.py`): ten of eighteen steps take half the time
    at no greater distance from real pictures, and where the noise is low guidance changes nothing.
    """
    return {"num_inference_steps": 10, **({"guidance_low": 0.6} if conditional else {})}


CACHE_INTERVAL = OptionSpec(
    INTERVAL, "integer", 1, minimum=1, maximum=10,
    help="the deep layers are computed at every so many steps and reused between; 1 is always",
)  # fmt: skip


def student_options(num_steps: int, *, least: int, sampler: str) -> tuple[OptionSpec, ...]:
    """The options of a few-step student: from `least` to `num_steps` steps at its own levels."""
    return (
        OptionSpec(
            "num_inference_steps", "integer", num_steps, minimum=least, maximum=num_steps,
            help="denoising steps this student was trained for",
        ),
        OptionSpec(
            "sampler", "choice", sampler, choices=(sampler,),
            help="the numerical method it was trained for",
        ),
        OptionSpec(
            "schedule", "choice", TRAINED, choices=(TRAINED,),
            help="the noise levels it was trained at",
        ),
    )  # fmt: skip


def options_of(
    sampler: RegisteredSampler, chosen: Mapping[str, OptionValue]
) -> dict[str, OptionValue]:
    """The sampler's own options among those chosen, `ddim.eta`, by their own names."""
    prefix = f"{sampler.name}."
    return {
        name.removeprefix(prefix): value
        for name, value in chosen.items()
        if name.startswith(prefix)
    }
