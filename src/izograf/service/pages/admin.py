"""`/admin`: users, keys, limits, storage and the audit log, for administrators."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Form, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from izograf.schema.errors import Conflict, InvalidInput
from izograf.service import accounts
from izograf.service.access import Admin, Identity
from izograf.service.context import Running, Service
from izograf.service.pages.rendering import render
from izograf.store.accounts import Role
from izograf.store.open import DATABASE, IMAGES

router = APIRouter(prefix="/admin", include_in_schema=False)

PER_PAGE = 50
MOST_FILES = 200_000
"""More than this are not counted while somebody waits for a page."""
LIMITS = (
    "requests_per_minute", "jobs_per_minute", "max_queued", "max_queued_per_owner",
    "max_images_per_job", "max_body_bytes", "max_upload_bytes", "max_upload_pixels",
    "session_hours", "keep_jobs_days", "keep_deleted_days", "grace_seconds",
)  # fmt: skip

Text = Annotated[str, Form(max_length=1000)]


@router.get("")
def overview(request: Request, service: Running, identity: Admin) -> Response:  # noqa: ARG001
    settings = service.settings
    limits = {name: getattr(settings, name) for name in LIMITS}
    return render(
        request, "admin.html", limits=limits, storage=storage_use(settings.data_dir),
        counts={str(k): v for k, v in service.store.jobs.count_by_status().items()},
        joules=service.store.jobs.joules_by_method(), settings=settings,
    )  # fmt: skip


def storage_use(data_dir: Path) -> Mapping[str, int]:
    """What the service keeps and what room is left: bytes, and the number of picture files."""
    num_files, size = _folder_use(data_dir / IMAGES)
    beside = [data_dir / f"{DATABASE}{ending}" for ending in ("", "-wal")]
    database = sum(path.stat().st_size for path in beside if path.is_file())
    free = shutil.disk_usage(data_dir).free
    return {"pictures": num_files, "pictures_bytes": size, "database": database, "free": free}


def _folder_use(folder: Path) -> tuple[int, int]:
    num_files = size = 0
    for where, _, names in os.walk(folder):
        for name in names:
            try:
                size += (Path(where) / name).stat().st_size
            except FileNotFoundError:  # swept meanwhile
                continue
            num_files += 1
        if num_files >= MOST_FILES:
            break
    return num_files, size


@router.get("/users")
def users(request: Request, service: Running, identity: Admin) -> Response:
    return _users_page(request, service, identity)


def _users_page(
    request: Request, service: Service, identity: Identity, *, problem: str = "", typed: str = ""
) -> Response:
    """The list; after a form that could not be carried out, with what was typed and why."""
    return render(
        request, "admin_users.html", status=422 if problem else 200, typed=typed, problem=problem,
        users=service.store.accounts.list_users(), roles=[str(role) for role in Role],
        own=identity.owner,
    )  # fmt: skip


@router.post("/users")
async def add_user(
    request: Request,
    service: Running,
    identity: Admin,
    name: Text = "",
    role: Text = "user",
    password: Text = "",
) -> Response:
    try:
        hashed = await accounts.new_password(password, name)
        await run_in_threadpool(
            accounts.add_user, service, identity, name, role_named(role), hashed
        )
    except (Conflict, InvalidInput) as error:
        return await run_in_threadpool(
            _users_page, request, service, identity, problem=str(error), typed=name
        )
    return RedirectResponse("/admin/users", 303)


@router.post("/users/{user_id}")
def change_user(
    user_id: str,
    request: Request,
    service: Running,
    identity: Admin,
    role: Text = "",
    action: Text = "",
) -> Response:
    user = service.store.accounts.get_user(user_id)
    try:
        accounts.change_user(
            service, identity, user, role=role_named(role) if role else None,
            disabled={"disable": True, "enable": False}.get(action),
        )  # fmt: skip
    except (Conflict, InvalidInput) as error:
        return _users_page(request, service, identity, problem=str(error))
    return RedirectResponse("/admin/users", 303)


@router.post("/users/{user_id}/password")
async def set_password(
    user_id: str, request: Request, service: Running, identity: Admin, password: Text = ""
) -> Response:
    user = await run_in_threadpool(service.store.accounts.get_user, user_id)
    try:
        hashed = await accounts.new_password(password, user.name)
    except InvalidInput as error:
        return await run_in_threadpool(_users_page, request, service, identity, problem=str(error))

    def work() -> None:
        accounts.change_user(service, identity, user, password_hash=hashed)

    await run_in_threadpool(work)
    return RedirectResponse("/admin/users", 303)


def role_named(text: str) -> Role:
    """
    Raises:
        InvalidInput: there is no such role.
    """
    try:
        return Role(text)
    except ValueError:
        raise InvalidInput(f"The role must be one of {', '.join(Role)}.") from None


@router.get("/keys")
def keys(request: Request, service: Running, identity: Admin) -> Response:  # noqa: ARG001
    return _keys_page(request, service)


def _keys_page(request: Request, service: Service, *, new_key: str = "") -> Response:
    return render(
        request, "admin_keys.html", keys=service.store.accounts.list_keys(), new_key=new_key,
        users=[user for user in service.store.accounts.list_users() if user.disabled is None],
    )  # fmt: skip


@router.post("/keys")
def create_key(
    request: Request, service: Running, identity: Admin, user: Text = "", name: Text = ""
) -> Response:
    _, text = accounts.add_key(service, identity, user, name.strip())
    return _keys_page(request, service, new_key=text)


@router.post("/keys/{key_id}/revoke")
def revoke_key(key_id: str, service: Running, identity: Admin) -> Response:
    accounts.revoke_key(service, identity, key_id)
    return RedirectResponse("/admin/keys", 303)


@router.get("/audit")
def audit(
    request: Request,
    service: Running,
    identity: Admin,  # noqa: ARG001
    before: int | None = None,
) -> Response:
    entries = service.store.audit.entries(before=before, limit=PER_PAGE)
    following = entries[-1].number if len(entries) == PER_PAGE else None
    names = {user.id: user.name for user in service.store.accounts.list_users()}
    return render(request, "admin_audit.html", entries=entries, following=following, names=names)
