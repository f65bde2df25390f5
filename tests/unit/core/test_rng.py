"""Seeds, streams and the one place where the global generator is used."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from izograf.core.rng import Blend, SeededNoise, derive_seed, generator, seeded_layers

part = st.one_of(st.integers(0, 10**9), st.text(st.characters(exclude_characters="/"), max_size=8))


@given(st.lists(part, max_size=5))
def test_a_derived_seed_is_a_stable_number_of_63_bits(parts: list[int | str]) -> None:
    seed = derive_seed(*parts)
    assert seed == derive_seed(*parts)
    assert 0 <= seed < 2**63


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=4, unique=True))
def test_different_parts_give_different_seeds(parts: list[int]) -> None:
    seeds = {derive_seed(*parts[:count]) for count in range(len(parts) + 1)}
    assert len(seeds) == len(parts) + 1
    assert derive_seed(1, 23) != derive_seed(12, 3)


def test_a_derived_seed_is_the_same_in_every_process() -> None:
    """Not a hash of Python's, which is salted."""
    code = "from izograf.core.rng import derive_seed; print(derive_seed(7, 'order', 3))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert int(printed.stdout) == derive_seed(7, "order", 3) == 929583480629082613


def test_generators_of_equal_parts_draw_equal_numbers() -> None:
    first, same, other = generator(1, "a"), generator(1, "a"), generator(1, "b")
    drawn = torch.rand(5, generator=first)
    assert torch.equal(drawn, torch.rand(5, generator=same))
    assert not torch.equal(drawn, torch.rand(5, generator=other))


@given(st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=6))
def test_a_pictures_noise_depends_on_its_seed_alone(seeds: list[int]) -> None:
    together = SeededNoise((3, 2), seeds)
    drawn = [together(), together()]
    for i, seed in enumerate(seeds):
        alone = SeededNoise((3, 2), [seed])
        for noise in drawn:
            assert torch.equal(noise[i : i + 1], alone())
    assert not torch.equal(*drawn), "successive calls must continue the streams"


def test_seeded_noise_is_standard_normal() -> None:
    noise = SeededNoise((1000,), range(50))()
    assert noise.shape == (50, 1000)
    assert float(noise.mean()) == pytest.approx(0, abs=0.02)
    assert float(noise.std()) == pytest.approx(1, abs=0.02)
    correlation = torch.corrcoef(noise) - torch.eye(50)
    assert float(correlation.abs().max()) < 0.2, "neighbouring seeds must be independent"


def test_seeded_layers_are_reproducible_and_leave_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    weights = []
    for seed in (1, 1, 2):
        with seeded_layers(seed, "initialisation"):
            weights.append(torch.nn.Linear(3, 3).weight.detach())
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert torch.equal(torch.get_rng_state(), before)


def test_seeded_layers_restore_the_global_generator_after_an_error() -> None:
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError), seeded_layers(1):
        torch.rand(3) @ torch.rand(4)
    assert torch.equal(torch.get_rng_state(), before)


seeds_ = st.integers(0, 2**63 - 1)
shares = st.floats(0, 1)


@given(seeds_, seeds_)
def test_the_ends_of_a_blend_are_its_seeds(start: int, end: int) -> None:
    ends = SeededNoise((3, 2), [Blend(start, end, 0), Blend(start, end, 1)])
    plain = SeededNoise((3, 2), [start, end])
    for _ in range(3):
        assert torch.equal(ends(), plain())


@given(seeds_, shares)
def test_a_blend_of_a_seed_with_itself_is_the_seed(seed: int, share: float) -> None:
    blended = SeededNoise((3, 2), [Blend(seed, seed, share)])
    assert torch.equal(blended(), SeededNoise((3, 2), [seed])())


@given(seeds_, seeds_, shares)
def test_the_weights_of_a_blend_lie_on_the_unit_circle(start: int, end: int, share: float) -> None:
    weights = Blend(start, end, share).weights
    assert sum(weight**2 for _, weight in weights) == pytest.approx(1)
    assert {seed for seed, _ in weights} <= {start, end}


@given(st.lists(st.builds(Blend, seeds_, seeds_, shares) | seeds_, min_size=1, max_size=4))
def test_a_blend_does_not_depend_on_its_batch(seeds: list[int | Blend]) -> None:
    together = SeededNoise((2, 2), seeds)
    drawn = [together(), together()]
    for i, seed in enumerate(seeds):
        alone = SeededNoise((2, 2), [seed])
        for noise in drawn:
            assert torch.equal(noise[i : i + 1], alone())


def test_blended_noise_is_standard_normal_all_the_way() -> None:
    for share in (0.1, 0.5, 0.8):
        noise = SeededNoise((1000,), [Blend(i, 1000 + i, share) for i in range(50)])()
        assert float(noise.mean()) == pytest.approx(0, abs=0.02)
        assert float(noise.std()) == pytest.approx(1, abs=0.02)
