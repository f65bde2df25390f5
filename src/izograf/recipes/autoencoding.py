"""What the recipes ae, vae and cvae share: one function from a request to a run."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from izograf.core.config import apply_settings, config_to_json
from izograf.core.devices import Placement
from izograf.core.pixels import to_float, to_uint8
from izograf.core.types import Condition
from izograf.data.dataset import ImageSet
from izograf.generators.latent import latent_options
from izograf.generators.sheet import contact_sheet
from izograf.generators.vae import VAEGenerator
from izograf.models.vae import VAE, VAEConfig, fit_gaussian
from izograf.objectives.elbo import (
    ElboConfig,
    ElboObjective,
    gaussian_kl,
    num_active,
)
from izograf.objectives.perceptual import feature_distance
from izograf.objectives.reconstruction import PERCEPTUAL, RECONSTRUCTION_LOSSES, Distance
from izograf.recipes import parts
from izograf.recipes.perceptual import features_of
from izograf.recipes.registry import Hyperparameters, RunRequest
from izograf.schema.card import ModelCard
from izograf.schema.errors import InvalidInput
from izograf.training.run import Averaged, Job
from izograf.training.trainer import autocast

CODES = 4096  # pictures whose codes a prior is fitted to, and the latent dimensions are judged by
# The likelihood takes pixels for independent, and so counts what neighbours share many times over;
# with beta = 1 codes carry far more than their prior can sample, the class among it.
BOUND = ElboConfig(beta=25.0)
SHOWN = 8  # pictures on the sheet of reconstructions

DEFAULTS = Hyperparameters(
    images=1_000_000,
    batch_size=64,
    optimizer="adamw",
    objective="sigma-vae",
    learning_rate=1e-3,
    weight_decay=0.01,
    gradient_clip=1.0,
    class_dropout=0.0,
    flip=False,
)


def autoencoding_job(
    request: RunRequest,
    *,
    name: str,
    paper: str,
    summary: str,
    bound: ElboConfig | None,
    defaults: Hyperparameters = DEFAULTS,
) -> Job:
    """An encoder and a decoder with one code vector between them.

    `--set` reaches the fields of the network and, of a variational one, those of the bound
    (`beta`, `beta_warmup`, `free_bits`). A plain autoencoder is sampled from a Gaussian fitted to
    the codes of its training pictures whenever the model is written.

    Args:
        bound: what the KL divergence weighs by default; None for a plain autoencoder.
    """
    chosen = request.hyperparameters.over(defaults)
    variational = bound is not None
    elbo, network_settings = _bound(bound, chosen.settings)
    default = partial(
        VAEConfig, request.image_size, len(request.train.classes), variational=variational
    )
    config = parts.network_config(default, network_settings)
    placement = chosen.placement(width=config.width)
    network = parts.build_seeded(partial(VAE, config), chosen.seed, placement)
    likelihood = RECONSTRUCTION_LOSSES[chosen.objective or ""](_distance(chosen, placement))
    likelihood.to(placement.device)
    training = chosen.training()
    objective = ElboObjective(
        network,
        likelihood,
        parts.make_optimizer([*network.parameters(), *likelihood.parameters()], chosen),
        elbo,
        images=training.images,
        class_dropout=chosen.class_dropout or 0.0,
    )
    card = parts.model_card(
        request,
        recipe=name,
        paper=paper,
        chosen=chosen,
        family="vae",
        network={"name": "vae", "config": config_to_json(config)},
        options=latent_options(),
        summary=f"{summary}, {request.image_size} px, codes of {config.latent_dim} numbers",
    )
    if variational:
        card = replace(card, recipe={**card.recipe, "bound": config_to_json(elbo)})

    def finished(averaged: Averaged) -> VAE:
        network = _vae(averaged)
        return network if variational else _with_prior(network, request.train, placement)

    def generator_of(averaged: Averaged) -> VAEGenerator:
        return VAEGenerator(card, finished(averaged), placement)

    return Job(
        objective=objective,
        batches=parts.training_batches(request, chosen, placement),
        training=training,
        run=chosen.run(monitor="validation_loss"),
        placement=placement,
        evaluate=_evaluation(request, chosen, objective, placement),
        preview=_preview(card, generator_of, request, placement),
        export=parts.exporter(card, finished, placement),
    )


def unlabelled(request: RunRequest) -> RunRequest:
    """The request without classes, for a model that has no condition."""

    def stripped(images: ImageSet) -> ImageSet:
        return replace(images, class_ids=torch.full_like(images.class_ids, -1), classes=())

    return replace(request, train=stripped(request.train), held_out=stripped(request.held_out))


def _bound(
    default: ElboConfig | None, settings: Sequence[str]
) -> tuple[ElboConfig, tuple[str, ...]]:
    """The bound with those of the settings that are its own, and the others."""
    if default is None:
        return ElboConfig(), tuple(settings)
    fields = {field.name for field in dataclasses.fields(ElboConfig)}
    own = [text for text in settings if text.partition("=")[0].strip() in fields]
    return apply_settings(default, own), tuple(text for text in settings if text not in own)


def _vae(averaged: Averaged) -> VAE:
    network = averaged["autoencoder"]
    assert isinstance(network, VAE)
    return network


@torch.no_grad()
def _moments(
    network: VAE, images: ImageSet, placement: Placement, *, size: int = 64
) -> tuple[Tensor, Tensor | None]:
    """Means and log variances [N,L] of at most `CODES` pictures, spread over the set."""
    count = min(CODES, len(images))
    chosen = torch.arange(count) * len(images) // count
    means, log_variances = [], []
    for start in range(0, count, size):
        index = chosen[start : start + size]
        picture = to_float(images.images[index].to(placement.device))
        condition = Condition(class_ids=images.class_ids[index]).to(placement.device)
        with autocast(placement):
            mean, log_variance = network.encode(picture, condition)
        means.append(mean.cpu())
        if log_variance is not None:
            log_variances.append(log_variance.cpu())
    return torch.cat(means), torch.cat(log_variances) if log_variances else None


def _with_prior(network: VAE, images: ImageSet, placement: Placement) -> VAE:
    """A copy whose prior is the Gaussian of its own codes (Ghosh et al. 2020, section 4)."""
    fitted = copy.deepcopy(network)
    mean, factor = fit_gaussian(_moments(network, images, placement)[0])
    fitted.prior_mean.copy_(mean)
    fitted.prior_factor.copy_(factor)
    return fitted


def _evaluation(
    request: RunRequest, chosen: Hyperparameters, objective: ElboObjective, placement: Placement
) -> Callable[[Averaged], Mapping[str, float]] | None:
    """The held-out loss; of a posterior also how many dimensions are used, and each one's KL."""
    loss = parts.held_out_evaluation(
        request, chosen, placement, objective.held_out_loss, "autoencoder"
    )
    if loss is None:
        return None

    def evaluate(averaged: Averaged) -> Mapping[str, float]:
        means, log_variances = _moments(_vae(averaged), request.held_out, placement)
        if log_variances is None:
            return loss(averaged)
        kl = gaussian_kl(means, log_variances).mean(0)
        by_dimension = {f"kl/{index:03}": value for index, value in enumerate(kl.tolist())}
        active = float(num_active(means))
        return {**loss(averaged), "kl": float(kl.sum()), "active_units": active, **by_dimension}

    return evaluate


def _preview(
    card: ModelCard,
    generator_of: Callable[[Averaged], VAEGenerator],
    request: RunRequest,
    placement: Placement,
) -> Callable[[Averaged, Path], None]:
    """Samples, and beside them `<name>-reconstructions.png`: pictures above, theirs below."""
    samples = parts.preview_sheet(card, generator_of, placement)
    source = request.held_out if len(request.held_out) else request.train
    pictures = source.images[:SHOWN]
    condition = Condition(class_ids=source.class_ids[:SHOWN])

    def preview(averaged: Averaged, path: Path) -> None:
        samples(averaged, path)
        made = generator_of(averaged)
        with autocast(placement):
            codes = made.encode(to_float(pictures), condition)
            images = made.decode(codes, condition)
        both = torch.cat([pictures.cpu(), to_uint8(images)])
        sheet = contact_sheet(both, columns=len(pictures))
        sheet.save(path.with_name(f"{path.stem}-reconstructions.png"))

    return preview


def _distance(chosen: Hyperparameters, placement: Placement) -> Distance | None:
    """How the objective `perceptual` compares pictures; other objectives do not ask.

    Raises:
        InvalidInput: that objective without a network, or a network for another objective.
    """
    features = features_of(chosen.perceptual, placement)
    wanted = chosen.objective == PERCEPTUAL
    if features is not None and not wanted:
        raise InvalidInput(
            f"--perceptual is for --objective {PERCEPTUAL}: add that, or leave it out."
        )
    if features is None and wanted:
        raise InvalidInput(
            f"--objective {PERCEPTUAL} compares pictures by the features of a classifier: train "
            "one with `izograf train classifier`, not the judge you measure by, and name it with "
            "--perceptual."
        )
    return None if features is None else partial(feature_distance, features)
