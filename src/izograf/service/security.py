"""What every request and response is held to, whoever asks: headers, host, origin, body size."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Sequence
from urllib.parse import quote, urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request

from izograf.schema.errors import IzografError
from izograf.service.access import Forbidden
from izograf.service.settings import ServiceSettings

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
CONTENT_POLICY = "; ".join(
    (
        "default-src 'none'", "script-src 'self'", "style-src 'self'",
        "img-src 'self' data: blob:", "font-src 'self'", "connect-src 'self'",
        "form-action 'self'", "frame-ancestors 'none'", "base-uri 'none'",
    )
)  # fmt: skip
HEADERS = {
    "content-security-policy": CONTENT_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
TRANSPORT_SECURITY = "max-age=31536000"

FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip")
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
ANY_HOST = frozenset({"/healthz", "/readyz"})
"""Paths that monitors ask for by an address; they tell nothing worth a rebinding."""

LONGEST_NEXT = 1000
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HOST = re.compile(
    r"(?:\[(?P<six>[0-9A-Fa-f:.]{2,45})\]|(?P<name>[A-Za-z0-9._-]{1,253}))(?::\d{1,5})?"
)


class UnknownHost(IzografError):
    """The service was asked under a name that is not its own."""

    exit_code = 2
    http_status = 421


class ContentTooLarge(IzografError):
    """The body of a request is larger than is accepted."""

    exit_code = 2
    http_status = 413


RawHeaders = Sequence[tuple[bytes, bytes]]


def secured(headers: RawHeaders, own: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    """A response's headers with `own` in place of any of the same names."""
    encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in own]
    replaced = {name for name, _ in encoded}
    return [*(item for item in headers if item[0].lower() not in replaced), *encoded]


def security_headers(settings: ServiceSettings) -> dict[str, str]:
    """What every response carries. https is insisted on only where browsers come by it."""
    more = {"strict-transport-security": TRANSPORT_SECURITY} if settings.secure_cookies else {}
    return HEADERS | more


def request_id_of(headers: Headers) -> str:
    """The identifier that a proxy gave the request, if it looks like one; else a new one."""
    given = headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)


def allowed_hosts(settings: ServiceSettings) -> frozenset[str] | None:
    """The names under which the service may be asked, without ports; None if any will do."""
    if not settings.loopback and not settings.allowed_hosts:
        return None
    names = (settings.host, *settings.allowed_hosts)
    return LOOPBACK_NAMES | {host_name(name) or name.casefold() for name in names}


def host_name(host: str) -> str | None:
    """`Example.org:8000` -> `example.org`, `[::1]:8000` -> `::1`; None of what is no host."""
    match = _HOST.fullmatch(host.strip())
    if match is None:
        return None
    return (match["six"] or match["name"]).casefold().rstrip(".")


def check_host(headers: Headers, allowed: frozenset[str] | None) -> None:
    """Stops DNS rebinding: a stranger's name that was made to point at this machine.

    Raises:
        UnknownHost: the request names no host, several, or one that is not ours.
    """
    given = headers.getlist("host")
    name = host_name(given[0]) if len(given) == 1 else None
    if name is None or (allowed is not None and name not in allowed):
        raise UnknownHost(
            "The service is not known under this name: use the address it printed, or add the "
            "name to the setting allowed_hosts."
        )


def check_not_forwarded(headers: Headers) -> None:
    """
    Raises:
        Forbidden: a proxy hands the requests of strangers to a service that asks nobody to log in.
    """
    if any(name in headers for name in FORWARDED):
        raise Forbidden(
            "This came through a proxy, and nobody logs in here: start the service with "
            "--login always."
        )


def check_same_origin(method: str, headers: Headers) -> None:
    """Stops cross-site request forgery (the browser's `Sec-Fetch-Site`, else its `Origin`).

    Raises:
        Forbidden: another site's page made a browser send this.
    """
    if method in SAFE_METHODS:
        return
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        same = site in ("same-origin", "none")
    elif origin is not None:
        same = _same_host(origin, headers.get("host", ""))
    else:
        same = "cookie" not in headers
    if not same:
        raise Forbidden("Another site sent this request: use the service's own pages.")


def _same_host(origin: str, host: str) -> bool:
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    standard = {"http": ":80", "https": ":443"}.get(parts.scheme)
    if standard is None or not parts.netloc:
        return False
    return _with_port(parts.netloc, standard) == _with_port(host, standard)


def _with_port(host: str, standard: str) -> str:
    has_port = re.search(r":\d+$", host) is not None
    return (host if has_port else host + standard).casefold()


def is_upload(headers: Headers) -> bool:
    """Whether the body may hold a picture."""
    kind = headers.get("content-type", "").split(";")[0].strip().casefold()
    return kind in ("multipart/form-data", "application/octet-stream") or kind.startswith("image/")


def wants_page(request: Request) -> bool:
    """Whether the answer is for a person at a browser."""
    machine = request.scope["path"].startswith(("/api/", "/v1/"))
    return not machine and "text/html" in request.headers.get("accept", "")


def login_address(request: Request) -> str:
    """The login page, which leads back to what was asked for."""
    query = request.scope["query_string"].decode("latin-1")
    target = quote(request.scope["path"]) + (f"?{query}" if query else "")
    return "/login" if target == "/" else f"/login?next={quote(safe_next(target), safe='/')}"


def safe_next(target: str) -> str:
    """`target` if it is a path of this service, else the first page: never another site's."""
    plain = target.isprintable() and "\\" not in target and len(target) <= LONGEST_NEXT
    leads_away = not target.startswith("/") or target.startswith("//")
    return target if plain and not leads_away else "/"
