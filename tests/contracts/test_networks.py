"""What every registered network promises; how it is called follows from its kind."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from izograf.core.config import apply_settings, config_from_json, config_to_json
from izograf.core.rng import generator, seeded_layers
from izograf.core.types import Condition
from izograf.diffusion.reuse import can_reuse
from izograf.models.registry import NETWORKS, NetworkType
from izograf.schema.errors import CardError, InvalidInput

BATCH = 4
NUM_CLASSES = 2

# Small enough to build, run and differentiate in a moment; every part of the network included.
SMALL: Mapping[str, Mapping[str, Any]] = {
    "unet": {
        "image_size": 16, "num_classes": NUM_CLASSES, "patch_size": 2, "width": 16,
        "multipliers": (1, 2), "depth": 1, "attention": (4,), "head_dim": 16,
    },
    "dit": {
        "image_size": 16, "num_classes": NUM_CLASSES, "patch_size": 4, "width": 32, "depth": 3,
        "head_dim": 16,
    },
    "uvit": {
        "image_size": 16, "num_classes": NUM_CLASSES, "patch_size": 4, "width": 32, "depth": 3,
        "head_dim": 16, "positions": "learned",
    },
    "dcgan-generator": {
        "image_size": 16, "num_classes": NUM_CLASSES, "latent_dim": 8, "width": 8, "depth": 1,
        "class_dim": 4,
    },
    "dcgan-discriminator": {
        "image_size": 16, "num_classes": NUM_CLASSES, "width": 8, "depth": 1,
    },
    "classifier": {"image_size": 16, "num_classes": NUM_CLASSES, "width": 16, "depth": 1},
    "clip": {
        "image_size": 16, "num_words": 9, "max_words": 5, "width": 32, "depth": 1, "head_dim": 16,
        "image_width": 16, "image_depth": 1, "embed_dim": 8,
    },
    "upscaler": {"width": 8, "depth": 1},
    "kl-autoencoder": {"image_size": 16, "width": 8, "patch_size": 2, "latent_channels": 3},
    "vae": {
        "image_size": 16, "num_classes": NUM_CLASSES, "latent_dim": 8, "width": 8, "class_dim": 4,
    },
}  # fmt: skip

# Values no network can have; each is tried on every config that has the field.
IMPOSSIBLE: Mapping[str, tuple[Any, ...]] = {
    "image_size": (0, -16, 7, 18),
    "channels": (0,),
    "num_classes": (-1, -5),
    "patch_size": (0,),
    "latent_dim": (0,),
    "class_dim": (0,),
    "width": (0, -8),
    "max_width": (0,),
    "max_multiplier": (0,),
    "latent_channels": (0,),
    "multipliers": ((), (0,), (1, -1)),
    "depth": (-1,),
    "head_dim": (0,),
    "mlp_ratio": (0,),
    "text_tokens": (-1, 3),
    "text_dim": (-1, 3),
    "num_words": (0,),
    "max_words": (0,),
    "embed_dim": (1,),
    "image_width": (0, 8),
    "image_depth": (0,),
    "image_channels": (-1,),
    "dropout": (1.0, -0.1, float("nan")),
}

# Values of the wrong type, which the type checker refuses in Python and the loader in a card.
MISTYPED: Mapping[str, tuple[Any, ...]] = {
    "activation": ("sine", 1),
    "positions": ("none", 0),
    "image_size": (16.0, "16", True, None),
    "width": ([16],),
    "multipliers": (2, [1.5], ["1"]),
    "attention": ("4",),
    "dropout": ("0.1", None),
}


@pytest.fixture(params=NETWORKS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def small_config(name: str) -> Any:
    if name not in SMALL:
        pytest.fail(f"add a small configuration of {name} to SMALL in this file")
    return NETWORKS[name].config(**SMALL[name])


def build(name: str) -> nn.Module:
    """The small network, with every weight perturbed: blocks that start at zero come to life."""
    with seeded_layers("tests", name):
        network = NETWORKS[name].build(small_config(name))
    rng = generator("tests", name, "perturbation")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=rng)
    return network


Arguments = Callable[[Any, torch.Generator], tuple[Any, ...]]


def classes(config: Any, rng: torch.Generator) -> Condition:
    return Condition(class_ids=torch.randint(-1, config.num_classes, (BATCH,), generator=rng))


def image(config: Any, rng: torch.Generator) -> Tensor:
    channels = getattr(config, "channels", 3)
    return torch.rand(BATCH, channels, config.image_size, config.image_size, generator=rng) * 2 - 1


ARGUMENTS: Mapping[str, Arguments] = {
    "denoiser": lambda c, rng: (image(c, rng), torch.randn(BATCH, generator=rng), classes(c, rng)),
    "generator": lambda c, rng: (torch.randn(BATCH, c.latent_dim, generator=rng), classes(c, rng)),
    "discriminator": lambda c, rng: (image(c, rng), classes(c, rng)),
    "classifier": lambda c, rng: (image(c, rng),),
    "autoencoder": lambda c, rng: (
        image(c, rng),
        torch.randn(BATCH, *c.latent_shape, generator=rng),
        classes(c, rng),
    ),
    "codec": lambda c, rng: (
        image(c, rng),
        torch.randn(BATCH, *c.latent_shape, generator=rng),
    ),
    "contrastive": lambda c, rng: (
        image(c, rng),
        torch.randint(0, c.num_words + 2, (BATCH, c.max_words), generator=rng),
    ),
    "upscaler": lambda c, rng: (torch.rand(BATCH, 3, 9, 12, generator=rng) * 2 - 1,),  # noqa: ARG005
}

SHAPES: Mapping[str, Callable[[Any], tuple[int, ...]]] = {
    "denoiser": lambda c: (
        BATCH,
        c.channels * (1 + c.learned_variance),
        c.image_size,
        c.image_size,
    ),
    "generator": lambda c: (BATCH, 3, c.image_size, c.image_size),
    "discriminator": lambda c: (BATCH,),  # noqa: ARG005
    "classifier": lambda c: (BATCH, c.num_classes),
    "autoencoder": lambda c: (BATCH, c.channels, c.image_size, c.image_size),
    "codec": lambda c: (BATCH, 3, c.image_size, c.image_size),
    "contrastive": lambda c: (BATCH,),  # noqa: ARG005
    "upscaler": lambda c: (BATCH, 3, 18, 24),  # noqa: ARG005
}


def arguments_of(name: str, *seed: int | str) -> tuple[Any, ...]:
    kind = NETWORKS[name].kind
    if kind not in ARGUMENTS:
        pytest.fail(f"add an example call for networks of kind {kind!r} to ARGUMENTS and SHAPES")
    return ARGUMENTS[kind](small_config(name), generator("tests", name, *seed))


def test_output_is_finite_and_has_the_shape_of_its_kind(name: str) -> None:
    network = build(name).eval()
    with torch.no_grad():
        output = network(*arguments_of(name))
    assert tuple(output.shape) == SHAPES[NETWORKS[name].kind](small_config(name))
    assert output.dtype == torch.float32
    assert bool(output.isfinite().all())
    assert float(output.std()) > 0, "the output does not depend on the input"
    if NETWORKS[name].kind == "generator":
        assert float(output.abs().max()) <= 1


def test_output_depends_on_every_argument(name: str) -> None:
    network = build(name).eval()
    arguments = arguments_of(name)
    with torch.no_grad():
        output = network(*arguments)
        for position, argument in enumerate(arguments):
            changed = list(arguments)
            if isinstance(argument, Condition):
                assert argument.class_ids is not None
                changed[position] = Condition(class_ids=(argument.class_ids + 2) % 3 - 1)
            elif argument.is_floating_point():
                changed[position] = argument + 0.25
            else:
                changed[position] = argument.flip(1)
            assert not torch.allclose(network(*changed), output, atol=1e-6), f"argument {position}"


CLASSLESS = ("classifier", "codec", "contrastive", "upscaler")  # kinds that are given no class
CONDITIONED = [name for name in NETWORKS if NETWORKS[name].kind not in CLASSLESS]


@pytest.mark.parametrize("name", CONDITIONED)
def test_no_class_ids_and_dropped_ones_are_the_same(name: str) -> None:
    arguments = arguments_of(name)
    network = build(name).eval()

    def with_condition(condition: Condition) -> tuple[Any, ...]:
        return tuple(condition if isinstance(a, Condition) else a for a in arguments)

    dropped = Condition(class_ids=torch.full((BATCH,), -1))
    with torch.no_grad():
        results = [network(*with_condition(c)) for c in (dropped, Condition())]
    assert torch.equal(*results)


@pytest.mark.parametrize("name", CONDITIONED)
def test_between_two_classes_the_ends_are_the_classes(name: str) -> None:
    """Bitwise: a share of 0 or 1 changes nothing, whatever the other class."""
    arguments, network = arguments_of(name), build(name).eval()
    first = torch.arange(BATCH) % 3 - 1
    second = (first + 2) % 3 - 1

    def output(condition: Condition) -> Tensor:
        swapped = (condition if isinstance(a, Condition) else a for a in arguments)
        with torch.no_grad():
            result: Tensor = network(*swapped)
        return result

    def between(share: float) -> Tensor:
        return output(
            Condition(class_ids=first, towards_ids=second, share=torch.full((BATCH,), share))
        )

    assert torch.equal(between(0), output(Condition(class_ids=first)))
    assert torch.equal(between(1), output(Condition(class_ids=second)))
    assert not torch.allclose(between(0.5), between(0), atol=1e-6)
    assert not torch.allclose(between(0.5), between(1), atol=1e-6)


def test_every_parameter_receives_a_finite_gradient(name: str) -> None:
    network = build(name).train()
    with seeded_layers("tests", name, "dropout"):
        output = network(*arguments_of(name))
    weights = torch.randn(output.shape, generator=generator("tests", "weights"))
    (output * weights).sum().backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, f"{key} is not used"
        assert bool(parameter.grad.isfinite().all()), f"the gradient of {key} is not finite"
        assert float(parameter.grad.abs().max()) > 0, f"{key} receives no gradient"


# a discriminator may look at statistics of its batch (and is never served)
SERVED = [name for name in NETWORKS if NETWORKS[name].kind != "discriminator"]


@pytest.mark.parametrize("name", SERVED)
def test_a_picture_does_not_see_its_batch_mates_when_sampling(name: str) -> None:
    network = build(name).eval()
    arguments = arguments_of(name)
    with torch.no_grad():
        together = network(*arguments)[:1]
        alone = network(*(argument[:1] for argument in arguments))
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-5)


def test_weights_fit_a_network_built_on_the_meta_device(name: str) -> None:
    """How a card is loaded: no memory and no random numbers before the weights are there."""
    trained = build(name).eval()
    with torch.device("meta"):
        empty = NETWORKS[name].build(small_config(name)).eval()
    assert all(tensor.is_meta for tensor in empty.state_dict().values())
    empty.load_state_dict(trained.state_dict(), assign=True)
    assert not any(tensor.is_meta for tensor in (*empty.parameters(), *empty.buffers()))
    with torch.no_grad():
        arguments = arguments_of(name)
        assert torch.equal(empty(*arguments), trained(*arguments))


def test_building_draws_from_the_seed_alone(name: str) -> None:
    weights = []
    for _ in range(2):
        with seeded_layers("tests", name, "again"):
            weights.append(NETWORKS[name].build(small_config(name)).state_dict())
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_bfloat16_stays_finite_and_near_float32(name: str) -> None:
    network = build(name).eval()
    arguments = arguments_of(name)
    with torch.no_grad():
        exact = network(*arguments)
        with torch.autocast("cpu", torch.bfloat16):
            coarse = network(*arguments).float()
    assert bool(coarse.isfinite().all())
    # eight bits per product; what is checked is that nothing overflows or cancels to noise
    assert float((coarse - exact).norm()) < 0.1 * float(exact.norm())


def test_config_survives_json(name: str) -> None:
    config = small_config(name)
    written = json.loads(json.dumps(config_to_json(config)))
    assert config_from_json(type(config), written, source="a test") == config


def test_config_is_frozen_and_names_its_fields_as_others_do(name: str) -> None:
    config_type = NETWORKS[name].config
    assert config_type.__dataclass_params__.frozen
    fields = {field.name for field in dataclasses.fields(config_type)}
    kind = NETWORKS[name].kind
    blind, any_size = kind in ("codec", "contrastive", "upscaler"), kind == "upscaler"
    assert {"width"} <= fields
    assert any_size or "image_size" in fields
    assert blind or "num_classes" in fields


def cases(table: Mapping[str, tuple[Any, ...]]) -> list[tuple[str, str, Any]]:
    return [
        (name, field.name, value)
        for name in NETWORKS
        for field in dataclasses.fields(NETWORKS[name].config)
        for value in table.get(field.name, ())
    ]


@pytest.mark.parametrize(("name", "field", "value"), cases(IMPOSSIBLE), ids=str)
def test_an_impossible_configuration_is_refused_with_a_sentence(
    name: str, field: str, value: Any
) -> None:
    config_type = NETWORKS[name].config
    with pytest.raises(ValueError, match=r"\w+ .*\w+"):
        config_type(**{**SMALL[name], field: value})


@pytest.mark.parametrize(("name", "field", "value"), cases(IMPOSSIBLE) + cases(MISTYPED), ids=str)
def test_an_impossible_card_is_refused_as_a_card(name: str, field: str, value: Any) -> None:
    config_type = NETWORKS[name].config
    written = json.loads(json.dumps(config_to_json(small_config(name)) | {field: value}))
    with pytest.raises(CardError, match="a card"):
        config_from_json(config_type, written, source="a card")


def settings_of(network_type: NetworkType) -> st.SearchStrategy[list[str]]:
    """Settings a user might type, most of them sensible, few of them compatible."""
    numbers = st.sampled_from([1, 4, 8, 16, 24, 32])
    known = {
        "patch_size": st.sampled_from([1, 2, 4, 8]),
        "width": numbers,
        "max_width": numbers,
        "max_multiplier": st.integers(0, 4),
        "latent_dim": numbers,
        "latent_channels": st.integers(0, 4),
        "variational": st.booleans(),
        "multipliers": st.lists(st.sampled_from([1, 2, 3]), max_size=3),
        "depth": st.integers(0, 2),
        "attention": st.lists(st.sampled_from([2, 4, 8, 16]), max_size=2),
        "head_dim": numbers,
        "mlp_ratio": st.integers(0, 4),
        "text_tokens": st.integers(0, 3),
        "text_dim": st.sampled_from([0, 5]),
        "image_channels": st.integers(0, 4),
        "learned_variance": st.sampled_from(["true", "false"]),
        "positions": st.sampled_from(["sincos", "learned"]),
        "num_classes": st.integers(0, 3),
        "image_size": st.sampled_from([8, 12, 16, 32]),
        "activation": st.sampled_from(["silu", "relu", "gelu", "leaky_relu"]),
    }
    names = [f.name for f in dataclasses.fields(network_type.config) if f.name in known]
    chosen = st.fixed_dictionaries({}, optional={key: known[key] for key in names})
    return chosen.map(lambda values: [f"{key}={_typed(value)}" for key, value in values.items()])


def _typed(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


@pytest.mark.parametrize("name", NETWORKS)
@settings(max_examples=40)
@given(data=st.data())
def test_what_a_configuration_accepts_can_be_built_and_run(name: str, data: st.DataObject) -> None:
    """Otherwise a user's `--set`, or a card, ends in a traceback instead of a sentence."""
    assume(runs_if_accepted(name, data.draw(settings_of(NETWORKS[name]))))


@pytest.mark.parametrize(
    ("name", "chosen"),
    [
        ("unet", ["multipliers=2,1", "head_dim=32", "attention=8"]),  # 16 channels in the middle
        ("unet", ["multipliers="]),
        ("unet", ["num_classes=-1"]),
    ],
)
def test_settings_that_once_ended_in_a_traceback_are_refused(name: str, chosen: list[str]) -> None:
    assert not runs_if_accepted(name, chosen)


def runs_if_accepted(name: str, chosen: list[str]) -> bool:
    """False where the settings are refused with a sentence; else the network must run."""
    try:
        config = apply_settings(small_config(name), chosen)
    except InvalidInput:
        return False
    with seeded_layers("tests", name):
        network = NETWORKS[name].build(config).eval()
    with torch.no_grad():
        output = network(*ARGUMENTS[NETWORKS[name].kind](config, generator("tests", name)))
    assert tuple(output.shape) == SHAPES[NETWORKS[name].kind](config)
    return True


REUSING = [
    name for name in NETWORKS if NETWORKS[name].kind == "denoiser" and can_reuse(build(name))
]


def test_the_backbones_whose_deep_layers_can_be_reused() -> None:
    assert set(REUSING) == {"unet", "dit", "uvit"}


@pytest.mark.parametrize("name", REUSING)
@torch.inference_mode()
def test_what_the_deep_layers_gave_can_stand_in_for_them(name: str) -> None:
    """Exactly at the same picture and level, and nearly so at a neighbouring level."""
    network = build(name).eval()
    x, c_noise, condition = arguments_of(name)
    plain = network(x, c_noise, condition)
    output, kept = network.keeping(x, c_noise, condition)
    assert torch.equal(output, plain)
    torch.testing.assert_close(network.reusing(x, c_noise, condition, kept), plain)
    outer = network.reusing(x, c_noise, condition, torch.zeros_like(kept))
    assert (outer - plain).norm() > 1e-3 * plain.norm(), "the deep layers do nothing"
    moved = network.reusing(x + 0.5, c_noise, condition, kept)
    assert (moved - plain).norm() > 1e-3 * plain.norm(), "the outer layers do not see x"
