"""Every recipe: a run that trains, an export that loads, choices that reach their place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from izograf.core.devices import Placement
from izograf.core.types import Batch, Condition, Phase
from izograf.data.dataset import load_images
from izograf.generators.autoencoder import split_weights
from izograf.generators.network import build_network
from izograf.generators.text_to_image import PREFIX
from izograf.models.unet import UNetConfig, build_unet
from izograf.recipes import parts
from izograf.recipes.diffusion_unet import unet_config
from izograf.recipes.registry import RECIPES, Hyperparameters, RunRequest
from izograf.schema.errors import InvalidInput
from izograf.schema.library import read_card
from izograf.training.ema import MovingAverage
from izograf.training.trainer import TrainingConfig, TrainingState, train

CPU = Placement("cpu", "fp32")
SETTINGS = {
    "diffusion-unet": ("width=16", "depth=1", "head_dim=16", "attention=8"),
    "ddpm": ("width=16", "depth=1", "head_dim=16", "attention=8"),
    "dit": ("width=32", "depth=2", "head_dim=16"),
    "uvit": ("width=32", "depth=3", "head_dim=16"),
    "dcgan": ("width=8",),
    "classifier": ("width=16", "depth=1"),
    "kl-autoencoder": ("width=8", "latent_channels=3"),
    "latent-diffusion": ("width=16", "depth=1", "head_dim=16"),
    "ae": ("width=8", "latent_dim=8"),
    "vae": ("width=8", "latent_dim=8"),
    "cvae": ("width=8", "latent_dim=8"),
    "clip": ("width=32", "depth=1", "head_dim=16", "image_width=16", "image_depth=1"),
    "text-to-image": ("width=16", "depth=1", "head_dim=16"),
    "upscaler": ("width=8", "depth=1"),
}
BASE = Hyperparameters(images=16, batch_size=8, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def sets(pictures):
    return [load_images([pictures], 16, split=split) for split in ("train", "test")]


def untrained(recipe: str, sets, folder: Path) -> str:
    """The folder of an untrained model for the tiny pictures."""
    chosen = replace(BASE, settings=SETTINGS[recipe])
    job = RECIPES[recipe].build(RunRequest(folder.name, *sets, "CC0-1.0", chosen))
    modules = MovingAverage(job.objective.modules, job.objective.averaged, share=0.05).modules
    job.export(modules, folder, {})
    return str(folder)


@pytest.fixture(scope="module")
def needs(sets, tmp_path_factory):
    """needs(recipe) -> the choices without which it cannot be run."""
    models = tmp_path_factory.mktemp("models")
    made = {
        "autoencoder": untrained("kl-autoencoder", sets, models / "tiny-autoencoder"),
        "text_encoder": untrained("clip", sets, models / "tiny-clip"),
    }
    return lambda recipe: {name: made[name] for name in RECIPES[recipe].needs}


@pytest.fixture
def request_for(sets, needs):
    """request_for(recipe, **changed hyperparameters) -> RunRequest on the tiny pictures."""

    def make(recipe: str, **changes: object) -> RunRequest:
        settings = (*SETTINGS.get(recipe, ()), *changes.pop("settings", ()))
        chosen = replace(BASE, settings=settings, **needs(recipe), **changes)
        return RunRequest("tiny", *sets, "CC0-1.0", chosen)

    return make


def run(job, config: TrainingConfig | None = None) -> tuple[TrainingState, list[dict]]:
    objective, config = job.objective, config or job.training
    average = MovingAverage(objective.modules, objective.averaged, share=config.ema_share)
    state, logged = TrainingState(average), []
    train(
        objective, job.batches, config, state, CPU,
        lambda state, stats: logged.append({k: float(v) for k, v in stats.items()}),  # noqa: ARG005
    )  # fmt: skip
    return state, logged


# a student's network is its teacher's, so it has tests of its own (test_students.py)
ON_THEIR_OWN = sorted(name for name in RECIPES if "teacher" not in RECIPES[name].needs)


@pytest.fixture(params=ON_THEIR_OWN)
def recipe(request) -> str:
    return request.param


def test_a_recipe_says_what_it_is(recipe) -> None:
    entry = RECIPES[recipe]
    assert entry.name == recipe
    assert entry.summary
    assert any(character.isdigit() for character in entry.paper), "a paper has a year"


def test_every_trained_parameter_receives_a_gradient(recipe, request_for) -> None:
    job = RECIPES[recipe].build(request_for(recipe, images=32, weight_decay=0.0))
    before = {k: v.clone() for k, v in job.objective.modules.state_dict().items()}
    run(job)
    named = dict(job.objective.modules.named_parameters())
    assert [name for name, value in named.items() if torch.equal(before[name], value)] == []


def test_an_export_loads_into_the_network_its_card_describes(recipe, request_for, tmp_path) -> None:
    from izograf.checkpoints.files import read_weights

    job = RECIPES[recipe].build(request_for(recipe))
    state, _ = run(job)
    job.export(state.average.modules, tmp_path, {"images_seen": state.images_seen})
    card = read_card(tmp_path)
    tensors, _ = split_weights(read_weights(tmp_path, card))
    tensors = {name: t for name, t in tensors.items() if not name.startswith(PREFIX)}
    size = card.network["config"].get("image_size")
    network = build_network(card, tensors, CPU, image_size=size)
    assert sum(p.numel() for p in network.parameters()) > 1000
    assert card.recipe["images_seen"] == 16
    assert card.data["licence"] == "CC0-1.0"


def test_a_seed_decides_everything(recipe, request_for) -> None:
    def weights(seed: int) -> Tensor:
        job = RECIPES[recipe].build(request_for(recipe, seed=seed))
        run(job)
        return torch.cat([p.detach().flatten() for p in job.objective.modules.parameters()])

    first = weights(1)
    torch.manual_seed(99)
    assert torch.equal(first, weights(1))
    assert not torch.equal(first, weights(2))


def test_evaluation_is_repeatable_and_preview_is_a_file(recipe, request_for, tmp_path) -> None:
    job = RECIPES[recipe].build(request_for(recipe))
    average = MovingAverage(job.objective.modules, job.objective.averaged, share=0.05).modules
    assert job.evaluate is not None
    scores = job.evaluate(average)
    assert scores == job.evaluate(average)
    assert job.run.monitor in scores
    if job.preview is not None:
        job.preview(average, tmp_path / "sheet.png")
        assert (tmp_path / "sheet.png").read_bytes()[1:4] == b"PNG"


def test_without_held_out_pictures_there_is_nothing_to_evaluate(recipe, request_for) -> None:
    request = request_for(recipe)
    none = replace(
        request.held_out, images=request.held_out.images[:0], names=(),
        class_ids=request.held_out.class_ids[:0],
    )  # fmt: skip
    assert RECIPES[recipe].build(replace(request, held_out=none)).evaluate is None


@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_handful_of_held_out_pictures_is_enough_to_evaluate(recipe, request_for, count) -> None:
    request = request_for(recipe)
    few = replace(
        request.held_out, images=request.held_out.images[:count],
        class_ids=request.held_out.class_ids[:count], names=request.held_out.names[:count],
    )  # fmt: skip
    job = RECIPES[recipe].build(replace(request, held_out=few))
    average = MovingAverage(job.objective.modules, job.objective.averaged, share=0.05).modules
    assert all(isinstance(value, float) for value in job.evaluate(average).values())


def test_choices_beat_the_recipes_defaults_and_land_on_the_card(
    recipe, request_for, tmp_path
) -> None:
    job = RECIPES[recipe].build(
        request_for(recipe, learning_rate=0.003, ema_share=0.2, warmup=0.5, decay="linear")
    )
    assert job.training.ema_share == 0.2
    assert (job.training.schedule.warmup, job.training.schedule.decay) == (0.5, "linear")
    rates = {group["lr"] for o in job.objective.optimizers().values() for group in o.param_groups}
    assert rates == {0.003}
    state, _ = run(job)
    job.export(state.average.modules, tmp_path, {})
    written = read_card(tmp_path).recipe["hyperparameters"]
    assert written["learning_rate"] == 0.003
    assert written["batch_size"] == 8
    assert written["settings"] == list(SETTINGS[recipe])


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_every_optimiser_can_be_chosen(recipe, request_for, name) -> None:
    job = RECIPES[recipe].build(request_for(recipe, optimizer=name))
    kinds = {type(o).__name__.lower() for o in job.objective.optimizers().values()}
    assert kinds == {name}


def test_weight_decay_spares_biases_and_norms(recipe, request_for) -> None:
    job = RECIPES[recipe].build(request_for(recipe, weight_decay=0.3))
    for optimizer in job.objective.optimizers().values():
        for group in optimizer.param_groups:
            dimensions = {p.ndim > 1 for p in group["params"]}
            assert dimensions == {group["weight_decay"] == 0.3}


@pytest.mark.parametrize("setting", ["image_size=32", "num_classes=9", " image_size =8"])
def test_what_the_data_decides_cannot_be_set(recipe, request_for, setting) -> None:
    with pytest.raises(InvalidInput, match="follows from the data"):
        RECIPES[recipe].build(request_for(recipe, settings=(setting,)))


@pytest.mark.parametrize("width", [10**4 * 16, 10**12 * 16])
def test_a_network_larger_than_memory_is_refused_before_it_is_built(
    recipe, request_for, width
) -> None:
    with pytest.raises(InvalidInput, match="choose a smaller one"):
        RECIPES[recipe].build(
            request_for(recipe, settings=(f"width={width}", f"max_width={width}"))
            if recipe == "dcgan"
            else request_for(recipe, settings=(f"width={width}",))
        )


def unsized(recipe: str, image_size: int, sets, needed) -> RunRequest:
    images = [
        replace(s, images=torch.zeros((len(s), 3, image_size, image_size), dtype=torch.uint8))
        for s in sets
    ]
    small = () if recipe in OWN_SIZES else SETTINGS[recipe]
    return RunRequest("tiny", *images, "CC0", replace(BASE, settings=small, **needed))


OWN_SIZES = (
    "diffusion-unet",
    "ddpm",
    "dit",
    "uvit",
)  # their default network depends on the picture's
SUPPORTED = {
    "diffusion-unet": (4, 8, 12, 16, 24, 28, 32, 40, 48, 64),
    "ddpm": (4, 8, 12, 16, 24, 28, 32, 40, 48, 64),
    "dit": (4, 5, 8, 12, 16, 24, 28, 32, 40, 48, 64, 66),
    "uvit": (4, 5, 8, 12, 16, 24, 28, 32, 40, 48, 64, 66),
    "dcgan": (8, 16, 32, 64),
    "classifier": (16, 32, 48, 64),
    "latent-diffusion": (16,),  # that of its autoencoder
    "clip": (16, 32, 48, 64),
    "text-to-image": (16,),  # that of its text encoder
    "upscaler": (2, 4, 8, 12, 16, 24, 28, 32, 40, 48, 64, 66),
    "kl-autoencoder": (8, 12, 16, 24, 28, 32, 40, 48, 64, 66),
    **dict.fromkeys(("ae", "vae", "cvae"), (4, 8, 12, 16, 24, 28, 32, 40, 48, 64)),
}


@pytest.mark.parametrize("image_size", [1, 2, 3, 4, 5, 8, 12, 16, 24, 28, 32, 40, 48, 64, 66])
def test_a_picture_size_is_either_supported_or_refused_in_a_sentence(
    recipe, image_size, sets, needs
) -> None:
    request = unsized(recipe, image_size, sets, needs(recipe))
    if image_size in SUPPORTED[recipe]:
        assert RECIPES[recipe].build(request).training.images == 16
    else:
        with pytest.raises(
            InvalidInput, match=r"image_size must be|use --image-size 16|an even --image"
        ):
            RECIPES[recipe].build(request)


@pytest.mark.parametrize("image_size", [4, 6, 10, 16, 28, 32, 50, 62, 64, 68, 96, 128, 256])
def test_the_default_diffusion_network_exists_for_every_even_size(image_size) -> None:
    with torch.device("meta"):
        network = build_unet(unet_config(image_size, 3))
        x = torch.zeros(2, 3, image_size, image_size)
        assert network(x, torch.zeros(2), Condition()).shape == x.shape


def test_the_bottleneck_of_the_default_network_stays_near_eight() -> None:
    for image_size in (32, 64, 128, 256):
        config = unet_config(image_size, 0)
        bottom = image_size // config.patch_size // 2 ** (len(config.multipliers) - 1)
        assert 4 <= bottom <= 8
        assert config.attention == (bottom,)


def test_accumulation_equals_one_batch_for_the_diffusion_network(request_for) -> None:
    """In float32, with noise that belongs to the picture and not to its place in a draw."""

    def trained(accumulation: int) -> tuple[Tensor, list[dict]]:
        job = RECIPES["diffusion-unet"].build(request_for("diffusion-unet", images=32))
        objective = job.objective
        denoiser = objective.modules["denoiser"]

        def loss(batch: Batch, rng: torch.Generator):
            del rng
            noise = batch.image.flip(2, 3).roll(1, 1)
            sigma = 0.5 + batch.image.mean((1, 2, 3)).abs()
            x = batch.image + sigma[:, None, None, None] * noise
            return (denoiser.raw(x, sigma, batch.condition) - noise).square().mean(), {}

        objective.phases = lambda: (Phase("denoise", "denoiser", loss),)
        _, logged = run(job, replace(job.training, accumulation=accumulation))
        flat = torch.cat([p.detach().flatten() for p in denoiser.parameters()])
        return flat, logged

    whole, logged = trained(1)
    for accumulation in (2, 8):
        parted, logged_parts = trained(accumulation)
        for one, other in zip(logged, logged_parts, strict=True):
            assert other["denoise/loss"] == pytest.approx(one["denoise/loss"], rel=1e-4)
        # Adam divides by tiny second moments: a rounding error may turn one step of 1e-3
        assert float((parted - whole).abs().mean()) < 1e-5


def test_class_dropout_trains_the_null_class_instead_of_the_classes(request_for) -> None:
    def moved(share: float) -> list[bool]:
        request = request_for(
            "diffusion-unet", class_dropout=share, weight_decay=0.0, warmup=0.0, images=32
        )
        job = RECIPES["diffusion-unet"].build(request)
        table = job.objective.modules["denoiser"].network.encoder.table.weight
        before = table.detach().clone()
        run(job)
        return [not torch.equal(a, b) for a, b in zip(before, table.detach(), strict=True)]

    assert moved(0.0) == [False, True, True]
    assert moved(0.999999) == [True, False, False]


def test_dropout_is_active_in_training_and_not_in_evaluation(request_for) -> None:
    def job(rate: float):
        return RECIPES["classifier"].build(request_for("classifier", settings=(f"dropout={rate}",)))

    assert run(job(0.5))[1] != run(job(0.0))[1]
    average = MovingAverage(job(0.5).objective.modules, ["classifier"], share=0.05).modules
    x = torch.zeros(2, 3, 16, 16)
    assert torch.equal(average["classifier"](x), average["classifier"](x))


@pytest.mark.parametrize("rate", [0.0, -1.0, 10.0, float("nan"), float("inf")])
def test_an_impossible_learning_rate_is_refused(recipe, request_for, rate) -> None:
    with pytest.raises(InvalidInput, match="learning rate"):
        RECIPES[recipe].build(request_for(recipe, learning_rate=rate))


@pytest.mark.parametrize("decay", [-0.1, 10.0, float("nan")])
def test_an_impossible_weight_decay_is_refused(recipe, request_for, decay) -> None:
    with pytest.raises(InvalidInput, match="weight decay"):
        RECIPES[recipe].build(request_for(recipe, weight_decay=decay))


def test_a_config_is_made_of_the_default_and_the_settings() -> None:
    config = parts.network_config(lambda: UNetConfig(width=64), ("depth=1", "dropout=0.25"))
    assert (config.width, config.depth, config.dropout) == (64, 1, 0.25)
    with pytest.raises(InvalidInput, match="image_size must be a multiple"):
        parts.network_config(lambda: UNetConfig(image_size=13), ())
    with pytest.raises(InvalidInput, match="Did you mean width"):
        parts.network_config(UNetConfig, ("widht=1",))
