"""A KL autoencoder and a diffusion model of its latents, from the command line to pictures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from izograf.checkpoints.files import read_weights
from izograf.checkpoints.load import load_generator
from izograf.core.devices import Placement
from izograf.core.pixels import to_float
from izograf.core.rng import generator
from izograf.core.types import Autoencoder, Condition
from izograf.data.batches import BatchStream
from izograf.data.dataset import load_images
from izograf.models.classifier import Classifier
from izograf.recipes.kl_autoencoder import kl_autoencoder_config
from izograf.recipes.latent_diffusion import BACKBONES, latent_transformer, latent_unet
from izograf.recipes.latents import Latents, either_latent
from izograf.recipes.perceptual import features_of
from izograf.recipes.registry import RECIPES, Hyperparameters, RunRequest
from izograf.schema.errors import CardError, InvalidInput
from izograf.schema.library import read_card

CPU = Placement("cpu", "fp32")
FAST = ("--images", 16, "--log-every", 8, "--evaluate-every", 16, "--sample-every", 16)


@pytest.fixture(scope="module")
def autoencoder(trained) -> Path:
    return trained("kl-autoencoder")


@pytest.fixture(scope="module")
def latent_model(train, autoencoder, tmp_path_factory) -> Path:
    """Trained on a copy of the autoencoder that is gone afterwards."""
    folder = tmp_path_factory.mktemp("latent")
    shutil.copytree(autoencoder, folder / "eyes")
    asked = train("latent-diffusion", folder / "run", *FAST, "--autoencoder", folder / "eyes")
    assert asked.code == 0, asked.err
    shutil.rmtree(folder / "eyes")
    return folder / "run"


@pytest.fixture(scope="module")
def sets(pictures):
    return [load_images([pictures], 16, split=split) for split in ("train", "test")]


def loaded(folder: Path):
    return load_generator(str(folder), device="cpu", precision="fp32")[0]


def test_the_card_of_an_autoencoder_tells_its_floor_and_its_latents(autoencoder) -> None:
    card = read_card(autoencoder)
    assert (card.family, card.task) == ("kl-autoencoder", "autoencode")
    assert not card.classes
    assert not card.conditions
    scores = card.recipe["evaluated"]
    assert 5 < scores["psnr"] < 100
    assert -1 <= scores["ssim"] <= 1
    assert scores["frechet_random_conv"] > 0
    assert card.recipe["weights"]["kl"] == 1e-6
    assert len(card.sampling["latents"]["scale"]) == 3
    assert (autoencoder / "samples").is_dir()


def test_latents_of_training_pictures_have_unit_deviation(autoencoder, sets) -> None:
    codes = loaded(autoencoder).encode(to_float(sets[0].images))
    deviation, mean = torch.std_mean(codes, (0, 2, 3), correction=0)
    torch.testing.assert_close(deviation, torch.ones(3), rtol=0.02, atol=0)
    torch.testing.assert_close(mean, torch.zeros(3), rtol=0, atol=0.02)


def test_it_encodes_and_decodes_any_multiple_of_its_factor(autoencoder) -> None:
    model = loaded(autoencoder)
    assert isinstance(model, Autoencoder)
    picture = torch.rand(2, 3, 24, 40, generator=generator("tests", "wide")) * 2 - 1
    codes = model.encode(picture)
    assert codes.shape == (2, 3, 6, 10)
    image = model.decode(codes)
    assert image.shape == picture.shape
    assert float(image.abs().max()) <= 1
    torch.testing.assert_close(model.decode(codes[1:]), image[1:], rtol=1e-4, atol=1e-5)
    with pytest.raises(InvalidInput, match="multiples of 4 pixels, got 16 x 18"):
        model.encode(torch.zeros(1, 3, 18, 16))


def test_an_autoencoder_draws_no_pictures_and_says_what_would(autoencoder, refused) -> None:
    with pytest.raises(InvalidInput, match="draws no pictures"):
        loaded(autoencoder).sample(Condition(), [0])
    sentence = refused("generate", "--model", autoencoder, "-o", "one.png")
    assert "izograf train latent-diffusion" in sentence


def test_a_damaged_card_of_an_autoencoder_is_refused(autoencoder, tmp_path) -> None:
    for change in ({"sampling": {}}, {"sampling": {"latents": {"shift": [0.0]}}}):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        shutil.copytree(autoencoder, folder)
        card = json.loads((folder / "card.json").read_text())
        (folder / "card.json").write_text(json.dumps(card | change))
        with pytest.raises(CardError, match="The card of"):
            loaded(folder)


def test_a_latent_model_needs_nothing_but_its_folder(latent_model, autoencoder) -> None:
    model, card = loaded(latent_model), read_card(latent_model)
    images = model.sample(
        Condition(class_ids=torch.tensor([0, 1])), [3, 4], options={"num_inference_steps": 2}
    )
    assert images.shape == (2, 3, 16, 16)
    assert images.dtype == torch.float32
    assert float(images.abs().max()) <= 1
    eyes = read_card(autoencoder)
    assert card.parents == (f"{eyes.name}@{eyes.fingerprint}",)
    assert card.recipe["autoencoder"]["evaluated"] == eyes.recipe["evaluated"]
    assert card.recipe["hyperparameters"]["autoencoder"] == "eyes"
    assert str(latent_model.parent) not in (latent_model / "card.json").read_text()
    assert card.image_size == 16
    assert card.network["config"]["image_size"] == 4


def test_its_autoencoder_is_the_one_it_was_trained_with(latent_model, autoencoder) -> None:
    stored = read_weights(latent_model, read_card(latent_model))
    own = read_weights(autoencoder, read_card(autoencoder))
    assert own
    for key, value in own.items():
        assert torch.equal(stored[f"autoencoder.{key}"], value)


def test_a_picture_does_not_see_its_batch_mates_or_their_number(latent_model) -> None:
    model, options = loaded(latent_model), {"num_inference_steps": 2, "sampler": "ddpm"}
    ids = torch.tensor([0, 1, 1])
    together = model.sample(Condition(class_ids=ids), [3, 4, 5], options=options)
    alone = model.sample(Condition(class_ids=ids[1:2]), [4], options=options)
    torch.testing.assert_close(alone, together[1:2], rtol=1e-3, atol=1e-4)
    assert not torch.allclose(together[1], together[2], atol=1e-3)


def test_previews_are_pictures_of_the_right_size_without_decoding(
    latent_model, monkeypatch
) -> None:
    model = loaded(latent_model)
    seen = []

    def note(step: int, num_steps: int, preview: torch.Tensor) -> None:
        assert not seen or step > seen[-1][0]
        seen.append((step, num_steps, tuple(preview.shape)))
        assert bool(preview.isfinite().all())

    decoded = []
    decode = model.codec.decode
    monkeypatch.setattr(model.codec, "decode", lambda x: decoded.append(1) or decode(x))
    model.sample(Condition(), [3], options={"num_inference_steps": 3}, on_step=note)
    assert seen
    assert {shape for *_, shape in seen} == {(1, 3, 16, 16)}
    assert len(decoded) == 1


@pytest.mark.parametrize("damage", ["no description", "no weights", "other size"])
def test_a_latent_model_whose_parts_do_not_fit_is_refused(latent_model, tmp_path, damage) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(latent_model, folder)
    card = json.loads((folder / "card.json").read_text())
    if damage == "no description":
        del card["sampling"]["autoencoder"]
    elif damage == "no weights":
        card["sampling"]["autoencoder"]["network"]["config"]["width"] = 16
    else:
        card["image_size"] = 32
    (folder / "card.json").write_text(json.dumps(card))
    with pytest.raises(CardError, match=r"The (card|weights) of"):
        loaded(folder)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_backbone_learns_the_latents(backbone, sets, autoencoder, tmp_path) -> None:
    sizes = ("width=32", "depth=1", "head_dim=16")
    chosen = Hyperparameters(
        images=16, batch_size=8, device="cpu", precision="fp32", settings=sizes,
        autoencoder=str(autoencoder), backbone=backbone, flip=True,
    )  # fmt: skip
    job = RECIPES["latent-diffusion"].build(RunRequest("m", *sets, "CC0-1.0", chosen))
    batch = job.batches(0)
    assert batch.image.shape == (8, 3, 4, 4)
    loss, _ = job.objective.phases()[0].loss(batch, generator("tests"))
    assert bool(loss.isfinite())
    job.export(job.objective.modules, tmp_path, {})
    assert read_card(tmp_path).network["name"] == BACKBONES[backbone].network
    made = loaded(tmp_path).sample(Condition(), [0], options={"num_inference_steps": 1})
    assert made.shape == (1, 3, 16, 16)


def test_mirrored_pictures_have_latents_of_their_own(sets, autoencoder) -> None:
    latents = Latents.open(str(autoencoder), 16, CPU)
    request = RunRequest("m", *sets, "CC0-1.0", Hyperparameters())
    both = latents.request(request, mirrored=True).train.images
    plain = latents.request(request, mirrored=False)
    assert both.shape == (40, 2, 3, 4, 4)
    assert torch.equal(both[:, 0], plain.train.images)
    mirrored = latents.codec.encode(to_float(sets[0].images[:32]).flip(-1)).half()
    torch.testing.assert_close(both[:32, 1], mirrored, rtol=0, atol=2e-3)
    assert not torch.allclose(both[:, 0].flip(-1), both[:, 1], atol=1e-2)
    assert plain.held_out.images.shape == (16, 3, 4, 4)
    assert plain.train.class_ids is sets[0].class_ids


def test_each_of_the_two_latents_is_drawn_about_half_the_time() -> None:
    pairs = torch.stack([torch.zeros(400, 2, 3, 3), torch.ones(400, 2, 3, 3)], dim=1)
    drawn = either_latent(pairs, generator("tests", "either"))
    per_picture = drawn.flatten(1)
    assert bool((per_picture == per_picture[:, :1]).all())
    assert 0.4 < float(per_picture[:, 0].mean()) < 0.6


def test_a_stream_gives_latents_unchanged() -> None:
    latents = torch.randn(10, 2, 3, 3, generator=generator("tests", "stream")).half()
    stream = BatchStream(latents, torch.arange(10), 5, seed=0)
    batch = stream(0)
    assert batch.image.dtype == torch.float32
    assert torch.equal(batch.image, latents[batch.condition.class_ids].float())


def test_an_early_model_can_be_gone_on_from_on_the_same_latents_only(
    latent_model, autoencoder, train, tmp_path
) -> None:
    chosen = ("--images", 8, "--autoencoder", autoencoder, "--init-from", latent_model)
    again = train("latent-diffusion", tmp_path / "on", *chosen)
    assert again.code == 0, again.err
    assert len(read_card(tmp_path / "on").parents) == 2

    other = tmp_path / "other"
    shutil.copytree(autoencoder, other)
    card = json.loads((other / "card.json").read_text())
    card["sampling"]["latents"]["shift"][0] += 1
    (other / "card.json").write_text(json.dumps(card))
    refused = train(
        "latent-diffusion", tmp_path / "no", "--images", 8, "--autoencoder", other,
        "--init-from", latent_model,
    )  # fmt: skip
    assert refused.code != 0
    assert "latents of this run's autoencoder" in refused.err


def test_what_cannot_be_trained_on_is_refused_in_a_sentence(refused, trained, pictures) -> None:
    latent = ("train", "latent-diffusion", "--data", pictures, "--out", "run", "--image-size")
    assert "needs --autoencoder" in refused(*latent, 16)
    judge = trained("classifier")
    assert "takes a KL autoencoder" in refused(*latent, 16, "--autoencoder", judge)
    eyes = trained("kl-autoencoder")
    assert "use --image-size 16" in refused(*latent, 32, "--autoencoder", eyes)
    chosen = ("--autoencoder", eyes, "--backbone", "dir")
    assert "Did you mean dit?" in refused(*latent, 16, *chosen)
    dcgan = ("train", "dcgan", "--data", pictures, "--out", "run")
    assert "leave out --autoencoder" in refused(*dcgan, "--autoencoder", eyes)


def test_the_judge_teaches_nobody_and_another_classifier_does(trained, sets, tmp_path) -> None:
    with pytest.raises(InvalidInput, match="the judge that measures"):
        features_of("scenes-judge", CPU)
    with pytest.raises(InvalidInput, match="takes a classifier"):
        features_of(str(trained("kl-autoencoder")), CPU)
    assert features_of(None, CPU) is None
    name = str(trained("classifier"))
    features = features_of(name, CPU)
    assert features is not None
    assert isinstance(features.network, Classifier)
    assert [m.shape[-1] for m in features(torch.zeros(1, 3, 28, 28))] == [16, 8, 4, 2]
    chosen = Hyperparameters(
        images=16, batch_size=8, device="cpu", precision="fp32", settings=("width=8",),
        perceptual=name,
    )  # fmt: skip
    job = RECIPES["kl-autoencoder"].build(RunRequest("m", *sets, "CC0-1.0", chosen))
    loss, stats = job.objective.phases()[0].loss(job.batches(0), generator("tests"))
    assert loss.requires_grad
    assert float(stats["perceptual"].detach()) > 0
    assert job.evaluate(job.objective.modules)["perceptual_distance"] > 0
    job.export(job.objective.modules, tmp_path, {})
    judge = read_card(Path(name))
    assert read_card(tmp_path).parents == (f"{judge.name}@{judge.fingerprint}",)


@pytest.mark.parametrize(
    ("size", "factor"), [(8, 4), (10, 2), (28, 4), (32, 4), (64, 4), (128, 8), (130, 2), (256, 8)]
)
def test_the_default_autoencoder_halves_as_often_as_documented(size, factor) -> None:
    assert kl_autoencoder_config(size).factor == factor


@pytest.mark.parametrize(
    ("side", "bottom"), [(4, 2), (7, 7), (8, 4), (12, 6), (16, 8), (28, 14), (32, 8), (64, 8)]
)
def test_default_backbones_exist_for_every_latent(side, bottom) -> None:
    assert latent_transformer(side, 3).grid <= 14
    config = latent_unet(side, 3)
    assert config.patch_size == 1
    assert config.image_size // 2 ** (len(config.multipliers) - 1) == bottom


def test_the_verbs_of_autoencoders_take_one_for_latents(
    izograf, autoencoder, pictures, tmp_path
) -> None:
    first, second = sorted((pictures / "test").rglob("*.png"))[:2]
    for verb in (["reconstruct", first, "--compare"], ["interpolate", first, second]):
        made = izograf(*verb, "--model", autoencoder, "-o", tmp_path / f"{verb[0]}.png")
        assert made.code == 0, made.err
        assert (tmp_path / f"{verb[0]}.png").is_file()
