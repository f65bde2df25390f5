"""Measuring a set of generated pictures against real ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from izograf.core.rng import generator
from izograf.metrics.extractors import Pictures, checked_pictures, extract_features
from izograf.metrics.intervals import jackknife_interval, random_groups
from izograf.metrics.registry import METRICS, FeatureExtractor, FeatureMetric
from izograf.metrics.score import Score
from izograf.schema.errors import InvalidInput

STANDARD_METRICS = ("frechet", "kid")
NUM_GROUPS = 20
Extract = Callable[[Pictures, FeatureExtractor], Tensor]
"""(pictures uint8 [N,3,H,W], extractor) -> features float32 [N,D]."""


@dataclass(frozen=True)
class Reference:
    """Features of the real pictures, measured once and used for every generator.

    Attributes:
        real, held_out, noise: float32 [N,D]; reference pictures, other real pictures of the
            same kind, and as many uniform noise pictures as held-out ones.
        extractor_id, sha256: of the extractor that made them.
        split, resize, seed: see `Score`.
    """

    real: Tensor
    held_out: Tensor
    noise: Tensor
    extractor_id: str
    sha256: str
    split: str
    resize: str
    seed: int

    @classmethod
    def measure(
        cls,
        real: Pictures,
        held_out: Pictures,
        extractor: FeatureExtractor,
        *,
        split: str,
        resize: str = "",
        seed: int = 0,
        extract: Extract = extract_features,
    ) -> Reference:
        """The reference that these pictures make.

        Args:
            real: reference pictures, uint8 [N,3,H,W].
            held_out: real pictures that are not among `real`; they give the floor.
            split: the data and split that `real` is, `scenes-64/train`.
            resize: how the pictures came to their size (`lanczos-64`); the score's `resize`
                joins it with the extractor's own.
            extract: `extract_features`, or the same with a memory.

        Raises:
            InvalidInput: pictures are not uint8 [B,3,H,W], or of two sizes.
        """
        if checked_pictures(real).shape[1:] != checked_pictures(held_out).shape[1:]:
            raise InvalidInput(
                "Reference and held-out pictures must have one size, got "
                f"{list(real.shape[-2:])} and {list(held_out.shape[-2:])}."
            )
        noise = uniform_noise(len(held_out), real.shape[-2], real.shape[-1], seed=seed)
        return cls(
            real=extract(real, extractor),
            held_out=extract(held_out, extractor),
            noise=extract(noise, extractor),
            extractor_id=extractor.id,
            sha256=extractor.sha256,
            split=split,
            resize=f"{resize} > {extractor.resize}" if resize else extractor.resize,
            seed=seed,
        )


def score_features(
    fake: Tensor,
    reference: Reference,
    *,
    num_groups: int = NUM_GROUPS,
    metrics: Sequence[str] = STANDARD_METRICS,
) -> tuple[Score, ...]:
    """One `Score` per metric of fake features [M,D], by the reference's extractor.

    The interval is a jackknife over `num_groups` random groups of the fakes: the metric is
    computed without each group in turn. A bootstrap would not do: a resample holds only 63 %
    distinct pictures, and the Frechet distance rises with fewer pictures, so that even the
    lower percentile can lie above the value itself. The reals are fixed: every generator meets
    the same.

    The interval is about the spread at these counts. The Frechet distance also has a bias, up
    by a term of order 1/N + 1/M, which the interval does not hold; so numbers of unequal counts
    are never compared, and the floor of M' held-out pictures shows the bias at M' pictures.
    """
    return tuple(_score(METRICS[name], fake, reference, num_groups) for name in metrics)


def _score(metric: FeatureMetric, fake: Tensor, reference: Reference, num_groups: int) -> Score:
    def compute(features: Tensor) -> float:
        rng = generator(reference.seed, metric.name)
        return metric.compute(reference.real, features, rng)

    groups = random_groups(fake, num_groups, generator(reference.seed, "jackknife"))
    if metric.replicates is not None:
        replicates = metric.replicates(reference.real, groups)
    else:
        replicates = [
            compute(torch.cat(groups[:index] + groups[index + 1 :])) for index in range(len(groups))
        ]
    value = compute(fake)
    return Score(
        name=metric.named_with(reference.extractor_id),
        value=value,
        extractor_id=reference.extractor_id,
        sha256=reference.sha256,
        num_real=len(reference.real),
        num_fake=len(fake),
        split=reference.split,
        resize=reference.resize,
        seed=reference.seed,
        ci95=jackknife_interval(value, replicates),
        floor=compute(reference.held_out),
        ceiling=compute(reference.noise),
    )


def uniform_noise(num_pictures: int, height: int, width: int, *, seed: int) -> Tensor:
    """Pictures of independent uniform levels, uint8 [N,3,H,W]: the worst generator."""
    shape = (num_pictures, 3, height, width)
    rng = generator(seed, "noise pictures")
    return torch.randint(0, 256, shape, generator=rng, dtype=torch.uint8)
