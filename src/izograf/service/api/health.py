"""`/healthz`: the process lives. `/readyz`: it can accept and compute jobs, or says why not."""

from __future__ import annotations

from fastapi import APIRouter
from sqlalchemy import Connection
from starlette.responses import JSONResponse

from izograf.schema.errors import StorageError
from izograf.service.context import Running, Service
from izograf.service.space import require_space

router = APIRouter(tags=["health"])

NO_DISPATCHER = "Jobs are not being taken up: the store does not answer, or the service stops."


@router.get("/healthz")
def healthz() -> dict[str, str]:
    return {"status": "ok"}


@router.get("/readyz")
def readyz(service: Running) -> JSONResponse:
    store, space = _store_problem(service), _space_problem(service)
    dispatcher = "" if service.dispatcher.alive else NO_DISPATCHER
    reasons = [problem for problem in (store, space, dispatcher) if problem]
    facts = {
        "ready": not reasons, "store": not store, "space": not space, "dispatcher": not dispatcher,
        "reasons": reasons,
    }  # fmt: skip
    return JSONResponse(facts, 503 if reasons else 200)


def _store_problem(service: Service) -> str:
    """Why the store cannot be written; empty if it can. Nothing is written."""
    try:
        service.store.database.write(_nothing)
    except StorageError as error:
        return str(error)
    return ""


def _space_problem(service: Service) -> str:
    try:
        require_space(service.settings.data_dir)
    except StorageError as error:
        return str(error)
    return ""


def _nothing(connection: Connection) -> None:
    """A transaction that only takes, and gives back, the right to write."""
    connection.exec_driver_sql("SELECT 1")
