"""OpenVINO's programs: for which batches, kept where, made again when; and who hears of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from izograf.acceleration import conversion, programs
from izograf.acceleration import openvino as module
from izograf.acceleration.openvino import LARGEST_BATCH, parts
from izograf.core.backends import BACKENDS, OPENVINO
from izograf.core.devices import Placement, Precision
from izograf.core.types import Condition
from izograf.schema.errors import InvalidInput

REASON = BACKENDS[OPENVINO].missing()
with_openvino = pytest.mark.skipif(bool(REASON), reason=REASON)


@given(st.integers(1, 100))
def test_parts_cover_a_batch_in_few_sizes_and_little_waste(count: int) -> None:
    found = list(parts(count))
    rows = [row for part, _ in found for row in range(part.start, part.stop)]
    assert rows == list(range(count))
    for part, size in found:
        assert size in (1, 2, 4, 8, LARGEST_BATCH)
        assert 4 * (part.stop - part.start) >= 3 * size
    assert len(found) <= count // LARGEST_BATCH + 4


class Doubling(nn.Module):
    """The smallest generator: (z [B,2], Condition) -> 2 z w."""

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((2,), weight), requires_grad=False)

    def forward(self, z: Tensor, condition: Condition) -> Tensor:
        del condition
        return 2 * z * self.weight


Placed = Callable[..., nn.Module]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IZOGRAF_CACHE", str(tmp_path))
    return tmp_path / "programs"


def answer(weight: float = 1.0, *, identity: str = "one", precision: Precision = "fp32") -> Tensor:
    placement = Placement("cpu", precision, OPENVINO)
    network = BACKENDS[OPENVINO].place(
        Doubling(weight), placement, kind="generator", identity=identity
    )
    answered: Tensor = network(torch.ones(3, 2), Condition())
    return answered


@with_openvino
def test_a_program_is_made_once_and_then_read(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = answer()
    assert torch.equal(first, torch.full((3, 2), 2.0))
    assert len(list(cache.iterdir())) == 1

    def never(*_: object) -> None:
        raise AssertionError("it was made again")

    monkeypatch.setattr(module, "compiled", never)
    assert torch.equal(answer(), first)


@with_openvino
def test_another_network_weight_or_precision_is_another_program(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer()
    assert float(answer(3.0)[0, 0]) == 6
    answer(identity="two")
    answer(precision="bf16")
    assert len(list(cache.iterdir())) == 4
    monkeypatch.setattr(programs, "source_digest", lambda: "other code")
    answer()
    assert len(list(cache.iterdir())) == 5


@with_openvino
@pytest.mark.parametrize("damage", [lambda _: b"", lambda _: b"not a program", lambda b: b[:-99]])
def test_a_damaged_program_is_made_again(cache: Path, damage: Callable[[bytes], bytes]) -> None:
    answer()
    (kept,) = cache.iterdir()
    whole = kept.stat().st_size  # which varies by a few bytes of names
    kept.write_bytes(damage(kept.read_bytes()))
    assert float(answer()[0, 0]) == 2
    assert kept.stat().st_size == pytest.approx(whole, abs=99 / 2)


@with_openvino
def test_a_cache_that_cannot_be_written_is_done_without(cache: Path) -> None:
    cache.write_text("a file where the folder should be")
    assert float(answer()[0, 0]) == 2


def test_the_programs_not_used_for_longest_go_first(cache: Path) -> None:
    for age, name in enumerate(("new", "middle", "old")):
        programs.write_program(name, lambda file: file.write(b"x" * 100))
        os.utime(cache / name, (1000 - age, 1000 - age))
    kept = programs.read_program("old")  # which makes it the newest
    assert kept is not None
    assert kept[:] == b"x" * 100
    programs.prune(200)
    assert {path.name for path in cache.iterdir()} == {"new", "old"}
    assert programs.read_program("middle") is None


@with_openvino
def test_memory_held_outside_torch_is_counted(cache: Path) -> None:
    del cache
    placement = Placement("cpu", "fp32", OPENVINO)
    network = BACKENDS[OPENVINO].place(Doubling(), placement, kind="generator", identity="one")
    assert network.extra_bytes == 0
    network(torch.ones(9, 2), Condition())  # 8 + 1
    assert network.extra_bytes == 2 * 2 * 4


@with_openvino
def test_a_precision_the_processor_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion, "configuration", lambda _: {"INFERENCE_PRECISION_HINT": "f32"})
    with pytest.raises(InvalidInput, match="does not compute in bf16 on this processor"):
        conversion.compiled(nn.Identity(), [torch.ones(1)], "bf16")


@with_openvino
def test_a_large_network_is_computed_one_by_one_from_its_file(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With weights of half the size, which bfloat16 bears."""
    placement = Placement("cpu", "bf16", OPENVINO)
    wide = 1 + torch.rand(4096, generator=torch.Generator().manual_seed(0))

    def placed(identity: str) -> nn.Module:
        return BACKENDS[OPENVINO].place(
            Wide(wide), placement, kind="generator", identity=identity, weights="known"
        )

    z = torch.arange(3.0).expand(4096, 3).T.contiguous()
    small = placed("small")(z, Condition())
    monkeypatch.setattr(module, "LARGE", 4096)
    network = placed("large")
    large = network(z, Condition())
    torch.testing.assert_close(large, small, rtol=2**-10, atol=0)  # float16's rounding
    assert network.extra_bytes == 4096 * 2, "one program of one row serves a batch of three"
    assert len(list(cache.iterdir())) == 2
    monkeypatch.setattr(module, "weights_digest", lambda _: pytest.fail("its weights are known"))
    assert torch.equal(placed("large")(z, Condition()), large)


class Wide(nn.Module):
    """A generator with many weights: (z [B,N], Condition) -> z w."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, z: Tensor, condition: Condition) -> Tensor:
        del condition
        return z * self.weight


TELEMETRY = """
import sys
from izograf.acceleration.conversion import runtime
from izograf.acceleration.int8 import quantiser
from izograf.core.backends import BACKENDS, OPENVINO_INT8
runtime()
BACKENDS[OPENVINO_INT8].missing() or quantiser()
sent = [name for name in sys.modules if name.startswith("openvino_telemetry")]
assert not sent, sent
assert "openvino" in sys.modules
"""


@with_openvino
def test_openvino_reports_to_nobody() -> None:
    done = subprocess.run(
        [sys.executable, "-c", TELEMETRY], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
