"""The two registries of this package: feature-set metrics, and feature extractors.

A new metric is one file in this package with one decorated function: the first look-up imports
every module of the package.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from izograf.core.registry import Registry

Compute = Callable[[Tensor, Tensor, torch.Generator], float]
"""(real_features [N,D], fake_features [M,D], rng) -> the number; rng is for subsampling only."""

Replicates = Callable[[Tensor, Sequence[Tensor]], list[float]]
"""(real_features, groups of fakes [m,D]) -> per group, the number without that group's fakes."""


@dataclass(frozen=True)
class FeatureMetric:
    """A number that compares two sets of features, and how to read it.

    Attributes:
        name: its registered name.
        compute: real features [N,D] and fake features [M,D], float, and a generator -> float.
        ideal: what a perfect generator tends to; two identical sets give it or better.
        higher_is_better: the direction in which the number improves.
        inception_name: what it is called with features of the 2015 Inception, `FID`.
        short_name: what it is called otherwise, followed by `-<extractor id>`: `FD`.
        replicates: a faster way to the jackknife replicates than calling `compute` per group.
    """

    name: str
    compute: Compute
    ideal: float
    higher_is_better: bool
    inception_name: str
    short_name: str
    replicates: Replicates | None = None

    def named_with(self, extractor_id: str) -> str:
        """The published name with the published extractor; any other says its extractor."""
        if extractor_id == INCEPTION_ID:
            return self.inception_name
        return f"{self.short_name}-{extractor_id}"


INCEPTION_ID = "inception-2015"

METRICS: Registry[FeatureMetric] = Registry("metric", package="izograf.metrics")


def feature_metric(
    name: str,
    *,
    ideal: float,
    higher_is_better: bool,
    inception_name: str = "",
    short_name: str = "",
    replicates: Replicates | None = None,
) -> Callable[[Compute], Compute]:
    """Registers the decorated function as the metric `name`; returns the function unchanged."""

    def add(compute: Compute) -> Compute:
        METRICS.register(name)(
            FeatureMetric(
                name=name,
                compute=compute,
                ideal=ideal,
                higher_is_better=higher_is_better,
                inception_name=inception_name or name,
                short_name=short_name or name,
                replicates=replicates,
            )
        )
        return compute

    return add


class FeatureExtractor(Protocol):
    """A fixed function from pictures to feature vectors, identified well enough to compare by.

    Attributes:
        id: registered name; part of the name of every score made with it.
        sha256: of the weights.
        dimension: D.
        resize: name of the filter and size that brings pictures to the network's input.
    """

    @property
    def id(self) -> str: ...

    @property
    def sha256(self) -> str: ...

    @property
    def dimension(self) -> int: ...

    @property
    def resize(self) -> str: ...

    def __call__(self, pictures: Tensor, /) -> Tensor:
        """uint8 [B,3,H,W] -> float32 [B,D] on the CPU."""
        ...


BuildNetwork = Callable[[Mapping[str, Any]], nn.Module]
"""A network's constructor from the `config` object of a model card."""


@dataclass(frozen=True)
class ExtractorSource:
    """Where an extractor comes from and how it is to run.

    Attributes:
        weights: a safetensors file, or a model folder; `None` for extractors without weights.
        device: torch device name.
        resize: one of the extractor's named resizes; `None` for its default.
        networks: constructors of our own networks by the name a card carries; this layer may
            not import them.
    """

    weights: Path | None = None
    device: str = "cpu"
    resize: str | None = None
    networks: Mapping[str, BuildNetwork] = field(default_factory=dict)


ExtractorFactory = Callable[[ExtractorSource], FeatureExtractor]

EXTRACTORS: Registry[ExtractorFactory] = Registry("extractor", package="izograf.metrics")
