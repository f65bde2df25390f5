"""A conditional DCGAN: one fast pass per picture."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from torch import nn

from izograf.core.config import config_to_json
from izograf.data.augment import differentiable_augmentation
from izograf.generators.latent import LatentGenerator, latent_options
from izograf.models.dcgan import DCGANConfig, DCGANDiscriminator, DCGANGenerator
from izograf.objectives.adversarial import ADVERSARIAL_LOSSES, AdversarialObjective, Players
from izograf.recipes import parts
from izograf.recipes.registry import Hyperparameters, RunRequest, recipe
from izograf.training.run import Averaged, Job

NAME = "dcgan"
PAPER = "Radford et al. 2016 (arXiv:1511.06434); projection after Miyato & Koyama 2018"
BETAS = (0.0, 0.99)
AUGMENTATION = ("color", "translation", "cutout")
R1_WEIGHT = 0.5

DEFAULTS = Hyperparameters(
    images=1_000_000,
    batch_size=64,
    optimizer="adam",
    objective="non-saturating",
    learning_rate=2e-4,
    weight_decay=0.0,
    gradient_clip=0.0,
    class_dropout=0.0,
    warmup=0.0,
    flip=False,
)


@recipe(
    NAME,
    summary="conditional DCGAN, DiffAugment, one pass per picture",
    paper=PAPER,
    objectives=ADVERSARIAL_LOSSES,
)
def dcgan(request: RunRequest) -> Job:
    """A projection discriminator with lazy R1 against a conditional generator.

    `--objective` names the adversarial loss; both players see differentiably augmented images.
    """
    chosen = request.hyperparameters.over(DEFAULTS)
    default = partial(DCGANConfig, request.image_size, len(request.train.classes))
    config = parts.network_config(default, chosen.settings)
    placement = chosen.placement(width=2 * config.width)
    generator = parts.build_seeded(partial(DCGANGenerator, config), chosen.seed, placement)
    discriminator = parts.build_seeded(
        partial(DCGANDiscriminator, config), chosen.seed + 1, placement
    )
    objective = AdversarialObjective(
        Players(
            generator,
            discriminator,
            parts.make_optimizer(generator.parameters(), chosen, betas=BETAS),
            parts.make_optimizer(discriminator.parameters(), chosen, betas=BETAS),
            config.latent_dim,
        ),
        ADVERSARIAL_LOSSES[chosen.objective or ""],
        augment=differentiable_augmentation(AUGMENTATION),
        r1_weight=R1_WEIGHT,
    )
    card = parts.model_card(
        request,
        recipe=NAME,
        paper=PAPER,
        chosen=chosen,
        family="latent",
        network={"name": "dcgan-generator", "config": config_to_json(config)},
        options=latent_options(),
        summary=f"conditional DCGAN, {request.image_size} px, one pass",
    )
    regularisation = {"augmentation": list(AUGMENTATION), "r1": R1_WEIGHT}
    card = replace(card, recipe={**card.recipe, **regularisation})

    def weights_of(averaged: Averaged) -> nn.Module:
        return averaged["generator"]

    def generator_of(averaged: Averaged) -> LatentGenerator:
        return LatentGenerator(card, averaged["generator"], config.latent_dim, placement)

    return Job(
        objective=objective,
        batches=parts.training_batches(request, chosen, placement),
        training=chosen.training(),
        run=chosen.run(monitor="kid"),
        placement=placement,
        evaluate=parts.kid_evaluation(request, chosen, generator_of, placement),
        preview=parts.preview_sheet(card, generator_of, placement),
        export=parts.exporter(card, weights_of, placement),
    )
