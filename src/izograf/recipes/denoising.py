"""What the diffusion recipes share: one function from a network and its defaults to a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import nn

from izograf.core.config import config_to_json
from izograf.data.batches import horizontal_flip
from izograf.diffusion.denoiser import Denoiser
from izograf.diffusion.precondition import PRECONDITIONERS, Preconditioner
from izograf.generators.autoencoder import described_codec
from izograf.generators.diffusion import DiffusionGenerator
from izograf.generators.diffusion_options import diffusion_options
from izograf.models.registry import NETWORKS
from izograf.objectives.denoising import DenoisingObjective
from izograf.objectives.noise import NOISE_LAWS, WEIGHTINGS, NoiseLaw, UniformTable
from izograf.objectives.variational import VarianceBound
from izograf.recipes import parts
from izograf.recipes.latents import Latents, either_latent, with_autoencoder
from izograf.recipes.registry import Hyperparameters, RunRequest
from izograf.schema.errors import InvalidInput
from izograf.training.run import Averaged, Job

SIGMA_MIN, SIGMA_MAX = 0.02, 80.0
DEVIATION = 0.5  # of pictures in [-1,1], about
LOUDEST = 160.0  # beyond, the rounding of an epsilon network's answer is louder than the picture
TAKES = ("noise_law", "weighting", "init_from")

DEFAULTS = Hyperparameters(
    images=1_000_000,
    batch_size=64,
    optimizer="adamw",
    objective="flow",
    noise_law="log-normal",
    weighting="uniform",
    learning_rate=1e-3,
    weight_decay=0.01,
    gradient_clip=1.0,
    class_dropout=0.1,
    flip=False,
)


def denoising_job(
    request: RunRequest,
    *,
    name: str,
    paper: str,
    network: str,
    config: Callable[[int, int], Any],
    defaults: Hyperparameters = DEFAULTS,
    summary: str,
    latents: Latents | None = None,
) -> Job:
    """A denoiser trained under a noise law; class dropout makes classifier-free guidance work.

    Args:
        network: its name in the registry of networks.
        config: (image size, number of classes) -> the network's default config; ValueError for a
            size it cannot have.
        summary: what the card's one line calls the model.
        latents: encodes the pictures of `request`, so that latents are denoised; None for pixels.
    """
    chosen = request.hyperparameters.over(defaults)
    shape = parts.network_config(_default(config, request, latents), chosen.settings)
    placement = chosen.placement(width=shape.width)
    precondition = preconditioner(chosen.objective or "", DEVIATION if latents is None else 1.0)
    noise_law = NOISE_LAWS[chosen.noise_law or ""]

    built = parts.build_seeded(lambda: NETWORKS[network].build(shape), chosen.seed, placement)
    sampling = sampling_facts(chosen, precondition, noise_law)
    sampling |= {} if latents is None else {"autoencoder": described_codec(latents.codec)}
    parents = parts.start_from(chosen.init_from, built, network, shape, sampling)
    denoiser = Denoiser(built, precondition)
    objective = DenoisingObjective(
        denoiser,
        parts.make_optimizer(denoiser.parameters(), chosen),
        noise_law=noise_law,
        weighting=WEIGHTINGS[chosen.weighting or ""],
        variance=_variance_bound(shape, noise_law),
        class_dropout=chosen.class_dropout or 0.0,
    )
    card = parts.model_card(
        request,
        recipe=name,
        paper=paper,
        chosen=chosen,
        family="diffusion",
        network={"name": network, "config": config_to_json(shape)},
        options=diffusion_options(
            conditional=bool(request.train.classes),
            classes=[label.name for label in request.train.classes],
        ),
        sampling=sampling,
        parents=parents,
        summary=f"{summary}, {request.image_size} px",
    )
    if latents is not None:  # which takes minutes, so everything has been checked before
        card = latents.on_card(card)
        request = latents.request(request, mirrored=bool(chosen.flip))
    codec = None if latents is None else latents.codec

    def generator_of(averaged: Averaged) -> DiffusionGenerator:
        return DiffusionGenerator(card, _denoiser(averaged), placement, codec)

    def weights_of(averaged: Averaged) -> nn.Module:
        network = _denoiser(averaged).network
        return network if codec is None else with_autoencoder(network, codec.network)

    return Job(
        objective=objective,
        batches=parts.training_batches(
            request,
            chosen,
            placement,
            mirror=horizontal_flip if latents is None else either_latent,
        ),
        training=chosen.training(),
        run=chosen.run(monitor="validation_loss"),
        placement=placement,
        evaluate=parts.held_out_evaluation(
            request, chosen, placement, objective.held_out_loss, "denoiser"
        ),
        preview=parts.preview_sheet(card, generator_of, placement),
        export=parts.exporter(card, weights_of, placement),
    )


def sampling_facts(
    chosen: Hyperparameters, precondition: Preconditioner, noise_law: NoiseLaw
) -> dict[str, Any]:
    """What the card says about sampling: what the network predicts, and between which levels."""
    low, high = SIGMA_MIN, SIGMA_MAX
    if isinstance(noise_law, UniformTable):
        levels = noise_law.levels
        low, high = float(levels[0]), min(LOUDEST, float(levels[-1]))
    return {
        "preconditioner": {"name": chosen.objective, "config": config_to_json(precondition)},
        "sigma_min": low,
        "sigma_max": high,
        "noise_law": {"name": chosen.noise_law, **config_to_json(noise_law)},
    }


def _variance_bound(config: Any, noise_law: NoiseLaw) -> VarianceBound | None:
    if not config.learned_variance:
        return None
    if not isinstance(noise_law, UniformTable):
        raise InvalidInput(
            "learned_variance is of steps between the levels of a table: add --noise-law cosine "
            "or --noise-law linear."
        )
    return VarianceBound(noise_law.levels)


def preconditioner(name: str, deviation: float) -> Preconditioner:
    """The one of that name for data of that deviation, where it asks for it."""
    kind: Any = PRECONDITIONERS[name]
    asked = "sigma_data" in {field.name for field in dataclasses.fields(kind)}
    built: Preconditioner = kind(sigma_data=deviation) if asked else kind()
    return built


def _default(
    config: Callable[[int, int], Any], request: RunRequest, latents: Latents | None
) -> Callable[[], Any]:
    num_classes = len(request.train.classes)
    if latents is None:
        return lambda: config(request.image_size, num_classes)
    channels, side, _ = latents.codec.shape
    return lambda: replace(config(side, num_classes), channels=channels)


def _denoiser(averaged: Averaged) -> Denoiser:
    denoiser = averaged["denoiser"]
    assert isinstance(denoiser, Denoiser)
    return denoiser
