"""Pictures that begin with another: the interface, the dialect, and the page in Chromium."""

from __future__ import annotations

import base64
import io
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from api_support import MOUNTAIN, assert_problem, key_of, live, made
from fastapi.testclient import TestClient
from pages_support import browser, chromium, make_pictures, serious
from PIL import Image
from web_support import MakeService, wait_until_ended

from izograf.service.context import Service
from izograf.service.uploads import UploadLimits, read_upload

SIZE = (96, 64)
ORDER = {"model": "scenes", "condition": MOUNTAIN, "seed": 7, "options": {"strength": 0.5}}


def photo(
    colour: str = "red", size: tuple[int, int] = SIZE, kind: str = "PNG", **save: Any
) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, kind, **save)
    return buffer.getvalue()


def edit(client: TestClient, *, order: Any = ORDER, **files: Any) -> Any:
    data = {"order": json.dumps(order)}
    if "image_id" in files:
        data["image_id"] = files.pop("image_id")
    return client.post("/api/v1/edits", data=data, files={k: (k, v) for k, v in files.items()})


def test_an_upload_is_edited_and_the_result_verifies(client: TestClient, service: Service) -> None:
    answer = edit(client, picture=photo(kind="JPEG"), mask=photo("white"))
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"/api/v1/jobs/{answer.json()['id']}"
    job = wait_until_ended(client, answer.json()["id"])
    assert (job["status"], job["task"]) == ("done", "edit")
    (image,) = job["images"]
    stored = service.store.jobs.get(job["id"])
    record = client.get(f"/api/v1/images/{image['id']}").json()["record"]
    assert record["edited"] == {
        "picture": stored.inputs["original"], "mask": stored.inputs["mask"],
    }  # fmt: skip
    original = client.get(f"/api/v1/jobs/{job['id']}/original")
    assert original.headers["content-type"] == "image/png"
    with Image.open(io.BytesIO(original.content)) as kept:
        assert (kept.size, kept.mode) == (SIZE, "RGB")
    checked = client.post(f"/api/v1/images/{image['id']}/verify").json()
    assert wait_until_ended(client, checked["id"])["result"]["verdict"] == "bit-exact"


def test_a_picture_of_the_gallery_is_edited(client: TestClient, service: Service) -> None:
    first = made(client)[0]
    job = wait_until_ended(client, edit(client, image_id=first["id"]).json()["id"])
    assert job["status"] == "done"
    assert service.store.jobs.get(job["id"]).inputs == {"original": first["sha256"]}
    again = client.post(f"/api/v1/jobs/{job['id']}/retry").json()
    assert service.store.jobs.get(again["id"]).inputs == {"original": first["sha256"]}


def test_a_photograph_is_turned_upright_before_its_size_is_compared(client: TestClient) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = photo(kind="JPEG", exif=exif)
    assert edit(client, picture=lying, mask=photo("white", (64, 96))).status_code == 202
    refused = edit(client, picture=lying, mask=photo("white", (96, 64)))
    assert "The mask is 96 x 64 and the picture 64 x 96" in refused.json()["detail"]


@pytest.mark.parametrize(
    ("files", "changes", "status", "sentence"),
    [
        ({"picture": photo(), "mask": b""}, {}, 422, "The mask is an empty file"),
        ({"picture": photo()}, {"num_images": 1000}, 422, "send several"),
        ({}, {}, 422, "Give the picture to begin with"),
        ({"picture": photo(), "image_id": "img_x"}, {}, 422, "Give the picture to begin with"),
        ({"image_id": "img_00000000000000000000000000"}, {}, 404, ""),
        ({"picture": b"no picture"}, {}, 422, "no picture that can be read"),
        ({"picture": photo(), "mask": b"no"}, {}, 422, "no picture that can be read"),
        ({"picture": photo(), "mask": photo(size=(8, 8))}, {}, 422, "The mask is 8 x 8"),
        ({"picture": photo()}, {"model": "scenes-gan"}, 422, "cannot start from a picture"),
        ({"picture": photo()}, {"model": "nothing"}, 404, ""),
        ({"picture": photo()}, {"options": {"strength": 2}}, 422, "strength"),
        ({"picture": photo()}, {"unknown": 1}, 422, "The order cannot be read: unknown"),
        ({"picture": photo()}, {"towards": {"seed": 3}, "num_images": 2}, 422, "A strip cannot"),
    ],
)  # fmt: skip
def test_what_cannot_be_edited_is_one_sentence(
    client: TestClient,
    service: Service,
    files: dict[str, Any],
    changes: dict[str, Any],
    status: int,
    sentence: str,
) -> None:
    answer = edit(client, order=ORDER | changes, **files)
    assert sentence in assert_problem(answer, status, answer.json()["code"])
    assert sum(service.store.jobs.count_by_status().values()) == 0


def test_what_a_job_began_with_is_its_owners_only(make_service: MakeService) -> None:
    service = make_service(login="always")
    with browser(service) as client:
        ann, ben = ({"Authorization": f"Bearer {key_of(service, n)}"} for n in ("ann", "ben"))
        sent = client.post(
            "/api/v1/edits", data={"order": json.dumps(ORDER)}, files={"picture": photo()},
            headers=ann,
        )  # fmt: skip
        path = f"/api/v1/jobs/{sent.json()['id']}/original"
        assert client.get(path, headers=ann).status_code == 200
        assert client.get(path, headers=ben).status_code == 404


def test_a_job_that_began_with_nothing_has_no_original(client: TestClient) -> None:
    job = client.get("/api/v1/jobs/" + client.post("/api/v1/jobs", json=ORDER).json()["id"])
    answer = client.get(f"/api/v1/jobs/{job.json()['id']}/original")
    assert "did not begin with a picture" in assert_problem(answer, 404, "not_found")


def test_of_a_mask_with_transparency_the_transparent_is_white() -> None:
    layer = Image.new("RGBA", (4, 2), (10, 200, 30, 255))
    layer.putpixel((0, 0), (10, 200, 30, 0))
    buffer = io.BytesIO()
    layer.save(buffer, "PNG")
    limits = UploadLimits(1 << 20, 1 << 20)
    clean = read_upload(buffer.getvalue(), limits, as_mask=True)
    with Image.open(io.BytesIO(clean.png)) as read:
        levels = np.asarray(read)[..., 0]
    assert levels.tolist() == [[255, 0, 0, 0], [0, 0, 0, 0]]
    opaque = Image.new("RGBA", (2, 1), (0, 0, 0, 255))
    opaque.putpixel((1, 0), (255, 255, 255, 255))
    buffer = io.BytesIO()
    opaque.save(buffer, "PNG")
    for data, expected in [(photo("white", (2, 1)), [[255, 255]]), (buffer.getvalue(), [[0, 255]])]:
        clean = read_upload(data, limits, as_mask=True)
        with Image.open(io.BytesIO(clean.png)) as read:
            assert np.asarray(read)[..., 0].tolist() == expected


def test_what_is_refused_leaves_no_file_behind(client: TestClient, service: Service) -> None:
    before = files_of(service)
    edit(client, order=ORDER | {"options": {"strength": 2}}, picture=photo())
    edit(client, picture=photo(), mask=photo(size=(8, 8)))
    edit(client, order=ORDER | {"model": "scenes-gan"}, picture=photo())
    client.post("/edit", data=fields(number="many"), files={"picture": ("a.png", photo())})
    assert files_of(service) == before


def files_of(service: Service) -> set[str]:
    return {path.name for folder in service.store.files.folders() for path in folder.iterdir()}


def test_what_an_edited_picture_began_with_is_kept_as_long_as_it(
    client: TestClient, service: Service
) -> None:
    job = wait_until_ended(client, edit(client, picture=photo(), mask=photo("white")).json()["id"])
    inputs = service.store.jobs.get(job["id"]).inputs
    images = service.store.images
    images.sweep(grace=-1)
    assert all(map(service.store.files.exists, inputs.values()))
    images.delete([job["images"][0]["id"]])
    images.purge_deleted(time.time() + 1)
    images.sweep(grace=-1)
    assert not any(map(service.store.files.exists, inputs.values()))
    gone = client.get(f"/api/v1/jobs/{job['id']}/original")
    assert "no longer kept" in assert_problem(gone, 404, "not_found")


def test_an_edited_picture_brought_by_a_stranger_cannot_be_verified(client: TestClient) -> None:
    job = wait_until_ended(client, edit(client, picture=photo()).json()["id"])
    png = client.get(job["images"][0]["url"]).content
    headers = {"content-type": "image/png"}
    sent = client.post("/api/v1/verify", content=png, headers=headers).json()
    assert wait_until_ended(client, sent["id"])["result"]["verdict"] == "cannot"
    told = client.post("/api/v1/infotext", content=png, headers=headers).json()
    assert "began with another one" in told["remarks"][-1]


def test_openais_client_edits_pictures(make_service: MakeService) -> None:
    service = make_service(login="always")
    with live(service) as server:
        key = key_of(service, "ann")
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0) as client:
            answer = client.images.edit(
                image=("photo.png", photo()), mask=("mask.png", photo("white")),
                prompt="snowy mountains", n=2, response_format="b64_json",
                extra_body={"strength": 0.5, "seed": 7},
            )  # fmt: skip
            assert answer.data is not None
            assert len(answer.data) == 2
            assert base64.b64decode(answer.data[0].b64_json or "").startswith(b"\x89PNG")
            (job,) = service.store.jobs.list_jobs().items
            assert (job.task, job.request.seed) == ("edit", 7)
            assert job.request.options["strength"] == 0.5
            assert set(job.inputs) == {"original", "mask"}
            for body, sentence in [
                ({"seed": "x"}, "whole number"), ({"seed": "9" * 19}, "seed"),
                ({"seed": "9" * 5000}, "whole number"), ({"stream": "true"}, "Streaming is not"),
            ]:  # fmt: skip
                with pytest.raises(openai.BadRequestError, match=sentence):
                    client.images.edit(
                        image=("photo.png", photo()), prompt="mountain", extra_body=body
                    )


# --- the page


def fields(**changes: str) -> dict[str, str]:
    base = {"model": "scenes", "class": "sea", "number": "2", "seed": "5"}
    return base | {"option.strength": "0.4"} | changes


def test_the_page_works_without_scripts(service: Service) -> None:
    with browser(service) as page:
        assert "Your picture" in page.get("/edit").text
        sent = page.post("/edit", data=fields(), files={"picture": ("a.png", photo())})
        assert sent.url.path == "/edit", sent.text
        job_id = sent.url.params["job"]
        wait_until_ended(page, job_id)
        html = page.get(f"/edit?job={job_id}").text
        job = service.store.jobs.get(job_id)
        assert (job.task, job.request.condition["class"]) == ("edit", "sea")
        assert job.request.options["strength"] == 0.4
        assert f'src="/api/v1/jobs/{job_id}/original"' in html
        assert 'value="0.4"' in html, "the form stays as it was"
        for image in service.store.images.of_job(job_id):
            assert image.id in html
        again = page.post(
            "/edit", data=fields(job=job_id), files={"mask": ("m.png", photo("white"))}
        )
        second = service.store.jobs.get(again.url.params["job"])
        assert second.inputs["original"] == job.inputs["original"]
        assert "mask" in second.inputs
        assert 'name="same_mask"' in page.get(f"/edit?job={second.id}").text
        for data, inputs in [
            (fields(job=second.id, same_mask="1"), second.inputs),
            (fields(job=second.id), job.inputs),
        ]:
            kept = page.post("/edit", data=data, files={"mask": ("", b"")})
            assert service.store.jobs.get(kept.url.params["job"]).inputs == inputs
        wait_until_ended(page, second.id)
        html = page.get("/edit").text
        newest = [f'href="/edit?job={found}"' for found in (second.id, job_id)]
        assert html.index(newest[0]) < html.index(newest[1])
        assert newest[1] not in page.get(f"/edit?job={job_id}").text, "it is shown already"
        (first, *_) = service.store.images.of_job(job_id)
        third = page.post("/edit", data=fields(image=first.id))
        assert service.store.jobs.get(third.url.params["job"]).inputs == {"original": first.sha256}


@pytest.mark.parametrize(
    ("changes", "files", "sentence"),
    [
        ({}, {}, "Choose a picture to begin with."),
        ({}, {"picture": ("a.png", b"text")}, "no picture that can be read"),
        ({"option.strength": "7"}, {"picture": ("a.png", photo())}, "from 0.01 to 1"),
        ({}, {"picture": ("a.png", photo()), "mask": ("m.png", photo(size=(8, 8)))}, "8 x 8"),
        ({"number": "many"}, {"picture": ("a.png", photo())}, ""),
    ],
)
def test_the_page_says_what_is_wrong(
    service: Service, changes: dict[str, str], files: dict[str, Any], sentence: str
) -> None:
    with browser(service) as page:
        answer = page.post("/edit", data=fields(**changes), files=files or {"x": ("", b"")})
        assert answer.status_code == 422
        assert sentence in answer.text
        assert not files or "Choose the picture again" in answer.text
        assert 'value="5"' in answer.text, "what was typed is still there"
    assert sum(service.store.jobs.count_by_status().values()) == 0


def test_what_is_made_from_an_edited_picture_begins_with_the_same(service: Service) -> None:
    with browser(service) as page:
        sent = page.post("/edit", data=fields(), files={"picture": ("a.png", photo())})
        job = service.store.jobs.get(sent.url.params["job"])
        wait_until_ended(page, job.id)
        image = service.store.images.of_job(job.id)[1]
        html = page.get(f"/images/{image.id}").text
        assert html.count(f'href="/edit?job={job.id}&amp;seed={image.seed}"') == 2
        again = page.get(f"/?from={image.id}")
        assert again.url.path == "/edit"
        assert f'value="{image.seed}"' in again.text
        assert 'id="strip"' not in html
        shown = page.post(f"/images/{image.id}/vary")
        varied = service.store.jobs.get(shown.url.params["vary"])
        assert (varied.task, varied.inputs) == ("edit", job.inputs)
        checked = page.post(f"/images/{image.id}/verify")
        found = wait_until_ended(page, checked.url.params["verify"])
        assert found["result"]["verdict"] == "bit-exact"
        refused = page.post(f"/images/{image.id}/strip", data={"to_seed": "3", "frames": "2"})
        assert refused.status_code == 422
        assert "A strip begins with noise" in refused.text


def test_a_job_of_another_kind_is_not_shown_as_an_edit(service: Service) -> None:
    with browser(service) as page:
        (image, *_) = make_pictures(service, page)
        assert page.get(f"/edit?job={image.job_id}").status_code == 422
        html = page.get(f"/edit?job={image.job_id}&model=scenes").text
        assert f'value="{image.job_id}"' not in html
        assert "/original" not in html
        assert page.get("/edit?image=img_00000000000000000000000000").status_code == 404
        assert f'href="/edit?image={image.id}' in page.get(f"/images/{image.id}").text


def test_a_designer_marks_the_sky_and_gets_it_repainted(service: Service, tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(photo("blue"))
    with chromium(service, viewport={"width": 1280, "height": 1200}) as page:
        page.goto("/edit")
        assert page.locator("iz-mask-editor").is_hidden()
        page.set_input_files("#picture", str(tmp_path / "photo.png"))
        page.wait_for_selector('[data-mask="said"]:not(:empty)')
        box = page.locator('[data-mask="picture"]').bounding_box()
        page.click('[data-do="tool"][data-value="rectangle"]')
        page.mouse.move(box["x"] + 2, box["y"] + 2)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] - 2, box["y"] + box["height"] / 2, steps=3)
        page.mouse.up()
        page.select_option("#class", "sea")
        page.fill('[name="option.strength"]', "7")
        page.click("button.submit")
        page.wait_for_selector(".edit-order .field-error")
        assert page.input_value("#class") == "sea"
        page.fill('[name="option.strength"]', "1")
        page.click("button.submit")
        page.wait_for_selector(".edit-pictures .picture")
        (job,) = service.store.jobs.list_jobs().items
        mask = service.store.files.read(job.inputs["mask"])
        with Image.open(io.BytesIO(mask)) as read:
            levels = np.asarray(read)[..., 0]
        assert levels.shape == (64, 96)
        assert levels[4:28, 4:90].min() == 255
        assert levels[40:].max() == 0
        slider = page.locator(".overlay-slider")
        assert slider.get_attribute("aria-label") == "Before and after"
        assert serious(page) == []
        page.click("text=Go on with this one")
        page.wait_for_selector('[data-mask="said"]:not(:empty)')
        assert page.input_value("#model") == "scenes"
