"""Prompts in the interface for programs: remarks, attributes and styles, what is refused."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from api_support import assert_problem, order
from fastapi.testclient import TestClient
from PIL import Image
from text_support import READER, with_reader
from web_support import wait_until_ended

from izograf.engine.batching import compatible, next_order
from izograf.engine.messages import GENERATE, Task
from izograf.schema.record import RECORD_KEY
from izograf.schema.request import GenerationRequest
from izograf.schema.styles import bundled_styles
from izograf.service.app import create_app
from izograf.service.context import Service


@pytest.fixture
def reading(service: Service) -> Iterator[TestClient]:
    app = create_app(with_reader(service))
    with TestClient(app, base_url="http://127.0.0.1:8000") as client:
        yield client


def asked(client: TestClient, prompt: str = "a sea", *, model: str = READER, **more: Any) -> Any:
    condition = {"type": "text", "prompt": prompt, **more}
    return client.post("/api/v1/jobs", json=order(model=model, condition=condition))


def accepted(client: TestClient, prompt: str = "a sea", **more: Any) -> dict[str, Any]:
    answer = asked(client, prompt, **more)
    assert answer.status_code == 202, answer.text
    job: dict[str, Any] = answer.json()
    return job


def test_a_prompt_becomes_pictures_that_tell_it(reading: TestClient) -> None:
    job = accepted(reading, "  a sea\n", negative_prompt="forest")
    assert job["condition"] == {"type": "text", "prompt": "a sea", "negative_prompt": "forest"}
    assert job["remarks"] == []
    ended = wait_until_ended(reading, job["id"])
    assert (ended["status"], ended["remarks"]) == ("done", [])
    assert [image["label"] for image in ended["images"]] == ["a sea", "a sea"]
    with Image.open(io.BytesIO(reading.get(ended["images"][0]["url"]).content)) as picture:
        record = json.loads(picture.text[RECORD_KEY])  # type: ignore[attr-defined]
    assert record["request"]["condition"] == job["condition"]


@pytest.mark.parametrize(
    ("prompt", "start"),
    [
        ("a river by the sea", "The model does not know «river»"),
        ("море и хобот", "Модель не знает слова «и»"),
    ],
)
def test_unknown_words_are_remarks_then_and_later(
    reading: TestClient, prompt: str, start: str
) -> None:
    job = accepted(reading, prompt)
    assert job["remarks"][0].startswith(start)
    again = reading.get(f"/api/v1/jobs/{job['id']}").json()
    assert again["remarks"] == job["remarks"]
    assert wait_until_ended(reading, job["id"])["remarks"] == job["remarks"]


def test_attributes_and_a_style_are_put_into_words(reading: TestClient) -> None:
    job = accepted(reading, "море", attributes=["sky=orange"], style="noir")
    words, away = bundled_styles()["noir"].apply("море, с оранжевым небом")
    assert job["condition"] == {
        "type": "text", "prompt": words, "negative_prompt": away, "style": "noir",
        "asked": "море, с оранжевым небом",
    }  # fmt: skip
    assert job["remarks"] == ["Модель не знает ни одного слова этого стиля, и он ничего не меняет."]
    ended = wait_until_ended(reading, job["id"])
    assert {image["label"] for image in ended["images"]} == {"море, с оранжевым небом"}
    alone = accepted(reading, "", attributes=["небо=синее"])
    assert alone["condition"]["prompt"] == "with a blue sky"


@pytest.mark.parametrize(
    ("condition", "status", "code", "sentence"),
    [
        ({"style": "noire"}, 404, "not_found", "Unknown style 'noire': did you mean noir"),
        ({"attributes": ["sky=plaid"]}, 422, "invalid_input", "Unknown value 'plaid' of sky"),
        ({"attributes": ["sky"]}, 422, "invalid_input", "name=value"),
        ({"prompt": " "}, 422, "invalid_input", "The prompt is empty"),
        ({"prompt": "", "style": "noir"}, 422, "invalid_input", "The prompt is empty"),
        ({"prompt": "x" * 2001}, 422, "invalid_input", "2000"),
        ({"attributes": ["sky=blue"] * 21}, 422, "invalid_input", "20"),
        ({"mood": "calm"}, 422, "invalid_input", "mood"),
        ({"asked": "a sea"}, 422, "invalid_input", "asked"),
        ({"prompt": None}, 422, "invalid_input", "prompt"),
        ({"model": "no-such"}, 404, "not_found", "Unknown model"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(
    reading: TestClient, condition: dict[str, Any], status: int, code: str, sentence: str
) -> None:
    assert sentence in assert_problem(asked(reading, **condition), status, code)
    assert reading.get("/api/v1/jobs").json()["items"] == []


def test_a_model_of_classes_refuses_a_prompt_and_a_reader_a_class(reading: TestClient) -> None:
    sentence = assert_problem(asked(reading, model="scenes"), 422, "invalid_input")
    assert sentence.startswith("scenes does not read prompts.")
    body = order(model=READER, condition={"type": "class", "class": "sea"})
    refused = assert_problem(reading.post("/api/v1/jobs", json=body), 422, "invalid_input")
    assert refused.startswith("reader has no classes")


def test_an_order_repeated_with_its_key_is_one_job(reading: TestClient) -> None:
    body = order(model=READER, condition={"type": "text", "prompt": "a sea", "style": "noir"})
    del body["seed"]
    first, second = (
        reading.post("/api/v1/jobs", json=body, headers={"Idempotency-Key": "k"}) for _ in "ab"
    )
    assert first.status_code == second.status_code == 202
    assert first.json()["id"] == second.json()["id"]


def test_a_retry_asks_for_the_same(reading: TestClient) -> None:
    job = accepted(reading, "море", style="noir")
    wait_until_ended(reading, job["id"])
    again = reading.post(f"/api/v1/jobs/{job['id']}/retry")
    assert again.status_code == 202, again.text
    assert again.json()["condition"] == job["condition"]


def test_the_remarks_of_a_model_that_is_gone_are_none(
    reading: TestClient, service: Service
) -> None:
    job = accepted(reading, "a river")
    assert job["remarks"]
    with TestClient(create_app(service), base_url="http://127.0.0.1:8000") as without:
        assert without.get(f"/api/v1/jobs/{job['id']}").json()["remarks"] == []


def test_the_dialect_hands_the_whole_prompt_to_a_reader(
    reading: TestClient, service: Service
) -> None:
    body = {"model": READER, "prompt": "a mountain  above the sea", "response_format": "url"}
    answer = reading.post("/v1/images/generations", json=body)
    assert answer.status_code == 200, answer.text
    (entry,) = answer.json()["data"]
    assert entry["revised_prompt"] == "a mountain above the sea"
    (job,) = service.store.jobs.list_jobs().items
    assert job.request.condition == {"type": "text", "prompt": "a mountain above the sea"}
    for wrong in (" ", "x" * 2001):
        refused = reading.post("/v1/images/generations", json=body | {"prompt": wrong})
        assert refused.status_code == 400, refused.text
        assert "prompt" in refused.json()["error"]["message"]


def test_models_tell_that_they_read_prompts(reading: TestClient) -> None:
    listed = {model["name"]: model for model in reading.get("/api/v1/models").json()["items"]}
    assert listed[READER]["conditions"] == ["text"]
    assert listed["scenes"]["conditions"] == ["class"]


def test_prompts_are_never_mixed_with_other_requests() -> None:
    """A record of a mixed tensor names classes, from which no prompt can be computed again."""
    prompt = GenerationRequest("reader", {"type": "text", "prompt": "a sea"})
    plain = GenerationRequest("reader", {"type": "none"})
    assert compatible(plain, plain)
    assert not compatible(prompt, prompt)
    assert not compatible(plain, prompt)
    tasks = [Task(str(i), 1, request, GENERATE, {}) for i, request in enumerate([prompt] * 3)]
    assert len(next_order(tasks, batch_size=8, mix_requests=True).tasks) == 1
