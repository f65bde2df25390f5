"""From a request to pictures: seeds, batches, records, and the way back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageFont, PngImagePlugin

from izograf.checkpoints.load import load_generator
from izograf.core.devices import fingerprint
from izograf.core.pixels import pixels_sha256
from izograf.core.types import Condition
from izograf.generators import sheet as sheet_module
from izograf.generators.render import (
    decode_png,
    read_png,
    render,
    save_png,
    verify,
)
from izograf.generators.sheet import (
    GAP,
    contact_sheet,
    drawable,
    has_letter,
    label_font,
    to_pil,
)
from izograf.schema.errors import Cancelled, InvalidInput, NotFound
from izograf.schema.record import MAX_BATCH, RECORD_KEY
from izograf.schema.request import GenerationRequest
from izograf.schema.resolve import resolve_request
from izograf.schema.xmp import provenance_packet

FEW = {"diffusion": {"num_inference_steps": 3}, "latent": {}, "vae": {}}


@pytest.fixture(scope="module")
def loaded(model):
    generator, placement = load_generator(str(model), device="cpu", precision="fp32")
    return generator, fingerprint(placement)


def request_for(generator, count: int, *, seed: int = 0, word: str = "sea") -> GenerationRequest:
    given = GenerationRequest(
        "m", {"type": "class", "class": word}, count, seed, FEW[generator.card.family]
    )
    return resolve_request(generator.card, given)


def pictures(loaded, count: int, batch_size: int, *, seed: int = 0) -> list:
    generator, environment = loaded
    request = request_for(generator, count, seed=seed)
    return list(render(generator, request, environment, batch_size=batch_size))


@pytest.mark.parametrize("batch_size", [1, 4, 7])
def test_a_picture_does_not_depend_on_its_batch(loaded, batch_size) -> None:
    whole = pictures(loaded, 7, 16)
    parted = pictures(loaded, 7, batch_size)
    for one, other in zip(whole, parted, strict=True):
        assert one.seed == other.seed
        assert (one.pixels.int() - other.pixels.int()).abs().max() <= 1


def test_a_picture_depends_on_its_seed_alone(loaded) -> None:
    whole = pictures(loaded, 5, 1)
    later = pictures(loaded, 2, 1, seed=3)
    assert [picture.seed for picture in later] == [3, 4]
    for one, other in zip(whole[3:], later, strict=True):
        assert torch.equal(one.pixels, other.pixels)
    assert len({pixels_sha256(picture.pixels) for picture in whole}) == 5


def test_equal_requests_give_equal_pixels(loaded) -> None:
    first, second = pictures(loaded, 3, 16), pictures(loaded, 3, 16)
    assert [p.record for p in first] == [p.record for p in second]
    assert all(torch.equal(a.pixels, b.pixels) for a, b in zip(first, second, strict=True))


def test_classes_differ_for_one_seed(loaded) -> None:
    generator, environment = loaded
    sea, forest = (
        next(render(generator, request_for(generator, 1, word=word), environment)).pixels
        for word in ("море", "Forests")
    )
    assert (sea.float() - forest.float()).abs().mean() > 5


def test_a_step_callback_can_stop_the_sampling(loaded) -> None:
    generator, environment = loaded

    def stop(step: int, num_steps: int, preview: torch.Tensor) -> None:
        assert preview.shape == (2, 3, 16, 16)
        assert 1 <= step <= num_steps
        raise Cancelled

    request = request_for(generator, 2)
    with pytest.raises(Cancelled):
        next(render(generator, request, environment, on_step=stop))


def test_samples_are_floats_in_range_on_the_cpu(loaded) -> None:
    generator, _ = loaded
    condition = Condition(class_ids=torch.tensor([0, 1]))
    x = generator.sample(condition, [5, 6], options=FEW[generator.card.family])
    assert (x.shape, x.dtype, x.device.type) == ((2, 3, 16, 16), torch.float32, "cpu")
    assert x.abs().max() <= 1


def test_a_request_is_resolved_to_identifiers_and_explicit_options(loaded) -> None:
    generator, _ = loaded
    resolved = request_for(generator, 1, word="  МОРЯ ")
    assert resolved.condition == {"type": "class", "class": "sea"}
    assert set(resolved.options) == {spec.name for spec in generator.card.options}
    assert resolve_request(generator.card, resolved) == resolved


@pytest.mark.parametrize(
    ("condition", "error"),
    [
        ({"type": "class", "class": "се"}, NotFound),
        ({"type": "text", "prompt": "sea"}, InvalidInput),
        ({}, InvalidInput),
    ],
)
def test_conditions_a_model_does_not_take_are_refused(loaded, condition, error) -> None:
    with pytest.raises(error):
        resolve_request(loaded[0].card, GenerationRequest("m", condition))


def test_a_record_says_everything_needed_to_make_the_picture_again(loaded, tmp_path) -> None:
    generator, environment = loaded
    picture = pictures(loaded, 6, 4, seed=10)[5]
    save_png(tmp_path / "x.png", picture)
    pixels, record = read_png(tmp_path / "x.png")
    assert torch.equal(pixels, picture.pixels)
    assert record["seed"] == 15
    assert record["batch"] == [14, 2]
    assert record["model_sha256"] == generator.card.fingerprint
    assert record["environment"] == environment
    assert record["pixels_sha256"] == pixels_sha256(pixels)
    found = verify(pixels, record, generator, environment)
    assert (found.verdict, found.remarks) == ("bit-exact", ())


def test_a_changed_picture_is_noticed(loaded) -> None:
    generator, environment = loaded
    picture = pictures(loaded, 1, 1)[0]
    slightly = picture.pixels.clone()
    slightly[0, 0, 0] ^= 1
    found = verify(slightly, picture.record, generator, environment)
    assert found.verdict == "close"
    assert found.remarks == ("the picture was changed after it was made",)
    found = verify(255 - picture.pixels, picture.record, generator, environment)
    assert found.verdict == "different"
    found = verify(picture.pixels[:, :8], picture.record, generator, environment)
    assert found.verdict == "different"
    assert "the size differs" in found.remarks


def test_another_environment_is_remarked(loaded) -> None:
    generator, environment = loaded
    picture = pictures(loaded, 1, 1)[0]
    found = verify(picture.pixels, picture.record, generator, environment | {"threads": "99"})
    assert found.remarks == (f"threads was {environment['threads']}, now 99",)


def rewritten(source: Path, target: Path, text: str) -> Path:
    info = PngImagePlugin.PngInfo()
    info.add_itxt(RECORD_KEY, text)
    with Image.open(source) as image:
        image.save(target, "PNG", pnginfo=info)
    return target


GOOD = GenerationRequest("m", {"type": "class", "class": "sea"}, 4, 0, {"truncation": 1.0})


def record(**changes: object) -> str:
    good = {
        "version": "0", "request": GOOD.to_json(), "seed": 1, "batch": [0, 4],
        "model_sha256": "ab", "environment": {}, "pixels_sha256": "cd",
    }  # fmt: skip
    return json.dumps(good | changes)


def request(**changes: object) -> dict:
    return GOOD.to_json() | changes


TAMPERED = {
    "not json": "sea, seed 7",
    "a list": "[]",
    "empty": "{}",
    "deep": "[" * 100_000,
    "no request": record(request=None),
    "request a list": record(request=[]),
    "no options": record(request=request(options=None)),
    "nested option": record(request=request(options={"truncation": [1]})),
    "null option": record(request=request(options={"truncation": None})),
    "huge seed": record(request=request(seed=10**30)),
    "infinite seed": record(request=request(seed=float("inf"))),
    "no pictures": record(request=request(num_images=0)),
    "a million pictures": record(request=request(num_images=10**6)),
    "seed outside the batch": record(seed=4),
    "seed a text": record(seed="1"),
    "seed a truth": record(seed=True),
    "huge batch": record(batch=[0, MAX_BATCH + 1], request=request(num_images=MAX_BATCH + 1)),
    "batch beyond the request": record(batch=[0, 5]),
    "batch before the request": record(batch=[-1, 4]),
    "batch of one number": record(batch=[0]),
    "batch of texts": record(batch=["0", "4"]),
    "batch a number": record(batch=4),
    "empty batch": record(batch=[1, 0]),
    "environment a text": record(environment="here"),
    "hash a number": record(model_sha256=5),
    "pixels hash missing": record(pixels_sha256=None),
    "composition a text": record(composition="sea"),
    "composition empty": record(composition=[]),
    "composition without the picture": record(composition=[["sea", 2], ["forest", 1]]),
    "composition of numbers": record(composition=[["sea", 1], 4]),
    "composition of odd rows": record(composition=[["sea", 1], ["sea", 1, 2]]),
    "composition of huge seeds": record(composition=[["sea", 1], ["sea", 2**63]]),
    "composition too long": record(composition=[["sea", 1]] * (MAX_BATCH + 1)),
    "strip of one": record(request=request(num_images=1, towards={"seed": 2}), position=0),
    "strip to nowhere": record(request=request(towards={"there": 2}), seed=0, position=1),
    "strip without position": record(request=request(towards={"seed": 2}), seed=0),
    "position outside": record(request=request(towards={"seed": 2}), seed=0, position=4),
    "position a text": record(request=request(towards={"seed": 2}), seed=0, position="1"),
    "strip of another seed": record(request=request(towards={"seed": 2}), position=1),
    "strip in a mixed batch": record(
        request=request(towards={"seed": 2}), seed=0, position=1, composition=[["sea", 0]]
    ),
}


def test_the_record_the_tampered_ones_are_made_of_is_good(tmp_path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "plain.png")
    _, read = read_png(rewritten(tmp_path / "plain.png", tmp_path / "x.png", record()))
    assert read["seed"] == 1


@pytest.mark.parametrize("text", TAMPERED.values(), ids=TAMPERED)
def test_a_tampered_record_is_malformed_and_nothing_worse(tmp_path, text) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "plain.png")
    path = rewritten(tmp_path / "plain.png", tmp_path / "x.png", text)
    with pytest.raises(InvalidInput, match=r"record of .* is malformed"):
        read_png(path)


def test_records_of_strips_and_of_mixed_batches_are_read(tmp_path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "plain.png")
    strip = record(request=request(towards={"seed": 2}), seed=0, position=1)
    mixed = record(composition=[["forest", 9], ["sea", 1]])
    for text in (strip, mixed):
        _, read = read_png(rewritten(tmp_path / "plain.png", tmp_path / "x.png", text))
        assert read == json.loads(text)


def test_the_bytes_of_a_file_are_read_like_the_file(tmp_path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "plain.png")
    path = rewritten(tmp_path / "plain.png", tmp_path / "x.png", record())
    pixels, read = decode_png(path.read_bytes())
    assert torch.equal(pixels, read_png(path)[0])
    assert read == read_png(path)[1]
    with pytest.raises(InvalidInput, match=r"^The picture carries no izograf record"):
        decode_png((tmp_path / "plain.png").read_bytes())
    with pytest.raises(InvalidInput, match="record of the picture is malformed"):
        decode_png(rewritten(path, tmp_path / "y.png", "{}").read_bytes())
    with pytest.raises(InvalidInput, match=r"^The picture is not a picture"):
        decode_png(b"text")


def test_a_picture_says_to_other_programs_what_made_it(loaded, tmp_path) -> None:
    save_png(tmp_path / "x.png", pictures(loaded, 1, 1)[0])
    with Image.open(tmp_path / "x.png") as image:
        packet = image.text["XML:com.adobe.xmp"]
    assert packet == provenance_packet("m")
    assert "newscodes/digitalsourcetype/trainedAlgorithmicMedia" in packet


def test_what_is_no_picture_of_ours_is_told_apart(tmp_path) -> None:
    with pytest.raises(NotFound, match="There is no file"):
        read_png(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("text")
    with pytest.raises(InvalidInput, match="not a picture that can be read"):
        read_png(tmp_path / "text.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "plain.png")
    with pytest.raises(InvalidInput, match="carries no izograf record"):
        read_png(tmp_path / "plain.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "photo.jpg")
    with pytest.raises(InvalidInput, match="carries no izograf record"):
        read_png(tmp_path / "photo.jpg")
    whole = (tmp_path / "plain.png").read_bytes()
    for count in (8, 30, len(whole) - 20):
        (tmp_path / "cut.png").write_bytes(whole[:count])
        with pytest.raises(InvalidInput):
            read_png(tmp_path / "cut.png")
    with pytest.raises(InvalidInput):
        read_png(tmp_path)


def test_a_gigantic_picture_is_refused_before_it_is_decoded(tmp_path) -> None:
    Image.new("1", (20_000, 8_000)).save(tmp_path / "large.png")
    with pytest.raises(InvalidInput, match="cannot be read as a picture"):
        read_png(tmp_path / "large.png")


def test_a_sheet_has_a_cell_for_every_picture_and_keeps_the_pixels() -> None:
    pixels = torch.randint(0, 256, (5, 3, 16, 16), dtype=torch.uint8)
    sheet = contact_sheet(pixels, columns=3, scale=2)
    assert sheet.size == (GAP + 3 * (32 + GAP), GAP + 2 * (32 + GAP))
    cell = sheet.crop((GAP, GAP, GAP + 32, GAP + 32)).resize((16, 16), Image.Resampling.NEAREST)
    assert cell.tobytes() == to_pil(pixels[0]).tobytes()


def test_row_labels_make_room_for_themselves_in_any_script() -> None:
    pixels = torch.zeros((2, 3, 16, 16), dtype=torch.uint8)
    plain = contact_sheet(pixels, columns=1)
    labelled = contact_sheet(pixels, columns=1, row_labels=["mountain (горы)", "sea (море)"])
    assert labelled.width > plain.width
    assert labelled.height == plain.height


def test_letters_a_font_lacks_are_left_out_and_not_drawn_as_boxes() -> None:
    latin = ImageFont.load_default(12)
    assert has_letter(latin, "m")
    assert not has_letter(latin, "ж")
    assert drawable("mountain (горы)", latin) == "mountain"


def test_a_font_with_every_letter_is_preferred(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "mountain (горы)"
    font = label_font(12, text)
    assert drawable(font=font, label=text) in (text, "mountain")
    monkeypatch.setattr(sheet_module, "FONTS", ())
    assert drawable(text, label_font(12, text)) == "mountain"
