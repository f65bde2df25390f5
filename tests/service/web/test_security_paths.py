"""Promise P10: no text of a client ever becomes part of a path."""

from __future__ import annotations

import io
import os
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from security_support import client_of
from web_support import wait_until_ended

from izograf.schema.errors import NotFound
from izograf.service.app import create_app
from izograf.service.context import Service
from izograf.service.pages import STATIC
from izograf.store import ids
from izograf.store.files import ImageFiles

EVIL = (
    "../../etc/passwd", "..", ".", "/etc/passwd", "....//....//etc/passwd", "..\\..\\secret",
    "%2e%2e%2fsecret", "a\0b", "C:\\windows", "~root", "nul", "\N{FULLWIDTH FULL STOP}" * 2 + "/x",
    "$(touch evil)", "`id`", "-rf", "x" * 5000, "\ud7ff", "\N{RIGHT-TO-LEFT OVERRIDE}gnp.exe",
    "a\r\nSet-Cookie: x=y", 'a"; filename="evil.exe', "<script>", "{{7*7}}", "%s%n", "\u2028",
)  # fmt: skip


@pytest.fixture
def service(make_service: Any) -> Service:
    made: Service = make_service(requests_per_minute=10**6, jobs_per_minute=10**6)
    return made


@pytest.fixture
def client(service: Service) -> Iterator[TestClient]:
    with client_of(create_app(service)) as made:
        yield made


class Touched:
    """Every path that this process opens, as the interpreter itself reports it."""

    def __init__(self) -> None:
        self.listening = False
        self.paths: list[str] = []
        sys.addaudithook(self._heard)

    def _heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.listening and event in ("open", "os.listdir", "os.scandir", "os.mkdir", "os.remove",
                                        "os.rename", "os.rmdir", "shutil.rmtree"):  # fmt: skip
            path = arguments[0]
            if isinstance(path, str | bytes | os.PathLike):
                self.paths.append(os.fsdecode(path))


touched = Touched()


@pytest.mark.parametrize("text", EVIL)
def test_p10_no_name_that_a_client_sends_is_ever_opened(client: TestClient, text: str) -> None:
    marked = f"{text}-izograf-marker-{text}"
    safe = quote(marked.encode("utf-8", "surrogatepass"), safe="")
    touched.paths.clear()
    touched.listening = True
    try:
        answers = [
            client.get(f"/api/v1/{kind}/{safe}")
            for kind in ("jobs", "images", "models", "collections", "users", "keys")
        ]
        answers += [
            client.get(f"/{kind}/{safe}") for kind in ("images", "models", "jobs", "static")
        ]
        answers.append(client.get(f"/api/v1/images/{safe}/file"))
        order = {"model": marked, "condition": {"type": "class", "class": marked}}
        answers.append(client.post("/api/v1/jobs", json=order))
        answers.append(client.post("/api/v1/jobs", json=order | {"model": "scenes"}))
        answers.append(client.post("/v1/images/generations", json={"model": marked, "prompt": "x"}))
        answers.append(client.post("/api/v1/collections", json={"name": marked}))
        answers.append(client.get(f"/api/v1/images?q={safe}&model={safe}&collection={safe}"))
        answers.append(client.get(f"/api/v1/images/zip?id={safe}"))
    finally:
        touched.listening = False
    assert touched.paths, "nothing was heard, so nothing is shown"
    assert [path for path in touched.paths if "izograf-marker" in path
            and not path.startswith(str(STATIC))] == []  # fmt: skip
    assert all(answer.status_code < 500 for answer in answers)
    assert not any("set-cookie" in answer.headers for answer in answers)


@pytest.mark.parametrize(
    "path",
    ["/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2fapp.py",
     "/static/%2e%2e%2fapp.py", "/static//etc/passwd", "/static/%2fetc/passwd",
     "/static/..%5capp.py", "/static/css/../../app.py", "/static/%00", "/static/css", "/static/",
     "/static/css/%2e%2e/%2e%2e/app.py", "/static/%c0%ae%c0%ae/app.py"],
)  # fmt: skip
def test_p10_static_files_are_those_of_their_folder(client: TestClient, path: str) -> None:
    from httpx import URL

    raw = path.encode()
    url = URL(scheme="http", host="127.0.0.1", port=8000, raw_path=raw)
    answer = client.get(str(url))
    assert answer.status_code in (404, 405), (path, answer.status_code, answer.text[:80])
    assert "create_app" not in answer.text


def test_p10_a_link_inside_the_static_folder_does_not_lead_out(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import starlette.staticfiles as staticfiles

    folder = tmp_path / "static"
    folder.mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "out.txt").symlink_to(tmp_path / "secret.txt")
    files = staticfiles.StaticFiles(directory=folder)
    assert files.lookup_path("out.txt")[1] is None
    monkeypatch.undo()
    assert client.get("/static/../../app.py").status_code == 404


def test_p10_downloads_have_names_that_are_safe_everywhere(client: TestClient) -> None:
    order = {"model": "scenes", "condition": {"type": "class", "class": "sea"}, "num_images": 2}
    job = client.post("/api/v1/jobs", json=order).json()["id"]
    wait_until_ended(client, job)
    images = [item["id"] for item in client.get("/api/v1/images").json()["items"]]
    for text in EVIL:
        if len(text) < 200:
            client.post("/api/v1/collections", json={"name": text})
    query = "&".join(f"id={image}" for image in images)
    archive = client.get(f"/api/v1/images/zip?{query}")
    assert archive.status_code == 200
    names = zipfile.ZipFile(io.BytesIO(archive.content)).namelist()
    assert len(names) == len(set(names)) >= 2
    for name in names:
        path = Path(name)
        assert not path.is_absolute()
        assert ".." not in path.parts
        assert "\\" not in name
        assert name.isprintable()
    for path in (f"/api/v1/images/{images[0]}/file", f"/api/v1/images/zip?{query}"):
        disposition = client.get(path).headers.get("content-disposition", "")
        assert "/" not in disposition.replace("UTF-8''", "")
        assert "\\" not in disposition


@given(st.text(max_size=60))
def test_p10_identifiers_match_their_pattern_or_name_nothing(text: str) -> None:
    for kind in ids.KINDS:
        assert not ids.is_id(kind, text)
        with pytest.raises(NotFound):
            ids.require_id(kind, text)


@given(st.text(max_size=80))
def test_p10_a_picture_file_is_named_by_a_digest_and_nothing_else(text: str) -> None:
    with pytest.raises(ValueError, match="64 hexadecimal digits"):
        ImageFiles(Path("/nowhere")).path(text)


@settings(
    max_examples=40, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(name=st.text(min_size=1, max_size=80))
def test_p10_any_name_of_a_model_or_collection_is_answered_without_a_path(
    client: TestClient, service: Service, name: str
) -> None:
    before = sorted(p for p in service.settings.data_dir.rglob("*") if "sqlite" not in p.name)
    escaped = quote(name.encode("utf-8", "surrogatepass"), safe="")
    for answer in (
        client.get(f"/api/v1/models/{escaped}"),
        client.post("/api/v1/jobs", json={"model": name}),
        client.post("/api/v1/collections", json={"name": name}),
    ):
        assert answer.status_code < 500, answer.text
    after = sorted(p for p in service.settings.data_dir.rglob("*") if "sqlite" not in p.name)
    assert after == before
