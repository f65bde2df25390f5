"""Typed sampling options: what a model lets its user choose, and how a value is checked.

A model card carries a list of `OptionSpec`; command-line flags, web forms and validation are
all made from it, so no caller ever asks which family a model belongs to.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from izograf.schema.errors import InvalidInput

OptionValue = bool | int | float | str
OptionKind = Literal["integer", "number", "boolean", "choice"]

# Short command-line spellings of the field's long names.
SHORT_FORMS: Mapping[str, str] = {
    "steps": "num_inference_steps",
    "guidance": "guidance_scale",
}


@dataclass(frozen=True)
class OptionSpec:
    """One option: name, kind, default, inclusive bounds or choices, and a line of help."""

    name: str
    kind: OptionKind
    default: OptionValue
    help: str = ""
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()

    @property
    def of_a_method(self) -> bool:
        """Whether it matters for one method only, which its name begins with: `ddim.eta`."""
        return "." in self.name

    @property
    def of_a_picture(self) -> bool:
        """Whether it matters only with a picture to start from."""
        return self.name == "strength"

    def parse(self, value: OptionValue) -> OptionValue:
        """`value`, converted to this option's kind and checked against its bounds.

        Raises:
            InvalidInput: wrong kind, out of bounds, not a number, or not among the choices.
        """
        if self.kind == "choice":
            return self._parse_choice(value)
        if self.kind == "boolean":
            return self._parse_boolean(value)
        number = self._parse_number(value)
        low = -math.inf if self.minimum is None else self.minimum
        high = math.inf if self.maximum is None else self.maximum
        if not low <= number <= high:
            raise InvalidInput(f"{self.name} must be {self._range()}, got {value}.")
        return int(number) if self.kind == "integer" else number

    def _parse_choice(self, value: OptionValue) -> str:
        if value in self.choices:
            return str(value)
        near = difflib.get_close_matches(str(value), self.choices, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise InvalidInput(f"{self.name} must be one of {', '.join(self.choices)}.{hint}")

    def _parse_boolean(self, value: OptionValue) -> bool:
        if isinstance(value, bool):
            return value
        known = {"true": True, "false": False, "yes": True, "no": False}
        key = value.casefold() if isinstance(value, str) else ""
        if key not in known:
            raise InvalidInput(f"{self.name} must be true or false, got {value!r}.")
        return known[key]

    def _parse_number(self, value: OptionValue) -> float:
        try:
            number = float(value)
        except (ValueError, TypeError, OverflowError):
            number = math.nan
        whole = self.kind == "integer"
        if isinstance(value, bool) or not math.isfinite(number) or (whole and number % 1 != 0):
            kind = "a whole number" if whole else "a number"
            raise InvalidInput(f"{self.name} must be {kind} {self._range()}, got {value!r}.")
        return number

    def _range(self) -> str:
        if self.minimum is None and self.maximum is None:
            return "finite"
        if self.maximum is None:
            return f"at least {self.minimum:g}"
        if self.minimum is None:
            return f"at most {self.maximum:g}"
        return f"from {self.minimum:g} to {self.maximum:g}"

    def clamped(self, value: float) -> float:
        """The number the option allows that is nearest to `value`."""
        low = value if self.minimum is None else max(value, self.minimum)
        return low if self.maximum is None else min(low, self.maximum)

    def to_json(self) -> dict[str, object]:
        out: dict[str, object] = {"name": self.name, "kind": self.kind, "default": self.default}
        optional = {
            "help": self.help,
            "minimum": self.minimum,
            "maximum": self.maximum,
            "choices": list(self.choices),
        }
        return out | {key: value for key, value in optional.items() if value not in ("", None, [])}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> OptionSpec:
        """The option that `to_json` wrote.

        Raises:
            TypeError, ValueError, KeyError: a field is missing, unknown, of the wrong type, or
                the default is not a value of the option.
        """
        known = dict(value)
        choices = known.pop("choices", [])
        if not isinstance(choices, list) or known["kind"] not in get_args(OptionKind):
            raise TypeError("choices must be a list, and kind one of the known ones")
        spec = cls(choices=tuple(map(str, choices)), **known)
        texts = (spec.name, spec.help)
        bounds = (spec.minimum, spec.maximum)
        if not all(isinstance(text, str) for text in texts) or not all(
            bound is None or isinstance(bound, int | float) for bound in bounds
        ):
            raise TypeError("name and help must be text, minimum and maximum numbers")
        try:
            spec.parse(spec.default)
        except InvalidInput as error:
            raise ValueError(f"the default is impossible: {error}") from error
        return spec


def parse_options(
    given: Mapping[str, OptionValue], specs: Sequence[OptionSpec]
) -> dict[str, OptionValue]:
    """Every option of `specs` with its given or default value, each checked.

    Raises:
        InvalidInput: a name no spec carries, or a value its spec refuses.
    """
    by_name = {spec.name: spec for spec in specs}
    values = {spec.name: spec.default for spec in specs}
    for short, value in given.items():
        name = SHORT_FORMS.get(short, short)
        if name not in by_name:
            known = ", ".join(by_name) or "none"
            raise InvalidInput(f"This model has no option {name!r}; its options are: {known}.")
        values[name] = by_name[name].parse(value)
    return values
