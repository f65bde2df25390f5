"""From a request to pictures: named conditions, batches, provenance, PNG files, verification."""

from __future__ import annotations

import io
import json
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image, PngImagePlugin, UnidentifiedImageError
from torch import Tensor

from izograf import __version__
from izograf.core.backends import EAGER
from izograf.core.pixels import pixels_sha256, to_uint8
from izograf.core.rng import Blend, Seed
from izograf.core.storage import write_atomically
from izograf.core.types import DROPPED, Condition, Generator, OnStep, TextConditioned, ignore
from izograf.generators.original import Original
from izograf.generators.sheet import contact_sheet, to_pil
from izograf.generators.upscaler import UpscalerModel, load_upscaler
from izograf.schema.card import ModelCard
from izograf.schema.errors import InvalidInput, NotFound
from izograf.schema.options import OptionValue
from izograf.schema.record import (
    COMPOSITION,
    EDITED,
    POSITION,
    RECORD_KEY,
    UPSCALED,
    parse_record,
)
from izograf.schema.request import GenerationRequest
from izograf.schema.resolve import resolve_request
from izograf.schema.xmp import XMP_KEY, provenance_packet

BATCH_SIZE = 16
MAX_PIXELS = 4096 * 4096

Row = tuple[str | None, int]
"""One plain picture of a tensor: its class name, None where unconditioned, and its seed."""


@dataclass(frozen=True)
class Picture:
    """One generated picture, uint8 [3,H,W], and the record from which it can be made again."""

    seed: int
    pixels: Tensor
    record: Mapping[str, Any]


def render(
    generator: Generator,
    request: GenerationRequest,
    environment: Mapping[str, str],
    *,
    original: Original | None = None,
    batch_size: int = BATCH_SIZE,
    on_step: OnStep = ignore,
) -> Iterator[Picture]:
    """The pictures of a resolved request, in order, computed in batches.

    `environment` is `core.devices.fingerprint`; it goes into each record. With an `original` all
    of them start from that picture.
    """
    seeds = request.seeds
    for start in range(0, len(seeds), batch_size):
        batch = range(start, min(start + batch_size, len(seeds)))
        pixels = _render_batch(generator, request, batch, on_step, original)
        for position, picture in zip(batch, pixels, strict=True):
            made_in = _made_in(request, batch, position)
            if original is not None:
                made_in = {**made_in, EDITED: original.to_json()}
            yield recorded(picture, generator.card, request, seeds[position], made_in, environment)


def _made_in(request: GenerationRequest, batch: range, position: int) -> Mapping[str, Any]:
    """What the record of the picture at `position` says about the batch it was computed in."""
    if request.towards:
        return {"batch": [batch.start, len(batch)], POSITION: position}
    return {"batch": [request.seed + batch.start, len(batch)]}


def _render_batch(
    generator: Generator,
    request: GenerationRequest,
    batch: range,
    on_step: OnStep,
    original: Original | None,
) -> Tensor:
    """The pictures at the positions `batch` of a resolved request, uint8, in one tensor."""
    condition = condition_for(generator, request, batch)
    if original is not None:
        condition = original.condition(condition, len(batch))
    seeds = noise_seeds(request, batch)
    return to_uint8(generator.sample(condition, seeds, options=request.options, on_step=on_step))


def condition_for(generator: Generator, request: GenerationRequest, batch: range) -> Condition:
    """The condition of the pictures at the positions `batch` of a resolved request."""
    if request.condition.get("type") == "text":
        return _text_condition(generator, request.condition, len(batch))
    card = generator.card
    condition = class_condition(card, [request.condition.get("class")] * len(batch))
    name = request.towards.get("class")
    if name is None:
        return condition
    shares = torch.tensor([request.share(position) for position in batch], dtype=torch.float32)
    towards = class_condition(card, [str(name)] * len(batch))
    return replace(condition, towards_ids=towards.class_ids, share=shares)


def _text_condition(generator: Generator, asked: Mapping[str, str], count: int) -> Condition:
    if not isinstance(generator, TextConditioned):
        raise InvalidInput(f"{generator.card.name} does not read prompts.")
    condition = generator.text_condition([asked["prompt"]] * count)
    negative = asked.get("negative_prompt")
    if negative is None:
        return condition
    return replace(condition, negative=generator.text_condition([negative] * count))


def class_condition(card: ModelCard, names: Sequence[str | None]) -> Condition:
    """The condition of one class per picture, by identifier; None for no class.

    Raises:
        NotFound: the model has no class of that name.
    """
    if not any(name is not None for name in names):
        return Condition()
    known = {label.name: index for index, label in enumerate(card.classes)}
    if unknown := {name for name in names if name is not None and name not in known}:
        raise NotFound(f"{card.name} has no class {min(unknown)[:80]!r}.")
    ids = [DROPPED if name is None else known[name] for name in names]
    return Condition(class_ids=torch.tensor(ids, dtype=torch.int64))


def noise_seeds(request: GenerationRequest, batch: range) -> Sequence[Seed]:
    """What the noise of the pictures at the positions `batch` is drawn from."""
    if "seed" not in request.towards:
        return [request.seed + (0 if request.towards else position) for position in batch]
    end = int(request.towards["seed"])
    return [Blend(request.seed, end, request.share(position)) for position in batch]


def render_rows(
    generator: Generator,
    rows: Sequence[Row],
    options: Mapping[str, OptionValue],
    *,
    on_step: OnStep = ignore,
) -> Tensor:
    """Plain pictures of several requests, uint8 [B,3,H,W], computed in one tensor."""
    condition = class_condition(generator.card, [name for name, _ in rows])
    seeds = [seed for _, seed in rows]
    return to_uint8(generator.sample(condition, seeds, options=options, on_step=on_step))


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


def upscaled(picture: Picture, upscaler: UpscalerModel, name: str, factor: int) -> Picture:
    """The picture enlarged by the upscaler called `name`; its record says so.

    Raises:
        InvalidInput: as `UpscalerModel.enlarge`.
    """
    pixels = upscaler.enlarge_pixels(picture.pixels, factor)
    by = {"sha256": upscaler.card.fingerprint, "precision": upscaler.placement.precision}
    record = {
        **picture.record,
        UPSCALED: {"model": name, **by, "factor": factor},
        "pixels_sha256": pixels_sha256(pixels),
    }
    return Picture(picture.seed, pixels, record)


def encode_png(picture: Picture) -> bytes:
    """The bytes of a PNG of the picture with its record and an XMP packet inside."""
    info = PngImagePlugin.PngInfo()
    info.add_itxt(XMP_KEY, provenance_packet(str(picture.record["request"]["model"])))
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
    return _decoded(path, str(path))


def decode_png(png: bytes, *, name: str = "the picture") -> tuple[Tensor, Mapping[str, Any]]:
    """As `read_png`, of a file's bytes; `name` is what messages call it."""
    return _decoded(io.BytesIO(png), name)


def _decoded(source: Path | io.BytesIO, name: str) -> tuple[Tensor, Mapping[str, Any]]:
    named = name[:1].upper() + name[1:] if isinstance(source, io.BytesIO) else name
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # refused below
            opened = Image.open(source)
        with opened as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels are too many")
            image.load()
            text = getattr(image, "text", {}).get(RECORD_KEY)
            flat = torch.frombuffer(bytearray(image.convert("RGB").tobytes()), dtype=torch.uint8)
            pixels = flat.reshape(image.height, image.width, 3).permute(2, 0, 1).contiguous()
    except FileNotFoundError:
        raise NotFound(f"There is no file {name}.") from None
    except UnidentifiedImageError:
        raise InvalidInput(f"{named} is not a picture that can be read.") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InvalidInput(f"{named} cannot be read as a picture: {error}.") from error
    if text is None:
        raise InvalidInput(
            f"{named} carries no izograf record: it was not made here, or its metadata was removed."
        )
    return pixels, parse_record(text, source=name)


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

    def to_json(self) -> dict[str, Any]:
        """As JSON, which has no infinity: `psnr` is None when equal."""
        psnr = None if math.isinf(self.psnr) else round(self.psnr, 2)
        return {"verdict": self.verdict, "psnr": psnr, "remarks": list(self.remarks)}


CLOSE_PSNR = 40.0


def require_same_weights(card: ModelCard, name: str, record: Mapping[str, Any]) -> None:
    """
    Raises:
        InvalidInput: the model called `name` is not, or no longer, the one of the record.
    """
    if card.fingerprint != record["model_sha256"]:
        raise InvalidInput(
            f"the model {name} has other weights now than when the picture was made "
            f"(sha256 {record['model_sha256'][:12]}... was expected)."
        )


def verify(
    pixels: Tensor,
    record: Mapping[str, Any],
    generator: Generator,
    environment: Mapping[str, str],
    *,
    original: Original | None = None,
    on_step: OnStep = ignore,
) -> Verification:
    """Makes the picture again, in a batch like its first one, and compares the pixels.

    `record` is one that `read_png` gave; `original` is what an edited picture was made from.

    Raises:
        InvalidInput: it was enlarged by an upscaler that is not here, or made from a picture that
            was not given, or not from the one given.
    """
    remarks = []
    if pixels_sha256(pixels) != record["pixels_sha256"]:
        remarks.append("the picture was changed after it was made")
    before_choice = {"backend": EAGER}  # what records without it mean
    for key, before in (before_choice | dict(record["environment"])).items():
        if environment.get(key) != before:
            remarks.append(f"{key} was {before}, now {environment.get(key)}")
    upscaler = _upscaler_of(record, environment)
    _check_original(record, original)
    candidates = _made_again(generator, record, on_step, original)
    if upscaler is not None:
        factor = record[UPSCALED]["factor"]
        candidates = [upscaler.enlarge_pixels(picture, factor) for picture in candidates]
    if candidates[0].shape != pixels.shape:
        return Verification("different", 0.0, (*remarks, "the size differs"))
    error = min((ours.double() - pixels.double()).square().mean().item() for ours in candidates)
    psnr = math.inf if error == 0 else 10 * math.log10(255**2 / error)
    verdict = "bit-exact" if error == 0 else "close" if psnr >= CLOSE_PSNR else "different"
    return Verification(verdict, psnr, tuple(remarks))


def _upscaler_of(record: Mapping[str, Any], environment: Mapping[str, str]) -> UpscalerModel | None:
    """What enlarged the picture, on the device of its generator; None where nothing did."""
    if UPSCALED not in record:
        return None
    told, device = record[UPSCALED], environment.get("device", "auto")
    upscaler = load_upscaler(told["model"], device=device, precision=told["precision"])
    require_same_weights(upscaler.card, told["model"], {"model_sha256": told["sha256"]})
    return upscaler


def _check_original(record: Mapping[str, Any], original: Original | None) -> None:
    if EDITED not in record:
        if original is not None:
            raise InvalidInput("the picture was not made from another one: leave that out.")
        return
    if original is None:
        mask = " and its mask" if record[EDITED]["mask"] else ""
        raise InvalidInput(f"it was made from another picture: give that one{mask} as well.")
    original.require_same(record[EDITED])


def _made_again(
    generator: Generator,
    record: Mapping[str, Any],
    on_step: OnStep,
    original: Original | None,
) -> Sequence[Tensor]:
    """The picture, or every row of its mixed tensor that it can have been."""
    recorded_request = GenerationRequest.from_json(record["request"])
    request = resolve_request(generator.card, recorded_request)
    if COMPOSITION in record:
        rows: list[Row] = [(name, seed) for name, seed in record[COMPOSITION]]
        own = recorded_request.condition.get("class"), record["seed"]
        made = render_rows(generator, rows, request.options, on_step=on_step)
        return [picture for row, picture in zip(rows, made, strict=True) if row == own]
    first, count = record["batch"]
    start = first if request.towards else first - request.seed
    own_position = record[POSITION] if request.towards else record["seed"] - request.seed
    made = _render_batch(generator, request, range(start, start + count), on_step, original)
    return [made[own_position - start]]


def save_sheet(
    path: Path, pixels: Tensor, *, columns: int, row_labels: Sequence[str], scale: int
) -> None:
    """Writes pictures [N,3,H,W] uint8 as one labelled contact sheet, atomically."""
    buffer = io.BytesIO()
    sheet = contact_sheet(pixels, columns=columns, row_labels=row_labels, scale=scale)
    sheet.save(buffer, "PNG", optimize=True)
    write_atomically(path, buffer.getvalue())
