"""Promise P8: bad pictures give one sentence, never a 5xx, and never take more than 256 MB."""

from __future__ import annotations

import contextlib
import io
import json
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from security_support import client_of
from web_support import wait_until_ended

from izograf.service import uploads
from izograf.service.app import create_app
from izograf.service.uploads import UnusablePicture, UploadLimits, read_upload, with_text

LIMITS = UploadLimits(max_bytes=20 << 20, max_pixels=40_000_000)
MEMORY = 256 << 20
SIGNATURE = b"\x89PNG\r\n\x1a\n"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_with(*chunks: bytes, width: int = 2, height: int = 2) -> bytes:
    """A tiny grey PNG with more chunks after its header."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    rows = zlib.compress((b"\0" + b"\x80" * width) * height)
    body = [header, *chunks, chunk(b"IDAT", rows), chunk(b"IEND", b"")]
    return SIGNATURE + b"".join(body)


def bomb(size: int) -> bytes:
    """A deflate stream of some kilobytes that unpacks to `size` bytes."""
    packer, out = zlib.compressobj(9), b""
    for _ in range(size // (1 << 20)):
        out += packer.compress(bytes(1 << 20))
    return out + packer.flush()


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    target = io.BytesIO()
    image.save(target, kind, **options)
    return target.getvalue()


def huge_png(side: int = 30_000) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    packer, out = zlib.compressobj(9), b""
    row = bytes(1 + (side + 7) // 8)
    for _ in range(side):
        out += packer.compress(row)
    return SIGNATURE + header + chunk(b"IDAT", out + packer.flush()) + chunk(b"IEND", b"")


def lying_png() -> bytes:
    """Says 2 x 2, and unpacks to a hundred megabytes."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 8, 0, 0, 0, 0))
    return SIGNATURE + header + chunk(b"IDAT", bomb(100 << 20)) + chunk(b"IEND", b"")


def many_frames(count: int = 10_000) -> bytes:
    """A GIF of `count` frames of one pixel, each with its own picture."""
    head = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    frame = (
        b"\x21\xf9\x04\0\x0a\0\0\0" + b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0)
        + b"\x02\x02\x44\x01\0"
    )  # fmt: skip
    return head + frame * count + b"\x3b"


def noise(mode: str = "RGB", size: tuple[int, int] = (64, 48)) -> Image.Image:
    depth = len(Image.new(mode, (1, 1)).getbands())
    levels = np.random.default_rng(1).integers(0, 256, (size[1], size[0], depth), dtype=np.uint8)
    return Image.fromarray(levels if depth > 1 else levels[..., 0], mode if depth > 1 else "L")


def truncated_jpeg() -> bytes:
    whole = encoded(noise(size=(300, 300)), "JPEG")
    return whole[: len(whole) // 2]


def animated_png() -> bytes:
    frames = [noise(size=(8, 8)), Image.new("RGB", (8, 8), "red")]
    return encoded(frames[0], "PNG", save_all=True, append_images=frames[1:])


REFUSED: Mapping[str, Callable[[], bytes]] = {
    "no bytes": lambda: b"",
    "one byte": lambda: b"\x89",
    "text": lambda: b"hello",
    "30,000 x 30,000 PNG": huge_png,
    "PNG that says 2^31 x 2^31": lambda: png_with(width=2, height=2).replace(
        struct.pack(">II", 2, 2), struct.pack(">II", 2**31 - 1, 2**31 - 1)
    ),
    "zTXt bomb": lambda: png_with(*[chunk(b"zTXt", b"a\0\0" + bomb(100 << 20))] * 4),
    "iTXt bomb": lambda: png_with(chunk(b"iTXt", b"a\0\1\0\0\0" + bomb(100 << 20))),
    "iCCP bomb": lambda: png_with(chunk(b"iCCP", b"a\0\0" + bomb(100 << 20))),
    "10,000-frame GIF": many_frames,
    "animated PNG": animated_png,
    "animated WebP": lambda: encoded(
        noise(), "WEBP", save_all=True, append_images=[Image.new("RGB", (64, 48))]
    ),
    "truncated JPEG": truncated_jpeg,
    "truncated PNG": lambda: encoded(noise(), "PNG")[:-500],
    "JPEG of one marker": lambda: b"\xff\xd8\xff",
    "BMP of a header": lambda: b"BM" + bytes(20),
    "BMP that says 2^31 wide": lambda: b"BM" + bytes(8) + struct.pack(
        "<IIiiHHIIiiII", 54, 40, 2**31 - 1, 2**31 - 1, 1, 24, 0, 0, 0, 0, 0, 0
    ),
    "SVG": lambda: SVG,
    "SVG behind a GIF's name": lambda: b"GIF89a" + SVG,
    "HTML": lambda: b"<!doctype html><script>alert(1)</script>",
    "PDF": lambda: b"%PDF-1.7\n",
    "ZIP": lambda: b"PK\x03\x04" + bytes(100),
    "PostScript": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "TIFF": lambda: encoded(noise(), "TIFF"),
    "ICO": lambda: encoded(noise(), "ICO"),
    "pickle": lambda: b"\x80\x04\x95\x00",
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_p8_what_is_no_usable_picture_is_refused_in_a_sentence(name: str) -> None:
    data, began = REFUSED[name](), time.monotonic()
    with pytest.raises(UnusablePicture) as caught:
        read_upload(data, LIMITS)
    assert time.monotonic() - began < 20
    sentence = str(caught.value)
    assert sentence.endswith(".")
    assert len(sentence) < 200
    assert caught.value.http_status == 422


MEASURED = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("child", sys.argv[1])
child = importlib.util.module_from_spec(spec)
spec.loader.exec_module(child)
try:
    child.main(sys.argv[2:])
finally:
    status = open("/proc/self/status").read().split("VmPeak:")[1]
    sys.stderr.write(status.split()[0])
"""


def peak_bytes(data: bytes, *, as_mask: bool = False) -> int:
    """The most address space that reading this took."""
    limits = [LIMITS.max_pixels, LIMITS.max_frames, LIMITS.memory_bytes, LIMITS.cpu_seconds]
    numbers = map(str, [*limits, int(as_mask)])
    command = [sys.executable, "-I", "-c", MEASURED, str(uploads._CHILD), *numbers]
    done = subprocess.run(command, input=data, capture_output=True, check=True)
    return int(done.stderr) * 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_p8_no_child_takes_more_than_256_mb() -> None:
    gradient = Image.linear_gradient("L").resize((5000, 4000))
    accepted = [gradient.convert("RGB"), Image.new("RGBA", (4000, 3000))]
    files = [make() for make in REFUSED.values()] + [lying_png()]
    files += [encoded(picture, "PNG", compress_level=1) for picture in accepted]
    files.append(encoded(Image.new("RGBA", (6000, 6000)), "PNG"))
    peaks = [peak_bytes(data) for data in files]
    peaks += [peak_bytes(data, as_mask=True) for data in files[-3:]]
    assert 100 << 20 < max(peaks) <= MEMORY, "no file came near the limit, or one went beyond"
    for picture in accepted:
        assert read_upload(encoded(picture, "PNG"), LIMITS).width == picture.width


def test_p8_a_picture_beyond_the_memory_is_refused_not_fatal() -> None:
    with pytest.raises(UnusablePicture, match="too much memory or time"):
        read_upload(encoded(Image.new("RGBA", (6000, 6000)), "PNG"), LIMITS)


def test_p8_a_decoder_that_does_not_come_back_is_stopped() -> None:
    tight = UploadLimits(20 << 20, 40_000_000, cpu_seconds=1, wall_seconds=0.01)
    with pytest.raises(UnusablePicture, match="too much memory or time"):
        read_upload(encoded(noise(), "PNG"), tight)


def test_p8_the_limits_hold_to_the_byte_and_the_pixel() -> None:
    picture = encoded(noise(size=(10, 10)), "PNG")
    assert read_upload(picture, UploadLimits(len(picture), 100)).width == 10
    with pytest.raises(UnusablePicture, match="too large"):
        read_upload(picture, UploadLimits(len(picture) - 1, 100))
    with pytest.raises(UnusablePicture, match="99 pixels"):
        read_upload(picture, UploadLimits(len(picture), 99))


def pixels(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
        assert image.info == {}
        return np.asarray(image)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "WEBP", "JPEG"])
def test_p8_the_known_formats_are_read(kind: str) -> None:
    original = Image.new("RGB", (64, 48), (200, 30, 60))
    clean = read_upload(encoded(original, kind), LIMITS)
    assert (clean.width, clean.height) == (64, 48)
    assert np.abs(pixels(clean.png).astype(int) - np.asarray(original)).max() <= 4


def test_p8_cmyk_becomes_rgb() -> None:
    clean = read_upload(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"), LIMITS)
    red, green, blue = pixels(clean.png)[4, 4]
    assert red > 200 > 60 > max(green, blue)


def test_p8_sixteen_bits_become_eight_by_scaling() -> None:
    levels = np.linspace(0, 65535, 256, dtype=np.uint16).reshape(16, 16)
    clean = read_upload(encoded(Image.fromarray(levels), "PNG"), LIMITS)
    expected = (levels / 257).round().astype(int)
    assert np.abs(pixels(clean.png)[..., 0].astype(int) - expected).max() <= 1


def test_p8_transparency_becomes_white() -> None:
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([255, 0, 0, 0, 255, 0])
    palette.putpixel((0, 0), 1)
    pictures = {
        "palette": encoded(palette, "PNG", transparency=0),
        "alpha": encoded(Image.new("RGBA", (4, 4), (255, 0, 0, 0)), "PNG"),
        "grey alpha": encoded(Image.new("LA", (4, 4), (0, 0)), "PNG"),
        "gif": encoded(palette, "GIF", transparency=0),
    }
    for name, picture in pictures.items():
        assert tuple(pixels(read_upload(picture, LIMITS).png)[3, 3]) == (255, 255, 255), name
    assert tuple(pixels(read_upload(pictures["palette"], LIMITS).png)[0, 0]) == (0, 255, 0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_p8_a_camera_that_lay_on_its_side_is_turned_upright(orientation: int) -> None:
    upright = Image.new("RGB", (40, 20), "white")
    upright.paste("black", (0, 0, 20, 10))
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Pillow's Transpose that undoes each
    stored = upright
    if orientation > 1:
        stored = upright.transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    clean = read_upload(encoded(stored, "JPEG", exif=exif, quality=95), LIMITS)
    assert (clean.width, clean.height) == (40, 20)
    assert np.abs(pixels(clean.png).astype(int) - np.asarray(upright)).mean() < 8


def test_p8_metadata_and_whatever_else_a_file_was_do_not_survive() -> None:
    secrets = PngInfo()
    secrets.add_text("Author", "Somebody Private")
    exif = Image.Exif()
    exif[0x010F] = "Private Camera"
    picture = encoded(noise(), "PNG", pnginfo=secrets, exif=exif, dpi=(300, 300))
    polyglots = {
        "zip behind": picture + b"PK\x03\x04 evil.py",
        "page behind": picture + b"<script>alert(1)</script>",
        "jpeg with a page": encoded(noise(), "JPEG", comment=b"<script>alert(1)</script>"),
        "gif with a script": encoded(noise(), "GIF", comment=b"*/=alert(1)/*"),
    }
    for name, polyglot in polyglots.items():
        clean = read_upload(polyglot, LIMITS).png
        assert clean.endswith(b"IEND\xaeB`\x82"), name
        for trace in (b"PK\x03\x04", b"script", b"alert", b"Private", b"Author", b"eXIf", b"pHYs"):
            assert trace not in clean, (name, trace)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_p8_damaged_files_are_refused_or_read_but_never_fail(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "BMP"]))
    whole = bytearray(encoded(noise(size=(24, 24)), kind))
    for _ in range(data.draw(st.integers(1, 8))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(UnusablePicture):
        pixels(read_upload(bytes(whole), LIMITS).png)


def test_p8_only_two_pictures_are_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    inside, most, lock = [0], [0], threading.Lock()

    def slow(*_: object, **__: object) -> bytes:
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        time.sleep(0.05)
        with lock:
            inside[0] -= 1
        return b'{"width": 1, "height": 1}\n'

    monkeypatch.setattr(uploads, "_ask_child", slow)
    threads = [threading.Thread(target=read_upload, args=(SIGNATURE, LIMITS)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] == uploads.AT_ONCE == 2


@pytest.fixture
def client(make_service: Any) -> Iterator[TestClient]:
    with client_of(create_app(make_service())) as made:
        yield made


@pytest.mark.parametrize("name", REFUSED)
def test_p8_no_upload_gives_a_5xx(client: TestClient, name: str) -> None:
    data = REFUSED[name]()
    png = {"content-type": "image/png"}
    for path in ("/api/v1/verify", "/api/v1/infotext"):
        answer = client.post(path, content=data, headers=png)
        assert answer.status_code == 422, (path, answer.text[:300])
        assert answer.json()["detail"].endswith(".")


def made_here(client: TestClient, **more: Any) -> bytes:
    """A picture of this service, as downloaded."""
    order = {"model": "scenes", "condition": {"type": "class", "class": "sea"}, "seed": 3}
    job = client.post("/api/v1/jobs", json=order | more).json()["id"]
    wait_until_ended(client, job)
    image = client.get(f"/api/v1/images?job_id={job}").json()["items"][0]["id"]
    return client.get(f"/api/v1/images/{image}/file").content


def test_a_picture_made_here_can_be_brought_back_and_verified(client: TestClient) -> None:
    picture = made_here(client)
    answer = client.post("/api/v1/verify", content=picture, headers={"content-type": "image/png"})
    assert answer.status_code == 202, answer.text
    job = wait_until_ended(client, answer.json()["id"])
    assert job["status"] == "done", job
    assert job["result"]["verdict"] == "bit-exact"
    changed = noise(size=Image.open(io.BytesIO(picture)).size)
    record = next(t for t in texts_of(picture) if t.startswith("{"))
    forged = with_text(read_upload(encoded(changed, "PNG"), LIMITS).png, "izograf", record)
    answer = client.post("/api/v1/verify", content=forged, headers={"content-type": "image/png"})
    job = wait_until_ended(client, answer.json()["id"])
    assert job["result"]["verdict"] == "different"


def texts_of(png: bytes) -> list[str]:
    with Image.open(io.BytesIO(png)) as image:
        image.load()
        return [str(text) for text in image.text.values()]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"model": "../../etc/passwd"}, 404),
        ({"model": "nothing-like-it"}, 404),
        ({"options": {"num_inference_steps": 10**9}}, 422),
        ({"options": {"num_inference_steps": "__import__('os')"}}, 422),
        ({"condition": {"type": "class", "class": "nothing like it"}}, 404),
        ({"condition": {"type": "surprise"}}, 422),
        ({"num_images": 10**6}, 422),
        ({"seed": -1}, 422),
        ({"seed": 2**64}, 422),
    ],
)
def test_a_strangers_record_is_believed_in_nothing(
    client: TestClient, changes: dict[str, Any], status: int
) -> None:
    picture = made_here(client)
    record = json.loads(next(t for t in texts_of(picture) if t.startswith("{")))
    record["request"] |= changes
    forged = with_text(read_upload(picture, LIMITS).png, "izograf", json.dumps(record))
    answer = client.post("/api/v1/verify", content=forged, headers={"content-type": "image/png"})
    assert answer.status_code == status, answer.text


def test_a_record_that_asks_for_a_vast_batch_is_refused(client: TestClient) -> None:
    picture = made_here(client)
    record = json.loads(next(t for t in texts_of(picture) if t.startswith("{")))
    record["request"] |= {"num_images": 200}
    record["batch"] = [record["seed"], 200]
    forged = with_text(read_upload(picture, LIMITS).png, "izograf", json.dumps(record))
    answer = client.post("/api/v1/verify", content=forged, headers={"content-type": "image/png"})
    assert answer.status_code == 422
    assert "batch of 200" in answer.json()["detail"]


def test_the_settings_of_a_picture_come_back_by_the_page(client: TestClient) -> None:
    files = {"picture": ("x.png", made_here(client), "image/png")}
    answer = client.post("/import", files=files)
    assert answer.status_code in (200, 303)
    link = answer.headers.get("location") or answer.text
    assert "seed=3" in link
    other = png_with(chunk(b"tEXt", b"parameters\0the sea\nSteps: 20, Sampler: Euler, Seed: 42"))
    answer = client.post("/import", files={"picture": ("x.png", other, "image/png")})
    assert "seed=42" in (answer.headers.get("location") or answer.text)
    for bad in (b"", b"GIF89a", png_with(), png_with(chunk(b"tEXt", b"parameters\0<b>"))):
        answer = client.post("/import", files={"picture": ("x.png", bad, "image/png")})
        assert answer.status_code == 422
        assert "<b>" not in answer.text
    assert client.post("/import").status_code == 422
