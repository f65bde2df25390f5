"""The perceptual distance, and the classifier that gives its features."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from izograf.core.rng import generator
from izograf.models.classifier import Classifier, ClassifierConfig
from izograf.objectives.perceptual import feature_distance


def noise(*key: int | str, shape: tuple[int, ...] = (3, 3, 16, 16)) -> Tensor:
    return torch.randn(shape, generator=generator("tests", "perceptual", *key))


@pytest.fixture(scope="module")
def network() -> Classifier:
    torch.manual_seed(0)
    return Classifier(ClassifierConfig(16, 2, width=16, depth=2)).eval().requires_grad_(False)


def test_it_is_the_mean_squared_distance_of_unit_features_written_out() -> None:
    fine, coarse = noise("fine"), noise("coarse", shape=(3, 5, 2, 2))

    def features(picture: Tensor) -> list[Tensor]:
        return [picture * fine, coarse + picture[:, :1, :2, :2]]

    a, b = noise("a"), noise("b")
    found = feature_distance(features, a, b)
    for index in range(3):
        stages = []
        for x, y in zip(features(a), features(b), strict=True):
            x, y = x[index].double().flatten(1), y[index].double().flatten(1)
            across = [
                float((p / p.norm() - q / q.norm()).square().sum())
                for p, q in zip(x.T, y.T, strict=True)
            ]
            stages.append(sum(across) / len(across))
        assert float(found[index]) == pytest.approx(sum(stages) / 2, rel=1e-4)


def test_equal_pictures_have_no_distance_and_opposite_features_the_largest() -> None:
    a = noise("a")
    assert float(feature_distance(lambda x: [x], a, a).abs().max()) == 0
    furthest = feature_distance(lambda x: [x], a, -a)
    torch.testing.assert_close(furthest, torch.full((3,), 4.0))
    # only directions count
    torch.testing.assert_close(
        feature_distance(lambda x: [x], 5 * a, 0.1 * a), torch.zeros(3), rtol=0, atol=1e-6
    )


def test_no_stage_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one stage"):
        feature_distance(lambda _: [], noise("a"), noise("b"))


def test_a_classifier_gives_a_map_for_its_stem_and_each_stage_at_any_size(network) -> None:
    shapes = [tuple(m.shape) for m in network.stages(noise("wide", shape=(1, 3, 16, 48)))]
    assert shapes == [(1, 16, 8, 24), (1, 16, 4, 12), (1, 32, 2, 6), (1, 48, 1, 3)]


def test_the_last_stage_is_what_the_verdict_is_made_of(network) -> None:
    x = noise("x")
    pooled = network.activation(network.norm(network.stages(x)[-1])).mean((2, 3))
    assert torch.equal(pooled, network.features(x))


def test_more_noise_is_further_and_the_gradient_leads_back(network) -> None:
    a, disturbance = noise("a").clamp(-1, 1), noise("n")
    distances = [
        float(feature_distance(network.stages, a + level * disturbance, a).sum())
        for level in (0.0, 0.05, 0.2, 0.8)
    ]
    assert distances == sorted(distances)
    assert distances[0] == 0 < distances[1]
    found = (a + 0.2 * disturbance).requires_grad_(True)
    feature_distance(network.stages, found, a).sum().backward()
    assert bool(found.grad.isfinite().all())
    assert float((found.grad * disturbance).sum()) > 0
    assert all(p.grad is None for p in network.parameters())
