"""The model card: everything anyone needs to know about a trained model, as one JSON file.

A model on disk is a folder with `weights.safetensors` and `card.json`. Validation, command-line
flags and web forms come from the card; code that uses a model never asks for its family.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from izograf.schema.errors import CardError, InvalidInput
from izograf.schema.labels import ClassLabel
from izograf.schema.options import OptionSpec, OptionValue

CARD_VERSION = 1
Json = Mapping[str, Any]


@dataclass(frozen=True)
class ModelCard:
    """Identity, interface, origin and honest scores of one trained model.

    Attributes:
        name: short identifier, `[a-z0-9-]+`.
        family: key of the generator registry that knows how to sample it.
        task: what the model is for: to "generate" pictures, "classify", "upscale" or "autoencode"
            them, or to "rank" them by a text.
        network: `{"name": registry key, "config": {...}}`, rebuilt exactly from this.
        image_size: height and width of a sample in pixels.
        conditions: kinds of condition accepted, from `class text image mask attributes`.
        classes: the classes, in the order of the network's class indices.
        options: what may be chosen when sampling.
        fast: option -> value, of those options that make pictures faster at a small cost in
            quality, which was measured.
        examples: prompts of a model that reads them; in its sheet of samples each has a picture,
            of seeds from 0.
        sampling: fixed facts the family needs to sample (preconditioner, sigma range, ...).
        data: dataset name, licence as its source states it, counts, resize filter.
        recipe: recipe name, paper, every hyper-parameter, images seen, seconds, machine class.
        metrics: scores, each with extractor, counts, split and interval (see `metrics.score`).
        energy: joules where measured, else how the figure was estimated; empty if unknown.
        weights: file name -> sha256.
        parents: `name@sha256` of models this one was derived from.
        summary: one line for lists; `notes`: what is not good yet, in plain words.
    """

    name: str
    family: str
    network: Json
    image_size: int
    conditions: tuple[str, ...] = ()
    classes: tuple[ClassLabel, ...] = ()
    options: tuple[OptionSpec, ...] = ()
    fast: Mapping[str, OptionValue] = field(default_factory=dict)
    examples: tuple[str, ...] = ()
    sampling: Json = field(default_factory=dict)
    data: Json = field(default_factory=dict)
    recipe: Json = field(default_factory=dict)
    metrics: tuple[Json, ...] = ()
    energy: Json = field(default_factory=dict)
    weights: Mapping[str, str] = field(default_factory=dict)
    parents: tuple[str, ...] = ()
    summary: str = ""
    notes: str = ""
    licence: str = "Apache-2.0"
    task: str = "generate"
    version: int = CARD_VERSION

    @property
    def fingerprint(self) -> str:
        """sha256 of the weights: what identifies this model in an image's provenance."""
        return ",".join(self.weights[name] for name in sorted(self.weights))

    @property
    def edits(self) -> bool:
        """Whether its pictures can begin with one that is given."""
        return any(option.of_a_picture for option in self.options)

    def faster(self, given: Mapping[str, OptionValue]) -> dict[str, OptionValue]:
        """The options of the fast preset under those that were given.

        Raises:
            InvalidInput: the model has no such preset.
        """
        if not self.fast:
            raise InvalidInput(
                f"{self.name} has no fast preset: fewer num_inference_steps are what makes it "
                "faster, as far as it offers them."
            )
        return {**self.fast, **given}

    def require_editing(self) -> None:
        """
        Raises:
            InvalidInput: pictures of the model cannot begin with one that is given.
        """
        if not self.edits:
            raise InvalidInput(
                f"{self.name} cannot start from a picture: choose a diffusion model that has the "
                "option strength, such as scenes."
            )

    def to_json(self) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for entry in fields(self):
            value = getattr(self, entry.name)
            if entry.name in ("classes", "options"):
                value = [item.to_json() for item in value]
            out[entry.name] = list(value) if isinstance(value, tuple) else value
        return out

    def dumps(self) -> str:
        """The card as it stands on disk. NaN and infinity are refused: they are not JSON."""
        return json.dumps(self.to_json(), ensure_ascii=False, indent=2, allow_nan=False) + "\n"

    @classmethod
    def loads(cls, text: str, *, source: str = "card.json") -> ModelCard:
        """The card written by `dumps`.

        Raises:
            CardError: not JSON, written by a newer program, or a field is missing, unknown or
                of the wrong type. The message names `source`.
        """
        try:
            raw = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise CardError(f"{source} is not a model card: {error}.") from error
        return cls.from_json(raw, source=source)

    @classmethod
    def from_json(cls, raw: Any, *, source: str = "card.json") -> ModelCard:
        if not isinstance(raw, dict):
            raise CardError(f"{source} is not a model card: a JSON object was expected.")
        version = raw.get("version")
        if isinstance(version, int) and version > CARD_VERSION:
            raise CardError(
                f"{source} has card version {version}, this program reads up to {CARD_VERSION}: "
                "update izograf to use this model."
            )
        if version != CARD_VERSION:
            raise CardError(f"{source} has card version {version!r}, expected {CARD_VERSION}.")
        known = {entry.name for entry in fields(cls)}
        if unknown := sorted(set(raw) - known):
            raise CardError(f"{source} has unknown fields: {', '.join(unknown)}.")
        try:
            card = cls(**{key: _field(key, value) for key, value in raw.items()})
            _check_examples(card)
            return replace(card, fast=_preset(card))
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise CardError(f"{source} is malformed: {error}.") from error


def _check_examples(card: ModelCard) -> None:
    if card.examples and "text" not in card.conditions:
        raise ValueError("it has examples, which are prompts, and reads none")
    if not all(example.strip() for example in card.examples):
        raise ValueError("one of its examples is empty")


def _preset(card: ModelCard) -> dict[str, OptionValue]:
    """The fast preset with every value as its option has it."""
    specs = {spec.name: spec for spec in card.options}
    if unknown := sorted(set(card.fast) - set(specs)):
        raise ValueError(f"its fast preset has no option {unknown[0]!r}")
    try:
        return {name: specs[name].parse(value) for name, value in card.fast.items()}
    except InvalidInput as error:
        raise ValueError(f"its fast preset is wrong: {error}") from error


_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "name": str, "family": str, "network": dict, "image_size": int, "fast": dict, "sampling": dict,
    "data": dict, "recipe": dict, "energy": dict, "weights": dict, "summary": str, "notes": str,
    "licence": str, "task": str, "version": int,
}  # fmt: skip


def _field(key: str, value: Any) -> Any:
    if key in _LISTS:
        if not isinstance(value, list | tuple):
            raise TypeError(f"{key} must be a list")
        return tuple(_LISTS[key](item) for item in value)
    if not isinstance(value, _TYPES[key]) or isinstance(value, bool):
        raise TypeError(f"{key} has the wrong type ({type(value).__name__})")
    return _CHECKS[key](value) if key in _CHECKS else value


def _positive(value: int) -> int:
    if value < 1:
        raise ValueError(f"image_size must be positive, got {value}")
    return value


def _hashes(value: Json) -> Mapping[str, str]:
    return {name: _text(sha256) for name, sha256 in value.items()}


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"text was expected, got {value!r}")
    return value


def _object(value: Any) -> Json:
    if not isinstance(value, dict):
        raise TypeError(f"an object was expected, got {value!r}")
    return value


_CHECKS: Mapping[str, Callable[[Any], Any]] = {"image_size": _positive, "weights": _hashes}

_LISTS: Mapping[str, Callable[[Any], Any]] = {
    "classes": ClassLabel.from_json,
    "options": OptionSpec.from_json,
    "conditions": _text,
    "examples": _text,
    "metrics": _object,
    "parents": _text,
}
