"""The OpenAPI document: kept in the repository, and true (promise P8)."""

from __future__ import annotations

import difflib
import importlib.util
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pytest
import schemathesis
from api_support import made
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.python.asgi import HOST
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    response_schema_conformance,
    status_code_conformance,
)
from web_support import MakeService

from izograf.engine.fake import FakeEngine
from izograf.service.access import declared_routes
from izograf.service.app import create_app
from izograf.service.context import Service

TOOL = Path(__file__).resolve().parents[3] / "tools" / "openapi.py"
NUM_EXAMPLES = 20  # of each operation
CHECKS = (not_a_server_error, status_code_conformance, response_schema_conformance)


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    specification = importlib.util.spec_from_file_location("openapi_tool", TOOL)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def app(make_service: MakeService) -> FastAPI:
    engine = FakeEngine(step_seconds=0, num_steps=1, size=8)
    return create_app(
        make_service(
            engine=engine,
            allowed_hosts=(HOST,),
            requests_per_minute=100_000,
            jobs_per_minute=100_000,
        )
    )


def test_the_document_is_the_one_in_the_repository(app: FastAPI, tool: ModuleType) -> None:
    kept = tool.SNAPSHOT.read_text(encoding="utf-8").splitlines()
    now = tool.dumped(app).splitlines()
    changes = "\n".join(difflib.unified_diff(kept, now, "kept", "now", lineterm="", n=2))
    assert not changes, f"the interface changed; if so meant: python tools/openapi.py\n{changes}"


def test_every_operation_is_described(service: Service) -> None:
    app = create_app(service)
    document = app.openapi()
    assert document["openapi"].startswith("3.1")
    described = {
        (path, method.upper()) for path, ops in document["paths"].items() for method in ops
    }
    ours = {
        (route.path, method)
        for route in declared_routes(app.routes)
        for method in route.methods
        if route.path.startswith(("/api/v1/", "/v1/"))
    }
    assert described == ours
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation["summary"][0].isupper(), path
            assert {"400", "401", "403", "429", "503"} <= set(operation["responses"]), path


def things(app: FastAPI) -> dict[str, str]:
    """Identifiers of what is there, so that not everything ends with 404."""
    with TestClient(app, base_url="http://localhost") as client:
        image = made(client)[0]
        collection = client.post("/api/v1/collections", json={"name": "fuzzed"}).json()
        job = client.get(f"/api/v1/images/{image['id']}").json()["job_id"]
    names = {"job_id": job, "image_id": image["id"], "collection_id": collection["id"]}
    return names | {"name": "scenes"}


def fuzz(operation: APIOperation, known: Mapping[str, str]) -> Counter[int]:
    """Sends what the operation's schema allows and what it forbids; the statuses that came."""
    statuses: Counter[int] = Counter()
    modes = (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
    cases = st.one_of(*(operation.as_strategy(generation_mode=mode) for mode in modes))

    @settings(
        max_examples=NUM_EXAMPLES, derandomize=True, database=None, deadline=None,
        phases=[Phase.generate], suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=cases, existing=st.booleans())
    def one(case: schemathesis.Case, existing: bool) -> None:
        if existing:
            case.path_parameters = {
                name: known.get(name, value) for name, value in (case.path_parameters or {}).items()
            }
        response = case.call_and_validate(checks=list(CHECKS))
        statuses[response.status_code] += 1

    one()
    return statuses


def test_p8_fuzzing_the_interface_finds_no_server_error(app: FastAPI) -> None:
    known = things(app)
    schema = schemathesis.openapi.from_asgi("/api/v1/openapi.json", app)
    statuses: Counter[int] = Counter()
    for result in schema.get_all_operations():
        statuses += fuzz(result.ok(), known)
    assert max(statuses) < 500
    assert statuses.total() >= 400
    assert statuses[200] >= 100, "not everything was refused"
    assert statuses[202] >= 5, "jobs were accepted"
    assert statuses[422] >= 50, "wrong values were tried"


def test_p8_control_fuzzing_would_notice_a_server_error(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a made fault")

    monkeypatch.setattr(app.state.service.store.jobs, "count_by_status", broken)
    schema = schemathesis.openapi.from_asgi("/api/v1/openapi.json", app)
    with pytest.raises((RuntimeError, FailureGroup)):
        fuzz(schema["/api/v1/status"]["GET"], {})
