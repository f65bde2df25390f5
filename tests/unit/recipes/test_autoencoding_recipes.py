"""The recipes ae, vae and cvae: what they share, and in what they differ."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from izograf.checkpoints.load import load_generator
from izograf.core.devices import Placement
from izograf.core.pixels import to_float
from izograf.core.types import Condition
from izograf.data.dataset import load_images
from izograf.recipes.registry import RECIPES, Hyperparameters, RunRequest
from izograf.schema.errors import DataError, InvalidInput
from izograf.schema.library import read_card
from izograf.training.ema import MovingAverage
from izograf.training.trainer import TrainingState, train

CPU = Placement("cpu", "fp32")
NAMES = ("ae", "vae", "cvae")
TINY = ("width=8", "latent_dim=8", "class_dim=4")
BASE = Hyperparameters(
    images=64, batch_size=8, device="cpu", precision="fp32", learning_rate=3e-3, ema_share=0.0
)


@pytest.fixture(scope="module")
def sets(pictures):
    return [load_images([pictures], 16, split=split) for split in ("train", "test")]


def request_for(sets, *own: str, **changes: object) -> RunRequest:
    changes = {"settings": (*TINY, *own), **changes}
    return RunRequest("tiny", *sets, "CC0", replace(BASE, **changes))


def run(job):
    objective = job.objective
    average = MovingAverage(objective.modules, objective.averaged, share=job.training.ema_share)
    state, logged = TrainingState(average), []
    train(
        objective, job.batches, job.training, state, CPU,
        lambda state, stats: logged.append({k: float(v) for k, v in stats.items()}),  # noqa: ARG005
    )  # fmt: skip
    return state, logged


def exported(name: str, sets, folder, *settings: str, **changes: object):
    job = RECIPES[name].build(request_for(sets, *settings, **changes))
    state, _ = run(job)
    job.export(state.average.modules, folder, {})
    return load_generator(str(folder), device="cpu", precision="fp32")[0]


@pytest.mark.parametrize("name", NAMES)
def test_training_lowers_the_reconstruction_error(name, sets) -> None:
    _, logged = run(RECIPES[name].build(request_for(sets, images=320)))
    psnr = [line["reconstruct/psnr"] for line in logged]
    assert sum(psnr[-5:]) / 5 > sum(psnr[:5]) / 5 + 1


@pytest.mark.parametrize("name", ["vae", "cvae"])
def test_the_log_shows_what_the_code_carries(name, sets) -> None:
    _, logged = run(RECIPES[name].build(request_for(sets)))
    for line in logged:
        assert line["reconstruct/kl"] >= 0
        assert 0 <= line["reconstruct/active_units"] <= 8
        size = 3 * 16 * 16
        expected = line["reconstruct/reconstruction"] + (
            line["reconstruct/beta"] * line["reconstruct/kl"] / size
        )
        assert line["reconstruct/loss"] == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_evaluation_has_the_nats_of_each_dimension(sets) -> None:
    job = RECIPES["vae"].build(request_for(sets))
    scores = job.evaluate(run(job)[0].average.modules)
    by_dimension = [scores[f"kl/{index:03}"] for index in range(8)]
    assert scores["kl"] == pytest.approx(sum(by_dimension), rel=1e-5)
    assert set(scores) == {"validation_loss", "kl", "active_units"} | {
        f"kl/{index:03}" for index in range(8)
    }


def test_a_plain_autoencoder_has_no_kl(sets) -> None:
    job = RECIPES["ae"].build(request_for(sets))
    state, logged = run(job)
    assert "reconstruct/kl" not in logged[0]
    assert set(job.evaluate(state.average.modules)) == {"validation_loss"}


def test_beta_warms_up_over_its_share_of_the_run(sets) -> None:
    job = RECIPES["vae"].build(request_for(sets, "beta=4", "beta_warmup=0.5"))
    betas = [line["reconstruct/beta"] for line in run(job)[1]]
    assert betas == pytest.approx([0, 1, 2, 3, 4, 4, 4, 4])


def test_a_heavy_beta_collapses_the_posterior_and_free_bits_prevent_it(sets) -> None:
    def nats(*settings: str) -> float:
        asked = request_for(sets, "beta=200", "beta_warmup=0", *settings, images=320)
        job = RECIPES["vae"].build(asked)
        return run(job)[1][-1]["reconstruct/kl"]

    collapsed, kept = nats(), nats("free_bits=1")
    assert collapsed < 0.5
    assert kept > collapsed + 2


@pytest.mark.parametrize("name", NAMES)
def test_the_card_says_what_was_minimised(name, sets, tmp_path) -> None:
    exported(name, sets, tmp_path)
    card = read_card(tmp_path)
    assert card.family == "vae"
    assert card.network["config"]["variational"] == (name != "ae")
    assert (len(card.classes), card.conditions) == ((2, ("class",)) if name == "cvae" else (0, ()))
    expected_bound = {"beta": 25.0, "beta_warmup": 0.1, "free_bits": 0.0}
    assert card.recipe.get("bound") == (None if name == "ae" else expected_bound)
    expected = "mean-squared-error" if name == "ae" else "sigma-vae"
    assert card.recipe["hyperparameters"]["objective"] == expected


def test_a_plain_autoencoder_samples_where_its_codes_are(sets, tmp_path) -> None:
    made = exported("ae", sets, tmp_path, images=160)
    network = made.network.network
    codes = network.from_prior(made.encode(to_float(sets[0].images[:])))
    torch.testing.assert_close(network.prior_mean, codes.mean(0), atol=1e-2, rtol=1e-2)
    expected = codes.T.cov() + 1e-3 * codes.var(0).mean() * torch.eye(8)
    fitted = network.prior_factor @ network.prior_factor.T
    torch.testing.assert_close(fitted, expected, atol=0.02 * float(expected.max()), rtol=0.02)
    normal = torch.randn(2_000, 8, generator=torch.Generator().manual_seed(0))
    drawn = network.from_prior(normal)
    torch.testing.assert_close(drawn.std(0), expected.diagonal().sqrt(), atol=0, rtol=0.1)


def test_a_variational_one_keeps_the_standard_prior(sets, tmp_path) -> None:
    network = exported("vae", sets, tmp_path).network.network
    assert torch.equal(network.prior_mean, torch.zeros(8))
    assert torch.equal(network.prior_factor, torch.eye(8))


def test_the_class_decides_the_colour_of_a_picture_shown_as_another(sets, tmp_path) -> None:
    """The pictures are green or blue with their class, and noise besides."""
    made = exported("cvae", sets, tmp_path, images=640, class_dropout=0.0)
    held_out = sets[1]
    ids = held_out.class_ids
    codes = made.encode(to_float(held_out.images[:]), Condition(class_ids=ids))
    as_forest, as_sea = (
        made.decode(codes, Condition(class_ids=torch.full_like(ids, index))) for index in range(2)
    )
    assert [label.name for label in held_out.classes] == ["forest", "sea"]
    change = (as_sea - as_forest).mean((0, 2, 3))
    assert float(change[2]) > 0.2
    assert float(change[1]) < -0.2


def test_a_conditional_one_needs_classes(sets) -> None:
    one = [replace(s, classes=(), class_ids=torch.full_like(s.class_ids, -1)) for s in sets]
    with pytest.raises(DataError, match="at least two classes"):
        RECIPES["cvae"].build(request_for(one))


def test_class_dropout_trains_encoder_and_decoder_without_a_class(sets) -> None:
    def moved(share: float) -> list[list[bool]]:
        asked = request_for(sets, class_dropout=share, weight_decay=0.0, warmup=0.0)
        job = RECIPES["cvae"].build(asked)
        network = job.objective.modules["autoencoder"]
        tables = [network.encoder.classes.weight, network.decoder.classes.weight]
        before = [table.detach().clone() for table in tables]
        run(job)
        return [
            [not torch.equal(a, b) for a, b in zip(old, new.detach(), strict=True)]
            for old, new in zip(before, tables, strict=True)
        ]

    assert moved(0.0) == [[False, True, True]] * 2
    assert moved(0.999999) == [[True, False, False]] * 2


def test_previews_show_reconstructions_as_well(sets, tmp_path) -> None:
    job = RECIPES["cvae"].build(request_for(sets))
    average = MovingAverage(job.objective.modules, job.objective.averaged, share=0.05)
    job.preview(average.modules, tmp_path / "0064.png")
    assert {path.name for path in tmp_path.iterdir()} == {"0064.png", "0064-reconstructions.png"}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("beta=-1", "beta must be"),
        ("beta=much", "beta takes a number"),
        ("free_bits=nan", "free_bits takes a number"),
        ("beta_warmup=2", "beta_warmup must be"),
        ("variational=maybe", "true or false"),
        ("latent_dim=0", "latent_dim must be at least 1"),
        ("bata=1", "no field 'bata'"),
    ],
)
def test_impossible_settings_are_refused(sets, setting, message) -> None:
    with pytest.raises(InvalidInput, match=message):
        RECIPES["vae"].build(request_for(sets, setting))


def test_a_plain_autoencoder_has_no_beta(sets) -> None:
    with pytest.raises(InvalidInput, match="no field 'beta'"):
        RECIPES["ae"].build(request_for(sets, "beta=1"))


def test_the_perceptual_objective_and_its_network_belong_together(sets, tmp_path) -> None:
    judge = RECIPES["classifier"].build(request_for(sets, settings=("width=16", "depth=1")))
    judge.export(run(judge)[0].average.modules, tmp_path, {})
    job = RECIPES["vae"].build(request_for(sets, objective="perceptual", perceptual=str(tmp_path)))
    assert all(math.isfinite(line["reconstruct/loss"]) for line in run(job)[1])
    with pytest.raises(InvalidInput, match="name it with --perceptual"):
        RECIPES["vae"].build(request_for(sets, objective="perceptual"))
    with pytest.raises(InvalidInput, match="is for --objective perceptual"):
        RECIPES["vae"].build(request_for(sets, perceptual=str(tmp_path)))
