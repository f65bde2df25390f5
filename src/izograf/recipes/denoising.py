"""What the diffusion recipes share: one function from a network and its defaults to a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from izograf.checkpoints.files import GUIDE, save_weights
from izograf.core.config import config_to_json
from izograf.core.types import Generator
from izograf.data.batches import horizontal_flip
from izograf.diffusion.denoiser import Denoiser
from izograf.diffusion.precondition import PRECONDITIONERS, Preconditioner
from izograf.diffusion.reuse import can_reuse
from izograf.generators.autoencoder import PREFIX, described_codec
from izograf.generators.diffusion import DiffusionGenerator
from izograf.generators.diffusion_options import diffusion_options, fast_preset
from izograf.models.registry import NETWORKS
from izograf.objectives.denoising import DenoisingObjective
from izograf.objectives.noise import NOISE_LAWS, WEIGHTINGS, NoiseLaw, UniformTable
from izograf.objectives.variational import VarianceBound
from izograf.recipes import parts
from izograf.recipes.latents import Latents, either_latent, with_part
from izograf.recipes.prompts import Prompts
from izograf.recipes.registry import Hyperparameters, RunRequest
from izograf.schema.errors import InvalidInput
from izograf.training.run import Averaged, Job

SIGMA_MIN, SIGMA_MAX = 0.02, 80.0
DEVIATION = 0.5  # of pictures in [-1,1], about
LOUDEST = 160.0  # beyond, the rounding of an epsilon network's answer is louder than the picture
TAKES = ("noise_law", "weighting", "init_from", "early_snapshot")

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
    prompts: Prompts | None = None,
) -> Job:
    """A denoiser trained under a noise law; class dropout makes classifier-free guidance work.

    Args:
        network: its name in the registry of networks.
        config: (image size, number of classes) -> the network's default config; ValueError for a
            size it cannot have.
        summary: what the card's one line calls the model.
        latents: encodes the pictures of `request`, so that latents are denoised; None for pixels.
        prompts: reads captions of the pictures, which take the place of classes.
    """
    chosen = request.hyperparameters.over(defaults)
    shape = parts.network_config(_default(config, request, latents, prompts), chosen.settings)
    placement = chosen.placement(width=shape.width)
    precondition = preconditioner(chosen.objective or "", DEVIATION if latents is None else 1.0)
    noise_law = NOISE_LAWS[chosen.noise_law or ""]

    built = parts.build_seeded(lambda: NETWORKS[network].build(shape), chosen.seed, placement)
    sampling = sampling_facts(chosen, precondition, noise_law)
    sampling |= {} if latents is None else {"autoencoder": described_codec(latents.codec)}
    new = () if prompts is None else ("num_classes", "text_tokens", "text_dim")
    parents = parts.start_from(chosen.init_from, built, network, shape, sampling, new=new)
    denoiser = Denoiser(built, precondition)
    objective = DenoisingObjective(
        denoiser,
        parts.make_optimizer(denoiser.parameters(), chosen),
        noise_law=noise_law,
        weighting=WEIGHTINGS[chosen.weighting or ""],
        variance=_variance_bound(shape, noise_law),
        class_dropout=chosen.class_dropout or 0.0,
    )
    conditional = bool(request.train.classes) or prompts is not None
    options = partial(
        diffusion_options,
        conditional=conditional,
        classes=[label.name for label in request.train.classes if prompts is None],
        table=isinstance(noise_law, UniformTable),
        reuses=can_reuse(built),
    )
    card = parts.model_card(
        request,
        recipe=name,
        paper=paper,
        chosen=chosen,
        family="diffusion",
        network={"name": network, "config": config_to_json(shape)},
        options=options(),
        fast=fast_preset(conditional=conditional),
        sampling=sampling,
        parents=parents,
        summary=f"{summary}, {request.image_size} px",
    )
    if prompts is not None:
        card = prompts.on_card(card)
    if latents is not None:  # which takes minutes, so everything has been checked before
        card = latents.on_card(card)
        request = latents.request(request, mirrored=bool(chosen.flip))
    codec = None if latents is None else latents.codec

    def generator_of(averaged: Averaged) -> Generator:
        made = DiffusionGenerator(card, _denoiser(averaged), placement, codec)
        return made if prompts is None else prompts.generator(made)

    def weights_of(averaged: Averaged) -> nn.Module:
        network = _denoiser(averaged).network
        if codec is not None:
            network = with_part(network, PREFIX, codec.network)
        return network if prompts is None else prompts.weights(network)

    def export(averaged: Averaged, folder: Path, facts: Mapping[str, Any]) -> None:
        given, told = card, dict(facts)
        early = told.pop("early_snapshot", 0)
        if early:
            sampling = {**card.sampling, "guide": {"images_seen": early}}
            given = replace(card, options=options(guide=True), sampling=sampling)
        beside = (GUIDE,) if early else ()
        parts.exporter(given, weights_of, placement, beside=beside)(averaged, folder, told)

    mirror = horizontal_flip if latents is None else either_latent
    pictures = parts.training_batches(request, chosen, placement, mirror=mirror)
    return Job(
        objective=objective,
        batches=pictures if prompts is None else prompts.batches(pictures, chosen.seed),
        training=chosen.training(),
        run=chosen.run(monitor="validation_loss"),
        placement=placement,
        evaluate=parts.held_out_evaluation(
            request, chosen, placement, objective.held_out_loss, "denoiser",
            captioned=prompts.held_out(request.held_out, chosen.seed) if prompts else None,
        ),
        preview=parts.preview_sheet(
            card, generator_of, placement, prompts=prompts.examples() if prompts else ()
        ),
        export=export,
        keep_early=_keep_guide,
    )  # fmt: skip


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


def _keep_guide(averaged: Averaged, folder: Path) -> None:
    tensors = _denoiser(averaged).network.state_dict()
    save_weights(folder, GUIDE, tensors, dtype=parts.DTYPE_ON_DISK)


def _default(
    config: Callable[[int, int], Any],
    request: RunRequest,
    latents: Latents | None,
    prompts: Prompts | None,
) -> Callable[[], Any]:
    """The network's default config for what it sees of the pictures, and for what they show."""

    def default() -> Any:
        num_classes = len(request.train.classes)
        if latents is None:
            shape = config(request.image_size, num_classes)
        else:
            channels, side, _ = latents.codec.shape
            shape = replace(config(side, num_classes), channels=channels)
        return shape if prompts is None else prompts.adapted(shape)

    return default


def _denoiser(averaged: Averaged) -> Denoiser:
    denoiser = averaged["denoiser"]
    assert isinstance(denoiser, Denoiser)
    return denoiser
