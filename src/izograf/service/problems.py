"""Errors for programs: RFC 9457 problem documents, or OpenAI's error object below `/v1/`."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from izograf.schema.errors import IzografError
from izograf.store.text import cleaned_text

MEDIA_TYPE = "application/problem+json"
LONGEST_DETAIL = 1000
RETRY_SECONDS = 10
_CODES = {413: "content_too_large", 422: "invalid_input"}  # phrases that Python has renamed


def problem(
    status: int, code: str, detail: str, *, headers: Mapping[str, str] = {}, **more: Any
) -> JSONResponse:
    """A problem document; `code` is stable, `detail` one sentence for people."""
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": cleaned_text(detail, longest=LONGEST_DETAIL),
    }
    return JSONResponse(body | more, status, _with_retry(status, headers), MEDIA_TYPE)


def openai_error(
    status: int,
    code: str,
    detail: str,
    *,
    headers: Mapping[str, str] = {},
    param: str | None = None,
) -> JSONResponse:
    """The error object that clients of OpenAI's interface raise exceptions from.

    There a wrong value is answered with 400, not 422.
    """
    status = 400 if status == 422 else status
    kind = "server_error" if status >= 500 else "invalid_request_error"
    code = {401: "invalid_api_key"}.get(status, code)
    error = {
        "message": cleaned_text(detail, longest=LONGEST_DETAIL),
        "type": "rate_limit_error" if status == 429 else kind,
        "param": param,
        "code": code,
    }
    return JSONResponse({"error": error}, status, _with_retry(status, headers))


def refusal(
    path: str, status: int, code: str, detail: str, *, headers: Mapping[str, str] = {}
) -> JSONResponse:
    """The error in the form that programs asking for `path` understand.

    429 and 503 get `Retry-After` in seconds unless `headers` have it.
    """
    form = openai_error if is_openai(path) else problem
    return form(status, code, detail, headers=headers)


def refusal_of(path: str, error: IzografError) -> JSONResponse:
    """The same of an error; its code is the error's name in snake case."""
    seconds = getattr(error, "retry_after", None)  # what a limit knows better than we
    headers = {} if seconds is None else {"Retry-After": str(max(1, round(seconds)))}
    return refusal(path, error.http_status, code_of(error), str(error), headers=headers)


def problem_of(error: IzografError) -> JSONResponse:
    """The problem document of an error."""
    return refusal_of("", error)


def is_openai(path: str) -> bool:
    """Whether `path` belongs to OpenAI's dialect."""
    return path == "/v1" or path.startswith("/v1/")


def code_of(error: IzografError) -> str:
    """`InvalidInput` -> `invalid_input`."""
    name = type(error).__name__
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")


def http_code(status: int) -> str:
    """405 -> `method_not_allowed`."""
    phrase = HTTPStatus(status).phrase.lower().replace(" ", "_").replace("-", "_")
    return _CODES.get(status, phrase)


def sentence_of(error: RequestValidationError) -> str:
    """The first thing that is wrong with a request's shape, and where."""
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return f"The body is not JSON, at character {first['loc'][-1]}: {first['ctx']['error']}."
    place = ".".join(str(part) for part in first["loc"] if part != "body") or "the body"
    return f"{place[:200]}: {first['msg']}."


def http_detail(method: str, error: HTTPException) -> str:
    """What to say of an error that is not ours."""
    if error.status_code == 400:  # FastAPI's, of whatever went wrong while it read the body
        return "The request cannot be read: send well-formed JSON in UTF-8."
    if error.detail != HTTPStatus(error.status_code).phrase:
        return error.detail
    ours = {
        404: "There is nothing at this address.",
        405: f"{method} is not possible at this address.",
    }
    return ours.get(error.status_code, f"{error.detail}.")


def is_of_another_kind(headers: Headers, error: RequestValidationError) -> bool:
    """Whether the body was not read because it does not claim to be JSON."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    whole = any(tuple(one["loc"]) == ("body",) for one in error.errors())
    sent = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
    return whole and sent and not (kind == "application/json" or kind.endswith("+json"))


def _with_retry(status: int, headers: Mapping[str, str]) -> dict[str, str]:
    known = {name.lower() for name in headers}
    if status in (429, 503) and "retry-after" not in known:
        return {**headers, "Retry-After": str(RETRY_SECONDS)}
    return dict(headers)
