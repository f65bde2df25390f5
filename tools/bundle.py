"""Copies a finished run into the zoo, with what its card should say beyond what training knows.

    python tools/bundle.py runs/scenes --summary "six kinds of scenes, 64 px" --notes "..."

The weights are copied as they are; the card keeps recipe, data and hashes. Scores are written
afterwards by `izograf evaluate NAME --record`.
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import replace
from pathlib import Path

from izograf.core.storage import file_sha256, write_atomically
from izograf.schema.card import ModelCard
from izograf.schema.library import CARD, ZOO, read_card
from izograf.schema.options import OptionSpec


def with_default(options: tuple[OptionSpec, ...], setting: str) -> tuple[OptionSpec, ...]:
    """The options with the default of one changed, checked: `guidance_scale=1.5`."""
    name, _, value = setting.partition("=")
    if name not in {option.name for option in options}:
        raise SystemExit(f"The card has no option {name!r}.")
    return tuple(
        replace(option, default=option.parse(value)) if option.name == name else option
        for option in options
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--summary", required=True)
    parser.add_argument("--notes", required=True, help="what is not good yet, in plain words")
    parser.add_argument("--default", action="append", default=[], help="option=value")
    arguments = parser.parse_args()
    card: ModelCard = read_card(arguments.run)
    for name, expected in card.weights.items():
        if file_sha256(arguments.run / name) != expected:
            raise SystemExit(f"{arguments.run / name} is not what its card describes.")
    options = card.options
    for setting in arguments.default:
        options = with_default(options, setting)
    card = replace(card, summary=arguments.summary, notes=arguments.notes, options=options)
    target = ZOO / card.name
    target.mkdir(parents=True, exist_ok=True)
    for name in card.weights:
        shutil.copyfile(arguments.run / name, target / name)
    write_atomically(target / CARD, card.dumps())
    print(target)  # noqa: T201


if __name__ == "__main__":
    main()
