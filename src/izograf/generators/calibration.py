"""Pictures drawn so that networks in eight bits see what they will be asked."""

from __future__ import annotations

import logging
from contextlib import ExitStack

import torch

from izograf.core.backends import Calibrated
from izograf.core.types import Condition, Generator, TextConditioned
from izograf.generators.network import modules_of
from izograf.schema.options import OptionValue

log = logging.getLogger(__name__)

PROMPTS = ("a mountain landscape with a river", "горы и лес", "a street with people", "море")
PICTURES, STEPS = 8, 10


def calibrate(generator: Generator) -> None:
    """Draws a few pictures with the defaults of its card, if a network of it needs to see some.

    Seeds and conditions are always the same, so that every machine calibrates alike.
    """
    waiting = [
        module
        for module in modules_of(generator)
        if isinstance(module, Calibrated) and module.needs_calibration
    ]
    if not waiting:
        return
    log.info("Calibrating eight bits on pictures of %s, once.", generator.card.name)
    with ExitStack() as stack:
        for module in waiting:
            stack.enter_context(module.calibrating())
        for condition, count in _asked(generator):
            generator.sample(condition, range(count), options=_few_steps(generator))


def _few_steps(generator: Generator) -> dict[str, OptionValue]:
    """All noise levels, in no more steps than it takes to meet each region of them."""
    offered = {option.name: option for option in generator.card.options}
    spec = offered.get("num_inference_steps")
    if spec is None or not isinstance(spec.default, int) or spec.default <= STEPS:
        return {}
    return {spec.name: spec.clamped(STEPS)}


def _asked(generator: Generator) -> list[tuple[Condition, int]]:
    """What is drawn: classes in turn, prompts one by one, or just pictures."""
    if isinstance(generator, TextConditioned) and "text" in generator.card.conditions:
        return [(generator.text_condition([prompt]), 1) for prompt in PROMPTS]
    count = len(generator.card.classes)
    ids = torch.arange(PICTURES) % count if count else None
    return [(Condition(class_ids=ids), PICTURES)]
