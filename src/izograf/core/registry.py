"""Names that are written to disk or typed by a user, each bound to exactly one object."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Generic, TypeVar

from izograf.schema.errors import NotFound


class UnknownName(NotFound, KeyError):
    """A name that is not registered; also a KeyError, as the Mapping protocol wants."""

    __str__ = NotFound.__str__


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UnknownName:
    """The error for a name that is none of `known`; it lists them and offers the nearest."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    return UnknownName(f"Unknown {kind} {name!r}: known are {', '.join(names)}.{hint}")


T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """A read-only mapping filled by the `register` decorator; a duplicate name is an error.

    With `package`, the first look-up imports every module of that package, so that adding an
    entry means adding one file and nothing else.
    """

    def __init__(self, kind: str, *, package: str | None = None) -> None:
        self._kind = kind
        self._package = package
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        def add(entry: T) -> T:
            if name in self._entries:
                raise ValueError(f"{self._kind} {name!r} is registered twice")
            self._entries[name] = entry
            return entry

        return add

    def _load(self) -> dict[str, T]:
        if self._package is not None:
            package, self._package = self._package, None
            for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
                importlib.import_module(f"{package}.{module.name}")
        return self._entries

    def __getitem__(self, name: str) -> T:
        entries = self._load()
        try:
            return entries[name]
        except KeyError:
            raise unknown_name(self._kind, name, entries) from None

    def __contains__(self, name: object) -> bool:
        return name in self._load()

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._load()))

    def __len__(self) -> int:
        return len(self._load())
