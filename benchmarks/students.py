"""A few-step student against its teacher: from the request to the bytes of the PNG files.

Both draw the same seeds and classes with the defaults of their cards, alternating, on the backend
that `izograf generate` takes by itself. Distances are those on the cards (`izograf evaluate NAME
--record`), so this says what the speed costs.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable

from common import Check, Report, Table, alternate, ratio, start

# isort: split
from izograf.checkpoints.load import load_generator
from izograf.core.devices import fingerprint
from izograf.generators.render import encode_png, render
from izograf.schema.card import ModelCard
from izograf.schema.request import GenerationRequest
from izograf.schema.resolve import resolve_request

PAIRS = (("scenes", "scenes-fast"),)
BATCHES = (1, 16)
DISTANCE = "FD-squeezenet1.1"
FASTER, FARTHER = 4.0, 1.15  # how many times, at least and at most


def drawing(name: str, count: int) -> Callable[[], object]:
    """What makes `count` pictures of the model, with their files."""
    generator, placement = load_generator(name)
    label = generator.card.classes[0].name
    condition = {"type": "class", "class": label}
    request = resolve_request(generator.card, GenerationRequest(name, condition, count))
    environment = fingerprint(placement)
    return lambda: [encode_png(picture) for picture in render(generator, request, environment)]


def distance(card: ModelCard) -> float:
    """The distance on the card, NaN where there is none."""
    found = [float(score["value"]) for score in card.metrics if score.get("name") == DISTANCE]
    return found[0] if found else float("nan")


def main(options: argparse.Namespace) -> int:
    report = Report("students", "each model's own")
    table = Table("From request to PNG, milliseconds a picture")
    for teacher, student in PAIRS:
        for count in BATCHES[:1] if options.quick else BATCHES:
            subjects = {name: drawing(name, count) for name in (teacher, student)}
            seconds = alternate(subjects, rounds=1 if options.quick else 3 * options.rounds)
            faster = ratio(seconds[teacher], seconds[student])
            taken = {name: 1e3 * statistics.median(seconds[name]) / count for name in subjects}
            table.rows.append({"pictures": count, **taken, "times faster": faster})
            what = f"{student} against {teacher}, {count} at a time"
            report.checks.append(Check(what, faster, FASTER))
        cards = [load_generator(name)[0].card for name in (teacher, student)]
        farther = distance(cards[1]) / distance(cards[0])
        what = f"{DISTANCE} of {student} over that of {teacher}, from their cards"
        report.checks.append(Check(what, farther, FARTHER, at_most=True))
    report.tables.append(table)
    return report.show(options)


if __name__ == "__main__":
    sys.exit(main(start(__doc__)))
