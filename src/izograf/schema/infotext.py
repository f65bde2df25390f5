"""Reads how other programs say a picture was made: the "parameters" text of AUTOMATIC1111's WebUI.

    a lighthouse at night, oil painting
    Negative prompt: blurry, text
    Steps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7.5, Seed: 42, Size: 512x768, Model: v1-5

SD.Next, Forge and many sites write the same form. Standard library only.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from izograf.schema.errors import InvalidInput
from izograf.schema.options import OptionValue
from izograf.schema.request import MAX_SEED

INFOTEXT_KEY = "parameters"  # the PNG text chunk that carries it
LONGEST = 200_000
LARGEST = 1 << 16  # pixels along an edge

# their sampler's name, case-folded, without its schedule -> ours, or what is nearest to it
SAMPLERS: Mapping[str, str] = {
    "euler": "euler",
    "euler a": "euler-ancestral",
    "euler ancestral": "euler-ancestral",
    "euler_ancestral": "euler-ancestral",
    "ddim": "ddim",
    "ddpm": "ddpm",
    "heun": "heun",
    "plms": "plms",
    "pndm": "plms",
    "dpm++ 2m": "dpm-solver++",
    "dpmpp_2m": "dpm-solver++",
    "dpm++ 2m sde": "dpm-solver++-sde",
    "dpmpp_2m_sde": "dpm-solver++-sde",
    "dpm++ sde": "dpm-solver++-sde",  # theirs is singlestep
    "dpmpp_sde": "dpm-solver++-sde",
    "dpm++ 2s": "dpm-solver++-2s",
    "dpm++ 2s a": "dpm-solver++-2s",  # theirs draws noise
    "dpmpp_2s_ancestral": "dpm-solver++-2s",
    "unipc": "unipc",
    "uni_pc": "unipc",
    "uni_pc_bh2": "unipc",
}
# the same method with its own defaults, for models whose cards lack ours
EQUAL: Mapping[str, str] = {"ddim": "euler", "euler-ancestral": "ddpm"}
SCHEDULES: Mapping[str, str] = {"karras": "karras", "exponential": "exponential"}
_KNOWN = frozenset({"steps", "sampler", "cfg scale", "seed", "size", "model", "model hash"})


@dataclass(frozen=True)
class Infotext:
    """What the text says, in our terms.

    Attributes:
        model: their model's name; it names nothing here.
        seed: None where it says none, or one that does not fit 63 bits.
        width, height: pixels.
        options: our options as far as theirs have one: `num_inference_steps`, `guidance_scale`,
            `sampler`, `schedule`. To be checked against a card like any others.
        settings: everything the settings line says, as it is written there.
    """

    prompt: str = ""
    negative_prompt: str = ""
    model: str = ""
    seed: int | None = None
    width: int | None = None
    height: int | None = None
    options: Mapping[str, OptionValue] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)


def parse_infotext(text: str) -> Infotext:
    """What the text says. Settings without meaning here are left as they are, never an error.

    Raises:
        InvalidInput: it is longer than any such text, or has no line of settings.
    """
    if len(text) > LONGEST:
        raise InvalidInput(f"The parameters have {len(text):,} characters, at most {LONGEST:,}.")
    lines = text.replace("\r\n", "\n").strip().split("\n")
    last = _settings_line(lines)
    settings = dict(_pairs(lines[last]))
    told = {key.casefold(): value for key, value in settings.items()}
    prompt, negative = _prompts(lines[:last])
    width, height = _size(told.get("size", ""))
    return Infotext(
        prompt=prompt,
        negative_prompt=negative,
        model=told.get("model", ""),
        seed=_whole(told.get("seed", ""), MAX_SEED),
        width=width,
        height=height,
        options=_options(told),
        settings=settings,
    )


def _settings_line(lines: list[str]) -> int:
    """Which line holds the settings: the last one that begins with the steps or knows three."""
    for index in reversed(range(len(lines))):
        keys = {key.casefold() for key, _ in _pairs(lines[index])}
        if lines[index].lstrip().startswith("Steps:") or len(keys & _KNOWN) >= 3:
            return index
    raise InvalidInput("The parameters have no line of settings such as `Steps: 20, Seed: 7`.")


def _prompts(lines: list[str]) -> tuple[str, str]:
    mark = "Negative prompt:"
    split = next((i for i, line in enumerate(lines) if line.startswith(mark)), len(lines))
    prompt, negative = "\n".join(lines[:split]), "\n".join(lines[split:])
    return prompt.strip(), negative.removeprefix(mark).strip()


def _pairs(line: str) -> Iterator[tuple[str, str]]:
    """The `key: value` pairs between commas; a value in quotes is JSON text."""
    for piece in _pieces(line):
        key, colon, value = (part.strip() for part in piece.partition(":"))
        if colon and key:
            yield key, _unquoted(value)


def _pieces(line: str) -> Iterator[str]:
    """The parts of a line between commas that are not inside quotes."""
    piece: list[str] = []
    quoted = escaped = False
    for letter in line:
        if letter == "," and not quoted:
            yield "".join(piece)
            piece = []
            continue
        if letter == '"' and not escaped:
            quoted = not quoted
        escaped = letter == "\\" and not escaped
        piece.append(letter)
    yield "".join(piece)


def _unquoted(value: str) -> str:
    if value.startswith('"'):
        try:
            return str(json.loads(value))
        except (ValueError, RecursionError):
            return value
    return value


def _options(told: Mapping[str, str]) -> dict[str, OptionValue]:
    steps, guidance = _whole(told.get("steps", ""), 10**6), _number(told.get("cfg scale", ""))
    sampler, schedule = _sampler(told.get("sampler", "").casefold())
    schedule = SCHEDULES.get(told.get("schedule type", "").casefold(), schedule)
    found = {
        "num_inference_steps": steps,
        "guidance_scale": guidance,
        "sampler": sampler,
        "schedule": schedule,
    }
    return {name: value for name, value in found.items() if value is not None}


def _sampler(name: str) -> tuple[str | None, str | None]:
    """Our sampler and schedule; older versions write both as one name, `DPM++ 2M Karras`."""
    method, _, schedule = name.rpartition(" ")
    if schedule in SCHEDULES:
        return SAMPLERS.get(method), SCHEDULES[schedule]
    return SAMPLERS.get(name), None


def _size(text: str) -> tuple[int | None, int | None]:
    width, _, height = text.partition("x")
    edges = _whole(width, LARGEST), _whole(height, LARGEST)
    return edges if None not in edges and 0 not in edges else (None, None)


def _whole(text: str, largest: int) -> int | None:
    if not (text.isascii() and text.isdigit() and len(text) <= 20):
        return None
    return int(text) if int(text) <= largest else None


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
