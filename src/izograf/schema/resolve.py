"""A request against a model's card: every name resolved, every option explicit, all checked.

Standard library only: the service refuses a bad request before anything is queued.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from izograf.schema.card import ModelCard
from izograf.schema.errors import InvalidInput
from izograf.schema.labels import resolve_class
from izograf.schema.options import parse_options
from izograf.schema.request import GenerationRequest

MAX_PROMPT = 2000  # characters
TEXT_PARTS = ("prompt", "negative_prompt", "style", "asked")


def resolve_request(card: ModelCard, request: GenerationRequest) -> GenerationRequest:
    """The request with the class by its identifier and every option explicit, all checked.

    Raises:
        NotFound: unknown class; InvalidInput: a condition or an option the model does not take.
    """
    condition, towards = dict(request.condition), dict(request.towards)
    kind = condition.get("type")
    if kind == "class" and "class" in condition:
        condition["class"] = _class_name(card, condition["class"])
    elif kind == "text" and "prompt" in condition:
        condition = _text(card, condition)
    elif kind != "none":
        raise InvalidInput(f"{card.name} does not take the condition {condition}.")
    if "class" in towards:
        if kind != "class":
            raise InvalidInput("A strip towards a class must start from a class, not from none.")
        towards["class"] = _class_name(card, str(towards["class"]))
    options = parse_options(request.options, card.options)
    return replace(request, condition=condition, options=options, towards=towards)


def _text(card: ModelCard, condition: Mapping[str, str]) -> dict[str, str]:
    """The condition with white space tidied and empty parts left out."""
    if "text" not in card.conditions:
        takes = "a class, --class" if card.classes else "no condition at all"
        raise InvalidInput(f"{card.name} does not read prompts, it takes {takes}.")
    if unknown := sorted(set(condition) - {"type", *TEXT_PARTS}):
        raise InvalidInput(f"A text condition has no {unknown[0][:40]!r}.")
    parts = {name: " ".join(condition.get(name, "").split()) for name in TEXT_PARTS}
    for name in ("prompt", "negative_prompt", "asked"):
        if len(parts[name]) > MAX_PROMPT:
            raise InvalidInput(
                f"The {name.replace('_', ' ')} has {len(parts[name]):,} characters, and at most "
                f"{MAX_PROMPT:,} are read: shorten it."
            )
    if not parts["prompt"]:
        raise InvalidInput("The prompt is empty: say in a few words what the picture shows.")
    return {"type": "text", **{name: value for name, value in parts.items() if value}}


def _class_name(card: ModelCard, text: str) -> str:
    if not card.classes:
        raise InvalidInput(f"{card.name} has no classes: leave out --class.")
    return card.classes[resolve_class(text, card.classes)].name
