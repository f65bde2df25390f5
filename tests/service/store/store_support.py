"""What tests of the store share: the databases they run on, a clock and identifiers."""

from __future__ import annotations

import random

from izograf.store.ids import Ids

KINDS = ("sqlite", "postgresql")


class Clock:
    """A clock that ticks a millisecond whenever it is read, and jumps when told."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


def seeded_ids(clock: Clock) -> Ids:
    return Ids(clock, random.Random(0).randbytes)
