"""A generation request: the complete, serialisable order for one or more pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from izograf.schema.errors import InvalidInput
from izograf.schema.options import OptionValue

MAX_SEED = 2**63 - 1
MAX_IMAGES = 100_000
MAX_BEST_OF = 64  # pictures among which the best of a prompt are chosen
TOWARDS = ("seed", "class")  # what a strip may change on its way


@dataclass(frozen=True)
class GenerationRequest:
    """What to generate: image i has seed `seed + i`, whatever batch it is computed in.

    With `towards` the images are a strip instead: image i lies at share i / (num_images - 1) of
    the way from `seed` and `condition` to the seed and class named there, and all have `seed`.

    Attributes:
        model: model name or path.
        condition: `{"type": "class", "class": name}`, `{"type": "none"}`, or `{"type": "text",
            "prompt": words}`, perhaps with `negative_prompt`; with `style`, the preset whose words
            the prompt already has, and then with `asked`, the words without them.
        num_images: at least 1.
        seed: non-negative; `seed + num_images - 1` must fit 63 bits.
        options: option name -> value, checked against the model's card.
        towards: where a strip leads: `seed`, `class` or both; empty for plain images.
    """

    model: str
    condition: Mapping[str, str] = field(default_factory=lambda: {"type": "none"})
    num_images: int = 1
    seed: int = 0
    options: Mapping[str, OptionValue] = field(default_factory=dict)
    towards: Mapping[str, int | str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 1 <= self.num_images <= MAX_IMAGES:
            raise InvalidInput(
                f"num_images must be from 1 to {MAX_IMAGES:,}, got {self.num_images}."
            )
        further = 0 if self.towards else self.num_images - 1
        if not 0 <= self.seed <= MAX_SEED - further:
            raise InvalidInput(f"seed must be from 0 to {MAX_SEED:,}, got {self.seed}.")
        if self.towards:
            _check_towards(self.towards, self.num_images)

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seed of each image, in order; of a strip, `seed` for all."""
        if self.towards:
            return (self.seed,) * self.num_images
        return tuple(range(self.seed, self.seed + self.num_images))

    def share(self, position: int) -> float:
        """How far the image at `position` lies on the way to `towards`, from 0 to 1."""
        return position / (self.num_images - 1) if self.towards else 0.0

    @property
    def label(self) -> str:
        """The condition in words: the class, what was asked, or `image` when unconditioned."""
        condition = self.condition
        return condition.get("class") or condition.get("asked") or condition.get("prompt", "image")

    def single(self, seed: int) -> GenerationRequest:
        """The plain request for exactly one seed."""
        return replace(self, seed=seed, num_images=1, towards={})

    def to_json(self) -> dict[str, Any]:
        """The request as JSON; without `towards` where there is none, as before there was one."""
        towards = {"towards": dict(self.towards)} if self.towards else {}
        return {
            "model": self.model,
            "condition": dict(self.condition),
            "num_images": self.num_images,
            "seed": self.seed,
            "options": dict(self.options),
            **towards,
        }

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> GenerationRequest:
        try:
            model, condition, options = raw["model"], raw["condition"], raw["options"]
            num_images, seed = raw["num_images"], raw["seed"]
            towards = raw.get("towards", {})
        except (KeyError, TypeError, AttributeError) as error:
            raise InvalidInput(f"The request is malformed: {error}.") from error
        if not isinstance(model, str):
            raise InvalidInput("The request is malformed: model must be text.")
        if not (isinstance(condition, Mapping) and isinstance(options, Mapping)):
            raise InvalidInput("The request is malformed: condition and options must be objects.")
        if not isinstance(towards, Mapping):
            raise InvalidInput("The request is malformed: towards must be an object.")
        if type(num_images) is not int or type(seed) is not int:
            raise InvalidInput("The request is malformed: num_images and seed must be integers.")
        named = {str(key): str(value) for key, value in condition.items()}
        return cls(model, named, num_images, seed, dict(options), dict(towards))


def _check_towards(towards: Mapping[str, object], num_images: int) -> None:
    """
    Raises:
        InvalidInput: an unknown key, a value of the wrong kind, or a strip of one image.
    """
    if unknown := sorted(str(key)[:40] for key in towards if key not in TOWARDS):
        raise InvalidInput(
            f"towards takes {' and '.join(TOWARDS)}, not {', '.join(map(repr, unknown[:5]))}."
        )
    seed, name = towards.get("seed", 0), towards.get("class", "")
    if type(seed) is not int or not 0 <= seed <= MAX_SEED:
        raise InvalidInput(
            f"The seed of towards must be a whole number from 0 to {MAX_SEED:,}, "
            f"got {str(seed)[:40]}."
        )
    if not isinstance(name, str):
        raise InvalidInput("The class of towards must be the name of a class.")
    if num_images < 2:
        raise InvalidInput(
            f"A strip has at least 2 images, num_images is {num_images}: ask for more, or leave "
            "out towards."
        )
