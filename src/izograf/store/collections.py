"""Collections: named sets of pictures, each belonging to one owner."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Select, delete, exc, func, insert, select, update

from izograf.schema.errors import Conflict, InvalidInput
from izograf.store import ids
from izograf.store.database import Database, upsert
from izograf.store.pages import MAX_LIMIT, Page, fetch_page
from izograf.store.tables import collection_images, collections, images
from izograf.store.text import checked_text


@dataclass(frozen=True)
class StoredCollection:
    """A collection and how many pictures it shows; deleted ones do not count."""

    id: str
    owner: str
    name: str
    created: float
    num_images: int


class CollectionStore:
    """The collections of one database. Its pictures: `ImageFilter(collection=...)`.

    Every method takes the `owner`, and to others a collection does not exist (`NotFound`).
    """

    def __init__(
        self,
        database: Database,
        *,
        make_ids: ids.Ids | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._ids = make_ids or ids.Ids(clock)
        self._clock = clock

    def create(self, owner: str, name: str) -> StoredCollection:
        """A new, empty collection.

        Raises:
            Conflict: the owner has one of this name.
        """
        values: dict[str, Any] = {
            "id": self._ids.new(ids.COLLECTION), "owner": owner, "name": _name(name),
            "created": self._clock(),
        }  # fmt: skip
        with _name_taken(name):
            self._database.write(lambda c: c.execute(insert(collections).values(values)))
        return StoredCollection(**values, num_images=0)

    def get(self, owner: str, collection_id: str) -> StoredCollection:
        """The collection."""
        ids.require_id(ids.COLLECTION, collection_id)
        query = _counted().where(collections.c.id == collection_id, collections.c.owner == owner)
        with self._database.reading() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            raise ids.not_found(ids.COLLECTION, collection_id)
        return _collection(row)

    def list_collections(
        self, owner: str, *, cursor: str | None = None, limit: int = 50
    ) -> Page[StoredCollection]:
        """The owner's collections, newest first; `limit` from 1 to 200."""
        query = _counted().where(collections.c.owner == owner)
        with self._database.reading() as connection:
            return fetch_page(
                connection, query, collections, ids.COLLECTION, cursor, limit, _collection
            )

    def rename(self, owner: str, collection_id: str, name: str) -> StoredCollection:
        """The collection under its new name.

        Raises:
            Conflict: the owner has another one of this name.
        """
        ids.require_id(ids.COLLECTION, collection_id)
        change = update(collections).where(
            collections.c.id == collection_id, collections.c.owner == owner
        )
        with _name_taken(name):
            self._database.write(lambda c: c.execute(change.values(name=_name(name))))
        return self.get(owner, collection_id)

    def delete(self, owner: str, collection_id: str) -> None:
        """Deletes the collection; its pictures stay in the gallery."""
        self.get(owner, collection_id)
        gone = collections.c.id == collection_id
        self._database.write(lambda c: c.execute(delete(collections).where(gone)))

    def add(self, owner: str, collection_id: str, image_ids: Collection[str]) -> StoredCollection:
        """Adds the owner's pictures among `image_ids`; what is in it already stays."""
        self.get(owner, collection_id)
        wanted = _checked_ids(image_ids)
        now = self._clock()

        def work(connection: Connection) -> None:
            found = connection.scalars(
                select(images.c.id)
                .where(images.c.id.in_(wanted), images.c.owner == owner)
                .order_by(images.c.id)
            )
            for image_id in found.all():
                entry = {"collection_id": collection_id, "image_id": image_id, "added": now}
                statement = upsert(connection, collection_images).values(entry)
                connection.execute(statement.on_conflict_do_nothing())

        self._database.write(work)
        return self.get(owner, collection_id)

    def remove(
        self, owner: str, collection_id: str, image_ids: Collection[str]
    ) -> StoredCollection:
        """Takes pictures out; they stay in the gallery."""
        self.get(owner, collection_id)
        gone = delete(collection_images).where(
            collection_images.c.collection_id == collection_id,
            collection_images.c.image_id.in_(_checked_ids(image_ids)),
        )
        self._database.write(lambda c: c.execute(gone))
        return self.get(owner, collection_id)


def _name(name: str) -> str:
    return checked_text("The name of a collection", name.strip(), shortest=1, longest=200)


@contextmanager
def _name_taken(name: str) -> Iterator[None]:
    """Turns the refusal of a second collection of the same name into a sentence."""
    try:
        yield
    except exc.IntegrityError as error:
        raise Conflict(f"There is a collection named {name!r} already.") from error


def _checked_ids(image_ids: Collection[str]) -> list[str]:
    if len(image_ids) > MAX_LIMIT:
        raise InvalidInput(f"At most {MAX_LIMIT} pictures at once, got {len(image_ids)}.")
    return [image_id for image_id in image_ids if ids.is_id(ids.IMAGE, image_id)]


def _counted() -> Select[Any]:
    shown = (
        select(func.count())
        .select_from(collection_images.join(images, images.c.id == collection_images.c.image_id))
        .where(collection_images.c.collection_id == collections.c.id, images.c.deleted.is_(None))
        .correlate(collections)
        .scalar_subquery()
    )
    return select(collections, shown.label("num_images"))


def _collection(row: Row[Any]) -> StoredCollection:
    return StoredCollection(row.id, row.owner, row.name, row.created, row.num_images)
