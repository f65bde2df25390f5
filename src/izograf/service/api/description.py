"""The OpenAPI document: FastAPI's, with our errors in it and without what is not for programs."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from izograf.service.api.shapes import Problem
from izograf.service.problems import MEDIA_TYPE, is_openai

VERSION = "1"  # of the interface, not of the program
DESCRIPTION = """\
Jobs make pictures: submit one, follow its events, fetch its pictures. Errors are problem documents
(RFC 9457) whose `code` is stable; 429 and 503 say in `Retry-After` when to come again. Below `/v1`
the images interface of OpenAI is spoken, errors included.
"""
REFUSALS = {
    "400": "the request cannot be read, or below /v1 something in it is wrong",
    "401": "no valid credentials",
    "403": "the credentials do not allow this",
    "404": "it does not exist, or belongs to somebody else",
    "409": "it contradicts what is there already",
    "413": "too many bytes",
    "415": "the body is not of the right kind",
    "422": "something in the request is wrong; `detail` says what",
    "429": "too many requests, or the queue is full",
    "503": "the store or the service is not available just now",
}
_METHODS = ("get", "post", "put", "patch", "delete")
_OPENAI_ERROR = {
    "title": "OpenAIError",
    "description": "The error object of OpenAI's interface.",
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": "string"},
            },
        }
    },
}


def describe(app: FastAPI) -> dict[str, Any]:
    """The document of an application; made once."""
    if app.openapi_schema is None:
        app.openapi_schema = _document(app)
    return app.openapi_schema


def _document(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title=app.title, version=VERSION, summary=app.summary, description=DESCRIPTION,
        routes=app.routes,
    )  # fmt: skip
    paths = document["paths"]
    document["paths"] = {p: paths[p] for p in paths if p.startswith("/api/v1/") or is_openai(p)}
    for path, operations in document["paths"].items():
        for method in _METHODS:
            if method in operations:
                _add_refusals(path, method, operations[method])
    components = document["components"]
    for unused in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(unused, None)
    components["schemas"] |= {"Problem": Problem.model_json_schema(), "OpenAIError": _OPENAI_ERROR}
    components["responses"] = {
        f"{name}{status}": _refusal(name, media, description)
        for name, media in (("Problem", MEDIA_TYPE), ("OpenAIError", "application/json"))
        for status, description in REFUSALS.items()
    }
    bearer = {"type": "http", "scheme": "bearer", "description": "an API key"}
    components["securitySchemes"] = {"key": bearer}
    document["security"] = [{"key": []}, {}]
    return document


def _refusal(name: str, media: str, description: str) -> dict[str, Any]:
    content = {media: {"schema": {"$ref": f"#/components/schemas/{name}"}}}
    return {"description": description, "content": content}


def _add_refusals(path: str, method: str, operation: dict[str, Any]) -> None:
    """Adds the errors that this operation can be answered with."""
    name, statuses = "OpenAIError" if is_openai(path) else "Problem", set(REFUSALS)
    if method == "get":
        statuses -= {"409"}
    if "requestBody" not in operation:
        statuses -= {"413", "415"}
    responses = operation["responses"] | {
        status: {"$ref": f"#/components/responses/{name}{status}"} for status in statuses
    }
    if is_openai(path):
        del responses["422"]  # theirs is 400
    operation["responses"] = dict(sorted(responses.items()))
