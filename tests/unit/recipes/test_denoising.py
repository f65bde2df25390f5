"""The diffusion recipes: what the card decides, noise laws, variance, a model to start from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from izograf.checkpoints.load import load_generator
from izograf.core.config import config_to_json
from izograf.core.registry import UnknownName
from izograf.core.rng import generator
from izograf.core.types import Condition
from izograf.data.dataset import load_images
from izograf.diffusion.precondition import PRECONDITIONERS
from izograf.diffusion.tables import BETAS, spaced, table_of
from izograf.generators.diffusion import DiffusionGenerator, schedule_of
from izograf.objectives.noise import NOISE_LAWS, UniformTable
from izograf.recipes.registry import RECIPES, Hyperparameters, RunRequest
from izograf.schema.card import ModelCard
from izograf.schema.errors import CardError, InvalidInput
from izograf.schema.library import read_card
from izograf.training.ema import MovingAverage
from izograf.training.run import Job
from izograf.training.trainer import TrainingState, train

SMALL = {
    "diffusion-unet": ("width=16", "depth=1", "head_dim=16", "attention=8"),
    "ddpm": ("width=16", "depth=1", "head_dim=16", "attention=8"),
    "dit": ("width=32", "depth=2", "head_dim=16"),
    "uvit": ("width=32", "depth=3", "head_dim=16"),
}
BASE = Hyperparameters(images=16, batch_size=8, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def sets(pictures: Path) -> list[Any]:
    return [load_images([pictures], 16, split=split) for split in ("train", "test")]


@pytest.fixture
def job_of(sets: list[Any]) -> Any:
    def make(recipe: str, **chosen: Any) -> Job:
        settings = (*SMALL[recipe], *chosen.pop("settings", ()))
        asked = replace(BASE, settings=settings, **chosen)
        RECIPES[recipe].check(asked)
        return RECIPES[recipe].build(RunRequest("tiny", sets[0], sets[1], "CC0-1.0", asked))

    return make


def trained(job: Job) -> MovingAverage:
    average = MovingAverage(job.objective.modules, job.objective.averaged, share=0.05)
    train(job.objective, job.batches, job.training, TrainingState(average), job.placement, nothing)
    return average


def nothing(*_: object) -> None:
    return


def exported(job: Job, folder: Path) -> ModelCard:
    assert job.export is not None
    job.export(trained(job).modules, folder, {"images_seen": 16})
    return read_card(folder)


def weights(job: Job) -> dict[str, Tensor]:
    network = job.objective.modules["denoiser"].network
    return {key: value.clone() for key, value in network.state_dict().items()}


@pytest.mark.parametrize("recipe", SMALL)
@pytest.mark.parametrize("objective", PRECONDITIONERS)
def test_the_card_decides_what_the_network_predicts(
    recipe: str, objective: str, job_of: Any, tmp_path: Path
) -> None:
    """Nothing a user can choose when sampling changes it, and the loaded model is the trained."""
    job = job_of(recipe, objective=objective)
    average = trained(job)
    job.export(average.modules, tmp_path, {})
    card = read_card(tmp_path)
    precondition = PRECONDITIONERS[objective]()
    assert card.sampling["preconditioner"] == {
        "name": objective, "config": config_to_json(precondition),
    }  # fmt: skip
    for option in card.options:
        assert option.name not in ("objective", "preconditioner", "prediction")
        # what a sampler remembers may be a velocity; it never is what the network predicts
        assert option.of_a_method or not set(option.choices) & set(PRECONDITIONERS)

    loaded, _ = load_generator(str(tmp_path), device="cpu", precision="fp32")
    assert isinstance(loaded, DiffusionGenerator)
    assert loaded.denoiser.precondition == precondition
    rng = generator("tests", "x")
    x, sigma = torch.randn(2, 3, 16, 16, generator=rng), torch.tensor([0.1, 9.0])
    condition = Condition(class_ids=torch.tensor([0, 1]))
    with torch.no_grad():
        expected = average.modules["denoiser"](x, sigma, condition)
        found = loaded.denoiser(x, sigma, condition)
    torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-2)  # weights in float16


@pytest.mark.parametrize("name", sorted(PRECONDITIONERS))
def test_a_card_without_a_known_preconditioner_is_refused(
    name: str, job_of: Any, tmp_path: Path
) -> None:
    card = exported(job_of("diffusion-unet", objective=name), tmp_path)
    without = {k: v for k, v in card.sampling.items() if k != "preconditioner"}
    (tmp_path / "card.json").write_text(replace(card, sampling=without).dumps())
    with pytest.raises(CardError, match="preconditioner"):
        load_generator(str(tmp_path), device="cpu")


@pytest.mark.parametrize("law", NOISE_LAWS)
def test_the_noise_law_is_on_the_card_with_its_range(law: str, job_of: Any, tmp_path: Path) -> None:
    sampling = exported(job_of("dit", noise_law=law), tmp_path).sampling
    assert sampling["noise_law"] == {"name": law, **config_to_json(NOISE_LAWS[law])}
    levels = getattr(NOISE_LAWS[law], "levels", None)
    if levels is None:
        assert (sampling["sigma_min"], sampling["sigma_max"]) == (0.02, 80.0)
    else:
        assert sampling["sigma_min"] == float(levels[0])
        assert sampling["sigma_max"] == min(160.0, float(levels[-1]))


@pytest.mark.parametrize("law", NOISE_LAWS)
def test_a_model_of_a_table_offers_its_timesteps_and_others_none(
    law: str, job_of: Any, tmp_path: Path
) -> None:
    card = exported(job_of("dit", noise_law=law), tmp_path)
    (offered,) = [option.choices for option in card.options if option.name == "schedule"]
    spacings = {"trailing", "leading"}
    if not isinstance(NOISE_LAWS[law], UniformTable):
        assert not spacings & set(offered)
        return
    assert spacings <= set(offered)
    table = table_of(BETAS[law]())
    trained_at = table[table < 160.1]
    for name in ("trailing", "leading"):
        expected = spaced(trained_at, name)(10, 0.0, 0.0)
        torch.testing.assert_close(schedule_of(card, name)(10, 0.02, 80.0), expected)
    begins = float(schedule_of(card, "trailing")(10, 0.0, 0.0)[0])
    assert begins == pytest.approx(card.sampling["sigma_max"], rel=0.3)
    if law != "cosine":
        assert len(trained_at) == 1000
        assert begins == pytest.approx(card.sampling["sigma_max"], rel=1e-6)
    loaded, _ = load_generator(str(tmp_path), device="cpu", precision="fp32")
    asked: dict[str, Any] = {"schedule": "trailing", "num_inference_steps": 2}
    condition = Condition(class_ids=torch.tensor([0, 1]))
    assert bool(loaded.sample(condition, [0, 1], options=asked).isfinite().all())
    with pytest.raises(InvalidInput, match="steps fit on"):
        schedule_of(card, "trailing")(1001, 0.0, 0.0)


@pytest.mark.parametrize(
    "noise_law",
    [None, {}, {"betas": "none-such", "num_steps": 10}, {"betas": "linear", "num_steps": 10**12},
     {"betas": "linear", "num_steps": "many"}, {"betas": ["linear"], "num_steps": 10}, "linear"],
    ids=str,
)  # fmt: skip
def test_a_card_that_offers_timesteps_of_no_table_is_refused(
    noise_law: Any, job_of: Any, tmp_path: Path
) -> None:
    card = exported(job_of("dit", noise_law="linear"), tmp_path)
    odd = replace(card, sampling={**card.sampling, "noise_law": noise_law})
    (tmp_path / "card.json").write_text(odd.dumps())
    with pytest.raises(CardError, match="does not have the noise levels that it offers"):
        load_generator(str(tmp_path), device="cpu")


def test_ddpm_is_the_classic_by_default(job_of: Any, tmp_path: Path) -> None:
    card = exported(job_of("ddpm"), tmp_path)
    asked = card.recipe["hyperparameters"]
    assert (asked["objective"], asked["noise_law"], asked["weighting"]) == (
        "epsilon", "cosine", "min-snr",
    )  # fmt: skip
    assert card.sampling["noise_law"] == {"name": "cosine", "betas": "cosine", "num_steps": 1000}


@pytest.mark.parametrize("recipe", SMALL)
def test_a_learned_variance_is_trained_and_sampled_with(
    recipe: str, job_of: Any, tmp_path: Path
) -> None:
    chosen = {"objective": "epsilon", "noise_law": "linear", "images": 64}
    job = job_of(recipe, settings=("learned_variance=true",), **chosen)
    exported(job, tmp_path)
    loaded, _ = load_generator(str(tmp_path), device="cpu", precision="fp32")
    assert isinstance(loaded, DiffusionGenerator)
    x, sigma = torch.zeros(2, 3, 16, 16), torch.ones(2)
    condition = Condition(class_ids=torch.tensor([0, 1]))
    with torch.no_grad():
        x0, share = loaded.denoiser.with_variance(x, sigma, condition)
    assert share is not None
    assert x0.shape == share.shape == x.shape
    assert float((share - 0.5).abs().max()) > 0, "the variance has not moved"
    pictures = loaded.sample(condition, [0, 1], options={"num_inference_steps": 2})
    assert pictures.shape == (2, 3, 16, 16)


def test_a_learned_variance_needs_a_table_of_levels(job_of: Any) -> None:
    with pytest.raises(InvalidInput, match="add --noise-law cosine"):
        job_of("dit", settings=("learned_variance=true",))


@pytest.mark.parametrize(
    ("recipe", "chosen", "option"),
    [
        ("dcgan", {"noise_law": "cosine"}, "--noise-law"),
        ("dcgan", {"init_from": "scenes"}, "--init-from"),
        ("classifier", {"weighting": "min-snr"}, "--weighting"),
    ],
)
def test_a_choice_that_concerns_other_recipes_is_refused(
    recipe: str, chosen: dict[str, Any], option: str
) -> None:
    with pytest.raises(InvalidInput, match=f"leave out {option}"):
        RECIPES[recipe].check(Hyperparameters(**chosen))


@pytest.mark.parametrize("chosen", [{"noise_law": "cosin"}, {"weighting": "min-snt"}])
def test_an_unknown_law_or_weighting_is_refused_before_the_data(chosen: dict[str, str]) -> None:
    with pytest.raises(UnknownName, match="Did you mean"):
        RECIPES["dit"].check(Hyperparameters(**chosen))


@pytest.mark.parametrize("recipe", SMALL)
def test_training_can_start_from_a_model_and_the_card_says_so(
    recipe: str, job_of: Any, tmp_path: Path
) -> None:
    parent = exported(job_of(recipe), tmp_path / "parent")
    job = job_of(recipe, init_from=str(tmp_path / "parent"), seed=9, settings=("dropout=0.1",))
    loaded, _ = load_generator(str(tmp_path / "parent"), device="cpu", precision="fp32")
    assert isinstance(loaded, DiffusionGenerator)
    theirs = loaded.denoiser.network.state_dict()
    assert all(torch.equal(value, theirs[key]) for key, value in weights(job).items())
    card = exported(job, tmp_path / "child")
    assert card.parents == (f"tiny@{parent.fingerprint}",)
    assert card.fingerprint != parent.fingerprint
    assert parent.parents == ()


@pytest.mark.parametrize(
    ("recipe", "chosen", "sentence"),
    [
        ("dit", {}, "its network is 'unet', and here it is dit"),
        ("diffusion-unet", {"settings": ("width=32",)}, r"width is 16 there and 32 here"),
        (
            "diffusion-unet",
            {"settings": ("learned_variance=true",), "noise_law": "cosine"},
            "learned_variance is False there and True here",
        ),
        ("diffusion-unet", {"objective": "edm"}, "add --objective flow"),
        ("ddpm", {}, "add --objective flow"),
    ],
)
def test_another_network_or_prediction_cannot_start_from_a_model(
    recipe: str, chosen: dict[str, Any], sentence: str, job_of: Any, tmp_path: Path
) -> None:
    exported(job_of("diffusion-unet"), tmp_path)
    with pytest.raises(InvalidInput, match=sentence):
        job_of(recipe, init_from=str(tmp_path), **chosen)


@pytest.mark.parametrize("recipe", SMALL)
def test_gradient_checkpointing_trains_the_same_weights(recipe: str, job_of: Any) -> None:
    """Bit for bit, dropout included."""
    results = []
    for chosen in (True, None):
        job = job_of(recipe, gradient_checkpointing=chosen, settings=("dropout=0.1",))
        assert job.training.gradient_checkpointing is bool(chosen)
        trained(job)
        results.append(weights(job))
    assert all(torch.equal(results[0][key], results[1][key]) for key in results[0])
