"""`/v1`: OpenAI's own client works unchanged."""

from __future__ import annotations

import base64
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from api_support import always, key_of, live
from fastapi.testclient import TestClient
from web_support import MakeService

from izograf.engine.fake import FakeEngine
from izograf.schema.job import Status
from izograf.service.app import create_app
from izograf.service.context import Service
from izograf.store.accounts import Role

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def live_service(make_service: MakeService) -> Service:
    return make_service(login="always")


@pytest.fixture
def theirs(live_service: Service) -> Iterator[openai.OpenAI]:
    """The real client, with a user's key, at a live service."""
    with live(live_service) as server:
        key = key_of(live_service, "ann")
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0) as client:
            yield client


def test_their_client_makes_pictures(theirs: openai.OpenAI, live_service: Service) -> None:
    answer = theirs.images.generate(
        model="scenes", prompt="A photo of snowy mountains", n=2, response_format="b64_json",
        size="64x64", quality="hd", style="vivid", user="somebody", extra_body={"seed": 7},
    )  # fmt: skip
    assert answer.data is not None
    assert len(answer.data) == 2
    assert {entry.revised_prompt for entry in answer.data} == {"mountain"}
    for entry in answer.data:
        assert base64.b64decode(entry.b64_json or "").startswith(PNG)
        assert entry.url is None
    assert abs(answer.created - time.time()) < 60
    jobs = live_service.store.jobs.list_jobs().items
    assert [(job.request.seed, job.request.num_images) for job in jobs] == [(7, 2)]


def test_a_url_can_be_fetched_with_the_same_key(theirs: openai.OpenAI) -> None:
    answer = theirs.images.generate(prompt="зимние горы", response_format="url")
    assert answer.data is not None
    url = answer.data[0].url or ""
    headers = {"Authorization": f"Bearer {theirs.api_key}"}
    assert httpx.get(url, headers=headers).content.startswith(PNG)
    assert httpx.get(url).status_code == 401
    assert answer.data[0].b64_json is None


def test_models_are_listed_their_way(theirs: openai.OpenAI) -> None:
    names = [model.id for model in theirs.models.list()]
    assert "scenes" in names
    assert "scenes-judge" not in names
    assert theirs.models.retrieve("scenes").owned_by == "izograf"
    with pytest.raises(openai.NotFoundError) as caught:
        theirs.models.retrieve("dall-e-3")
    assert caught.value.code == "model_not_found"


def test_their_client_raises_their_errors(theirs: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        theirs.images.generate(prompt="a dog", model="scenes")
    assert caught.value.code == "unknown_subject"
    assert "mountain (горы)" in str(caught.value)
    with pytest.raises(openai.BadRequestError, match="64x64"):
        theirs.images.generate(prompt="mountain", size="1024x1024")
    with pytest.raises(openai.NotFoundError):
        theirs.images.generate(prompt="mountain", model="dall-e-3")
    with pytest.raises(openai.BadRequestError, match="num_images"):
        theirs.images.generate(prompt="mountain", n=1000)
    with pytest.raises(openai.BadRequestError, match="guidance_scale"):
        theirs.images.generate(prompt="mountain", extra_body={"guidance_scale": "much"})
    with pytest.raises(openai.BadRequestError, match="no picture that can be read"):
        theirs.images.edit(image=b"text", prompt="mountain")
    with pytest.deprecated_call(), pytest.raises(openai.BadRequestError, match="images/edits"):
        theirs.images.create_variation(image=PNG)
    with pytest.raises(openai.AuthenticationError) as denied:
        theirs.with_options(api_key="izo_wrong").models.list()
    assert denied.value.code == "invalid_api_key"


def test_a_viewer_may_look_but_not_make(live_service: Service) -> None:
    with live(live_service) as server:
        key = key_of(live_service, "guest", Role.VIEWER)
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0)
        assert list(client.models.list())
        with pytest.raises(openai.PermissionDeniedError):
            client.images.generate(prompt="mountain")
        client.close()


def generate(client: TestClient, **body: Any) -> Any:
    return client.post("/v1/images/generations", json={"prompt": "mountain"} | body)


def test_without_a_format_both_are_sent(client: TestClient) -> None:
    entry = generate(client).json()["data"][0]
    assert base64.b64decode(entry["b64_json"]).startswith(PNG)
    path = entry["url"].removeprefix("http://127.0.0.1:8000")
    assert client.get(path).content == base64.b64decode(entry["b64_json"])


def test_options_of_the_model_are_taken_and_others_passed_over(
    client: TestClient, service: Service
) -> None:
    response = generate(client, guidance_scale=3.5, steps=9, wings=2, background="opaque", n=None)
    assert response.status_code == 200, response.text
    options = service.store.jobs.list_jobs().items[0].request.options
    assert (options["guidance_scale"], options["num_inference_steps"]) == (3.5, 9)


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": ""}, {"prompt": None}, {"prompt": ["a"]}, {"n": 0}, {"n": "many"}, {"n": 10**30},
        {"response_format": "gif"}, {"stream": True}, {"size": "big"}, {"model": 7}, {"seed": -1},
        {"sampler": "magic"}, {"sampler": {"a": 1}}, {"prompt": "x" * 40_000}, {"prompt": "\0"},
    ],
)  # fmt: skip
def test_a_wrong_order_is_refused_their_way(client: TestClient, body: dict[str, Any]) -> None:
    response = generate(client, **body)
    error = response.json()["error"]
    assert response.status_code == 400, response.text
    assert error["type"] == "invalid_request_error"
    assert set(error) == {"message", "type", "param", "code"}


def test_their_errors_cover_everything_below_v1(client: TestClient) -> None:
    json = {"Content-Type": "application/json"}
    for method, path, status in (
        ("GET", "/v1/nothing", 404), ("DELETE", "/v1/models", 405), ("GET", "/v1", 404),
        ("POST", "/v1/images/variations", 400), ("POST", "/v1/images/generations", 400),
    ):  # fmt: skip
        response = client.request(method, path)
        assert (response.status_code, "error" in response.json()) == (status, True), path
    for content in (b"{", b"\xff", b"[" * 100_000, b'{"prompt": "\\ud800"}'):
        response = client.post("/v1/images/generations", content=content, headers=json)
        assert (response.status_code, "error" in response.json()) == (400, True)
    response = client.post("/v1/images/generations", content=b"{}", headers={"Content-Type": "a/b"})
    assert (response.status_code, "error" in response.json()) == (415, True)
    response = client.post("/v1/images/generations", content=b" " * (2 << 20), headers=json)
    assert (response.status_code, "error" in response.json()) == (413, True)


def test_the_same_key_gives_the_same_pictures(client: TestClient, service: Service) -> None:
    headers = {"Idempotency-Key": "once"}
    answers = [
        client.post("/v1/images/generations", json={"prompt": "sea"}, headers=headers).json()
        for _ in range(2)
    ]
    assert answers[0] == answers[1]
    assert len(service.store.jobs.list_jobs().items) == 1


def test_a_failed_job_is_not_ordered_again_by_itself(make_service: MakeService) -> None:
    engine = FakeEngine(step_seconds=0.001, faults=always("oom"))
    service = make_service(engine=engine)
    with live(service) as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=2)
        with client, pytest.raises(openai.InternalServerError, match="memory") as caught:
            client.images.generate(prompt="sea")
    assert caught.value.code == "job_failed"
    assert len(service.store.jobs.list_jobs().items) == 1


def test_a_client_that_leaves_cancels_its_job(make_service: MakeService) -> None:
    service = make_service(engine=FakeEngine(step_seconds=60))
    body = b'{"prompt": "sea"}'
    head = (
        "POST /v1/images/generations HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )

    def statuses() -> list[Status]:
        return [job.status for job in service.store.jobs.list_jobs().items]

    def until(wanted: list[Status]) -> None:
        deadline = time.monotonic() + 10
        while statuses() != wanted and time.monotonic() < deadline:
            time.sleep(0.01)
        assert statuses() == wanted

    with live(service) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(head.encode() + body)
            until([Status.RUNNING])
        until([Status.CANCELLED])


def test_who_waits_when_the_service_stops_is_told_so(make_service: MakeService) -> None:
    service = make_service(engine=FakeEngine(step_seconds=60))
    with TestClient(create_app(service), base_url="http://localhost") as client:
        assert client.portal is not None
        client.portal.start_task_soon(_close_soon, service)
        response = generate(client)
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) > 0
    assert response.json()["error"]["type"] == "server_error"


async def _close_soon(service: Service) -> None:
    import asyncio

    while not service.hub.num_listeners:
        await asyncio.sleep(0.01)
    await service.hub.close()
