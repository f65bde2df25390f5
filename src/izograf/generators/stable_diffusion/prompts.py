"""Prompts with weights: `(word)`, `(word:1.3)` and `[word]`, as the field writes them.

Round brackets stress what is inside by 1.1, or by the number before the closing one; square ones
divide by 1.1; they nest. A backslash makes a bracket a plain one, and so does a missing partner.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from izograf.schema.errors import InvalidInput

STRESS = 1.1
LARGEST_WEIGHT = 10.0
_PARTS = re.compile(r"\\[()\[\]\\]|:\s*(\d+(?:\.\d*)?|\.\d+)\s*\)|[()\[\]]|[^\\()\[\]:]+|.", re.S)


@dataclass
class Piece:
    """A stretch of a prompt and its weight; `bracket` is the opening one that it stands for."""

    text: str
    weight: float = 1.0
    bracket: str = ""


def weighted(prompt: str) -> Sequence[tuple[str, float]]:
    """The stretches of a prompt, in order, with their weights; neighbours differ in weight.

    Raises:
        InvalidInput: a weight is too large.
    """
    pieces: list[Piece] = []
    opened: list[int] = []
    for match in _PARTS.finditer(prompt):
        part, number = match[0], match[1]
        innermost = pieces[opened[-1]].bracket if opened else ""
        if len(part) == 2 and part[0] == "\\":
            pieces.append(Piece(part[1]))
        elif part in ("(", "["):
            opened.append(len(pieces))
            pieces.append(Piece(part, bracket=part))
        elif part == "]" and innermost == "[":
            _close(pieces, opened.pop(), 1 / STRESS)
        elif part == ")" and innermost == "(":
            _close(pieces, opened.pop(), STRESS)
        elif number is not None and innermost == "(":
            _close(pieces, opened.pop(), float(number))
        else:
            pieces.append(Piece(part))
    return _merged(pieces)


def _close(pieces: list[Piece], start: int, factor: float) -> None:
    pieces[start].text = ""
    for piece in pieces[start:]:
        piece.weight *= factor


def _merged(pieces: Sequence[Piece]) -> Sequence[tuple[str, float]]:
    merged: list[tuple[str, float]] = []
    for piece in pieces:
        if not piece.text:
            continue
        if piece.weight > LARGEST_WEIGHT:
            raise InvalidInput(
                f"A word of the prompt has the weight {piece.weight:g}: the largest is "
                f"{LARGEST_WEIGHT:g}, and from 0.5 to 1.5 is usual."
            )
        if merged and merged[-1][1] == piece.weight:
            merged[-1] = merged[-1][0] + piece.text, piece.weight
        else:
            merged.append((piece.text, piece.weight))
    return merged


def chunks(
    tokens: Sequence[tuple[int, float]], *, length: int, begin: int, end: int, pad: int
) -> tuple[Sequence[Sequence[int]], Sequence[Sequence[float]]]:
    """Token ids with weights as rows of `length`, each with its begin and end, and padded.

    No tokens give one empty row. Whatever is not a token of the prompt weighs 1.
    """
    inner = length - 2
    ids, weights = [], []
    for start in range(0, max(1, len(tokens)), inner):
        part = tokens[start : start + inner]
        row = [begin, *(token for token, _ in part), end]
        ids.append([*row, *[pad] * (length - len(row))])
        weights.append([1.0, *(weight for _, weight in part), *[1.0] * (length - 1 - len(part))])
    return ids, weights
