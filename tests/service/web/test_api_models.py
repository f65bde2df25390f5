"""`/api/v1/models`, `/status` and `/infotext`: what can be made, and how something was made."""

from __future__ import annotations

import json
import struct
import zlib
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from api_support import MOUNTAIN, assert_problem, made, submit
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from web_support import wait_until_ended

from izograf.schema.errors import InvalidInput
from izograf.schema.labels import ClassLabel
from izograf.schema.library import ZOO, read_card
from izograf.service.catalogue import Catalogue
from izograf.service.pngtext import LONGEST_TEXT, SIGNATURE, read_texts
from izograf.service.search import class_in_prompt, search_text

PLACES = [
    ClassLabel("sea", {"en": ("sea",), "ru": ("море", "морю")}),
    ClassLabel("palm", {"en": ("palm",)}),
    ClassLabel("palm_beach", {"en": ("palm beach",)}),
]
PARAMETERS = """snowy mountains, oil painting
Negative prompt: blurry
Steps: 20, Sampler: Heun, CFG scale: 7.5, Seed: 42, Size: 512x768, Model: v1-5"""


def png_with(kind: bytes, data: bytes) -> bytes:
    """A PNG of one chunk, which no decoder would show."""
    chunks = ((kind, data), (b"IEND", b""))
    return SIGNATURE + b"".join(
        struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks
    )


def send(client: TestClient, body: bytes | str, kind: str = "image/png", **query: str) -> Any:
    headers = {"Content-Type": kind}
    return client.post("/api/v1/infotext", content=body, headers=headers, params=query)


def test_models_are_listed_with_what_a_form_needs(client: TestClient) -> None:
    models = {model["name"]: model for model in client.get("/api/v1/models").json()["items"]}
    scenes = models["scenes"]
    assert (scenes["usable"], scenes["task"], scenes["image_size"]) == (True, "generate", 64)
    assert "горы" in {c["name"]: c["forms"] for c in scenes["classes"]}["mountain"]["ru"]
    assert len(scenes["fingerprint"]) == 64
    assert client.get(scenes["url"]).status_code == 200
    generating = client.get("/api/v1/models?task=generate").json()["items"]
    assert "scenes" in {model["name"] for model in generating}
    assert "scenes-judge" not in {model["name"] for model in generating}


def test_a_model_s_options_are_a_schema(client: TestClient) -> None:
    model = client.get("/api/v1/models/scenes").json()
    schema, options = model["options_schema"], model["options"]
    assert set(schema["properties"]) == {option["name"] for option in options}
    steps = schema["properties"]["num_inference_steps"]
    assert (steps["type"], steps["minimum"], steps["default"]) == ("integer", 1, 18)
    assert "heun" in schema["properties"]["sampler"]["enum"]
    assert schema["additionalProperties"] is False
    classes = model["condition_schema"]["oneOf"][0]["properties"]["class"]["oneOf"]
    assert {"const": "mountain", "title": "mountain (горы)"} in classes


def test_the_schema_and_the_service_agree(client: TestClient) -> None:
    """What the schema allows is accepted, and what it forbids is not."""
    properties = client.get("/api/v1/models/scenes").json()["options_schema"]["properties"]
    checked = 0
    for name, schema in properties.items():
        good = [schema["default"], *schema.get("enum", [])]
        good += [schema[bound] for bound in ("minimum", "maximum") if bound in schema]
        bad: list[Any] = ["nothing"]
        bad += [schema["minimum"] - 1] if "minimum" in schema else []
        bad += [schema["maximum"] + 1] if "maximum" in schema else []
        for value in good:
            job = submit(client, options={name: value})
            client.delete(job["links"]["self"])
            checked += 1
        for value in bad:
            body = {"model": "scenes", "options": {name: value}}
            assert_problem(client.post("/api/v1/jobs", json=body), 422, "invalid_input")
    assert checked >= 15


@pytest.mark.parametrize("name", ["nothing", "..%2f..%2fetc", "%00", "scenes%2f..", "ы" * 300])
def test_what_is_no_model_is_not_found(client: TestClient, name: str) -> None:
    assert_problem(client.get(f"/api/v1/models/{name}"), 404, "not_found")


def test_the_status_counts_jobs_and_workers(client: TestClient) -> None:
    wait_until_ended(client, submit(client)["id"])
    status = client.get("/api/v1/status").json()
    assert status["accepting"] is True
    assert (status["jobs"]["done"], status["jobs"]["queued"], status["your_queued"]) == (1, 0, 0)
    assert status["workers"][0]["alive"] is True


def test_p16_a_picture_leads_back_to_the_same_picture(client: TestClient) -> None:
    image = made(client, num_images=3, options={"guidance_scale": 3.5})[1]
    found = send(client, client.get(image["url"]).content).json()
    assert found["source"] == "izograf"
    assert (found["request"]["seed"], found["request"]["num_images"]) == (8, 1)
    assert (found["made_by"]["seed"], found["made_by"]["num_images"]) == (7, 3)
    again = client.post("/api/v1/jobs", json=found["request"]).json()
    pixels = wait_until_ended(client, again["id"])["images"][0]["id"]
    records = [client.get(f"/api/v1/images/{i}").json()["record"] for i in (pixels, image["id"])]
    assert records[0]["pixels_sha256"] == records[1]["pixels_sha256"]


def test_p16_a_strip_leads_back_to_the_strip(client: TestClient) -> None:
    image = made(client, num_images=3, towards={"class": "sea"})[1]
    request = send(client, client.get(image["url"]).content).json()["request"]
    assert (request["num_images"], request["towards"]) == (3, {"class": "sea"})


@pytest.mark.parametrize("form", ["text", "tEXt", "iTXt", "zTXt"])
def test_p16_another_program_s_parameters_are_understood(client: TestClient, form: str) -> None:
    packed, text = zlib.compress(PARAMETERS.encode()), PARAMETERS.encode()
    body = {
        "text": text,
        "tEXt": png_with(b"tEXt", b"parameters\0" + text),
        "iTXt": png_with(b"iTXt", b"parameters\0\1\0\0\0" + packed),
        "zTXt": png_with(b"zTXt", b"parameters\0\0" + packed),
    }[form]
    found = send(client, body, "text/plain" if form == "text" else "image/png").json()
    request = found["request"]
    assert (found["source"], request["condition"], request["seed"]) == ("infotext", MOUNTAIN, 42)
    assert request["options"] == {
        "num_inference_steps": 20, "guidance_scale": 7.5, "sampler": "heun",
    }  # fmt: skip
    assert found["prompt"] == "snowy mountains, oil painting"
    assert any("v1-5" in remark for remark in found["remarks"])
    assert client.post("/api/v1/jobs", json=request).status_code == 202


OLD_SAMPLERS = ("ddpm", "dpm-solver++", "euler", "heun")


@pytest.fixture
def old_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A model trained before most samplers were there."""
    card = read_card(ZOO / "scenes")
    options = tuple(
        replace(option, choices=OLD_SAMPLERS) if option.name == "sampler" else option
        for option in card.options
    )
    (tmp_path / "models" / "old").mkdir(parents=True)
    written = replace(card, name="old", options=options).dumps()
    (tmp_path / "models" / "old" / "card.json").write_text(written, encoding="utf-8")
    monkeypatch.setenv("IZOGRAF_MODELS", str(tmp_path / "models"))
    return "old"


@pytest.mark.parametrize(("theirs", "ours"), [("DDIM", "euler"), ("Euler a", "ddpm")])
def test_a_sampler_the_model_lacks_is_the_same_method_by_another_name(
    old_model: str, client: TestClient, theirs: str, ours: str
) -> None:
    text = f"snowy mountains\nSteps: 20, Sampler: {theirs}, CFG scale: 7, Seed: 1, Size: 64x64"
    found = send(client, text, "text/plain", model=old_model).json()
    assert found["request"]["options"]["sampler"] == ours
    assert not found["remarks"]


def test_what_cannot_be_kept_is_said(client: TestClient) -> None:
    text = "a dog\nSteps: 5000, Sampler: Euler, CFG scale: 7, Seed: 1, Size: 64x64"
    found = send(client, text, "text/plain").json()
    assert found["request"]["condition"] == {"type": "none"}
    assert len(found["remarks"]) == 2
    assert_problem(send(client, text, "text/plain", model="nothing"), 404, "not_found")


@pytest.mark.parametrize(
    "body",
    [
        b"", b"GIF89a", b"\xff\xfe\0", SIGNATURE, SIGNATURE + b"\xff" * 30, b"no settings here",
        png_with(b"tEXt", b"comment\0hello"), png_with(b"zTXt", b"parameters\0\0not zlib"),
        png_with(b"zTXt", b"parameters\0\0" + zlib.compress(bytes(50_000_000))),
        png_with(b"tEXt", b"parameters\0" + b"x" * (LONGEST_TEXT + 1)),
        png_with(b"iTXt", b"izograf\0\0\0\0\0{}"),
        png_with(b"iTXt", b"izograf\0\0\0\0\0" + b"[" * 90_000),
        png_with(b"iTXt", b"izograf\0"), png_with(b"iTXt", b"izograf"),
    ],
    ids=lambda body: f"{len(body)} bytes",
)  # fmt: skip
def test_p8_a_damaged_or_hostile_file_is_refused(client: TestClient, body: bytes) -> None:
    response = send(client, body)
    assert_problem(response, 422, "invalid_input")


@pytest.mark.parametrize("value", ['"\\ud800"', "NaN", "1e999", "9" * 400])
def test_p8_a_stranger_s_record_is_not_believed(client: TestClient, value: str) -> None:
    image = made(client)[0]
    record = client.get(f"/api/v1/images/{image['id']}").json()["record"]
    record["request"]["options"]["odd"] = "ODD"
    text = json.dumps(record).replace('"ODD"', value)
    response = send(client, png_with(b"iTXt", b"izograf\0\0\0\0\0" + text.encode()))
    assert response.status_code in (200, 422), response.text
    if response.status_code == 200:
        assert response.json()["remarks"]


def test_more_bytes_than_allowed_are_refused(client: TestClient) -> None:
    assert_problem(send(client, b"x" * (2 << 20), "text/plain"), 413, "content_too_large")


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for body in (data, SIGNATURE + data, png_with(b"iTXt", b"izograf\0" + data)):
        with suppress(InvalidInput):
            assert isinstance(read_texts(body, ("izograf",)), dict)


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("a photo of the SEA, at night!", "sea"), ("закат над морем", None), ("к морю", "sea"),
        ("seaside", None), ("palm-beach", "palm_beach"), ("palms by the sea", "palm"),
        ("the sea with a palm", "sea"), ("", None), ("…", None),
    ],
)  # fmt: skip
def test_a_prompt_names_a_class(prompt: str, name: str | None) -> None:
    found = class_in_prompt(prompt, PLACES)
    assert (found and found.name) == name


def test_a_search_word_becomes_a_class() -> None:
    catalogue = Catalogue()
    assert search_text(catalogue, "Горы  7") == "mountain 7"
    assert search_text(catalogue, "зимние дома") == "зимние дома"
