"""An upscaler: pictures at twice their height and width, sharper than an interpolation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from izograf.core.config import apply_settings, config_to_json
from izograf.core.devices import Placement
from izograf.core.pixels import to_float, to_uint8
from izograf.data.dataset import ImageSet
from izograf.generators.sheet import contact_sheet
from izograf.metrics.paired import WINDOW, psnr, ssim
from izograf.models.upscaler import Upscaler, UpscalerConfig, bicubic
from izograf.objectives.restoration import (
    FACTOR,
    RESTORATION_LOSSES,
    Degradation,
    RestorationObjective,
    halved,
)
from izograf.recipes import parts
from izograf.recipes.autoencoding import unlabelled
from izograf.recipes.registry import Hyperparameters, RunRequest, recipe
from izograf.schema.errors import InvalidInput
from izograf.training.run import Averaged, Job
from izograf.training.trainer import autocast

NAME = "upscaler"
PAPER = "Lim et al. 2017 (arXiv:1707.02921); pixel shuffle after Shi et al. 2016"
MEASURED = 512  # held-out pictures
SHOWN = 6
LARGEST_PSNR = 100.0  # decibels; a picture restored exactly would have infinitely many

DEFAULTS = Hyperparameters(
    images=100_000,
    batch_size=16,
    optimizer="adam",
    objective="charbonnier",
    learning_rate=5e-4,
    weight_decay=0.0,
    gradient_clip=1.0,
    decay_share=0.7,
    flip=True,
)


@recipe(
    NAME,
    summary="pictures at twice their size: residual network on bicubic",
    paper=PAPER,
    objectives=RESTORATION_LOSSES,
    takes=("init_from",),
)
def upscaler(request: RunRequest) -> Job:
    """Learns from pictures of `--image-size` and what is left of them at half that size.

    `--set` reaches the fields of the network and of `Degradation` (`crop`, `blur`, `noise`).

    Raises:
        InvalidInput: pictures of an odd size, which have no halves.
    """
    if request.image_size % FACTOR:
        raise InvalidInput(
            f"Pictures of {request.image_size} pixels cannot be halved: choose an even "
            "--image-size."
        )
    request = unlabelled(request)
    chosen = request.hyperparameters.over(DEFAULTS)
    degradation, settings = _degradation(chosen.settings)
    config = parts.network_config(UpscalerConfig, settings)
    placement = chosen.placement(width=config.width)
    network = parts.build_seeded(partial(Upscaler, config), chosen.seed, placement)
    parents = parts.start_from(chosen.init_from, network, NAME, config)
    objective = RestorationObjective(
        network,
        parts.make_optimizer(network.parameters(), chosen),
        loss=RESTORATION_LOSSES[chosen.objective or ""],
        degradation=degradation,
    )
    card = parts.model_card(
        request,
        recipe=NAME,
        paper=PAPER,
        chosen=chosen,
        family="upscaler",
        task="upscale",
        parents=parents,
        network={"name": "upscaler", "config": config_to_json(config)},
        summary=f"pictures at {FACTOR} times their height and width",
    )
    card = replace(card, recipe={**card.recipe, "degradation": config_to_json(degradation)})

    def weights_of(averaged: Averaged) -> nn.Module:
        return averaged["upscaler"]

    return Job(
        objective=objective,
        batches=parts.training_batches(request, chosen, placement),
        training=chosen.training(),
        run=chosen.run(monitor="validation_loss"),
        placement=placement,
        evaluate=_evaluation(request, RESTORATION_LOSSES[chosen.objective or ""], placement),
        preview=_preview(request, placement),
        export=parts.exporter(card, weights_of, placement),
    )


def _degradation(settings: tuple[str, ...]) -> tuple[Degradation, tuple[str, ...]]:
    """How pictures are made small, and the settings left for the network."""
    fields = {field.name for field in dataclasses.fields(Degradation)}
    own = [text for text in settings if text.partition("=")[0].strip() in fields]
    return apply_settings(Degradation(), own), tuple(t for t in settings if t not in own)


def _evaluation(
    request: RunRequest, loss: Callable[[Tensor, Tensor], Tensor], placement: Placement
) -> Callable[[Averaged], Mapping[str, float]] | None:
    """The loss, PSNR and SSIM on held-out pictures that were only halved, beside bicubic's."""
    held_out = request.held_out
    if len(held_out) == 0:
        return None
    real = held_out.images[torch.arange(min(MEASURED, len(held_out)))].cpu()
    baseline = {f"{name}_bicubic": score for name, score in _scores(_enlarged(real), real).items()}

    def evaluate(averaged: Averaged) -> Mapping[str, float]:
        total, made = 0.0, []
        for pictures in torch.split(real, 16):
            restored = _restored(averaged["upscaler"], pictures, placement)
            total += float(loss(restored, to_float(pictures))) * len(pictures)
            made.append(to_uint8(restored))
        scores = _scores(torch.cat(made), real)
        return {"validation_loss": total / len(real), **scores, **baseline}

    return evaluate


@torch.no_grad()
def _restored(network: nn.Module, pictures: Tensor, placement: Placement) -> Tensor:
    """uint8 pictures -> what the network makes of their halves, float32 on the CPU."""
    small = halved(to_float(pictures)).to(placement.device, memory_format=torch.channels_last)
    with autocast(placement):
        restored: Tensor = network(small)
    return restored.float().cpu()


def _enlarged(pictures: Tensor) -> Tensor:
    return to_uint8(bicubic(halved(to_float(pictures))))


def _scores(made: Tensor, real: Tensor) -> dict[str, float]:
    """Means over the pictures; no SSIM where they are smaller than its window."""
    scores = {"psnr": float(psnr(made, real).clamp(max=LARGEST_PSNR).mean())}
    if min(real.shape[-2:]) >= WINDOW:
        pairs = zip(torch.split(made, 32), torch.split(real, 32), strict=True)
        similar = [ssim(ours, theirs) for ours, theirs in pairs]
        scores["ssim"] = float(torch.cat(similar).mean())
    return scores


def _preview(request: RunRequest, placement: Placement) -> Callable[[Averaged, Path], None]:
    """Writes a row of bicubic enlargements, one of the network's, and one of the pictures."""
    source: ImageSet = request.held_out if len(request.held_out) else request.train
    real = source.images[torch.arange(min(SHOWN, len(source)))].cpu()

    def preview(averaged: Averaged, path: Path) -> None:
        made = to_uint8(_restored(averaged["upscaler"], real, placement))
        contact_sheet(torch.cat([_enlarged(real), made, real]), columns=len(real)).save(path)

    return preview
