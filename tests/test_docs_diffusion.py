"""docs/diffusion.md shows what there is: its code runs, its pictures are made as it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from izograf.diffusion.precondition import PRECONDITIONERS
from izograf.diffusion.samplers import SAMPLERS
from izograf.diffusion.schedules import SCHEDULES
from izograf.generators.diffusion_options import TABLE_SPACINGS, diffusion_options
from izograf.objectives.noise import NOISE_LAWS, WEIGHTINGS

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "diffusion.md").read_text(encoding="utf-8")
SHOWN = set(re.findall(r'<img src="([^"]+)"', PAGE)) | set(re.findall(r"!\[.*?\]\((.+?)\)", PAGE))


def test_its_code_draws_a_picture() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    made: dict[str, torch.Tensor] = {}
    exec(code, made)
    assert (made["picture"].shape, made["picture"].dtype) == ((1, 3, 64, 64), torch.uint8)
    assert made["picture"].float().std() > 20


def test_every_picture_is_there_and_small() -> None:
    assert len(SHOWN) > 5
    assert all((DOCS / name).stat().st_size < 200_000 for name in SHOWN)


def test_every_photograph_is_made_by_a_command_of_the_page() -> None:
    made = set(re.findall(r"^izograf .* -o docs/(\S+)$", PAGE, re.MULTILINE))
    assert {name for name in SHOWN if name.endswith(".png")} == made


@pytest.mark.parametrize(
    "registry", [PRECONDITIONERS, NOISE_LAWS, WEIGHTINGS, SCHEDULES], ids=lambda r: next(iter(r))
)
def test_it_names_everything_registered(registry: dict[str, object]) -> None:
    missing = [name for name in registry if f"`{name}`" not in PAGE and f" {name}`" not in PAGE]
    assert not missing


def test_it_names_every_sampler_of_any_model() -> None:
    assert not [n for n, s in SAMPLERS.items() if s.any_model and f"`{n}`" not in PAGE]


def test_it_names_the_schedules_of_models_with_a_table() -> None:
    assert not [name for name in TABLE_SPACINGS if f"`{name}`" not in PAGE]


def test_the_functions_it_names_exist() -> None:
    from izograf.diffusion import editing

    table = PAGE.split("## Beginning with a picture")[1].split("## ")[0]
    for name in re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE):
        assert callable(getattr(editing, name))


def test_the_options_it_names_are_on_the_cards_of_today() -> None:
    offered = {option.name for option in diffusion_options(classes=("a", "b"), guide=True)}
    named = {
        "guidance_low", "guidance_high", "guidance_rescale", "negative_class",
        "autoguidance_scale", "ddim.eta",
    }  # fmt: skip
    assert named <= offered
    assert not [name for name in named if f"`{name}`" not in PAGE and f" {name}=" not in PAGE]
