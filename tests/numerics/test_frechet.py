"""The Frechet distance: closed forms, invariances, degenerate ranks, and what it must notice."""

from __future__ import annotations

import io
import itertools
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from izograf.metrics.extractors import extract_features, open_extractor
from izograf.metrics.fid import frechet, frechet_distance
from izograf.metrics.statistics import FeatureStatistics
from izograf.schema.errors import InvalidInput

SHARED = Path(os.environ.get("IZOGRAF_SHARED", Path(__file__).parents[3] / "shared"))
SQUEEZENET = SHARED / "data" / "reference" / "squeezenet1_1.safetensors"
SCENES = ("buildings", "forest", "glacier", "mountain", "sea", "street")


def gaussian(dim: int, rank: int, *, seed: int) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    factor = torch.randn(dim, rank, generator=rng, dtype=torch.float64)
    return torch.randn(dim, generator=rng, dtype=torch.float64), factor @ factor.T / rank


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(-5, 5), st.floats(-5, 5), st.floats(0, 4), st.floats(0, 4)),
        min_size=1,
        max_size=8,
    )
)
def test_closed_form_of_independent_gaussians(axes: list[tuple[float, ...]]) -> None:
    """sum (m1 - m2)^2 + (s1 - s2)^2; standard deviations of zero included."""
    m1, m2, s1, s2 = torch.tensor(axes, dtype=torch.float64).T
    expected = float((m1 - m2).square().sum() + (s1 - s2).square().sum())
    ours = frechet_distance(m1, torch.diag(s1**2), m2, torch.diag(s2**2))
    assert ours == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_closed_form_of_two_by_two() -> None:
    """Tr (S1 S2)^1/2 = (Tr(S1 S2) + 2 sqrt(det S1 det S2))^1/2 in two dimensions."""
    (m1, s1), (m2, s2) = gaussian(2, 3, seed=0), gaussian(2, 3, seed=1)
    root = ((s1 @ s2).trace() + 2 * (s1.det() * s2.det()).sqrt()).sqrt()
    expected = (m1 - m2).square().sum() + s1.trace() + s2.trace() - 2 * root
    assert frechet_distance(m1, s1, m2, s2) == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.parametrize(("dim", "rank"), [(5, 9), (40, 40), (40, 7), (300, 20), (6, 1)])
def test_zero_for_equal_and_symmetric_at_any_rank(dim: int, rank: int) -> None:
    (m1, s1), (m2, s2) = gaussian(dim, rank, seed=0), gaussian(dim, rank, seed=1)
    assert frechet_distance(m1, s1, m1, s1) == pytest.approx(0, abs=1e-6 * float(s1.trace()))
    there, back = frechet_distance(m1, s1, m2, s2), frechet_distance(m2, s2, m1, s1)
    assert there == pytest.approx(back, rel=1e-6)


def test_disjoint_supports_add_their_traces() -> None:
    s1, s2 = torch.diag(torch.tensor([2.0, 3, 0, 0])), torch.diag(torch.tensor([0.0, 0, 5, 7]))
    zero = torch.zeros(4)
    assert frechet_distance(zero, s1, zero, s2) == pytest.approx(17)
    assert frechet_distance(zero, s1, zero, 0 * s1) == pytest.approx(5)
    assert frechet_distance(zero, 0 * s1, zero, 0 * s1) == 0


def test_rotation_translation_and_scale() -> None:
    (m1, s1), (m2, s2) = gaussian(8, 12, seed=0), gaussian(8, 12, seed=1)
    rng = torch.Generator().manual_seed(2)
    q = torch.linalg.qr(torch.randn(8, 8, generator=rng, dtype=torch.float64)).Q
    moved = frechet_distance(9 + 3 * q @ m1, 9 * q @ s1 @ q.T, 9 + 3 * q @ m2, 9 * q @ s2 @ q.T)
    assert moved == pytest.approx(9 * frechet_distance(m1, s1, m2, s2), rel=1e-9)


def test_arrays_and_tensors_of_any_float_type() -> None:
    (m1, s1), (m2, s2) = gaussian(4, 8, seed=0), gaussian(4, 8, seed=1)
    expected = frechet_distance(m1, s1, m2, s2)
    assert frechet_distance(m1.numpy(), s1.numpy(), m2.numpy(), s2.numpy()) == expected
    narrow = frechet_distance(m1.float(), s1.float(), m2.float(), s2.float())
    assert narrow == pytest.approx(expected, rel=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90))
def test_batch_size_does_not_matter(first_size: int, second_size: int) -> None:
    rng = torch.Generator().manual_seed(0)
    real, fake = torch.randn(90, 6, generator=rng), torch.randn(90, 6, generator=rng) + 1
    sides = []
    for rows, size in ((real, first_size), (fake, second_size)):
        statistics = FeatureStatistics(6)
        for batch in rows.split(size):
            statistics.update(batch)
        sides += [statistics.mean, statistics.covariance]
    assert frechet_distance(*sides) == pytest.approx(frechet(real, fake, rng), rel=1e-10)


def test_estimate_converges_to_the_closed_form_from_above() -> None:
    """The bias of the estimate is positive and falls like 1/N."""
    dim = 10
    expected = dim * (0.5**2 + 0.5**2)
    rng = torch.Generator().manual_seed(0)

    def error(count: int, repeats: int) -> float:
        values = [
            frechet(
                torch.randn(count, dim, generator=rng),
                torch.randn(count, dim, generator=rng) * 1.5 + 0.5,
                rng,
            )
            for _ in range(repeats)
        ]
        return sum(values) / repeats - expected

    few, many = error(50, 100), error(400, 100)
    assert few > 0
    assert few / max(many, 1e-9) > 4


@pytest.mark.parametrize(
    "arguments",
    [
        (torch.zeros(3), torch.eye(4), torch.zeros(4), torch.eye(4)),
        (torch.zeros(3), torch.eye(3), torch.zeros(4), torch.eye(4)),
        (torch.zeros(0), torch.zeros(0, 0), torch.zeros(0), torch.zeros(0, 0)),
        (torch.full((3,), torch.nan), torch.eye(3), torch.zeros(3), torch.eye(3)),
        (torch.zeros(3), torch.eye(3), torch.zeros(3), torch.eye(3) * torch.inf),
    ],
)
def test_unusable_gaussians_are_refused(arguments: tuple[Tensor, ...]) -> None:
    with pytest.raises(InvalidInput):
        frechet_distance(*arguments)


# What a judge of pictures must notice: each damage in rising strength, the first being none.


def blur(pictures: Tensor, strength: float) -> Tensor:
    if strength == 0:
        return pictures
    radius = int(3 * strength)
    offsets = torch.arange(-radius, radius + 1)
    weights = torch.exp(-(offsets**2) / (2 * strength**2))
    kernel = torch.outer(weights, weights).expand(3, 1, -1, -1) / weights.sum() ** 2
    padded = F.pad(pictures.float(), (radius,) * 4, mode="reflect")
    return F.conv2d(padded, kernel, groups=3).round().clamp(0, 255).to(torch.uint8)


def noise(pictures: Tensor, strength: float) -> Tensor:
    drawn = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(9))
    return (pictures.float() + strength * drawn).round().clamp(0, 255).to(torch.uint8)


def shift(pictures: Tensor, strength: float) -> Tensor:
    """Brighter and redder: a shift of every picture in the same direction."""
    colour = torch.tensor([1.0, 0.6, 0.3])[:, None, None]
    return (pictures.float() + strength * colour).round().clamp(0, 255).to(torch.uint8)


Damage = Callable[[Tensor, float], Tensor]
# Strong enough to rise above the bias of 36 pictures: a shift of 25 levels needs 300.
DAMAGES: list[tuple[Damage, tuple[float, ...]]] = [
    (blur, (0.0, 1.0, 3.0)),
    (noise, (0.0, 15.0, 60.0)),
    (shift, (0.0, 50.0, 100.0)),
]


def drop_classes(features: Tensor, labels: Tensor, kept: int, count: int) -> Tensor:
    """`count` rows, in equal parts from the first `kept` classes."""
    rows = [features[labels == label][: count // kept] for label in range(kept)]
    return torch.cat(rows)


def drop_modes(features: Tensor, distinct: int) -> Tensor:
    """As many rows as before, but only `distinct` different ones."""
    return features[torch.arange(len(features)) % distinct]


def assert_rising(values: list[float], what: str) -> None:
    assert all(a < b for a, b in itertools.pairwise(values)), f"{what}: {values}"


def drawn_pictures(per_class: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """Four classes of drawn pictures: stripes across, stripes down, discs, slopes of colour."""
    rng = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.linspace(-1, 1, 32), torch.linspace(-1, 1, 32), indexing="ij")
    pictures, labels = [], []
    for index in range(4 * per_class):
        label = index % 4
        a, b, c = torch.rand(3, generator=rng).tolist()
        waves = torch.sin((12 + 20 * a) * (y if label == 0 else x) + 6 * b)
        disc = ((x - a + 0.5) ** 2 + (y - b + 0.5) ** 2 < (0.2 + 0.5 * c) ** 2).float() * 2 - 1
        shape = (waves, waves, disc, (x * (a - 0.5) + y * (b - 0.5)) * 2)[label]
        colours = torch.rand(2, 3, 1, 1, generator=rng)
        colours[:, 0] *= 0.4 + 0.2 * label
        level = shape.clamp(-1, 1) / 2 + 0.5
        pictures.append(colours[0] * level + colours[1] * (1 - level))
        labels.append(label)
    return (torch.stack(pictures) * 255).to(torch.uint8), torch.tensor(labels)


RNG = torch.Generator()


@pytest.mark.parametrize(("damage", "strengths"), DAMAGES)
def test_distance_rises_with_damage(damage: Damage, strengths: tuple[float, ...]) -> None:
    extractor = open_extractor("random-conv")
    real = extract_features(drawn_pictures(100, seed=0)[0], extractor)
    fake = drawn_pictures(100, seed=1)[0]
    values = [
        frechet(real, extract_features(damage(fake, strength), extractor), RNG)
        for strength in strengths
    ]
    assert_rising(values, str(damage))


def test_distance_rises_with_dropped_classes_and_modes() -> None:
    extractor = open_extractor("random-conv")
    real = extract_features(drawn_pictures(100, seed=0)[0], extractor)
    pictures, labels = drawn_pictures(240, seed=1)
    fake = extract_features(pictures, extractor)
    kept = [frechet(real, drop_classes(fake, labels, k, 240), RNG) for k in (4, 2, 1)]
    assert_rising(kept, "class drop")
    distinct = [frechet(real, drop_modes(fake, n), RNG) for n in (960, 60, 10)]
    assert_rising(distinct, "mode drop")


def scene_pictures(per_class: int, start: int) -> tuple[Tensor, Tensor]:
    arrays = []
    for name in SCENES:
        with zipfile.ZipFile(SHARED / "data" / "scenes-128" / f"{name}.zip") as archive:
            members = [member for member in archive.namelist() if member.startswith("test/")]
            for member in members[start : start + per_class]:
                image = Image.open(io.BytesIO(archive.read(member))).convert("RGB")
                arrays.append(np.array(image.resize((64, 64), Image.Resampling.LANCZOS)))
    labels = torch.arange(len(SCENES)).repeat_interleave(per_class)
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2), labels


def test_squeezenet_distance_rises_with_damage_to_real_scenes() -> None:
    if not SQUEEZENET.is_file():
        pytest.skip(f"needs {SQUEEZENET.name} in the shared data folder (IZOGRAF_SHARED)")
    extractor = open_extractor("squeezenet1.1", SQUEEZENET)
    real = extract_features(scene_pictures(10, 0)[0], extractor)
    pictures, labels = scene_pictures(12, 16)
    fake = extract_features(pictures, extractor)
    few = pictures[::2]
    for damage, strengths in DAMAGES:
        values = [frechet(real, fake[::2], RNG)]
        values += [
            frechet(real, extract_features(damage(few, strength), extractor), RNG)
            for strength in strengths[1:]
        ]
        assert_rising(values, str(damage))
    kept = [frechet(real, drop_classes(fake, labels, k, 12), RNG) for k in (6, 3, 1)]
    assert_rising(kept, "class drop")
    distinct = [frechet(real, drop_modes(fake[::2], n), RNG) for n in (36, 12, 4)]
    assert_rising(distinct, "mode drop")
