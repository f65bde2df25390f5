"""Strips: pictures between two seeds, two classes, or both."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from izograf.checkpoints.load import load_generator
from izograf.core.devices import fingerprint
from izograf.core.pixels import pixels_sha256
from izograf.generators.render import (
    class_condition,
    decode_png,
    encode_png,
    render,
    render_rows,
    verify,
)
from izograf.schema.errors import NotFound
from izograf.schema.record import COMPOSITION
from izograf.schema.request import GenerationRequest
from izograf.schema.resolve import resolve_request

OPTIONS = {
    "diffusion": (
        {"num_inference_steps": 3},
        {"num_inference_steps": 3, "guidance_scale": 3.0, "sampler": "ddpm"},
        {"num_inference_steps": 3, "guidance_scale": 1.0, "sampler": "heun"},
    ),
    "latent": ({}, {"truncation": 0.7}, {"truncation": 0.0}),
    "vae": ({}, {"truncation": 0.7}, {"truncation": 0.0}),
}
WAYS = ({"seed": 90}, {"class": "forest"}, {"seed": 90, "class": "forest"})


@pytest.fixture(scope="module")
def loaded(model):
    generator, placement = load_generator(str(model), device="cpu", precision="fp32")
    return generator, fingerprint(placement)


def asked(generator, options: int = 0, **rest) -> GenerationRequest:
    given = {
        "model": "m", "condition": {"type": "class", "class": "sea"}, "num_images": 5, "seed": 4,
        "options": OPTIONS[generator.card.family][options],
    }  # fmt: skip
    return resolve_request(generator.card, GenerationRequest(**(given | rest)))


def pixels(loaded, request: GenerationRequest, batch_size: int = 16) -> Tensor:
    generator, environment = loaded
    made = render(generator, request, environment, batch_size=batch_size)
    return torch.stack([picture.pixels for picture in made])


def furthest(one: Tensor, other: Tensor) -> int:
    return int((one.int() - other.int()).abs().max())


@pytest.mark.parametrize("towards", WAYS)
@pytest.mark.parametrize("options", [0, 1, 2])
def test_the_ends_of_a_strip_are_the_plain_pictures(loaded, options, towards) -> None:
    generator, _ = loaded
    strip = pixels(loaded, asked(generator, options, towards=towards))
    end = {"type": "class", "class": towards.get("class", "sea")}
    start_alone = pixels(loaded, asked(generator, options, num_images=1))
    end_alone = pixels(
        loaded,
        asked(generator, options, num_images=1, condition=end, seed=towards.get("seed", 4)),
    )
    assert furthest(strip[:1], start_alone) <= 1
    assert furthest(strip[-1:], end_alone) <= 1


@pytest.mark.parametrize("towards", WAYS)
@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_a_picture_of_a_strip_does_not_depend_on_its_batch(loaded, batch_size, towards) -> None:
    request = asked(loaded[0], 1, towards=towards)
    assert furthest(pixels(loaded, request), pixels(loaded, request, batch_size)) <= 1


@pytest.mark.parametrize("towards", WAYS)
def test_each_step_of_the_way_changes_the_picture(loaded, towards) -> None:
    strip = pixels(loaded, asked(loaded[0], towards=towards, num_images=9)).double()
    steps = (strip[1:] - strip[:-1]).abs().mean((1, 2, 3))
    assert bool((steps > 0).all())


def test_a_strip_to_where_it_begins_stands_still(loaded) -> None:
    strip = pixels(loaded, asked(loaded[0], 1, towards={"seed": 4, "class": "sea"}))
    assert furthest(strip, strip[:1].expand_as(strip)) <= 1


@pytest.mark.parametrize("towards", WAYS)
@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_p7_a_strips_picture_verifies_bit_exactly(loaded, batch_size, towards) -> None:
    generator, environment = loaded
    request = asked(generator, 1, towards=towards)
    for position, picture in enumerate(
        render(generator, request, environment, batch_size=batch_size)
    ):
        assert (picture.seed, picture.record["position"]) == (4, position)
        read, record = decode_png(encode_png(picture))
        found = verify(read, record, generator, environment)
        assert (found.verdict, found.remarks) == ("bit-exact", ())


def test_plain_records_are_as_before(loaded) -> None:
    generator, environment = loaded
    (picture,) = render(generator, asked(generator, num_images=1), environment)
    assert "position" not in picture.record
    assert "towards" not in picture.record["request"]
    assert picture.record["batch"] == [4, 1]


def test_p7_a_picture_of_a_mixed_batch_verifies_bit_exactly(loaded) -> None:
    generator, environment = loaded
    request = asked(generator, 1, num_images=2)
    rows = [("forest", 8), ("sea", 4), ("sea", 5), ("forest", 4), ("sea", 4)]
    mixed = render_rows(generator, rows, request.options)
    (plain, *_) = render(generator, request, environment)
    mixing = {COMPOSITION: [list(row) for row in rows]}
    for row in (1, 4):
        record = dict(plain.record) | mixing | {"pixels_sha256": pixels_sha256(mixed[row])}
        found = verify(mixed[row], record, generator, environment)
        assert (found.verdict, found.remarks) == ("bit-exact", ())
    unknown = {COMPOSITION: [["castle", 1], ["sea", 4]]}
    with pytest.raises(NotFound, match="no class 'castle'"):
        verify(mixed[1], dict(plain.record) | unknown, generator, environment)


def test_rows_without_a_class_may_share_a_batch_with_others(loaded) -> None:
    generator, _ = loaded
    condition = class_condition(generator.card, ["sea", None])
    assert condition.class_ids is not None
    assert condition.class_ids.tolist() == [1, -1]
    assert class_condition(generator.card, [None, None]).class_ids is None
