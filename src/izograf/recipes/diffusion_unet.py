"""The recommended recipe: a class-conditional diffusion U-Net trained as a rectified flow."""

from __future__ import annotations

from functools import partial

from torch import nn

from izograf.core.config import config_to_json
from izograf.diffusion.denoiser import Denoiser
from izograf.diffusion.precondition import PRECONDITIONERS
from izograf.generators.diffusion import (
    DiffusionGenerator,
    diffusion_options,
    preconditioner_to_json,
)
from izograf.models.unet import UNetConfig, build_unet
from izograf.objectives.denoising import DenoisingObjective, NoiseLaw
from izograf.recipes import parts
from izograf.recipes.registry import Hyperparameters, RunRequest, recipe
from izograf.training.run import Averaged, Job

NAME = "diffusion-unet"
PAPER = "Lipman et al. 2023 (arXiv:2210.02747); U-Net after Dhariwal & Nichol 2021"
SIGMA_MIN, SIGMA_MAX = 0.02, 80.0

DEFAULTS = Hyperparameters(
    images=1_000_000,
    batch_size=64,
    optimizer="adamw",
    objective="flow",
    learning_rate=1e-3,
    weight_decay=0.01,
    gradient_clip=1.0,
    class_dropout=0.1,
    flip=False,
)


def unet_config(image_size: int, num_classes: int) -> UNetConfig:
    """The default network for a picture size: an 8x8 bottleneck under a 4x4 pixel-unshuffle stem.

    Pictures too small for that stem get a finer one.
    """
    patch_size = 4 if image_size >= 64 else 2
    top = image_size // patch_size
    levels = 1
    while top // 2**levels >= 8 and top % 2**levels == 0:
        levels += 1
    multipliers = (1, 2, 2, 2, 2, 2)[:levels]
    bottom = top // 2 ** (levels - 1)
    return UNetConfig(
        image_size=image_size,
        num_classes=num_classes,
        patch_size=patch_size,
        width=96,
        multipliers=multipliers,
        depth=2,
        attention=(bottom,),
        head_dim=64 if levels > 1 else 32,  # must divide the channels, 96 with one level
    )


@recipe(
    NAME,
    summary="diffusion U-Net, rectified flow, class-conditional",
    paper=PAPER,
    objectives=PRECONDITIONERS,
)
def diffusion_unet(request: RunRequest) -> Job:
    """Denoising under a log-normal noise law; class dropout makes classifier-free guidance work.

    `--objective` names what the network predicts, rectified flow by default.
    """
    chosen = request.hyperparameters.over(DEFAULTS)
    default = partial(unet_config, request.image_size, len(request.train.classes))
    config = parts.network_config(default, chosen.settings)
    placement = chosen.placement(width=config.width)
    prediction = chosen.objective or ""
    precondition, noise_law = PRECONDITIONERS[prediction](), NoiseLaw()

    network = parts.build_seeded(partial(build_unet, config), chosen.seed, placement)
    denoiser = Denoiser(network, precondition)
    objective = DenoisingObjective(
        denoiser,
        parts.make_optimizer(denoiser.parameters(), chosen),
        noise_law=noise_law,
        class_dropout=chosen.class_dropout or 0.0,
    )
    card = parts.model_card(
        request,
        recipe=NAME,
        paper=PAPER,
        chosen=chosen,
        family="diffusion",
        network={"name": "unet", "config": config_to_json(config)},
        options=diffusion_options(conditional=bool(request.train.classes)),
        sampling={
            "preconditioner": preconditioner_to_json(prediction),
            "sigma_min": SIGMA_MIN,
            "sigma_max": SIGMA_MAX,
            "noise_law": config_to_json(noise_law),
        },
        summary=f"diffusion U-Net, {request.image_size} px",
    )

    def generator_of(averaged: Averaged) -> DiffusionGenerator:
        return DiffusionGenerator(card, _denoiser(averaged), placement)

    def weights_of(averaged: Averaged) -> nn.Module:
        return _denoiser(averaged).network

    return Job(
        objective=objective,
        batches=parts.training_batches(request, chosen, placement),
        training=chosen.training(),
        run=chosen.run(monitor="validation_loss"),
        placement=placement,
        evaluate=parts.held_out_evaluation(
            request, chosen, placement, objective.held_out_loss, "denoiser"
        ),
        preview=parts.preview_sheet(card, generator_of, placement),
        export=parts.exporter(card, weights_of, placement),
    )


def _denoiser(averaged: Averaged) -> Denoiser:
    denoiser = averaged["denoiser"]
    assert isinstance(denoiser, Denoiser)
    return denoiser
