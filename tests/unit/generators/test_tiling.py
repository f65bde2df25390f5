"""Decoding in tiles: the same picture as decoding at once, in bounded memory."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from izograf.core.rng import generator, seeded_layers
from izograf.generators.tiling import decode_tiled, ramp, tiles
from izograf.models.autoencoder import Decoder, KLAutoencoderConfig

CONFIGS = {
    "f2": KLAutoencoderConfig(16, width=4, patch_size=2, multipliers=(1,)),
    "f4": KLAutoencoderConfig(16, width=4, patch_size=2, multipliers=(1, 2)),
    "f4 without stem": KLAutoencoderConfig(16, width=4, patch_size=1, multipliers=(1, 1, 2)),
    "f8": KLAutoencoderConfig(16, width=4, patch_size=1, multipliers=(1, 1, 1, 1)),
    "deep": KLAutoencoderConfig(16, width=4, patch_size=4, multipliers=(1, 1), depth=2),
}


@pytest.fixture(params=CONFIGS)
def config(request: pytest.FixtureRequest) -> KLAutoencoderConfig:
    return CONFIGS[request.param]


def decoder(config: KLAutoencoderConfig) -> Decoder:
    """With every weight perturbed: its blocks start as the identity and see nothing."""
    with seeded_layers("tests", "tiling"):
        network = Decoder(config).eval().requires_grad_(False)
    rng = generator("tests", "tiling", "perturbation")
    for parameter in network.parameters():
        parameter += 0.2 * torch.randn(parameter.shape, generator=rng)
    return network


def latent(config: KLAutoencoderConfig, height: int, width: int, count: int = 1) -> Tensor:
    rng = generator("tests", "latent", height, width)
    return torch.randn(count, config.latent_channels, height, width, generator=rng)


def test_a_pixel_sees_as_far_as_the_config_says_and_no_further(config) -> None:
    network, reach = decoder(config).double(), config.reach
    side = 2 * reach + 5
    middle = side // 2
    base = latent(config, side, side).double()
    changed = base.clone()
    changed[..., middle, middle] += 1
    difference = (network(base) - network(changed)).abs().sum((0, 1, 2))
    seen = difference.reshape(side, config.factor).amax(1).nonzero().flatten()
    assert int(seen.min()) == middle - reach
    assert int(seen.max()) == middle + reach


def test_with_enough_overlap_tiles_are_the_whole_picture(config) -> None:
    network = decoder(config)
    overlap = 2 * config.reach + 1
    whole = latent(config, 2 * overlap + 9, overlap + 3, count=2)
    sizes = []

    def decode(part: Tensor) -> Tensor:
        sizes.append(max(part.shape[-2:]))
        return network(part)

    found = decode_tiled(
        decode, whole, factor=config.factor, tile=overlap + 8, overlap=overlap, reach=config.reach
    )
    assert len(sizes) > 2
    assert max(sizes) == overlap + 8
    torch.testing.assert_close(found, network(whole), rtol=1e-4, atol=1e-4)


def test_with_less_overlap_only_the_seams_differ() -> None:
    config = CONFIGS["f4"]
    network, reach, tile, overlap = decoder(config), CONFIGS["f4"].reach, 40, 8
    whole = latent(config, 72, 5)
    found = decode_tiled(network, whole, factor=4, tile=tile, overlap=overlap, reach=reach)
    error = (found - network(whole)).abs().amax((0, 1, 3)).reshape(72, 4).amax(1)
    seam = range(tile - overlap - reach, tile + reach)
    inside = [i for i in range(72) if i not in seam]
    assert float(error[inside].max()) < 1e-4
    assert float(error[list(seam)].max()) > 1e-3  # or this test would prove nothing


def test_a_decoder_that_sees_one_latent_only_is_tiled_exactly_by_any_overlap() -> None:
    def decode(part: Tensor) -> Tensor:
        return F.interpolate(part[:, :3], scale_factor=4.0)

    whole = latent(CONFIGS["f4"], 23, 37)
    for tile, overlap in ((5, 0), (6, 1), (10, 9), (37, 3)):
        found = decode_tiled(decode, whole, factor=4, tile=tile, overlap=overlap)
        torch.testing.assert_close(found, decode(whole), rtol=1e-6, atol=1e-6)


@given(
    length=st.integers(1, 200), tile=st.integers(1, 64), data=st.data(), reach=st.integers(0, 12)
)
def test_tiles_cover_everything_and_their_weights_never_vanish(length, tile, data, reach) -> None:
    overlap = data.draw(st.integers(0, tile - 1))
    spans = tiles(length, tile, overlap)
    assert spans[0][0] == 0
    assert spans[-1][1] == length
    assert all(0 < stop - start <= tile for start, stop in spans)
    total = torch.zeros(2 * length)
    for (start, stop), (following, _) in zip(spans, [*spans[1:], (length, length)], strict=True):
        assert stop >= min(length, following + overlap)
        total[2 * start : 2 * stop] += ramp(start, stop, length, overlap, reach, 2)
    assert float(total.min()) > 0


def test_what_a_tile_cannot_know_counts_nothing() -> None:
    weights = ramp(10, 30, 50, overlap=9, reach=3, factor=2)
    assert float(weights[:6].max()) == float(weights[-6:].max()) == 0
    assert float(weights[18:-18].min()) == 1
    assert bool((weights[:20].diff() >= 0).all())
    assert torch.equal(ramp(0, 20, 20, overlap=9, reach=3, factor=2), torch.ones(40))


@pytest.mark.parametrize("overlap", [-1, 8, 9])
def test_an_impossible_overlap_is_refused(overlap) -> None:
    with pytest.raises(ValueError, match="overlap must be"):
        decode_tiled(lambda x: x, torch.zeros(1, 3, 20, 20), factor=1, tile=8, overlap=overlap)
