"""MATLAB's struct arrays, against scipy's writer."""

from __future__ import annotations

import contextlib
import io
import random

import numpy as np
import pytest
from scipy import io as scipy_io

from izograf.data import matfile
from izograf.data.matfile import read_structs

FIELDS = [("ID", object), ("WNID", object), ("words", object), ("children", object)]
ROWS = [
    (1.0, "n02119789", "kit fox, Vulpes macrotis", np.array([], np.float64)),
    (1000, "n01", "ё", np.array([4, 5, 70000], np.int32)),
]


@pytest.fixture(params=[False, True])
def written(request):
    table = np.empty((2, 1), dtype=FIELDS)
    for index, row in enumerate(ROWS):
        table[index, 0] = row
    file = io.BytesIO()
    values = {"version": 3.5, "note": "text", "synsets": table}
    scipy_io.savemat(file, values, do_compression=request.param)
    return file.getvalue()


def test_rows_are_read(written):
    assert read_structs(written) == {
        "synsets": [
            {"ID": 1.0, "WNID": "n02119789", "words": "kit fox, Vulpes macrotis", "children": []},
            {"ID": 1000, "WNID": "n01", "words": "ё", "children": [4, 5, 70000]},
        ]
    }


def test_damage_is_a_value_error(written):
    for content in (b"", written[:-9], written[:128] + b"\1", b"x" * 200):
        if content != written[:-9] or written[128] != 15:  # a compressed tail may be all checksum
            with pytest.raises(ValueError):  # noqa: PT011  many reasons
                read_structs(content)
    chance = random.Random(0)
    for _ in range(300):
        content = bytearray(written)
        for _ in range(chance.randint(1, 4)):
            content[chance.randrange(len(content))] = chance.randrange(256)
        with contextlib.suppress(ValueError):
            read_structs(bytes(content))


def test_a_bomb_is_not_unpacked(written, monkeypatch):
    if written[128] != 15:
        pytest.skip("not compressed")
    monkeypatch.setattr(matfile, "MAX_UNPACKED_BYTES", 100)
    with pytest.raises(ValueError, match="unpacked too large"):
        read_structs(written)
