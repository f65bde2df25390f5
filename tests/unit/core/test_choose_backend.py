"""Which backend computes: what was asked for, or the best there is; and one sentence if neither."""

from __future__ import annotations

import pytest

from izograf.core.backends import BACKENDS, EAGER, OPENVINO, choose_backend, usable_backend
from izograf.schema.errors import InvalidInput, NotFound


@pytest.fixture(params=[True, False], ids=["installed", "absent"])
def installed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    missing = "" if request.param else "it needs pip install 'izograf[openvino]'"
    monkeypatch.setattr(type(BACKENDS[OPENVINO]), "missing", lambda _: missing)
    return bool(request.param)


def test_auto_is_the_fastest_installed_one_of_a_cpu(installed: bool) -> None:
    best = OPENVINO if installed else EAGER
    assert choose_backend("auto", device="cpu", precision="auto") == best
    assert choose_backend("auto", device="cpu", precision="bf16") == best
    assert choose_backend("auto", device="cuda:1", precision="auto") == EAGER


def test_auto_leaves_float32_to_torch(installed: bool) -> None:
    del installed
    assert choose_backend("auto", device="cpu", precision="fp32") == EAGER


def test_a_named_one_is_taken_or_refused_in_a_sentence(installed: bool) -> None:
    assert choose_backend(EAGER, device="mps", precision="auto") == EAGER
    if installed:
        assert choose_backend(OPENVINO, device="cpu", precision="fp32") == OPENVINO
    else:
        with pytest.raises(InvalidInput, match=r"pip install 'izograf\[openvino\]', or choose eag"):
            choose_backend(OPENVINO, device="cpu", precision="fp32")


def test_a_backend_of_another_device_is_refused() -> None:
    with pytest.raises(InvalidInput, match="computes on cpu, not on cuda:0"):
        choose_backend(OPENVINO, device="cuda:0", precision="auto")


def test_an_unknown_one_is_refused_with_the_known_ones() -> None:
    known = r"known are compile, eager, openvino, openvino-int8. Did you mean openvino\?"
    with pytest.raises(NotFound, match=known):
        choose_backend("openvin", device="cpu", precision="auto")


@pytest.mark.parametrize("text", [None, "", "eager", "tensorrt 9", 7, ["openvino"]])
def test_a_record_of_anything_else_is_made_again_by_torch(text: object) -> None:
    assert usable_backend(text) == EAGER


def test_a_record_names_its_backend_with_the_version(installed: bool) -> None:
    assert usable_backend("openvino 2026.4.0") == (OPENVINO if installed else EAGER)
