"""What each acceleration is worth: one picture, drawn with one more of them on every rung.

The lowest rung is the model as it would be run by textbook: float32, torch as it is, fifty steps.
Each further rung changes one thing, and says how far its picture is from that of the lowest.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from izograf.core.backends import BACKENDS, EAGER, OPENVINO, OPENVINO_INT8
from izograf.core.devices import Placement, Precision
from izograf.core.types import Condition, Generator
from izograf.diffusion.reuse import INTERVAL
from izograf.schema.card import ModelCard
from izograf.schema.options import OptionSpec, OptionValue

STEPS = "num_inference_steps"
TEXTBOOK_STEPS = 50
SAMPLER = "recommended_sampler"  # in `card.sampling`, of a checkpoint that brings its own
GUIDED = ("guidance_low", "guidance_high")


@dataclass(frozen=True)
class Rung:
    """One setting; `changed` says in what it differs from the one before it.

    Attributes:
        exact: whether nothing is left out: only precision and arithmetic differ from the lowest.
    """

    name: str
    changed: str
    precision: Precision
    backend: str
    options: Mapping[str, OptionValue] = field(default_factory=dict)
    exact: bool = False

    @property
    def place(self) -> tuple[Precision, str]:
        return self.precision, self.backend


def rungs_of(
    card: ModelCard, *, precision: Precision = "bf16", fast_backend: str | None = None
) -> tuple[Rung, ...]:
    """The ladder of a model's card on a CPU: what it offers, from the textbook to `--fast`.

    Args:
        precision: the faster one on this machine.
        fast_backend: OpenVINO where it is installed.
    """
    backend = fast_backend or (EAGER if BACKENDS[OPENVINO].missing() else OPENVINO)
    offered = {option.name: option for option in card.options}
    textbook: dict[str, OptionValue] = {}
    if (steps := offered.get(STEPS)) is not None:
        textbook[STEPS] = steps.clamped(TEXTBOOK_STEPS)
    if SAMPLER in card.sampling:
        textbook["sampler"] = card.sampling[SAMPLER]
    lowest = _in_words("float32, torch", offered, textbook)
    rungs = [Rung("textbook", lowest, "fp32", EAGER, textbook, exact=True)]
    if precision == "bf16":
        rungs.append(Rung("bf16", "bfloat16", precision, EAGER, textbook, exact=True))
    if backend != EAGER:
        rungs.append(
            Rung(backend, f"computed by {backend}", precision, backend, textbook, exact=True)
        )
    if textbook:
        rungs.append(
            Rung("default", _in_words("the model's defaults", offered, {}), precision, backend)
        )
        if backend != EAGER:
            rungs.append(Rung("default, torch", "the same by torch", precision, EAGER))
    guided = {name: value for name, value in card.fast.items() if name in GUIDED}
    if guided:
        said = " ".join(f"{name} {value:g}" for name, value in guided.items())
        rungs.append(Rung("guidance interval", said, precision, backend, guided))
    if INTERVAL in offered:
        reuse = {INTERVAL: card.fast.get(INTERVAL, 2)}
        rungs.append(Rung("reuse", f"{INTERVAL} {reuse[INTERVAL]}", precision, backend, reuse))
    if card.fast:
        rungs.append(Rung("--fast", "the fast preset", precision, backend, card.fast))
        if backend == OPENVINO and not BACKENDS[OPENVINO_INT8].missing():
            rungs.append(Rung("--fast, int8", "in eight bits", precision, OPENVINO_INT8, card.fast))
    return tuple(rungs)


@dataclass
class Climbed:
    """What one rung took and gave: seconds of each round, and its picture, [3,H,W] in [-1,1]."""

    rung: Rung
    seconds: list[float]
    picture: Tensor
    distance: float = 0.0

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


Load = Callable[[Placement], Generator]


def climb(
    load: Load,
    rungs: Sequence[Rung],
    condition_of: Callable[[Generator], Condition],
    *,
    seed: int = 0,
    rounds: int = 1,
    options: Mapping[str, OptionValue] = {},
    on_progress: Callable[[int, int], None] = lambda *_: None,
) -> list[Climbed]:
    """Every rung once a round, alternating; what is prepared once for a model is not timed.

    Args:
        load: the model at one placement; kept as long as this runs.
        condition_of: what is drawn, encoded anew each time.
        options: of every rung, under its own: the size of the picture, say.
    """
    generators = {place: load(Placement("cpu", *place)) for place in {rung.place for rung in rungs}}
    for rung in rungs:
        generator = generators[rung.place]
        few = {**options, **rung.options, **few_steps(generator.card, rung)}
        _draw(generator, condition_of, seed, few)
    made: dict[str, Climbed] = {}
    for turn in range(rounds):
        shift = turn % len(rungs)
        for rung in (*rungs[shift:], *rungs[:shift]):
            generator = generators[rung.place]
            start = time.perf_counter()
            picture = _draw(generator, condition_of, seed, {**options, **rung.options})
            taken = time.perf_counter() - start
            climbed = made.setdefault(rung.name, Climbed(rung, [], picture))
            climbed.seconds.append(taken)
            on_progress(sum(len(each.seconds) for each in made.values()), rounds * len(rungs))
    lowest = made[rungs[0].name].picture
    for each in made.values():
        each.distance = distance(each.picture, lowest)
    return [made[rung.name] for rung in rungs]


def distance(picture: Tensor, reference: Tensor) -> float:
    """Root mean square of the difference of two pictures in [-1,1], in levels of 255."""
    return float((picture - reference).square().mean().sqrt()) * 127.5


def _in_words(
    lead: str, offered: Mapping[str, OptionSpec], chosen: Mapping[str, OptionValue]
) -> str:
    """A setting with its steps and sampler, where the model has any."""
    values = {name: chosen.get(name, spec.default) for name, spec in offered.items()}
    if STEPS not in values:
        return lead
    return f"{lead}, {values[STEPS]} steps of {values.get('sampler', 'its method')}"


def few_steps(card: ModelCard, rung: Rung) -> dict[str, OptionValue]:
    """As few steps as make every program that the rung needs."""
    for option in card.options:
        if option.name == STEPS:
            return {STEPS: option.clamped(2 if rung.exact else 8)}
    return {}


@torch.inference_mode()
def _draw(
    generator: Generator,
    condition_of: Callable[[Generator], Condition],
    seed: int,
    options: Mapping[str, OptionValue],
) -> Tensor:
    return generator.sample(condition_of(generator), [seed], options=options)[0]
