"""Tables that describe pictures: CSV, TSV or JSON lines with a file name, class and split.

Recognised columns, in any case: `file_name` (or `filename`, `file`, `path`, `image`), `class` (or
`label`, `class_name`, `category`) and `split`. All columns are kept as they stand.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from izograf.data.layout import SPLITS, Split, safe_name
from izograf.schema.errors import DataError

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson")

_FILE = ("file_name", "filename", "file", "path", "image")
_CLASS = ("class", "label", "class_name", "category")
_SPLIT = ("split",)


@dataclass(frozen=True)
class Row:
    """One described picture: its path relative to the table, class and split where stated."""

    file_name: str
    class_name: str | None
    split: Split | None
    columns: Mapping[str, Any]


def read_table(content: bytes, name: str) -> dict[str, Row]:
    """File name -> row of the table `name`, whose suffix tells its format, in the file's order.

    Raises:
        DataError: not UTF-8, malformed, no file name, an unknown split, two classes or splits
            for one file, or a file name that leads outside the table's folder.
            The message gives the line.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{name} is not UTF-8 text: save it in the UTF-8 encoding.") from error
    is_json = name.lower().endswith(("jsonl", "ndjson"))
    lines = _json_lines(text, name) if is_json else _csv_lines(text, name)
    rows: dict[str, Row] = {}
    for number, columns in lines:
        row = _row(columns, f"{name}, line {number}")
        first = rows.setdefault(row.file_name, row)
        if (first.class_name, first.split) != (row.class_name, row.split):
            raise DataError(
                f"{name}, line {number}: {row.file_name} was listed before with another class or "
                "split. Keep one line per picture."
            )
    return rows


def _json_lines(text: str, name: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            columns = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{name}, line {number}, is not JSON: {error}.") from error
        if not isinstance(columns, dict):
            raise DataError(f"{name}, line {number}: expected a JSON object with a file_name.")
        yield number, columns


def _csv_lines(text: str, name: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    header = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=header.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        for columns in reader:
            if None in columns or None in columns.values():
                raise DataError(
                    f"{name}, line {reader.line_num}, has not as many cells as the header: "
                    "quote cells that contain the separator."
                )
            yield reader.line_num, columns
    except csv.Error as error:
        raise DataError(f"{name}, line {reader.line_num}, is not CSV: {error}.") from error


def _row(columns: Mapping[str, Any], where: str) -> Row:
    folded = {key.casefold().strip(): value for key, value in columns.items()}
    file_name = _first(folded, _FILE)
    if not isinstance(file_name, str) or not file_name.strip():
        raise DataError(f"{where}: no file_name. Give every row a column file_name.")
    class_name = _first(folded, _CLASS)
    if isinstance(class_name, dict | list):
        raise DataError(f"{where}: the class must be a single name or number.")
    split = _first(folded, _SPLIT)
    if split is not None and str(split).strip().casefold() not in SPLITS:
        raise DataError(f"{where}: unknown split {split!r}, expected train or test.")
    return Row(
        file_name=safe_name(file_name.strip(), where),
        class_name=None if class_name is None else str(class_name).strip(),
        split=None if split is None else SPLITS[str(split).strip().casefold()],
        columns=columns,
    )


def _first(folded: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    """The first of these columns that is present and not empty."""
    return next((folded[n] for n in names if folded.get(n) not in (None, "")), None)
