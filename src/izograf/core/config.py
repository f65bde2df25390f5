"""Frozen dataclass configs to and from JSON and `name=value` settings, checked by type."""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from izograf.schema.errors import CardError, InvalidInput

C = TypeVar("C")
UNIONS = (types.UnionType, typing.Union)


def config_to_json(config: Any) -> dict[str, Any]:
    """The config as plain JSON values; tuples become lists."""
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in dataclasses.asdict(config).items()
    }


def config_from_json(config_type: type[C], values: Mapping[str, Any], *, source: str) -> C:
    """The config that `config_to_json` wrote.

    Raises:
        CardError: unknown or missing field, or a value the config refuses; names `source`.
    """
    hints = typing.get_type_hints(config_type)
    if unknown := sorted(set(values) - set(hints)):
        raise CardError(f"{source}: {config_type.__name__} has no field {', '.join(unknown)}.")
    try:
        return config_type(**{key: _typed(hints[key], value) for key, value in values.items()})
    except (TypeError, ValueError, OverflowError) as error:
        raise CardError(f"{source}: {error}.") from error


def apply_settings(config: C, settings: Sequence[str]) -> C:
    """`config` with every `name=value` of `settings` applied; tuples are written `8,16`.

    Raises:
        InvalidInput: no `=`, unknown field (near names are suggested), a value that is not of
            the field's type, or one that the config itself refuses.
    """
    hints = typing.get_type_hints(type(config))
    changes: dict[str, Any] = {}
    for setting in settings:
        name, separator, text = setting.partition("=")
        name = name.strip()
        if not separator:
            raise InvalidInput(f"--set takes name=value, got {setting!r}.")
        if name not in hints:
            near = difflib.get_close_matches(name, hints, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise InvalidInput(
                f"{type(config).__name__} has no field {name!r}; "
                f"its fields are: {', '.join(hints)}.{hint}"
            )
        try:
            changes[name] = _parse(hints[name], text.strip())
        except (ValueError, OverflowError):
            raise InvalidInput(
                f"{name} takes {_describe(hints[name])}, got {text.strip()!r}."
            ) from None
    try:
        return dataclasses.replace(config, **changes)  # type: ignore[type-var]
    except ValueError as error:
        raise InvalidInput(f"{error}.") from error


def _typed(hint: Any, value: Any) -> Any:
    """`value` from JSON as the field's type, never bent into shape (2.0 is not an int)."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        if isinstance(value, list | tuple):
            return tuple(_typed(arguments[0], item) for item in value)
    elif origin is typing.Literal:
        if isinstance(value, str) and value in arguments:
            return value
    elif origin in UNIONS:
        return None if value is None else _typed(_inner(hint), value)
    elif hint is float:
        if isinstance(value, int | float) and not isinstance(value, bool):
            number = float(value)
            if math.isfinite(number):
                return number
    elif type(value) is hint:
        return value
    raise TypeError(f"{value!r} is not {_describe(hint)}")


def _parse(hint: Any, text: str) -> Any:
    if typing.get_origin(hint) is tuple:
        (inner, *_) = typing.get_args(hint)
        return tuple(_parse(inner, part.strip()) for part in text.split(",") if part.strip())
    if typing.get_origin(hint) in UNIONS:
        return None if text.casefold() == "none" else _parse(_inner(hint), text)
    if hint is bool:
        if text.casefold() not in ("true", "false"):
            raise ValueError(text)
        return text.casefold() == "true"
    if typing.get_origin(hint) is typing.Literal:
        if text not in typing.get_args(hint):
            raise ValueError(text)
        return text
    value = hint(text)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(text)
    return value


def _inner(hint: Any) -> Any:
    """T of `T | None`."""
    (inner,) = [option for option in typing.get_args(hint) if option is not type(None)]
    return inner


def _describe(hint: Any) -> str:
    if typing.get_origin(hint) in UNIONS:
        return f"{_describe(_inner(hint))} or none"
    if typing.get_origin(hint) is tuple:
        return f"a comma-separated list of {_describe(typing.get_args(hint)[0])}"
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(typing.get_args(hint))
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    return names.get(hint, str(hint))
