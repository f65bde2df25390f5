"""CSV and JSON-lines tables: accepted spellings, and every mistake with its line."""

from __future__ import annotations

import pytest

from izograf.data.tables import read_table
from izograf.schema.errors import DataError


def summary(content: str | bytes, name: str = "t.csv") -> list[tuple[str, str | None, str | None]]:
    raw = content.encode() if isinstance(content, str) else content
    return [(r.file_name, r.class_name, r.split) for r in read_table(raw, name).values()]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_csv_with_any_separator(separator):
    lines = [
        "file_name|class|split|note",
        'a.jpg|sea|train|"x|y"',
        "d\\b.jpg|лес|TEST|",
        "c.jpg|||",
    ]
    text = "\n".join(lines).replace("|", separator)
    assert summary(text) == [
        ("a.jpg", "sea", "train"),
        ("d/b.jpg", "лес", "test"),
        ("c.jpg", None, None),
    ]


def test_byte_order_mark_windows_lines_and_other_spellings():
    content = "\ufeffFilename,Label\r\na.jpg,7\r\n".encode()
    assert summary(content) == [("a.jpg", "7", None)]


def test_all_columns_are_kept():
    (row,) = read_table(b'{"file_name": "a.png", "text": "x", "n": [1, 2]}\n\n', "t.jsonl").values()
    assert row.columns == {"file_name": "a.png", "text": "x", "n": [1, 2]}
    assert row.class_name is None


def test_json_labels_may_be_numbers():
    assert summary('{"image": "a.png", "label": 0, "split": "val"}', "t.jsonl") == [
        ("a.png", "0", "test")
    ]


def test_a_repeated_line_is_harmless_a_contradiction_is_not():
    assert summary("file_name,class\na,x\na,x") == [("a", "x", None)]
    with pytest.raises(DataError, match=r"line 3: a was listed before"):
        summary("file_name,class\na,x\na,y")


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (b"\xff\xfe\x00", "t.csv", "not UTF-8"),
        (b"name,class\na,b", "t.csv", "line 2: no file_name"),
        (b"file_name,class\na,b,c", "t.csv", "line 2, has not as many cells"),
        (b"file_name,class\na", "t.csv", "line 2, has not as many cells"),
        (b"file_name\n../../etc/passwd", "t.csv", "line 2 names '../../etc/passwd'"),
        (b"file_name\n/etc/passwd", "t.csv", "inside its own folder"),
        (b"file_name,split\na,middle", "t.csv", "unknown split 'middle'"),
        (b'file_name\n"' + b"x" * 200_000 + b'"', "t.csv", "is not CSV"),
        (b"{", "t.jsonl", "line 1, is not JSON"),
        (b'{"file_name": "a"}\n[1]', "t.jsonl", "line 2: expected a JSON object"),
        (b'{"file_name": 7}', "t.jsonl", "no file_name"),
        (b'{"file_name": "a", "class": ["x", "y"]}', "t.jsonl", "single name"),
        (b"[" * 100_000, "t.jsonl", "is not JSON"),
        (b'{"file_name": "..\\\\a"}', "t.jsonl", "inside its own folder"),
    ],
)
def test_mistakes_are_explained(content, name, message):
    with pytest.raises(DataError, match=message) as error:
        read_table(content, name)
    assert name in str(error.value)
