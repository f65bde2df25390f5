"""The vocabulary every layer shares. Shapes: B images, C channels, H x W pixels.

Images are float32 [B,3,H,W] in [-1,1]; `sigma` is a noise standard deviation in data units, [B].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from izograf.core.rng import Seed
from izograf.schema.card import ModelCard
from izograf.schema.options import OptionValue

DROPPED = -1  # the class id that stands for "no class"


@dataclass(frozen=True)
class Condition:
    """What the images are conditioned on; every tensor has leading B, `None` = unconditioned.

    Attributes:
        class_ids: int64 [B]; -1 marks an image whose class is dropped.
        text: float [B,L,D], encoded prompt tokens, rows of zeros where there is none; while a text
            encoder itself is trained, its input: word ids, int64 [B,L].
        attributes: float [B,A].
        image: float32 [B,3,h,w] in [-1,1], the picture to start from or to restore.
        mask: float32 [B,1,h,w] in [0,1], 1 where the picture is to be kept.
        towards_ids: int64 [B], a second class per image, given together with `class_ids`.
        share: float32 [B] in [0,1], how far each image lies on the way to `towards_ids`.
        negative: for the same B images, what guidance moves away from; None for `to_null()`.
    """

    class_ids: Tensor | None = None
    text: Tensor | None = None
    attributes: Tensor | None = None
    image: Tensor | None = None
    mask: Tensor | None = None
    towards_ids: Tensor | None = None
    share: Tensor | None = None
    negative: Condition | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> Condition:
        """The condition with `function` applied to every tensor present."""
        mapped = {name: None if v is None else function(v) for name, v in self.tensors().items()}
        negative = None if self.negative is None else self.negative.map(function)
        return Condition(**mapped, negative=negative)

    def tensors(self) -> dict[str, Tensor | None]:
        """Its own tensors by name; not those of `negative`, which no network sees."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "negative"}

    def to(self, device: torch.device | str) -> Condition:
        return self.map(lambda tensor: tensor.to(device))

    def __getitem__(self, index: slice) -> Condition:
        return self.map(lambda tensor: tensor[index])

    def to_null(self) -> Condition:
        """The unconditional counterpart for classifier-free guidance (Ho & Salimans 2022).

        Class, text and attributes are dropped; a picture and its mask stay: they are the task.
        """
        return replace(
            self,
            class_ids=_dropped(self.class_ids),
            towards_ids=_dropped(self.towards_ids),
            text=None if self.text is None else torch.zeros_like(self.text),
            attributes=None,
            negative=None,
        )

    def same_kinds(self, other: Condition) -> bool:
        """Whether both carry the same kinds of tensors, and can share a batch."""
        theirs = other.tensors()
        return all((v is None) == (theirs[name] is None) for name, v in self.tensors().items())

    def repeat_with(self, other: Condition) -> Condition:
        """Both conditions along the batch axis, for one evaluation instead of two.

        Both must carry the same kinds of tensors.
        """
        joined: dict[str, Tensor | None] = {}
        for name, first in self.tensors().items():
            second = getattr(other, name)
            if (first is None) != (second is None):
                raise ValueError(f"only one of the two conditions has {name}")
            joined[name] = None if first is None else torch.cat([first, second])
        return Condition(**joined, negative=None)


def _dropped(class_ids: Tensor | None) -> Tensor | None:
    return None if class_ids is None else torch.full_like(class_ids, DROPPED)


@dataclass(frozen=True)
class Cond:
    """What a network sees: a vector [B,D], tokens [B,L,D], maps [B,C,h,w]; any may be absent."""

    vector: Tensor | None = None
    tokens: Tensor | None = None
    spatial: Tensor | None = None


@dataclass(frozen=True)
class Batch:
    """Training images, float32 [B,3,H,W] in [-1,1], and their condition."""

    image: Tensor
    condition: Condition

    def __len__(self) -> int:
        return len(self.image)

    def __getitem__(self, index: slice) -> Batch:
        return Batch(self.image[index], self.condition[index])


class OnStep(Protocol):
    """Called after each sampling step with (step, num_steps, preview [B,3,H,W] in [-1,1]).

    Raising `Cancelled` stops the sampling at once.
    """

    def __call__(self, step: int, num_steps: int, preview: Tensor, /) -> None: ...


def ignore(step: int, num_steps: int, preview: Tensor, /) -> None:
    """The step callback that does nothing."""


class NoiseSource(Protocol):
    """Fresh standard normal noise [B,C,H,W] at each call; image i draws from its own stream."""

    def __call__(self) -> Tensor: ...


Denoise = Callable[[Tensor, Tensor, Condition], Tensor]
"""(x [B,C,H,W], sigma [B], condition) -> the expected clean image x0 [B,C,H,W]."""

Sampler = Callable[[Denoise, Tensor, Tensor, Condition, NoiseSource, OnStep], Tensor]
"""(denoise, x at sigmas[0], sigmas [N+1] decreasing, condition, noise, on_step) -> x at the end."""

Guidance = Callable[[Denoise], Denoise]


class Generator(Protocol):
    """A trained model ready to sample; the same interface for every family."""

    card: ModelCard

    def sample(
        self,
        condition: Condition,
        seeds: Sequence[Seed],
        *,
        options: Mapping[str, OptionValue] = ...,
        on_step: OnStep = ignore,
    ) -> Tensor:
        """Float32 [B,3,H,W] in [-1,1] on the CPU, B == len(seeds)."""
        ...


@runtime_checkable
class TextConditioned(Protocol):
    """A trained model that reads prompts."""

    card: ModelCard

    def text_condition(self, prompts: Sequence[str]) -> Condition:
        """The condition of one prompt for each picture; an empty prompt says nothing."""
        ...


@runtime_checkable
class Autoencoder(Protocol):
    """A trained model that also turns pictures into codes and back; any family may be one.

    Codes are float32 [B,*shape] on the CPU, in units of the model's prior: where it samples, its
    codes are drawn from N(0, I), so that codes of pictures and of samples can be mixed.
    """

    card: ModelCard

    def encode(self, images: Tensor, condition: Condition = ...) -> Tensor:
        """Float32 [B,3,S,S] in [-1,1], S = card.image_size, -> codes; of a posterior, its mean."""
        ...

    def decode(self, codes: Tensor, condition: Condition = ...) -> Tensor:
        """Codes -> float32 [B,3,S,S] in [-1,1] on the CPU."""
        ...


@dataclass(frozen=True)
class Phase:
    """One optimisation step of an objective: the loss, whose optimiser, and how often.

    `loss(batch, rng)` returns the scalar to minimise and named scalars to log. `every = n` runs
    the phase at every n-th step (lazy regularisation), `after = n` once n images were seen.
    """

    name: str
    optimizer: str
    loss: Callable[[Batch, torch.Generator], tuple[Tensor, Mapping[str, Tensor]]]
    every: int = 1
    after: int = 0


class Objective(Protocol):
    """What a family minimises: its modules, optimisers and phases.

    `modules` is everything checkpointed; `averaged` names those whose moving average is served.
    """

    modules: nn.ModuleDict
    averaged: Sequence[str]

    def optimizers(self) -> Mapping[str, Optimizer]: ...

    def phases(self) -> Sequence[Phase]: ...

    def after_step(self, images_seen: int, stats: Mapping[str, Tensor]) -> None:
        """Adapts whatever the statistics of the step should adapt (augmentation strength, ...)."""
        ...
