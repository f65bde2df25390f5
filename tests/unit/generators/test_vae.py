"""The family vae: samples from the prior, codes of pictures, pictures of codes."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from izograf.core.config import config_to_json
from izograf.core.devices import Placement
from izograf.core.rng import generator, seeded_layers
from izograf.core.types import Autoencoder, Condition, Generator
from izograf.generators.latent import latent_options
from izograf.generators.vae import VAEGenerator, build
from izograf.models.vae import VAE, VAEConfig, fit_gaussian
from izograf.schema.card import ModelCard
from izograf.schema.errors import CardError
from izograf.schema.labels import ClassLabel

CPU = Placement("cpu", "fp32")
LATENT = 6
CONFIG = VAEConfig(16, 2, latent_dim=LATENT, width=8, class_dim=4)
SEA, FOREST = (Condition(class_ids=torch.full((3,), index)) for index in range(2))


def card(config: VAEConfig = CONFIG) -> ModelCard:
    return ModelCard(
        name="tiny",
        family="vae",
        network={"name": "vae", "config": config_to_json(config)},
        image_size=config.image_size,
        classes=(ClassLabel("sea"), ClassLabel("forest"))[: config.num_classes],
        options=latent_options(),
    )


def network(config: VAEConfig = CONFIG) -> VAE:
    with seeded_layers("tests", "vae"):
        built = VAE(config)
    rng = generator("tests", "perturbation")
    with torch.no_grad():
        for parameter in built.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=rng)
    return built.eval()


def model(changed: VAE | None = None, placement: Placement = CPU) -> VAEGenerator:
    built = changed or network()
    return build(card(built.config), built.state_dict(), placement)


def with_prior(plain: VAE) -> VAE:
    codes = torch.randn(50, LATENT, generator=generator("tests", "codes")) * 2 + 3
    mean, factor = fit_gaussian(codes)
    plain.prior_mean.copy_(mean)
    plain.prior_factor.copy_(factor)
    return plain


def pictures() -> Tensor:
    return torch.rand(3, 3, 16, 16, generator=generator("tests", "pictures")) * 2 - 1


def test_it_generates_and_it_is_an_autoencoder() -> None:
    made: Generator = model()
    assert isinstance(made, Autoencoder)
    assert made.sample(SEA, [1, 2, 3]).shape == (3, 3, 16, 16)


@pytest.mark.parametrize("changed", [network(), with_prior(network())])
def test_a_sample_is_the_picture_of_a_normal_code(changed: VAE) -> None:
    made = model(changed)
    code = torch.randn(LATENT, generator=torch.Generator().manual_seed(7))[None]
    expected = made.decode(code, SEA[:1])
    torch.testing.assert_close(made.sample(SEA[:1], [7]), expected)
    half = made.decode(code / 2, SEA[:1])
    torch.testing.assert_close(made.sample(SEA[:1], [7], options={"truncation": 0.5}), half)


def test_codes_and_pictures_are_float32_within_their_range() -> None:
    made = model()
    codes = made.encode(pictures(), SEA)
    assert (codes.shape, codes.dtype) == ((3, LATENT), torch.float32)
    images = made.decode(codes, SEA)
    assert (images.shape, images.dtype) == ((3, 3, 16, 16), torch.float32)
    assert float(images.abs().max()) <= 1


def test_codes_are_in_units_of_the_prior() -> None:
    """The same network with another prior gives other codes, and the same reconstruction."""
    plain, fitted = model(), model(with_prior(network()))
    first, second = plain.encode(pictures(), SEA), fitted.encode(pictures(), SEA)
    assert not torch.allclose(first, second, atol=0.1)
    torch.testing.assert_close(plain.decode(first, SEA), fitted.decode(second, SEA))
    restored = fitted.network.network.from_prior(second)  # type: ignore[operator,union-attr]
    torch.testing.assert_close(restored, first, atol=1e-4, rtol=1e-4)


def test_a_picture_has_the_code_of_its_mean_whatever_its_batch() -> None:
    made = model()
    together = made.encode(pictures(), SEA)
    alone = torch.cat([made.encode(pictures()[i : i + 1], SEA[:1]) for i in range(3)])
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=1e-4)
    assert torch.equal(together, made.encode(pictures(), SEA))


def test_the_class_counts_on_the_way_in_and_on_the_way_out() -> None:
    made = model()
    codes = made.encode(pictures(), SEA)
    assert not torch.allclose(codes, made.encode(pictures(), FOREST), atol=1e-4)
    assert not torch.allclose(made.decode(codes, SEA), made.decode(codes, FOREST), atol=1e-4)
    none = made.decode(codes, Condition(class_ids=torch.full((3,), -1)))
    assert torch.equal(made.decode(codes), none)


def test_bfloat16_codes_make_the_round_trip() -> None:
    exact, coarse = (model(with_prior(network()), Placement("cpu", p)) for p in ("fp32", "bf16"))
    codes = exact.encode(pictures(), SEA)
    torch.testing.assert_close(coarse.encode(pictures(), SEA), codes, atol=0.3, rtol=0.1)
    difference = coarse.decode(codes, SEA) - exact.decode(codes, SEA)
    assert float(difference.abs().mean()) < 0.1


def test_a_plain_autoencoder_has_no_variance() -> None:
    plain = network(dataclasses.replace(CONFIG, variational=False))
    mean, log_variance = plain.encode(pictures(), SEA)
    assert mean.shape == (3, LATENT)
    assert log_variance is None
    noise = torch.ones(3, LATENT)
    assert torch.equal(plain(pictures(), noise, SEA), plain(pictures(), 0 * noise, SEA))


def test_noise_moves_the_code_by_its_deviation() -> None:
    built = network()
    mean, log_variance = built.encode(pictures(), SEA)
    assert log_variance is not None
    noise = torch.randn(3, LATENT, generator=generator("tests", "noise"))
    expected = built.decode(mean + (log_variance / 2).exp() * noise, SEA).tanh()
    torch.testing.assert_close(built(pictures(), noise, SEA), expected)


def test_cards_that_do_not_fit_are_refused() -> None:
    good, weights = card(), network().state_dict()
    no_option = dataclasses.replace(good, options=())
    with pytest.raises(CardError, match="lacks the option truncation"):
        build(no_option, weights, CPU)
    del weights["prior_mean"]
    with pytest.raises(CardError, match="do not fit"):
        build(good, weights, CPU)


def test_another_network_is_refused() -> None:
    from izograf.models.dcgan import DCGANConfig, DCGANGenerator

    config = DCGANConfig(16, 2, width=8)
    other = dataclasses.replace(
        card(), network={"name": "dcgan-generator", "config": config_to_json(config)}
    )
    with pytest.raises(CardError, match="is no vae"):
        build(other, DCGANGenerator(config).state_dict(), CPU)


@pytest.mark.parametrize("image_size", [4, 8, 12, 28, 40, 48, 56, 96, 128])
def test_every_size_that_halves_down_to_eight_or_less_has_a_network(image_size: int) -> None:
    config = VAEConfig(image_size, 0, width=8, latent_dim=4)
    assert config.sizes[-1] <= 8
    with torch.device("meta"):
        image, noise = torch.zeros(1, 3, image_size, image_size), torch.zeros(1, 4)
        assert VAE(config)(image, noise, Condition()).shape == image.shape
