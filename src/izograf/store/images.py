"""The gallery: finished pictures, found again, marked, deleted with a way back.

A row is written only when its file is on disk, and a file is deleted only when no row names it,
so whatever the gallery shows can be opened.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    delete,
    exists,
    insert,
    select,
    text,
    update,
)

from izograf.schema.errors import InvalidInput, StorageError
from izograf.schema.job import Job, StoredImage
from izograf.store import ids
from izograf.store.database import Database
from izograf.store.files import ImageFiles
from izograf.store.pages import MAX_LIMIT, Page, fetch_page
from izograf.store.tables import KEEPS_FILES, collection_images, images, jobs
from izograf.store.text import checked_text, cleaned_text, containing, folded

LONGEST_TERM = 200
LONGEST_LABEL = 200
WRITERS = 8  # threads that wait for the disk


@dataclass(frozen=True)
class ImageFilter:
    """Which pictures to list; what is None does not restrict.

    Attributes:
        created_from, created_before: seconds since the epoch, the second one excluded.
        text: every word must occur in the model's name, the label, the condition or the seed.
        collection: identifier of a collection.
        deleted: the pictures that were deleted and can still be restored, instead of the others.
    """

    owner: str | None = None
    model: str | None = None
    label: str | None = None
    job_id: str | None = None
    favourite: bool | None = None
    created_from: float | None = None
    created_before: float | None = None
    text: str | None = None
    collection: str | None = None
    deleted: bool = False


class ImageStore:
    """The pictures of one database and one folder; safe to share between threads."""

    def __init__(
        self,
        database: Database,
        files: ImageFiles,
        *,
        make_ids: ids.Ids | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._files = files
        self._ids = make_ids or ids.Ids(clock)
        self._clock = clock

    def write_files(self, pngs: Sequence[bytes]) -> None:
        """Puts the files of several pictures on disk, so that their waits for the disk overlap.

        Each is durable when this returns; `stage` finds it.

        Raises:
            StorageError: no space, no permission.
        """
        if len(pngs) < 2:
            return  # `stage` writes it as well
        with ThreadPoolExecutor(min(len(pngs), WRITERS), thread_name_prefix="files") as pool:
            for _ in pool.map(self._files.write, pngs):
                pass

    def stage(
        self,
        job: Job,
        *,
        seed: int,
        png: bytes,
        width: int,
        height: int,
        record: Mapping[str, Any],
        seconds: float | None = None,
        joules: float | None = None,
        energy_method: str = "",
        words: str = "",
    ) -> StoredImage:
        """A picture whose file is durable and whose row `JobStore.finish` will write.

        A text search finds it by `words` too, beside the words of its request.

        Raises:
            StorageError: no space, no permission.
        """
        return StoredImage(
            id=self._ids.new(ids.IMAGE),
            job_id=job.id,
            owner=job.owner,
            model=job.request.model,
            label=cleaned_text(job.request.label, longest=LONGEST_LABEL),
            seed=seed,
            width=width,
            height=height,
            sha256=self._files.write(png),
            created=self._clock(),
            record=record,
            seconds=seconds,
            joules=joules,
            energy_method=energy_method,
            words=words,
        )

    def read_file(self, sha256: str) -> bytes:
        """The bytes of a file by its content's name, whatever it was written for.

        Raises:
            StorageError: there is none, or it is unreadable.
        """
        return self._files.read(sha256)

    def get(self, image_id: str, *, owner: str | None = None) -> StoredImage:
        """The picture, also if deleted and not yet purged; with `owner`, only if it is theirs.

        Raises:
            NotFound: there is none.
        """
        query = select(images).where(images.c.id == ids.require_id(ids.IMAGE, image_id))
        with self._database.reading() as connection:
            row = connection.execute(query).one_or_none()
        if row is None or owner not in (None, row.owner):
            raise ids.not_found(ids.IMAGE, image_id)
        return _image(row)

    def read_png(self, image_id: str, *, owner: str | None = None) -> bytes:
        """The bytes of the picture's file.

        Raises:
            NotFound: there is no such picture. StorageError: its file is damaged.
        """
        return self._files.read(self.get(image_id, owner=owner).sha256)

    def list_images(
        self, wanted: ImageFilter | None = None, *, cursor: str | None = None, limit: int = 50
    ) -> Page[StoredImage]:
        """Pictures, newest first; `limit` from 1 to 200."""
        query = _filtered(wanted or ImageFilter())
        with self._database.reading() as connection:
            return fetch_page(connection, query, images, ids.IMAGE, cursor, limit, _image)

    def of_job(self, job_id: str) -> tuple[StoredImage, ...]:
        """Every picture of a job that is not deleted, by seed; those of a strip along its way."""
        query = select(images).where(
            images.c.job_id == ids.require_id(ids.JOB, job_id), images.c.deleted.is_(None)
        )
        with self._database.reading() as connection:
            rows = connection.execute(query.order_by(images.c.seed, images.c.id))
            return tuple(_image(row) for row in rows)

    def set_favourite(
        self, image_id: str, favourite: bool, *, owner: str | None = None
    ) -> StoredImage:
        """The picture, marked or not.

        Raises:
            NotFound: there is none, or it is not `owner`'s.
        """
        ids.require_id(ids.IMAGE, image_id)
        change = update(images).where(images.c.id == image_id, *_theirs(owner))
        change = change.values(favourite=favourite)

        def work(connection: Connection) -> Row[Any] | None:
            return connection.execute(change.returning(images)).one_or_none()

        row = self._database.write(work)
        if row is None:
            raise ids.not_found(ids.IMAGE, image_id)
        return _image(row)

    def delete(self, image_ids: Collection[str], *, owner: str | None = None) -> int:
        """Hides the pictures until they are restored or purged; how many were hidden.

        Identifiers that name nothing (or nothing of `owner`'s) are passed over.
        """
        return self._set_deleted(image_ids, owner, self._clock(), images.c.deleted.is_(None))

    def restore(self, image_ids: Collection[str], *, owner: str | None = None) -> int:
        """Undoes `delete`, as long as the pictures are not purged; how many came back."""
        return self._set_deleted(image_ids, owner, None, images.c.deleted.is_not(None))

    def purge_deleted(self, deleted_before: float) -> int:
        """Forgets pictures deleted before a moment, for good; how many. Files go by `sweep`."""
        old = images.c.deleted < deleted_before
        return self._database.write(lambda c: c.execute(delete(images).where(old)).rowcount)

    def sweep(self, *, grace: float = 3600.0) -> int:
        """Deletes files that no row names and that are older than `grace` seconds; how many.

        The grace time must exceed the time between `stage` and `finish`. Other writers wait at
        most for one of 256 folders.
        """
        moment = self._clock() - grace
        deleted = self._files.sweep_temporary(moment)
        for folder in self._files.folders():

            def work(connection: Connection, folder: Any = folder) -> int:
                self._files.lock(self._database, connection, shared=False)
                return self._files.sweep_folder(
                    folder, lambda found: self._keep(connection, folder.name, found, moment)
                )

            deleted += self._database.write(work)
        return deleted

    def _keep(
        self, connection: Connection, prefix: str, found: set[str], moment: float
    ) -> set[str]:
        named = set(
            connection.scalars(
                select(images.c.sha256).where(
                    images.c.sha256 >= prefix, images.c.sha256 < prefix + "g"
                )
            )
        )
        old = {name for name in found - named if self._files.older_than(name, moment)}
        return found - old | (input_files(connection) if old else set())

    def _set_deleted(
        self,
        image_ids: Collection[str],
        owner: str | None,
        moment: float | None,
        condition: ColumnElement[bool],
    ) -> int:
        if len(image_ids) > MAX_LIMIT:
            raise InvalidInput(f"At most {MAX_LIMIT} pictures at once, got {len(image_ids)}.")
        wanted = [image_id for image_id in image_ids if ids.is_id(ids.IMAGE, image_id)]
        change = update(images).where(images.c.id.in_(wanted), condition, *_theirs(owner))
        return self._database.write(lambda c: c.execute(change.values(deleted=moment)).rowcount)


def input_files(connection: Connection) -> set[str]:
    """The sha256 of every file that a job still needs, or that pictures were made from."""
    rows = connection.scalars(select(jobs.c.inputs).where(text(KEEPS_FILES)))
    return {sha256 for inputs in rows for sha256 in inputs.values()}


def insert_images(
    connection: Connection,
    files: ImageFiles,
    job_id: str,
    owner: str,
    attempt: int,
    pictures: Sequence[StoredImage],
) -> None:
    """Writes the rows of a finished job's pictures.

    Raises:
        StorageError: a file is missing, so its row must not be written.
    """
    for picture in pictures:
        if (picture.job_id, picture.owner) != (job_id, owner):
            raise ValueError(f"{picture.id} is a picture of another job or owner")
        if not files.exists(picture.sha256):
            raise StorageError(
                f"The file of picture {picture.id} is not on disk, so the job cannot be finished: "
                "write it again."
            )
    if pictures:
        values = [_values(picture, attempt) for picture in pictures]
        connection.execute(insert(images), values)


def _values(picture: StoredImage, attempt: int) -> dict[str, Any]:
    return {
        "id": picture.id, "job_id": picture.job_id, "attempt": attempt, "owner": picture.owner,
        "model": picture.model, "label": picture.label, "seed": picture.seed,
        "width": picture.width, "height": picture.height, "sha256": picture.sha256,
        "created": picture.created, "record": dict(picture.record), "words": _words(picture),
        "favourite": picture.favourite, "seconds": picture.seconds, "joules": picture.joules,
        "energy_method": picture.energy_method or None, "deleted": None,
    }  # fmt: skip


def _words(picture: StoredImage) -> str:
    request = picture.record.get("request", {})
    asked = request if isinstance(request, Mapping) else {}
    named = [*asked.get("condition", {}).values(), *asked.get("towards", {}).values()]
    texts = [str(value) for value in named if isinstance(value, str | int)]
    words = " ".join((picture.model, picture.label, str(picture.seed), *texts, picture.words))
    return folded(cleaned_text(words, longest=10_000))


def _filtered(wanted: ImageFilter) -> Select[Any]:
    conditions: list[ColumnElement[bool]] = [
        images.c.deleted.is_not(None) if wanted.deleted else images.c.deleted.is_(None)
    ]
    equal = (
        (images.c.owner, wanted.owner),
        (images.c.model, wanted.model),
        (images.c.label, wanted.label),
        (images.c.job_id, wanted.job_id),
    )
    for column, value in equal:
        if value is not None:
            checked_text(f"The {column.name}", value, longest=500)
            conditions.append(column == value)
    if wanted.favourite is not None:
        conditions.append(images.c.favourite.is_(wanted.favourite))
    if wanted.created_from is not None:
        conditions.append(images.c.created >= wanted.created_from)
    if wanted.created_before is not None:
        conditions.append(images.c.created < wanted.created_before)
    if wanted.text is not None:
        checked_text("The search text", wanted.text, longest=LONGEST_TERM)
        terms = folded(wanted.text).split()
        conditions += [images.c.words.like(containing(term), escape="\\") for term in terms]
    if wanted.collection is not None:
        conditions.append(
            exists().where(
                collection_images.c.image_id == images.c.id,
                collection_images.c.collection_id
                == ids.require_id(ids.COLLECTION, wanted.collection),
            )
        )
    return select(images).where(*conditions)


def _theirs(owner: str | None) -> tuple[ColumnElement[bool], ...]:
    return () if owner is None else (images.c.owner == owner,)


def _image(row: Row[Any]) -> StoredImage:
    return StoredImage(
        id=row.id,
        job_id=row.job_id,
        owner=row.owner,
        model=row.model,
        label=row.label,
        seed=row.seed,
        width=row.width,
        height=row.height,
        sha256=row.sha256,
        created=row.created,
        record=row.record,
        favourite=row.favourite,
        seconds=row.seconds,
        joules=row.joules,
        energy_method=row.energy_method or "",
    )
