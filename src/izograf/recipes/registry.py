"""Recipes: typed Python functions that put a training run together, by the name a user types."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from izograf.core.devices import Placement, choose_placement
from izograf.core.registry import Registry, unknown_name
from izograf.data.dataset import ImageSet
from izograf.training.run import Job, RunConfig
from izograf.training.schedule import LearningRateSchedule
from izograf.training.trainer import TrainingConfig

OptimizerName = Literal["adamw", "adam", "sgd"]


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
    """

    name: str
    summary: str
    paper: str
    objectives: Collection[str]
    build: Callable[[RunRequest], Job]

    def check(self, chosen: Hyperparameters) -> None:
        """Refuses what can be refused before the data, which may take minutes, is read.

        Raises:
            UnknownName: an objective that the recipe does not know.
        """
        if chosen.objective is not None and chosen.objective not in self.objectives:
            kind = f"objective of {self.name}"
            raise unknown_name(kind, chosen.objective, self.objectives)


RECIPES: Registry[Recipe] = Registry("recipe", package="izograf.recipes")


def recipe(
    name: str, *, summary: str, paper: str, objectives: Collection[str]
) -> Callable[[Callable[[RunRequest], Job]], Callable[[RunRequest], Job]]:
    """Registers the decorated function as the recipe `name`."""

    def add(build: Callable[[RunRequest], Job]) -> Callable[[RunRequest], Job]:
        RECIPES.register(name)(Recipe(name, summary, paper, objectives, build))
        return build

    return add
