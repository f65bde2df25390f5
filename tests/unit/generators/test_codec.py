"""Latents: standardised, decoded, shown as colours, and described on a card."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from izograf.core.devices import Placement
from izograf.core.rng import generator, seeded_layers
from izograf.generators import codec as codec_module
from izograf.generators.codec import LatentCodec, LatentFacts, Pixels, measure_latents
from izograf.models.autoencoder import KLAutoencoder, KLAutoencoderConfig
from izograf.schema.errors import CardError

CPU = Placement("cpu", "fp32")
FACTS = LatentFacts((1.0, -2.0), (0.5, 4.0), ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 0.25)))


def noise(*key: int | str, shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=generator("tests", "codec", *key))


@pytest.fixture(scope="module")
def codec() -> LatentCodec:
    config = KLAutoencoderConfig(16, latent_channels=2, width=8)
    with seeded_layers("tests", "codec"):
        network = KLAutoencoder(config).eval().requires_grad_(False)
    return LatentCodec(network, FACTS, CPU)


def test_pixels_pass_as_they_are_and_are_clipped_at_the_end() -> None:
    x = torch.tensor([-2.0, 0.5, 3.0]).reshape(1, 1, 1, 3)
    pixels = Pixels((3, 8, 8))
    assert pixels.decode(x).flatten().tolist() == [-1, 0.5, 1]
    assert pixels.preview(x) is x


def test_encoding_standardises_the_mean_and_decoding_undoes_it(codec) -> None:
    image = noise("image", shape=(3, 3, 16, 16)).clamp(-1, 1)
    mean, _ = codec.network.posterior(image)
    latent = codec.encode(image)
    torch.testing.assert_close(latent[:, 0], (mean[:, 0] - 1) / 0.5)
    torch.testing.assert_close(latent[:, 1], (mean[:, 1] + 2) / 4)
    torch.testing.assert_close(codec.decode(latent), codec.network.decoder(mean).clamp(-1, 1))
    assert tuple(latent.shape[1:]) == codec.shape == (2, 4, 4)


def test_a_large_latent_is_decoded_in_tiles_to_the_same_picture(codec, monkeypatch) -> None:
    latent = noise("large", shape=(1, 2, 40, 33))
    whole = codec.decode(latent)
    largest = []
    decode = codec._decode
    monkeypatch.setattr(codec_module, "TILE", 30)
    monkeypatch.setattr(codec, "_decode", lambda x: largest.append(max(x.shape)) or decode(x))
    torch.testing.assert_close(codec.decode(latent), whole, rtol=1e-4, atol=1e-4)
    assert len(largest) > 1
    assert max(largest) == 30


def test_measured_facts_standardise_what_they_were_measured_on() -> None:
    raw = noise("raw", shape=(6, 3, 4, 4)) * torch.tensor([2.0, 0.1, 30])[:, None, None] + 5
    image = noise("image", shape=(6, 3, 16, 16)).clamp(-1, 1)
    facts = measure_latents([raw[:4], raw[4:]], [image[:4], image[4:]])
    shift, scale = (torch.tensor(v)[:, None, None] for v in (facts.shift, facts.scale))
    deviation, mean = torch.std_mean((raw - shift) / scale, (0, 2, 3), correction=0)
    torch.testing.assert_close(mean, torch.zeros(3), rtol=0, atol=1e-4)
    torch.testing.assert_close(deviation, torch.ones(3), rtol=1e-4, atol=0)


def test_colours_that_are_an_affine_map_of_the_latent_are_found_exactly(codec) -> None:
    raw = noise("raw", shape=(6, 2, 4, 4))
    mixing = torch.tensor([[0.2, 0.1], [-0.1, 0.2], [0.05, -0.2]])
    offset = torch.tensor([0.1, -0.1, 0.05])
    colours = torch.einsum("rc,bchw->brhw", mixing, raw) + offset[:, None, None]
    image = F.interpolate(colours, scale_factor=4.0)
    facts = measure_latents([raw], [image])
    measured = LatentCodec(codec.network, facts, CPU)
    shift, scale = (torch.tensor(v)[:, None, None] for v in (facts.shift, facts.scale))
    preview = measured.preview((raw - shift) / scale)
    torch.testing.assert_close(preview, image, rtol=0, atol=1e-4)


def test_a_channel_that_never_varies_is_no_division_by_zero() -> None:
    raw = noise("raw", shape=(4, 2, 4, 4))
    raw[:, 1] = 3.0
    facts = measure_latents([raw], [noise("image", shape=(4, 3, 8, 8))])
    assert facts.scale[1] == 1
    assert facts.shift[1] == 3
    assert all(abs(value) < 100 for row in facts.to_rgb for value in row)


def test_facts_survive_a_card() -> None:
    written = json.loads(json.dumps(FACTS.to_json()))
    assert LatentFacts.from_json(written, source="a card") == FACTS


@pytest.mark.parametrize(
    "change",
    [
        {"shift": []}, {"scale": [1.0]}, {"scale": [1.0, 0.0]}, {"scale": [1.0, -1.0]},
        {"to_rgb": [[1.0, 0.0, 0.0]]}, {"to_rgb": [[1.0, 0.0]] * 3}, {"shift": "none"},
        {"more": 1},
    ],
)  # fmt: skip
def test_impossible_facts_are_refused_as_a_card(change) -> None:
    with pytest.raises(CardError, match="a card"):
        LatentFacts.from_json({**FACTS.to_json(), **change}, source="a card")


def test_a_card_without_facts_is_refused() -> None:
    with pytest.raises(CardError, match="a card does not state"):
        LatentFacts.from_json(None, source="a card")


def test_facts_about_another_number_of_channels_are_refused(codec) -> None:
    facts = LatentFacts((0.0,), (1.0,), ((1, 0), (1, 0), (1, 0)))
    with pytest.raises(ValueError, match="2 channels"):
        LatentCodec(codec.network, facts, CPU)
