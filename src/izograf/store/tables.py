"""The tables, as the program expects to find them; `migrations` brings a database there.

Identifiers are compared byte by byte on both databases, so that sorting by id is sorting by
creation whatever PostgreSQL's locale. Times are seconds since the epoch.
"""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    text,
)
from sqlalchemy.engine import Dialect


class Json(TypeDecorator[Any]):
    """A JSON value as plain ASCII text, which both databases hold whatever characters it names."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:  # noqa: ARG002
        return None if value is None else json.dumps(value, allow_nan=False)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:  # noqa: ARG002
        return None if value is None else json.loads(value)


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_ID = String(30).with_variant(String(30, collation="C"), "postgresql")
_NAME = String(200)
_HASH = String(64).with_variant(String(64, collation="C"), "postgresql")
_SERIAL = BigInteger().with_variant(Integer, "sqlite")  # only INTEGER counts by itself there


def _owned(table: str, *, primary_key: bool = False) -> Column[str]:
    """A reference to `table` that is deleted together with what it refers to."""
    target = ForeignKey(f"{table}.id", ondelete="CASCADE")
    return Column(f"{table[:-1]}_id", _ID, target, primary_key=primary_key, nullable=False)


jobs = Table(
    "jobs",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("owner", _NAME, nullable=False),
    Column("task", String(40), nullable=False),
    Column("model", Text, nullable=False),
    Column("request", Json, nullable=False),
    Column("inputs", Json, nullable=False),  # name -> sha256 of a file
    Column("result", Json, nullable=False),
    Column("status", String(12), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    # attempts that ended with the worker's death; one handed back in good order is not among them
    Column("deaths", Integer, nullable=False),
    Column("began", Boolean, nullable=False),  # whether a worker took the current attempt up
    Column("last_event", Integer, nullable=False),
    Column("created", Double, nullable=False),
    Column("started", Double),
    Column("finished", Double),
    Column("reason", Text, nullable=False),
    Column("seconds", Double),
    Column("joules", Double),
    Column("energy_method", String(200)),
    CheckConstraint(
        "status IN ('queued', 'running', 'done', 'failed', 'cancelled', 'dead')", name="status"
    ),
)
Index("ix_jobs_owner", jobs.c.owner, jobs.c.id)
Index("ix_jobs_status", jobs.c.status, jobs.c.id)
Index("ix_jobs_model", jobs.c.model, jobs.c.id)
Index(
    "ix_jobs_queued",
    jobs.c.priority,
    jobs.c.owner,
    jobs.c.id,
    sqlite_where=text("status = 'queued'"),
    postgresql_where=text("status = 'queued'"),
)

# what is true of a job that has not ended and reads files
READS_FILES = "inputs <> '{}' AND status IN ('queued', 'running')"
# and of one whose files are kept: so long as there are pictures that were made from them, too
KEEPS_FILES = (
    "inputs <> '{}' AND (status IN ('queued', 'running') OR task = 'edit' AND EXISTS "
    "(SELECT 1 FROM images WHERE images.job_id = jobs.id))"
)

# The fair queue: one line of waiting jobs per owner and priority (see `lines`).
queue_lines = Table(
    "queue_lines",
    metadata,
    Column("owner", _NAME, primary_key=True),
    Column("priority", Integer, primary_key=True, autoincrement=False),
    Column("waiting", Integer, nullable=False),
    Column("served", BigInteger, nullable=False, index=True),
    Column("opened", _ID, nullable=False),
    CheckConstraint("waiting >= 0", name="waiting"),
)
Index(
    "ix_queue_lines_waiting",
    queue_lines.c.priority,
    queue_lines.c.served,
    queue_lines.c.opened,
    sqlite_where=text("waiting > 0"),
    postgresql_where=text("waiting > 0"),
)

events = Table(
    "events",
    metadata,
    _owned("jobs", primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("kind", String(12), nullable=False),
    Column("at", Double, nullable=False),
    Column("data", Json, nullable=False),
    Column("preview", LargeBinary),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("owner", _NAME, primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("body_sha256", _HASH, nullable=False),
    _owned("jobs"),
    Column("created", Double, nullable=False, index=True),
)
Index("ix_idempotency_keys_job", idempotency_keys.c.job_id)

images = Table(
    "images",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("job_id", _ID, nullable=False, index=True),  # an image may outlive its job
    Column("attempt", Integer, nullable=False),
    Column("owner", _NAME, nullable=False),
    Column("model", Text, nullable=False),
    Column("label", Text, nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("sha256", _HASH, nullable=False, index=True),
    Column("created", Double, nullable=False),
    Column("record", Json, nullable=False),
    Column("words", Text, nullable=False),  # what a text search looks in, folded
    Column("favourite", Boolean, nullable=False),
    Column("seconds", Double),
    Column("joules", Double),
    Column("energy_method", String(200)),
    Column("deleted", Double),
)
Index("ix_images_owner", images.c.owner, images.c.id)
Index("ix_images_model", images.c.model, images.c.id)
Index("ix_images_label", images.c.label, images.c.id)
Index("ix_images_deleted", images.c.deleted)

collections = Table(
    "collections",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("owner", _NAME, nullable=False),
    Column("name", _NAME, nullable=False),
    Column("created", Double, nullable=False),
)
Index("uq_collections_owner_name", collections.c.owner, collections.c.name, unique=True)

collection_images = Table(
    "collection_images",
    metadata,
    _owned("collections", primary_key=True),
    _owned("images", primary_key=True),
    Column("added", Double, nullable=False),
)
Index("ix_collection_images_image", collection_images.c.image_id)

models = Table(
    "models",
    metadata,
    Column("name", _NAME, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("weights_sha256", _HASH, nullable=False),  # of the card's fingerprint
    Column("folder", Text, nullable=False),
    Column("card", Json, nullable=False),
    Column("registered", Double, nullable=False),
    Column("promoted", Double),
)
Index("uq_models_name_weights", models.c.name, models.c.weights_sha256, unique=True)

users = Table(
    "users",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("name", _NAME, nullable=False),
    Column("role", String(12), nullable=False),
    Column("password_hash", Text, nullable=False),
    Column("created", Double, nullable=False),
    Column("disabled", Double),
    CheckConstraint("role IN ('viewer', 'user', 'engineer', 'admin')", name="role"),
)
Index("uq_users_name", users.c.name, unique=True)

sessions = Table(
    "sessions",
    metadata,
    Column("token_hash", _HASH, primary_key=True),
    _owned("users"),
    Column("created", Double, nullable=False),
    Column("seen", Double, nullable=False),
    Column("expires", Double, nullable=False, index=True),
)
Index("ix_sessions_user", sessions.c.user_id)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", _ID, primary_key=True),
    _owned("users"),
    Column("name", _NAME, nullable=False),
    Column("prefix", String(40), nullable=False),
    Column("secret_hash", _HASH, nullable=False),
    Column("created", Double, nullable=False),
    Column("seen", Double),
    Column("revoked", Double),
)
Index("uq_api_keys_prefix", api_keys.c.prefix, unique=True)
Index("ix_api_keys_user", api_keys.c.user_id)

audit = Table(
    "audit",
    metadata,
    Column("number", _SERIAL, primary_key=True),
    Column("at", Double, nullable=False),
    Column("actor", _NAME, nullable=False),
    Column("action", String(60), nullable=False),
    Column("subject", _NAME, nullable=False),
    Column("facts", Json, nullable=False),
)

settings = Table(
    "settings",
    metadata,
    Column("name", _NAME, primary_key=True),
    Column("value", Json, nullable=False),
    Column("changed", Double, nullable=False),
)
