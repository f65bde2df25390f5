"""A generation request: the complete, serialisable order for one or more pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from izograf.schema.errors import InvalidInput
from izograf.schema.options import OptionValue

MAX_SEED = 2**63 - 1
MAX_IMAGES = 100_000


@dataclass(frozen=True)
class GenerationRequest:
    """What to generate: image i has seed `seed + i`, whatever batch it is computed in.

    Attributes:
        model: model name or path.
        condition: `{"type": "class", "class": name}` or `{"type": "none"}`.
        num_images: at least 1.
        seed: non-negative; `seed + num_images - 1` must fit 63 bits.
        options: option name -> value, checked against the model's card.
    """

    model: str
    condition: Mapping[str, str] = field(default_factory=lambda: {"type": "none"})
    num_images: int = 1
    seed: int = 0
    options: Mapping[str, OptionValue] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 1 <= self.num_images <= MAX_IMAGES:
            raise InvalidInput(
                f"num_images must be from 1 to {MAX_IMAGES:,}, got {self.num_images}."
            )
        if not 0 <= self.seed <= MAX_SEED - self.num_images + 1:
            raise InvalidInput(f"seed must be from 0 to {MAX_SEED:,}, got {self.seed}.")

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(range(self.seed, self.seed + self.num_images))

    @property
    def label(self) -> str:
        """The condition as a file-name stem: the class name, or `image` when unconditioned."""
        return self.condition.get("class", "image")

    def single(self, seed: int) -> GenerationRequest:
        """The request for exactly one of this request's images."""
        return replace(self, seed=seed, num_images=1)

    def to_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "condition": dict(self.condition),
            "num_images": self.num_images,
            "seed": self.seed,
            "options": dict(self.options),
        }

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> GenerationRequest:
        try:
            model, condition, options = raw["model"], raw["condition"], raw["options"]
            num_images, seed = raw["num_images"], raw["seed"]
        except (KeyError, TypeError) as error:
            raise InvalidInput(f"The request is malformed: {error}.") from error
        if not isinstance(model, str):
            raise InvalidInput("The request is malformed: model must be text.")
        if not (isinstance(condition, Mapping) and isinstance(options, Mapping)):
            raise InvalidInput("The request is malformed: condition and options must be objects.")
        if type(num_images) is not int or type(seed) is not int:
            raise InvalidInput("The request is malformed: num_images and seed must be integers.")
        named = {str(key): str(value) for key, value in condition.items()}
        return cls(model, named, num_images, seed, dict(options))
