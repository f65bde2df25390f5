"""Registered models: the versions of each name, and which one is promoted."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update

from izograf.schema.card import ModelCard
from izograf.schema.errors import NotFound
from izograf.store.database import Database
from izograf.store.tables import models
from izograf.store.text import checked_text

_MODELS = 0x1207_0004  # PostgreSQL's lock: versions are numbered by one at a time


@dataclass(frozen=True)
class RegisteredModel:
    """One version of a model: its card, and the folder that holds card and weights.

    Attributes:
        version: counts from 1 within the name.
        promoted: when it became the version that its name stands for; None if it is not.
    """

    name: str
    version: int
    folder: str
    card: ModelCard
    registered: float
    promoted: float | None


class ModelStore:
    """The registered models of one database."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def register(self, card: ModelCard, folder: str) -> RegisteredModel:
        """The next version of `card.name`; the known one if the weights are the same.

        The first version of a name is promoted. Of a known version, folder and card are updated.
        """
        checked_text("The name of a model", card.name, shortest=1, longest=200)
        checked_text("The folder of a model", folder, shortest=1, longest=4000)
        weights = hashlib.sha256(card.fingerprint.encode()).hexdigest()
        now = self._clock()

        def work(connection: Connection) -> Row[Any]:
            self._database.advisory_lock(connection, _MODELS)
            named = models.c.name == card.name
            place = {"folder": folder, "card": card.to_json()}
            known = connection.execute(
                update(models)
                .where(named, models.c.weights_sha256 == weights)
                .values(place)
                .returning(models)
            ).one_or_none()
            if known is not None:
                return known
            last = connection.scalar(select(func.max(models.c.version)).where(named)) or 0
            values = {
                "name": card.name, "version": last + 1, "weights_sha256": weights,
                "registered": now, "promoted": None if last else now, **place,
            }  # fmt: skip
            return connection.execute(insert(models).values(values).returning(models)).one()

        return _model(self._database.write(work))

    def get(self, name: str, version: int | None = None) -> RegisteredModel:
        """One version; without a number, the promoted one.

        Raises:
            NotFound: there is none.
        """
        found = {model.version: model for model in self.versions(name)}
        if version is None:
            return next(model for model in found.values() if model.promoted is not None)
        if version not in found:
            raise NotFound(f"{name} has no version {version}; it has {', '.join(map(str, found))}.")
        return found[version]

    def versions(self, name: str) -> tuple[RegisteredModel, ...]:
        """Every version of a model, newest first.

        Raises:
            NotFound: no model has this name.
        """
        checked_text("The name of a model", name, longest=200)
        found = self._models(models.c.name == name)
        if not found:
            raise NotFound(f"Unknown model {name[:40]!r}.")
        return found

    def list_models(self) -> tuple[RegisteredModel, ...]:
        """The promoted version of every model, by name."""
        return self._models(models.c.promoted.is_not(None))

    def promote(self, name: str, version: int) -> RegisteredModel:
        """Makes `version` what the name stands for.

        Raises:
            NotFound: there is no such version.
        """
        self.get(name, version)
        now = self._clock()

        def work(connection: Connection) -> None:
            self._database.advisory_lock(connection, _MODELS)
            named = update(models).where(models.c.name == name)
            connection.execute(named.values(promoted=None))
            connection.execute(named.where(models.c.version == version).values(promoted=now))

        self._database.write(work)
        return self.get(name, version)

    def _models(self, condition: Any) -> tuple[RegisteredModel, ...]:
        query = select(models).where(condition).order_by(models.c.name, models.c.version.desc())
        with self._database.reading() as connection:
            return tuple(_model(row) for row in connection.execute(query))


def _model(row: Row[Any]) -> RegisteredModel:
    card = ModelCard.from_json(row.card, source=f"{row.name} version {row.version}")
    return RegisteredModel(row.name, row.version, row.folder, card, row.registered, row.promoted)
