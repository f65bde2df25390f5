"""What an operator limits is limited: each setting reaches the place where it is enforced."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from api_support import assert_problem, key_of, made, order
from fastapi.testclient import TestClient
from PIL import Image
from web_support import MakeService

from izograf.engine.dispatcher import Dispatcher
from izograf.service import uploads
from izograf.service.app import create_app
from izograf.service.limits import RateLimit, TooManyRequests
from izograf.service.settings import ServiceSettings
from izograf.service.uploads import UnusablePicture, UploadLimits, read_upload

BASE = "http://127.0.0.1:8000"


@pytest.mark.parametrize(("limit", "status"), [(64 * 64, 202), (64 * 64 - 1, 422)])
def test_p8_an_upload_is_held_to_the_pixels_of_the_settings(
    make_service: MakeService, limit: int, status: int
) -> None:
    app = create_app(make_service(max_upload_pixels=limit))
    with TestClient(app, base_url=BASE) as client:
        picture = client.get(f"/api/v1/images/{made(client)[0]['id']}/file").content
        headers = {"content-type": "image/png"}
        answer = client.post("/api/v1/verify", content=picture, headers=headers)
        assert answer.status_code == status, answer.text
        assert ("at most 4,095 pixels" in answer.text) == (status == 422)


def test_p8_upload_limits_are_those_of_the_settings(tmp_path: Path) -> None:
    settings = ServiceSettings(
        data_dir=tmp_path, max_upload_bytes=2000, max_upload_pixels=300, max_upload_frames=2
    )
    limits = UploadLimits.of(settings)
    assert (limits.max_bytes, limits.max_pixels, limits.max_frames) == (2000, 300, 2)


@pytest.mark.parametrize(("frames", "passes"), [(2, True), (3, False)])
def test_p8_as_many_frames_as_allowed_and_no_more(frames: int, passes: bool) -> None:
    target = io.BytesIO()
    first, *more = (Image.new("RGB", (4, 4), (80 * n, 0, 0)) for n in range(frames))
    first.save(target, "GIF", save_all=True, append_images=more)
    limits = UploadLimits(max_bytes=10_000, max_pixels=100, max_frames=2)
    if passes:
        assert read_upload(target.getvalue(), limits).width == 4
    else:
        with pytest.raises(UnusablePicture, match="at most 2 frame"):
            read_upload(target.getvalue(), limits)


def test_an_order_for_more_pictures_than_a_job_may_have_is_refused(
    make_service: MakeService,
) -> None:
    service = make_service(max_images_per_job=3)
    with TestClient(create_app(service), base_url=BASE) as client:
        assert client.post("/api/v1/jobs", json=order(num_images=3)).status_code == 202
        answer = client.post("/api/v1/jobs", json=order(num_images=4))
        assert "from 1 to 3" in assert_problem(answer, 422, "invalid_input")
    assert sum(service.store.jobs.count_by_status().values()) == 1


def test_a_queue_that_others_filled_is_full_for_everybody(make_service: MakeService) -> None:
    service = make_service(login="always", max_queued=2)
    assert isinstance(service.dispatcher, Dispatcher)
    service.dispatcher.stop(0)  # so that nothing leaves the queue while it is filled
    with TestClient(create_app(service), base_url=BASE) as client:
        keys = {name: key_of(service, name) for name in ("ann", "ben")}

        def ask(name: str) -> Any:
            headers = {"Authorization": f"Bearer {keys[name]}"}
            return client.post("/api/v1/jobs", json=order(), headers=headers)

        assert [ask("ann").status_code for _ in range(3)] == [202, 202, 429]
        assert "queue is full" in assert_problem(ask("ben"), 429, "queue_full")


def test_a_client_that_kept_silent_has_saved_nothing_up() -> None:
    now = [0.0]
    limit = RateLimit(3, clock=lambda: now[0])
    limit.take("ann")
    now[0] = 3600.0
    for _ in range(3):
        limit.take("ann")
    with pytest.raises(TooManyRequests):
        limit.take("ann")


LIMITED = """
import importlib.util, json, resource, sys
spec = importlib.util.spec_from_file_location("child", sys.argv[1])
child = importlib.util.module_from_spec(spec)
spec.loader.exec_module(child)
child.limit_process(256 << 20, 7)
names = ("AS", "CPU", "FSIZE", "CORE")
print(json.dumps({name: resource.getrlimit(getattr(resource, "RLIMIT_" + name)) for name in names}))
"""


def test_p8_the_process_that_reads_uploads_has_every_limit() -> None:
    pytest.importorskip("resource")
    command = [sys.executable, "-I", "-c", LIMITED, str(uploads._CHILD)]
    done = subprocess.run(command, capture_output=True, check=True)
    memory = 256 << 20
    assert json.loads(done.stdout) == {
        "AS": [memory, memory], "CPU": [7, 8], "FSIZE": [0, 0], "CORE": [0, 0],
    }  # fmt: skip
