"""Evaluation from pictures to scores, with the seeded test extractor."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from izograf.metrics.evaluate import Reference, score_features, uniform_noise
from izograf.metrics.extractors import extract_features, open_extractor
from izograf.metrics.fid import frechet_distance
from izograf.metrics.registry import METRICS, FeatureExtractor
from izograf.metrics.score import Score
from izograf.metrics.statistics import FeatureStatistics
from izograf.schema.errors import InvalidInput, NotFound


def blobs(count: int, *, seed: int, size: int = 24, brightness: float = 0.0) -> Tensor:
    """Smooth random pictures: low-resolution noise, enlarged."""
    rng = torch.Generator().manual_seed(seed)
    small = torch.rand(count, 3, 4, 4, generator=rng)
    large = torch.nn.functional.interpolate(small, size=(size, size), mode="bilinear")
    return (large * 255 + brightness).clamp(0, 255).to(torch.uint8)


@pytest.fixture(scope="module")
def extractor() -> FeatureExtractor:
    return open_extractor("random-conv")


def evaluate(fake: Tensor, extractor: FeatureExtractor) -> tuple[Score, ...]:
    reference = Reference.measure(
        blobs(200, seed=0), blobs(120, seed=1), extractor, split="blobs/train", seed=3
    )
    return score_features(extract_features(fake, extractor), reference)


def test_scores_carry_what_they_were_measured_with(extractor: FeatureExtractor) -> None:
    frechet, kernel = evaluate(blobs(100, seed=2, brightness=10), extractor)
    assert (frechet.name, kernel.name) == ("FD-random-conv", "KD-random-conv")
    for score in (frechet, kernel):
        assert (score.num_real, score.num_fake, score.seed) == (200, 100, 3)
        assert (score.split, score.resize) == ("blobs/train", "bilinear-antialias-32")
        assert (score.extractor_id, score.sha256) == ("random-conv", extractor.sha256)
        assert score.ci95[0] < score.value < score.ci95[1]
        assert score.floor < score.value < score.ceiling
        assert 0 < score.relative < 1


def test_value_is_the_distance_of_the_features(extractor: FeatureExtractor) -> None:
    fake = blobs(100, seed=2)
    real_statistics, fake_statistics = (
        FeatureStatistics.of(extract_features(pictures, extractor))
        for pictures in (blobs(200, seed=0), fake)
    )
    expected = frechet_distance(
        real_statistics.mean,
        real_statistics.covariance,
        fake_statistics.mean,
        fake_statistics.covariance,
    )
    assert evaluate(fake, extractor)[0].value == pytest.approx(expected)


def test_held_out_pictures_score_the_floor(extractor: FeatureExtractor) -> None:
    for score in evaluate(blobs(120, seed=1), extractor):
        assert score.relative == pytest.approx(0)


def test_same_seed_same_scores_in_any_batches(extractor: FeatureExtractor) -> None:
    fake = blobs(100, seed=2)
    whole = evaluate(fake, extractor)
    assert evaluate(fake, extractor) == whole
    features = extract_features(fake, extractor)
    parts = extract_features(iter(fake.split(33)), extractor, batch_size=7)
    assert torch.allclose(parts, features, rtol=1e-4, atol=1e-4)


def test_every_registered_metric_can_be_scored(extractor: FeatureExtractor) -> None:
    reference = Reference.measure(
        blobs(60, seed=0), blobs(40, seed=1), extractor, split="blobs/train", resize="bilinear-24"
    )
    fake = extract_features(blobs(40, seed=2), extractor)
    scores = score_features(fake, reference, num_groups=4, metrics=list(METRICS))
    assert len({score.name for score in scores}) == len(METRICS)
    assert {score.resize for score in scores} == {"bilinear-24 > bilinear-antialias-32"}


def test_only_inception_2015_is_called_fid(extractor: FeatureExtractor) -> None:
    reference = Reference.measure(
        blobs(40, seed=0), blobs(20, seed=1), extractor, split="blobs/train"
    )
    published = dataclasses.replace(reference, extractor_id="inception-2015")
    names = [score.name for score in score_features(reference.held_out, published)]
    assert names == ["FID", "KID"]


def test_noise_is_uniform_and_seeded() -> None:
    noise = uniform_noise(20, 16, 12, seed=1)
    assert noise.shape == (20, 3, 16, 12)
    assert (int(noise.min()), int(noise.max())) == (0, 255)
    assert torch.equal(noise, uniform_noise(20, 16, 12, seed=1))
    assert not torch.equal(noise, uniform_noise(20, 16, 12, seed=2))


def test_unusable_input_is_refused(extractor: FeatureExtractor) -> None:
    good = blobs(10, seed=0)
    with pytest.raises(InvalidInput, match="uint8"):
        evaluate(good.float(), extractor)
    with pytest.raises(InvalidInput, match="no pictures"):
        evaluate(good[:0], extractor)
    with pytest.raises(InvalidInput, match="at least 4"):
        evaluate(good[:3], extractor)
    with pytest.raises(InvalidInput, match="one size"):
        Reference.measure(good, blobs(10, seed=0, size=32), extractor, split="x")
    reference = Reference.measure(good, good, extractor, split="x")
    with pytest.raises(NotFound, match="frechet"):
        score_features(reference.real, reference, metrics=["frechett"])
