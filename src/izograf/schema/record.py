"""The record of a picture: how it was made, as JSON in its PNG and in its row of the gallery.

    version, request, seed, model_sha256, environment, pixels_sha256
    batch        [first seed, count] of the tensor it was computed in; of a strip's picture,
                 [first position, count]
    position     of a strip's picture only: which of the strip's pictures it is, from 0
    composition  of a tensor that mixed requests only: [class or null, seed] of every row
    edited       of a picture made from another only: sha256 of that `picture`'s pixels at the size
                 of the model, and of the `mask`'s, null without one
    upscaled     of a picture enlarged afterwards only: model, its sha256, precision, factor

Anybody can write a record, so nothing in it may be believed before it was looked at.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from izograf.schema.errors import InvalidInput
from izograf.schema.request import MAX_SEED, GenerationRequest

RECORD_KEY = "izograf"  # the PNG text chunk that carries the record
POSITION = "position"
COMPOSITION = "composition"
EDITED = "edited"
UPSCALED = "upscaled"
FACTORS = (2, 4, 8)  # by which pictures can be enlarged
MAX_BATCH = 256  # of a record that is to be verified


def parse_record(text: str, *, source: str) -> Mapping[str, Any]:
    """The record that a PNG carries, of the form described above.

    Raises:
        InvalidInput: it is malformed; the message names `source`.
    """
    try:
        record: Mapping[str, Any] = json.loads(text)
        _check(record)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise InvalidInput(f"The izograf record of {source} is malformed: {error}.") from error
    except InvalidInput as error:
        raise InvalidInput(f"The izograf record of {source} is malformed. {error}") from error
    return record


def check_factor(factor: object) -> None:
    """
    Raises:
        InvalidInput: pictures cannot be enlarged so many times.
    """
    if type(factor) is not int or factor not in FACTORS:
        raise InvalidInput(
            f"Pictures are enlarged {', '.join(map(str, FACTORS[:-1]))} or {FACTORS[-1]} times, "
            f"got {str(factor)[:40]}."
        )


def _check(record: Mapping[str, Any]) -> None:
    request = GenerationRequest.from_json(record["request"])
    for name, value in request.options.items():
        if not isinstance(value, bool | int | float | str):
            raise TypeError(f"the option {name} has no plain value")
    for key in ("model_sha256", "pixels_sha256"):
        if not isinstance(record[key], str):
            raise TypeError(f"{key} is not text")
    if not isinstance(record["environment"], dict):
        raise TypeError("environment is not an object")
    _check_batch(record, request)
    if COMPOSITION in record:
        _check_composition(record, request)
    if EDITED in record:
        _check_edited(record[EDITED])
    if UPSCALED in record:
        _check_upscaled(record[UPSCALED])


def _check_batch(record: Mapping[str, Any], request: GenerationRequest) -> None:
    first, count = record["batch"]
    seed, position = record["seed"], record[POSITION] if request.towards else 0
    if any(type(value) is not int for value in (first, count, seed, position)):
        raise TypeError("seed, batch and position are not whole numbers")
    start, own = (0, position) if request.towards else (request.seed, seed)
    end = start + request.num_images
    if not start <= first <= own < first + count <= min(end, first + MAX_BATCH):
        raise ValueError(f"no request for these seeds computes the batch {first}, {count}")
    if request.towards and seed != request.seed:
        raise ValueError("a strip's pictures all have the seed of its request")


def _check_composition(record: Mapping[str, Any], request: GenerationRequest) -> None:
    rows = record[COMPOSITION]
    if not isinstance(rows, list) or not 1 <= len(rows) <= MAX_BATCH or request.towards:
        raise TypeError("composition is no list of a batch's rows")
    for label, seed in rows:
        if not isinstance(label, str | None) or type(seed) is not int or not 0 <= seed <= MAX_SEED:
            raise TypeError("a row of composition is no class and seed")
    if [request.condition.get("class"), record["seed"]] not in rows:
        raise ValueError("the picture is no row of its composition")


def _check_edited(edited: Any) -> None:
    for part in ("picture", "mask"):
        value = edited[part]
        if value is None and part == "mask":
            continue
        if not isinstance(value, str) or not re.fullmatch(r"[0-9a-f]{64}", value):
            raise TypeError(f"{part} of edited is no sha256")


def _check_upscaled(upscaled: Any) -> None:
    for key in ("model", "sha256", "precision"):
        if not isinstance(upscaled[key], str):
            raise TypeError(f"{key} of upscaled is not text")
    check_factor(upscaled["factor"])
