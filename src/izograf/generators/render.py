"""From a request to pictures: named conditions, batches, provenance, PNG files, verification."""

from __future__ import annotations

import hashlib
import io
import json
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image, PngImagePlugin, UnidentifiedImageError
from torch import Tensor

from izograf import __version__
from izograf.core.pixels import to_uint8
from izograf.core.storage import write_atomically
from izograf.core.types import Condition, Generator, OnStep, ignore
from izograf.generators.sheet import contact_sheet, to_pil
from izograf.schema.card import ModelCard
from izograf.schema.errors import InvalidInput, NotFound
from izograf.schema.labels import resolve_class
from izograf.schema.options import parse_options
from izograf.schema.request import GenerationRequest

RECORD_KEY = "izograf"  # the PNG text chunk that carries the record
BATCH_SIZE = 16
MAX_BATCH = 256  # of a record that is to be verified
MAX_PIXELS = 4096 * 4096


@dataclass(frozen=True)
class Picture:
    """One generated picture, uint8 [3,H,W], and the record from which it can be made again."""

    seed: int
    pixels: Tensor
    record: Mapping[str, Any]


def resolve_request(card: ModelCard, request: GenerationRequest) -> GenerationRequest:
    """The request with the class by its identifier and every option explicit, all checked.

    Raises:
        NotFound: unknown class; InvalidInput: a condition or an option the model does not take.
    """
    condition = dict(request.condition)
    kind = condition.get("type")
    if kind == "class" and "class" in condition:
        if not card.classes:
            raise InvalidInput(f"{card.name} has no classes: leave out --class.")
        condition["class"] = card.classes[resolve_class(condition["class"], card.classes)].name
    elif kind != "none":
        raise InvalidInput(f"{card.name} does not take the condition {condition}.")
    options = parse_options(request.options, card.options)
    return GenerationRequest(request.model, condition, request.num_images, request.seed, options)


def condition_for(card: ModelCard, request: GenerationRequest, count: int) -> Condition:
    """The condition tensor of a resolved request, for `count` images."""
    if request.condition.get("type") != "class":
        return Condition()
    index = [label.name for label in card.classes].index(request.condition["class"])
    return Condition(class_ids=torch.full((count,), index, dtype=torch.int64))


def render(
    generator: Generator,
    request: GenerationRequest,
    environment: Mapping[str, str],
    *,
    batch_size: int = BATCH_SIZE,
    on_step: OnStep = ignore,
) -> Iterator[Picture]:
    """The pictures of a resolved request, seed by seed, computed in batches.

    `environment` is `core.devices.fingerprint`; it goes into each record.
    """
    seeds = request.seeds
    for start in range(0, len(seeds), batch_size):
        batch = seeds[start : start + batch_size]
        pixels = _render_batch(generator, request, batch, on_step)
        for seed, picture in zip(batch, pixels, strict=True):
            made_in = {"batch": [batch[0], len(batch)]}
            yield recorded(picture, generator.card, request, seed, made_in, environment)


def recorded(
    pixels: Tensor,
    card: ModelCard,
    request: GenerationRequest,
    seed: int,
    made_in: Mapping[str, Any],
    environment: Mapping[str, str],
) -> Picture:
    """The picture with its record; `made_in` says which batch it was computed in."""
    record = {
        "version": __version__,
        "request": request.to_json(),
        "seed": seed,
        **made_in,
        "model_sha256": card.fingerprint,
        "environment": dict(environment),
        "pixels_sha256": pixels_sha256(pixels),
    }
    return Picture(seed, pixels, record)


def _render_batch(
    generator: Generator, request: GenerationRequest, seeds: Sequence[int], on_step: OnStep
) -> Tensor:
    condition = condition_for(generator.card, request, len(seeds))
    images = generator.sample(condition, seeds, options=request.options, on_step=on_step)
    return to_uint8(images)


def pixels_sha256(pixels: Tensor) -> str:
    """sha256 of the decoded pixels: size, then RGB bytes row by row."""
    _, height, width = pixels.shape
    digest = hashlib.sha256(f"{width}x{height}".encode())
    digest.update(pixels.permute(1, 2, 0).contiguous().numpy().tobytes())
    return digest.hexdigest()


def encode_png(picture: Picture) -> bytes:
    """The bytes of a PNG of the picture with its record inside."""
    info = PngImagePlugin.PngInfo()
    info.add_itxt(RECORD_KEY, json.dumps(picture.record, ensure_ascii=False))
    buffer = io.BytesIO()
    to_pil(picture.pixels).save(buffer, "PNG", pnginfo=info, optimize=True)
    return buffer.getvalue()


def save_png(path: Path, picture: Picture) -> None:
    """Writes the picture with its record as a PNG, atomically.

    Raises:
        StorageError: no permission or no space.
    """
    write_atomically(path, encode_png(picture))


def read_png(path: Path) -> tuple[Tensor, Mapping[str, Any]]:
    """The pixels [3,H,W] of a picture made here, and its record.

    Raises:
        NotFound: no such file.
        InvalidInput: not a PNG made by izograf, or its record is unreadable.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # refused below
            opened = Image.open(path)
        with opened as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels are too many")
            image.load()
            text = getattr(image, "text", {}).get(RECORD_KEY)
            flat = torch.frombuffer(bytearray(image.convert("RGB").tobytes()), dtype=torch.uint8)
            pixels = flat.reshape(image.height, image.width, 3).permute(2, 0, 1).contiguous()
    except FileNotFoundError:
        raise NotFound(f"There is no file {path}.") from None
    except UnidentifiedImageError:
        raise InvalidInput(f"{path} is not a picture that can be read.") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InvalidInput(f"{path} cannot be read as a picture: {error}.") from error
    if text is None:
        raise InvalidInput(
            f"{path} carries no izograf record: it was not made here, or its metadata was removed."
        )
    try:
        record = json.loads(text)
        _check_record(record)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise InvalidInput(f"The izograf record of {path} is malformed: {error}.") from error
    except InvalidInput as error:
        raise InvalidInput(f"The izograf record of {path} is malformed. {error}") from error
    return pixels, record


def _check_record(record: Any) -> None:
    """Anybody can write a record: nothing in it may be believed before it was looked at."""
    request = GenerationRequest.from_json(record["request"])
    for name, value in request.options.items():
        if not isinstance(value, bool | int | float | str):
            raise TypeError(f"the option {name} has no plain value")
    for key in ("model_sha256", "pixels_sha256"):
        if not isinstance(record[key], str):
            raise TypeError(f"{key} is not text")
    if not isinstance(record["environment"], dict):
        raise TypeError("environment is not an object")
    first, count = record["batch"]
    seed = record["seed"]
    if any(type(value) is not int for value in (first, count, seed)):
        raise TypeError("seed and batch are not whole numbers")
    end = request.seed + request.num_images
    if not request.seed <= first <= seed < first + count <= min(end, first + MAX_BATCH):
        raise ValueError(f"no request for these seeds computes the batch {first}, {count}")


@dataclass(frozen=True)
class Verification:
    """How a picture compares with its re-generation.

    Attributes:
        verdict: "bit-exact", "close" or "different".
        psnr: decibels between the two, infinite when equal.
        remarks: sentences about what differs from when the picture was made.
    """

    verdict: str
    psnr: float
    remarks: tuple[str, ...]


CLOSE_PSNR = 40.0


def verify(
    pixels: Tensor,
    record: Mapping[str, Any],
    generator: Generator,
    environment: Mapping[str, str],
) -> Verification:
    """Makes the picture again, in a batch like its first one, and compares the pixels.

    `record` is one that `read_png` gave.
    """
    remarks = []
    if pixels_sha256(pixels) != record["pixels_sha256"]:
        remarks.append("the picture was changed after it was made")
    for key, before in record["environment"].items():
        if environment.get(key) != before:
            remarks.append(f"{key} was {before}, now {environment.get(key)}")
    request = resolve_request(generator.card, GenerationRequest.from_json(record["request"]))
    first, count = record["batch"]
    again = _render_batch(generator, request, range(first, first + count), ignore)
    ours = again[record["seed"] - first]
    if ours.shape != pixels.shape:
        return Verification("different", 0.0, (*remarks, "the size differs"))
    error = (ours.double() - pixels.double()).square().mean().item()
    psnr = math.inf if error == 0 else 10 * math.log10(255**2 / error)
    verdict = "bit-exact" if error == 0 else "close" if psnr >= CLOSE_PSNR else "different"
    return Verification(verdict, psnr, tuple(remarks))


def save_sheet(
    path: Path, pixels: Tensor, *, columns: int, row_labels: Sequence[str], scale: int
) -> None:
    """Writes pictures [N,3,H,W] uint8 as one labelled contact sheet, atomically."""
    buffer = io.BytesIO()
    sheet = contact_sheet(pixels, columns=columns, row_labels=row_labels, scale=scale)
    sheet.save(buffer, "PNG", optimize=True)
    write_atomically(path, buffer.getvalue())
