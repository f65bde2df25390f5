"""An autoencoder whose latents a diffusion model learns: a picture 12 or 48 times smaller."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from izograf.core.config import apply_settings, config_to_json
from izograf.core.devices import Placement
from izograf.core.pixels import to_float, to_uint8
from izograf.core.rng import generator
from izograf.data.dataset import ImageSet
from izograf.generators.codec import LatentFacts, measure_latents
from izograf.generators.sheet import contact_sheet
from izograf.metrics.extractors import extract_features, open_extractor
from izograf.metrics.paired import WINDOW, psnr, ssim
from izograf.metrics.registry import METRICS
from izograf.models.autoencoder import KLAutoencoder, KLAutoencoderConfig
from izograf.models.patchgan import PatchGAN, PatchGANConfig
from izograf.objectives.autoencoding import (
    PIXEL_LOSSES,
    AutoencodingObjective,
    LossWeights,
    Parties,
)
from izograf.objectives.perceptual import Features, feature_distance
from izograf.recipes import parts
from izograf.recipes.autoencoding import unlabelled
from izograf.recipes.perceptual import features_of
from izograf.recipes.registry import Hyperparameters, RunRequest, recipe
from izograf.training.run import Averaged, Job
from izograf.training.trainer import autocast

NAME = "kl-autoencoder"
PAPER = "Rombach et al. 2022 (arXiv:2112.10752); adversarial term after Esser et al. 2021"
BETAS = (0.5, 0.9)
MEASURED = 2048  # training pictures whose latents the standardisation is measured on
SHOWN = 8
LARGEST_PSNR = 100.0  # decibels; a reconstruction that is exact would have infinitely many

DEFAULTS = Hyperparameters(
    images=500_000,
    batch_size=32,
    optimizer="adam",
    objective="l1",
    learning_rate=5e-4,
    weight_decay=0.0,
    gradient_clip=1.0,
    flip=False,
)


def kl_autoencoder_config(image_size: int) -> KLAutoencoderConfig:
    """The default network for a picture size: f4, and f8 from 128 pixels on.

    Pictures that 4 does not divide are halved only. At 32 pixels it has 2.9 M parameters.
    """
    if image_size < 8 or image_size % 2:
        raise ValueError(f"image_size must be even and at least 8, got {image_size}")
    shape = partial(KLAutoencoderConfig, image_size)
    if image_size >= 128 and image_size % 8 == 0:
        return shape(patch_size=4, width=96)
    if image_size % 4:
        return shape(patch_size=2, width=80, multipliers=(1,))
    return shape(patch_size=2, width=80 if image_size < 64 else 64)


@recipe(
    NAME,
    summary="KL autoencoder for latent diffusion: adversarial, f4 or f8",
    paper=PAPER,
    objectives=PIXEL_LOSSES,
    takes=("perceptual",),
)
def kl_autoencoder(request: RunRequest) -> Job:
    """`--objective` names the pixel loss; `--perceptual` adds the features of a classifier.

    `--set` reaches the fields of the network and of `LossWeights` (`kl`, `adversarial`, ...).
    """
    request = unlabelled(request)
    chosen = request.hyperparameters.over(DEFAULTS)
    weights, settings = _weights(chosen.settings)
    config = parts.network_config(partial(kl_autoencoder_config, request.image_size), settings)
    placement = chosen.placement(width=config.width)
    network = parts.build_seeded(partial(KLAutoencoder, config), chosen.seed, placement)
    patches = PatchGANConfig(depth=1 if request.image_size < 32 else 2)
    discriminator = parts.build_seeded(partial(PatchGAN, patches), chosen.seed + 1, placement)
    features = features_of(chosen.perceptual, placement)
    training = chosen.training()
    objective = AutoencodingObjective(
        Parties(
            network,
            discriminator,
            parts.make_optimizer(network.parameters(), chosen, betas=BETAS),
            parts.make_optimizer(discriminator.parameters(), chosen, betas=BETAS),
        ),
        pixel_loss=PIXEL_LOSSES[chosen.objective or ""],
        features=features,
        weights=weights,
        images=training.images,
    )
    card = parts.model_card(
        request,
        recipe=NAME,
        paper=PAPER,
        chosen=chosen,
        family="kl-autoencoder",
        task="autoencode",
        parents=() if features is None else (features.parent,),
        network={"name": "kl-autoencoder", "config": config_to_json(config)},
        summary=f"KL autoencoder f{config.factor}, {request.image_size} px, "
        f"{config.latent_channels} channels",
    )
    card = replace(card, recipe={**card.recipe, "weights": config_to_json(weights)})

    def export(averaged: Averaged, folder: Path, facts: Mapping[str, Any]) -> None:
        latents = latent_facts(_network(averaged), request.train, placement)
        complete = replace(card, sampling={"latents": latents.to_json()})
        parts.exporter(complete, _network, placement)(averaged, folder, facts)

    return Job(
        objective=objective,
        batches=parts.training_batches(request, chosen, placement),
        training=training,
        run=chosen.run(monitor="validation_loss"),
        placement=placement,
        evaluate=_evaluation(request, objective.likeness, features, chosen, placement),
        preview=_preview(request, placement),
        export=export,
    )


def latent_facts(network: KLAutoencoder, images: ImageSet, placement: Placement) -> LatentFacts:
    """The standardisation of the latents of training pictures, spread over the whole set."""
    count = min(MEASURED, len(images))
    index = torch.arange(count) * len(images) // count
    latents, pictures = [], []
    for image in _batches(images, index, placement):
        with torch.no_grad(), autocast(placement):
            latents.append(network.posterior(image)[0])
        pictures.append(image)
    return measure_latents(latents, pictures)


def _weights(settings: tuple[str, ...]) -> tuple[LossWeights, tuple[str, ...]]:
    """The weights of the loss, and the settings left for the network."""
    fields = {field.name for field in dataclasses.fields(LossWeights)}
    own = [text for text in settings if text.partition("=")[0].strip() in fields]
    return apply_settings(LossWeights(), own), tuple(t for t in settings if t not in own)


def _network(averaged: Averaged) -> KLAutoencoder:
    network = averaged["autoencoder"]
    assert isinstance(network, KLAutoencoder)
    return network


def _batches(
    images: ImageSet, index: Tensor, placement: Placement, *, size: int = 32
) -> Iterator[Tensor]:
    for start in range(0, len(index), size):
        picked = images.images[index[start : start + size]]
        image = to_float(picked.to(placement.device))
        yield image.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def _reconstruct(network: nn.Module, image: Tensor, placement: Placement) -> Tensor:
    """By way of the posterior's mean, float32 and not clipped."""
    assert isinstance(network, KLAutoencoder)
    with autocast(placement):
        mean, _ = network.posterior(image)
        return network.decoder(mean).float()  # type: ignore[no-any-return]


def _evaluation(
    request: RunRequest,
    likeness: Callable[[Tensor, Tensor], Tensor],
    features: Features | None,
    chosen: Hyperparameters,
    placement: Placement,
) -> Callable[[Averaged], Mapping[str, float]] | None:
    """The reconstruction floor on at most 1024 held-out pictures: what no latent model can pass."""
    held_out = request.held_out
    if len(held_out) == 0:
        return None
    index = torch.arange(min(parts.HELD_OUT_IMAGES, len(held_out)))
    real = held_out.images[index].cpu()

    def evaluate(averaged: Averaged) -> Mapping[str, float]:
        loss, distance, made = 0.0, 0.0, []
        for image in _batches(held_out, index, placement):
            found = _reconstruct(averaged["autoencoder"], image, placement)
            with torch.no_grad(), autocast(placement):
                loss += float(likeness(found, image)) * len(image) / len(index)
                if features is not None:
                    total = feature_distance(features, found.clamp(-1, 1), image).sum()
                    distance += float(total) / len(index)
            made.append(to_uint8(found.cpu()))
        fake = torch.cat(made)
        scores = {"validation_loss": loss, "psnr": _mean_psnr(fake, real)}
        if features is not None:
            scores["perceptual_distance"] = distance
        if request.image_size >= WINDOW:
            scores["ssim"] = float(ssim(fake, real).mean())
        if len(index) > 1:
            scores["frechet_random_conv"] = _frechet(real, fake, chosen.seed)
        return scores

    return evaluate


def _mean_psnr(fake: Tensor, real: Tensor) -> float:
    return float(psnr(fake, real).clamp(max=LARGEST_PSNR).mean())


def _frechet(real: Tensor, fake: Tensor, seed: int) -> float:
    """Under a fixed random network, which needs no file; the judge comes with `evaluate`."""
    extractor = open_extractor("random-conv")
    ours, theirs = (extract_features(pictures, extractor) for pictures in (real, fake))
    return METRICS["frechet"].compute(ours, theirs, generator(seed, "frechet"))


def _preview(request: RunRequest, placement: Placement) -> Callable[[Averaged, Path], None]:
    """Writes rows of pictures, each above its reconstructions."""
    source = request.held_out if len(request.held_out) else request.train
    rows_shown = min(2, len(source) // SHOWN)
    index = torch.arange(SHOWN * rows_shown or len(source))

    def preview(averaged: Averaged, path: Path) -> None:
        rows = []
        for image in _batches(source, index, placement, size=SHOWN):
            found = _reconstruct(averaged["autoencoder"], image, placement)
            rows += [to_uint8(image.cpu()), to_uint8(found.cpu())]
        contact_sheet(torch.cat(rows), columns=len(rows[0])).save(path)

    return preview
