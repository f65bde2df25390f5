"""Recipes: typed Python functions that put a training run together, by the name a user types."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from izograf.core.devices import Placement, choose_placement
from izograf.core.registry import Registry, unknown_name
from izograf.data.dataset import ImageSet
from izograf.objectives.noise import NOISE_LAWS, WEIGHTINGS
from izograf.schema.errors import InvalidInput
from izograf.training.run import Job, RunConfig
from izograf.training.schedule import LearningRateSchedule
from izograf.training.trainer import TrainingConfig

OptimizerName = Literal["adamw", "adam", "sgd"]
PARTICULAR = (
    "autoencoder",
    "text_encoder",
    "backbone",
    "perceptual",
    "noise_law",
    "weighting",
    "init_from",
    "teacher",
    "student_steps",
    "guidance",
    "early_snapshot",
)  # choices that few recipes have


@dataclass(frozen=True)
class Hyperparameters:
    """What any run can be asked to do differently; `None` leaves the recipe's own choice.

    Attributes:
        images: length of the run, in images seen.
        objective: what is minimised, a name the recipe knows: for diffusion the prediction
            (`diffusion.precondition`), for GANs the loss (`objectives.adversarial`).
        weight_decay: L2, decoupled with adamw; `l1`: weight of the absolute-value penalty.
        class_dropout: share of images trained without their class.
        flip: mirror training images at random.
        autoencoder: the model whose latents are learned, a name or a folder.
        text_encoder: the model that reads prompts for the denoiser, a name or a folder.
        backbone: the network that learns them, `unet`, `dit`, ...
        noise_law: the noise levels a denoiser is trained at, a name of `objectives.noise`.
        weighting: how much each of them counts, a name of `objectives.noise`.
        init_from: the model, a name or a folder, whose averaged weights the training starts from.
        teacher: the diffusion model, a name or a folder, that a few-step student learns from.
        student_steps: how many steps the student takes.
        guidance: how strongly the teacher is guided; None for its card's default.
        early_snapshot: share of the images at which the averaged weights are kept for
            autoguidance; None for never.
        gradient_checkpointing: compute blocks again in the backward pass instead of keeping them.
        perceptual: the classifier whose features a loss compares pictures by, a name or a folder.
        settings: `name=value` changes of the network's config.
    """

    images: int | None = None
    batch_size: int | None = None
    accumulation: int | None = None
    optimizer: OptimizerName | None = None
    learning_rate: float | None = None
    weight_decay: float | None = None
    l1: float | None = None
    gradient_clip: float | None = None
    warmup: float | None = None
    decay: Literal["none", "cosine", "linear"] | None = None
    decay_share: float | None = None
    ema_share: float | None = None
    objective: str | None = None
    class_dropout: float | None = None
    flip: bool | None = None
    autoencoder: str | None = None
    text_encoder: str | None = None
    backbone: str | None = None
    perceptual: str | None = None
    noise_law: str | None = None
    weighting: str | None = None
    init_from: str | None = None
    teacher: str | None = None
    student_steps: int | None = None
    guidance: float | None = None
    early_snapshot: float | None = None
    gradient_checkpointing: bool | None = None
    patience: int | None = None
    log_every: int | None = None
    evaluate_every: int | None = None
    checkpoint_every: int | None = None
    sample_every: int | None = None
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    settings: tuple[str, ...] = ()

    def over(self, defaults: Hyperparameters) -> Hyperparameters:
        """These choices, and `defaults` wherever none was made."""
        given = {key: value for key, value in vars(self).items() if value is not None}
        return replace(defaults, **given)

    def training(self) -> TrainingConfig:
        """The loop's part of the choices; every field must have been chosen."""
        assert self.images is not None
        assert self.batch_size is not None
        return TrainingConfig(
            images=self.images,
            batch_size=self.batch_size,
            accumulation=self.accumulation or 1,
            seed=self.seed,
            schedule=LearningRateSchedule(
                warmup=_chosen(self.warmup, 0.02),
                decay=self.decay or "cosine",
                decay_share=_chosen(self.decay_share, 0.2),
            ),
            gradient_clip=self.gradient_clip or None,
            l1=self.l1 or 0.0,
            gradient_checkpointing=self.gradient_checkpointing or False,
            ema_share=_chosen(self.ema_share, 0.05),
        )

    def run(self, *, monitor: str) -> RunConfig:
        """The folder's part of the choices."""
        default = RunConfig()
        return RunConfig(
            log_every=self.log_every or default.log_every,
            evaluate_every=self.evaluate_every or default.evaluate_every,
            checkpoint_every=self.checkpoint_every or default.checkpoint_every,
            sample_every=self.sample_every or default.sample_every,
            monitor=monitor,
            patience=self.patience or 0,
            early_snapshot=math.ceil((self.early_snapshot or 0) * (self.images or 0)),
        )

    def placement(self, *, width: int) -> Placement:
        return choose_placement(self.device, self.precision, width=width)

    def to_json(self) -> dict[str, Any]:
        """The choices actually made, for cards and run files."""
        return {k: v for k, v in asdict(self).items() if v is not None and v != ()}


def _chosen(value: float | None, default: float) -> float:
    return default if value is None else value


@dataclass(frozen=True)
class RunRequest:
    """What a recipe builds from: the model's name, its data, and the user's choices."""

    name: str
    train: ImageSet
    held_out: ImageSet
    data_licence: str
    hyperparameters: Hyperparameters

    @property
    def image_size(self) -> int:
        return int(self.train.images.shape[-1])


@dataclass(frozen=True)
class Recipe:
    """A recipe's name, its paper, one line about it, and the function that builds a run.

    Attributes:
        objectives: the names `--objective` may have; a registry stands for its names.
        takes: which of `PARTICULAR` it can be asked for; `needs`: which of them it must be.
    """

    name: str
    summary: str
    paper: str
    objectives: Collection[str]
    build: Callable[[RunRequest], Job]
    takes: Collection[str] = ()
    needs: Collection[str] = ()

    def check(self, chosen: Hyperparameters) -> None:
        """Refuses what can be refused before the data, which may take minutes, is read.

        Raises:
            UnknownName: an objective that the recipe does not know, or no such noise law or
                weighting.
            InvalidInput: a choice that concerns other recipes, one that is missing, or a share
                that is none.
        """
        for option in PARTICULAR:
            if getattr(chosen, option) is not None and option not in self.takes:
                raise InvalidInput(
                    f"The recipe {self.name} has no {option}: leave out "
                    f"--{option.replace('_', '-')}."
                )
        for option in self.needs:
            if getattr(chosen, option) is None:
                raise InvalidInput(
                    f"The recipe {self.name} needs --{option.replace('_', '-')}: a model's name or "
                    "folder; see `izograf models`."
                )
        if chosen.early_snapshot is not None and not 0 < chosen.early_snapshot < 1:
            raise InvalidInput(
                "--early-snapshot is a share of the images, between 0 and 1, got "
                f"{chosen.early_snapshot:g}."
            )
        for table, value in ((NOISE_LAWS, chosen.noise_law), (WEIGHTINGS, chosen.weighting)):
            if value is not None:
                table[value]  # or an error that lists the names
        if chosen.objective is not None and chosen.objective not in self.objectives:
            kind = f"objective of {self.name}"
            raise unknown_name(kind, chosen.objective, self.objectives)


RECIPES: Registry[Recipe] = Registry("recipe", package="izograf.recipes")


def recipe(
    name: str,
    *,
    summary: str,
    paper: str,
    objectives: Collection[str],
    takes: Collection[str] = (),
    needs: Collection[str] = (),
) -> Callable[[Callable[[RunRequest], Job]], Callable[[RunRequest], Job]]:
    """Registers the decorated function as the recipe `name`."""

    def add(build: Callable[[RunRequest], Job]) -> Callable[[RunRequest], Job]:
        RECIPES.register(name)(Recipe(name, summary, paper, objectives, build, takes, needs))
        return build

    return add
