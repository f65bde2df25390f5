"""A judge: a small classifier of real pictures, used to measure generators, never to train one."""

from __future__ import annotations

from functools import partial

from torch import nn

from izograf.core.config import config_to_json
from izograf.data.augment import differentiable_augmentation
from izograf.models.classifier import Classifier, ClassifierConfig
from izograf.objectives.classification import ClassificationObjective
from izograf.recipes import parts
from izograf.recipes.registry import Hyperparameters, RunRequest, recipe
from izograf.schema.errors import DataError, InvalidInput
from izograf.training.run import Averaged, Job

NAME = "classifier"
PAPER = "He et al. 2016 (arXiv:1603.05027)"
OBJECTIVE = "cross-entropy"
AUGMENTATION = ("color", "translation")

DEFAULTS = Hyperparameters(
    images=400_000,
    batch_size=128,
    optimizer="adamw",
    objective=OBJECTIVE,
    learning_rate=2e-3,
    weight_decay=0.05,
    gradient_clip=1.0,
    decay_share=0.9,
    flip=False,
)


@recipe(
    NAME,
    summary="ResNet judge: measures class agreement, gives features",
    paper=PAPER,
    objectives=(OBJECTIVE,),
)
def classifier(request: RunRequest) -> Job:
    """Cross-entropy with label smoothing on colour- and shift-augmented pictures."""
    if len(request.train.classes) < 2:
        raise DataError(
            "A classifier needs pictures of at least two classes: put each class in its own folder."
        )
    chosen = request.hyperparameters.over(DEFAULTS)
    if chosen.objective != OBJECTIVE:
        raise InvalidInput(f"The recipe {NAME} has one objective: {OBJECTIVE}.")
    default = partial(ClassifierConfig, request.image_size, len(request.train.classes))
    config = parts.network_config(default, chosen.settings)
    placement = chosen.placement(width=config.width)
    network = parts.build_seeded(partial(Classifier, config), chosen.seed, placement)
    objective = ClassificationObjective(
        network,
        parts.make_optimizer(network.parameters(), chosen),
        augment=differentiable_augmentation(AUGMENTATION),
    )
    card = parts.model_card(
        request,
        recipe=NAME,
        paper=PAPER,
        chosen=chosen,
        family="classifier",
        task="classify",
        network={"name": "classifier", "config": config_to_json(config)},
        summary=f"judge of {len(request.train.classes)} classes, {request.image_size} px",
    )

    def weights_of(averaged: Averaged) -> nn.Module:
        return averaged["classifier"]

    return Job(
        objective=objective,
        batches=parts.training_batches(request, chosen, placement),
        training=chosen.training(),
        run=chosen.run(monitor="validation_error"),
        placement=placement,
        evaluate=parts.held_out_evaluation(
            request, chosen, placement, objective.held_out_error, "classifier",
            name="validation_error",
        ),
        export=parts.exporter(card, weights_of, placement),
    )  # fmt: skip
