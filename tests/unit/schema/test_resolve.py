"""A request against a card, without torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

from izograf.schema.card import ModelCard
from izograf.schema.errors import InvalidInput, NotFound
from izograf.schema.labels import ClassLabel
from izograf.schema.options import OptionSpec
from izograf.schema.request import GenerationRequest
from izograf.schema.resolve import resolve_request

CARD = ModelCard(
    "scenes", "latent", {}, 64,
    classes=(ClassLabel("mountain", {"ru": ("горы",)}), ClassLabel("sea", {"ru": ("море",)})),
    options=(OptionSpec("truncation", "number", 1.0, minimum=0, maximum=2),),
)  # fmt: skip
PLAIN = ModelCard("plain", "latent", {}, 64)
MOUNTAIN = {"type": "class", "class": "Горы"}


def strip(card: ModelCard, condition: dict[str, str], **towards: int | str) -> GenerationRequest:
    return resolve_request(card, GenerationRequest("m", condition, 3, 7, {}, towards))


def test_names_are_resolved_and_options_explicit_in_a_strip_too() -> None:
    resolved = strip(CARD, MOUNTAIN, **{"class": " МОРЕ ", "seed": 5})
    assert resolved.condition == {"type": "class", "class": "mountain"}
    assert resolved.towards == {"class": "sea", "seed": 5}
    assert resolved.options == {"truncation": 1.0}
    assert resolve_request(CARD, resolved) == resolved


def test_a_strip_between_seeds_needs_no_class() -> None:
    assert strip(PLAIN, {"type": "none"}, seed=5).towards == {"seed": 5}


def test_a_strip_towards_what_the_model_has_not_is_refused() -> None:
    with pytest.raises(NotFound, match="Unknown class"):
        strip(CARD, MOUNTAIN, **{"class": "castle"})
    with pytest.raises(InvalidInput, match="must start from a class"):
        strip(CARD, {"type": "none"}, **{"class": "sea"})
    with pytest.raises(InvalidInput, match="must start from a class"):
        strip(PLAIN, {"type": "none"}, **{"class": "sea"})


def test_the_web_process_can_validate_without_torch() -> None:
    code = (
        "import sys, izograf.schema.resolve, izograf.schema.record, izograf.schema.infotext; "
        "assert not {'torch', 'numpy', 'PIL'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
