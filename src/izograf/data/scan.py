"""What reading a dataset found: pictures read, pictures skipped with the reason, warnings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from izograf.schema.errors import DataError

UNLABELLED = ""  # the key of `per_class` under which pictures without a class are counted
SHOWN = 5  # how many skipped pictures an error message names


class Unreadable(DataError):
    """One picture cannot be used; the message is the reason, without the picture's name."""


@dataclass(frozen=True)
class ScanReport:
    """The account of one reading of a dataset.

    Attributes:
        read: pictures that are in the set.
        skipped: (name, reason) of every picture that is not, in reading order.
        per_class: class name -> pictures read, in class order; `UNLABELLED` for those without.
        warnings: sentences about the set as a whole (one class only, nothing labelled, ...).
    """

    read: int
    skipped: tuple[tuple[str, str], ...] = ()
    per_class: Mapping[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def reasons(self) -> dict[str, int]:
        """Reason -> number of pictures skipped for it, most frequent first."""
        return dict(Counter(reason for _, reason in self.skipped).most_common())

    @property
    def unlabelled(self) -> int:
        """Pictures read that carry no class."""
        return self.per_class.get(UNLABELLED, 0)

    def summary(self) -> str:
        """One line for a terminal: `17,031 pictures read, 3 skipped (3 truncated)`."""
        line = f"{self.read:,} pictures read, {len(self.skipped):,} skipped"
        if not self.skipped:
            return line
        return line + " (" + ", ".join(f"{n:,} {why}" for why, n in self.reasons.items()) + ")"

    def raise_if_skipped(self, where: str) -> None:
        """Raises:
        DataError: any picture was skipped; the message names the first ones and why.
        """
        if not self.skipped:
            return
        count = len(self.skipped)
        raise DataError(
            f"{count:,} of {self.read + count:,} pictures in {where} cannot be used: "
            f"{_first(self.skipped)}. Repair or remove them, or read without strict to skip them."
        )

    def raise_if_empty(self, where: str) -> None:
        """Raises:
        DataError: nothing was read; the message names the first skipped pictures and why.
        """
        if self.read:
            return
        raise DataError(
            f"None of the {len(self.skipped):,} files in {where} is a readable picture: "
            f"{_first(self.skipped)}. Give JPEG, PNG, WebP, GIF, BMP or TIFF pictures."
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "read": self.read,
            "skipped": [list(item) for item in self.skipped],
            "reasons": self.reasons,
            "per_class": dict(self.per_class),
            "warnings": list(self.warnings),
        }

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> ScanReport:
        """The report written by `to_json`."""
        return cls(
            read=int(raw["read"]),
            skipped=tuple((str(name), str(reason)) for name, reason in raw["skipped"]),
            per_class={str(name): int(count) for name, count in raw["per_class"].items()},
            warnings=tuple(map(str, raw["warnings"])),
        )


def _first(skipped: tuple[tuple[str, str], ...]) -> str:
    shown = "; ".join(f"{name}: {reason}" for name, reason in skipped[:SHOWN])
    more = len(skipped) - SHOWN
    return shown + (f"; and {more:,} more" if more > 0 else "")


def scan_report(
    class_names: tuple[str, ...], class_ids: list[int], skipped: list[tuple[str, str]]
) -> ScanReport:
    """The report of a reading that gave one class index (or -1) per picture in `class_ids`."""
    counts = Counter(class_ids)
    unlabelled = counts.pop(-1, 0)
    per_class = {name: counts.get(index, 0) for index, name in enumerate(class_names)}
    warnings = []
    if class_ids and unlabelled == len(class_ids):
        warnings.append("No picture has a class: a model cannot be conditioned on classes.")
    elif unlabelled:
        warnings.append(f"{unlabelled:,} of {len(class_ids):,} pictures have no class.")
    if len(class_names) == 1:
        warnings.append(f"There is one class only, {class_names[0]}.")
    missing = [name for name, count in per_class.items() if not count]
    if missing and class_ids:
        warnings.append(f"No picture was read of: {', '.join(missing)}.")
    if unlabelled:
        per_class[UNLABELLED] = unlabelled
    return ScanReport(len(class_ids), tuple(skipped), per_class, tuple(warnings))
