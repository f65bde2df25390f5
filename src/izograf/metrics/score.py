"""A score: one number with everything needed to know what it may be compared with."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from izograf.schema.errors import CardError, InvalidInput

COMPARABLE = ("name", "extractor_id", "sha256", "num_real", "num_fake", "split", "resize")


@dataclass(frozen=True)
class Score:
    """One measured number.

    Attributes:
        name: `FID`, `FD-<extractor id>`, ...
        value: the measurement.
        extractor_id, sha256: the feature extractor and its weights.
        num_real, num_fake: pictures on either side.
        split: the data and split the reals come from, `scenes-64/train`.
        resize: how the pictures came to the extractor's input.
        seed: of everything random in the measurement.
        ci95: 95 % interval of `value` under resampling of the fakes.
        floor: the same metric of held-out real pictures: what a perfect generator gets.
        ceiling: the same metric of uniform noise pictures.
    """

    name: str
    value: float
    extractor_id: str
    sha256: str
    num_real: int
    num_fake: int
    split: str
    resize: str
    seed: int
    ci95: tuple[float, float]
    floor: float
    ceiling: float

    @property
    def relative(self) -> float:
        """Where `value` lies between the floor (0) and the ceiling (1); may leave that range.

        Raises:
            InvalidInput: floor and ceiling coincide, so the scale has no length.
        """
        if self.ceiling == self.floor:
            raise InvalidInput(f"{self.name} has equal floor and ceiling: no relative value.")
        return (self.value - self.floor) / (self.ceiling - self.floor)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {"ci95": list(self.ci95)}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Score:
        """The score that `to_json` wrote.

        Raises:
            CardError: a field is missing, unknown, of the wrong type, or not finite.
        """
        types = {field.name: field.type for field in dataclasses.fields(cls)}
        if set(raw) != set(types):
            wrong = ", ".join(sorted(set(raw) ^ set(types)))
            raise CardError(f"The score is malformed: missing or unknown fields {wrong}.")
        values: dict[str, Any] = {}
        for name, kind in types.items():
            value = raw[name]
            if kind == "float":
                values[name] = _number(name, value)
            elif name == "ci95":
                if not isinstance(value, list | tuple) or len(value) != 2:
                    raise CardError("The score is malformed: ci95 must be two numbers.")
                values[name] = (_number(name, value[0]), _number(name, value[1]))
            elif type(value).__name__ != kind:
                raise CardError(f"The score is malformed: {name} must be {kind}.")
            else:
                values[name] = value
        return cls(**values)


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise CardError(f"The score is malformed: {name} must be a finite number.")
    return float(value)


def compare(first: Score, second: Score) -> float:
    """`first.value - second.value`, where the two were measured alike.

    Raises:
        InvalidInput: metric, extractor, counts, split or resize differ; says which.
    """
    different = [key for key in COMPARABLE if getattr(first, key) != getattr(second, key)]
    if different:
        reasons = "; ".join(
            f"{key} {getattr(first, key)!r} and {getattr(second, key)!r}" for key in different
        )
        raise InvalidInput(f"These scores cannot be compared, they differ in {reasons}.")
    return first.value - second.value
