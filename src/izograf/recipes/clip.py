"""A text encoder: words and pictures of the same thing brought together, in two languages."""

from __future__ import annotations

from functools import partial

from torch import nn

from izograf.core.config import config_to_json
from izograf.data.augment import differentiable_augmentation
from izograf.data.captions import captions_of
from izograf.models.clip import Clip, ClipConfig
from izograf.objectives.contrastive import ContrastiveObjective
from izograf.recipes import parts
from izograf.recipes.captioned import CaptionedBatches
from izograf.recipes.registry import Hyperparameters, RunRequest, recipe
from izograf.schema.vocabulary import Vocabulary
from izograf.training.run import Averaged, Job

NAME = "clip"
PAPER = "Radford et al. 2021 (arXiv:2103.00020)"
OBJECTIVE = "contrastive"
AUGMENTATION = ("translation",)  # colours and brightness are what captions speak of

DEFAULTS = Hyperparameters(
    images=500_000,
    batch_size=128,
    optimizer="adamw",
    objective=OBJECTIVE,
    learning_rate=1e-3,
    weight_decay=0.05,
    gradient_clip=1.0,
    decay_share=0.9,
    flip=False,
)


@recipe(
    NAME,
    summary="bilingual text encoder, contrastive with pictures",
    paper=PAPER,
    objectives=(OBJECTIVE,),
    takes=("init_from",),
)
def clip(request: RunRequest) -> Job:
    """Captions are derived from the classes and measured in the pictures (`data.captions`).

    `--init-from` is a text encoder of the same words.
    """
    chosen = request.hyperparameters.over(DEFAULTS)
    captions = captions_of(request.train)
    vocabulary = Vocabulary(captions.vocabulary())
    default = partial(ClipConfig, request.image_size, len(vocabulary.words))
    config = parts.network_config(default, chosen.settings)
    placement = chosen.placement(width=config.width)
    network = parts.build_seeded(partial(Clip, config), chosen.seed, placement)
    assert isinstance(network, Clip)
    sampling = {"vocabulary": " ".join(vocabulary.words)}
    parents = parts.start_from(chosen.init_from, network, NAME, config, sampling)
    objective = ContrastiveObjective(
        network,
        parts.make_optimizer(network.parameters(), chosen),
        augment=differentiable_augmentation(AUGMENTATION),
    )
    card = parts.model_card(
        request,
        recipe=NAME,
        paper=PAPER,
        chosen=chosen,
        family="clip",
        task="rank",
        conditions=("text",),
        classes=(),
        network={"name": "clip", "config": config_to_json(config)},
        sampling=sampling,
        parents=parents,
        summary=f"texts and pictures compared, {request.image_size} px",
    )
    captioned = partial(
        CaptionedBatches, vocabulary=vocabulary, max_words=config.max_words, seed=chosen.seed
    )

    def weights_of(averaged: Averaged) -> nn.Module:
        return averaged["clip"]

    return Job(
        objective=objective,
        batches=captioned(parts.training_batches(request, chosen, placement), captions),
        training=chosen.training(),
        run=chosen.run(monitor="validation_loss"),
        placement=placement,
        evaluate=parts.held_out_evaluation(
            request, chosen, placement, objective.held_out_loss, "clip",
            captioned=partial(captioned, captions=captions_of(request.held_out), held_out=True),
        ),
        export=parts.exporter(card, weights_of, placement),
    )  # fmt: skip
