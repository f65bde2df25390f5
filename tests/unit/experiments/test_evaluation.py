"""What is asked of a model that is measured, and which judge may judge it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from izograf.core.rng import SeededNoise
from izograf.core.types import Condition, OnStep, ignore
from izograf.data.dataset import load_images
from izograf.experiments import evaluation
from izograf.metrics.extractors import open_extractor
from izograf.schema.card import ModelCard
from izograf.schema.errors import DataError, InvalidInput, NotFound
from izograf.schema.labels import ClassLabel
from izograf.schema.options import OptionValue

CARD = ModelCard(
    "m", "fake", {}, 16, ("class",), tuple(ClassLabel(name) for name in ("sea", "city", "forest"))
)


@pytest.fixture(scope="module")
def data(pictures):
    return [load_images([pictures], 16, split=split) for split in ("train", "test")]


class Fake:
    """Pictures of noise around a level that tells the class."""

    def __init__(self, card: ModelCard) -> None:
        self.card = card
        self.batches: list[int] = []

    def sample(
        self,
        condition: Condition,
        seeds: Sequence[int],
        *,
        options: Mapping[str, OptionValue] | None = None,
        on_step: OnStep = ignore,
    ) -> Tensor:
        del options, on_step
        self.batches.append(len(seeds))
        noise = 0.1 * SeededNoise((3, 16, 16), seeds)()
        if condition.class_ids is not None:
            noise[torch.arange(len(seeds)), condition.class_ids] += 0.5
        return noise.clamp(-1, 1)


def sampled(count: int, seed: int = 0, ids: Tensor | None = None) -> Tensor:
    return evaluation.sample_many(
        Fake(CARD), ids, count, seed=seed, options={}, on_progress=lambda *_: None
    )


def test_classes_are_matched_by_name_not_by_position(data) -> None:
    train, _ = data
    assert [label.name for label in train.classes] == ["forest", "sea"]
    assert evaluation.match_classes(CARD, train).tolist() == [2, 0]


def test_a_class_the_model_never_saw_is_refused(data) -> None:
    with pytest.raises(DataError, match="does not know these classes of the data: forest"):
        evaluation.match_classes(replace(CARD, classes=CARD.classes[:2]), data[0])


@pytest.mark.parametrize("count", [1, 2, 7, 40, 100])
def test_samples_are_asked_in_the_proportions_of_the_data(data, count) -> None:
    train = replace(data[0], class_ids=torch.tensor([0] * 30 + [1] * 10))
    asked = evaluation.asked_classes(CARD, train, count)
    assert len(asked) == count
    forests = int((asked == 2).sum())
    assert abs(forests - 0.75 * count) < 1
    assert set(asked.tolist()) <= {0, 2}


def test_unlabelled_pictures_do_not_count_and_cannot_all_be_so(data) -> None:
    train, _ = data
    half = train.class_ids.clone()
    half[:20] = -1
    asked = evaluation.asked_classes(CARD, replace(train, class_ids=half), 10)
    assert (asked >= 0).all()
    with pytest.raises(DataError, match="no classes"):
        evaluation.asked_classes(CARD, replace(train, class_ids=torch.full((40,), -1)), 10)


def test_a_model_without_classes_is_asked_for_none(data) -> None:
    assert evaluation.asked_classes(replace(CARD, classes=()), data[0], 5) is None


def test_a_sample_depends_on_its_seed_and_place_alone() -> None:
    many, few = sampled(130), sampled(3)
    assert (many.dtype, many.shape) == (torch.uint8, (130, 3, 16, 16))
    assert torch.equal(many[:3], few)
    assert not torch.equal(sampled(3, seed=1), few)
    assert len({picture.numpy().tobytes() for picture in many}) == 130


def test_progress_reaches_the_number_asked() -> None:
    seen = []
    evaluation.sample_many(
        Fake(CARD), None, 130, seed=0, options={}, on_progress=lambda *now: seen.append(now)
    )
    assert seen == [(64, 130), (128, 130), (130, 130)]


def test_too_few_to_measure_is_said_before_anything_is_generated(data) -> None:
    train, held_out = data
    evaluation.check_counts(4, train, held_out)
    with pytest.raises(InvalidInput, match="At least 4 samples"):
        evaluation.check_counts(3, train, held_out)
    one = replace(held_out, images=held_out.images[:1], names=held_out.names[:1])
    with pytest.raises(DataError, match="2 pictures in the test split, and two has 1"):
        evaluation.check_counts(100, train, one)
    with pytest.raises(DataError, match="in the train split"):
        evaluation.check_counts(100, one, held_out)


def test_real_pictures_score_better_than_noise_and_like_the_floor(data) -> None:
    train, held_out = data
    extractor = open_extractor("random-conv")
    real = evaluation.evaluate(
        CARD, held_out.images, None, train, held_out, extractor, None, seed=0
    )
    fake = evaluation.evaluate(CARD, sampled(16), None, train, held_out, extractor, None, seed=0)
    for good, bad in zip(real.scores, fake.scores, strict=True):
        assert good.relative == pytest.approx(0, abs=1e-9)
        assert bad.value > good.value
    assert real.agreement is None
    assert [entry["name"] for entry in real.to_json()] == ["FD-random-conv", "KD-random-conv"]


def test_a_judge_must_know_exactly_the_classes(trained, data) -> None:
    folder = trained("classifier")
    train, _ = data
    card = replace(CARD, classes=train.classes)
    judge = evaluation.fitting_judge(folder, card)
    assert judge is not None
    assert judge.classes == ("forest", "sea")
    assert evaluation.fitting_judge(folder, replace(card, classes=train.classes[::-1])) is not None
    assert evaluation.fitting_judge(folder, CARD) is None
    assert evaluation.fitting_judge(folder, replace(card, classes=())) is None


def test_a_judge_that_took_part_in_training_does_not_judge(trained, data) -> None:
    train, held_out = data
    folder = trained("classifier")
    judge = evaluation.judge_in(folder)
    plain = replace(CARD, classes=train.classes, parents=(f"other@{'0' * 64}",))
    assert evaluation.fitting_judge(folder, plain) is not None
    pleased = replace(plain, parents=(*plain.parents, f"renamed@{judge.sha256}"))
    with pytest.raises(InvalidInput, match=r"took part in training m, .* choose another"):
        evaluation.fitting_judge(folder, pleased)
    asked = evaluation.match_classes(pleased, held_out)[held_out.class_ids]
    with pytest.raises(InvalidInput, match="took part in training m"):
        evaluation.evaluate(
            pleased, held_out.images, asked, train, held_out, judge, judge, seed=0
        )  # fmt: skip
    assert evaluation.fitting_judge(folder, replace(pleased, classes=CARD.classes)) is None


def test_a_judge_that_trained_a_part_of_the_model_does_not_judge(
    trained, data, tmp_path, monkeypatch
) -> None:
    """As the perceptual loss of an autoencoder whose latents the model learned."""
    folder = trained("classifier")
    judge = evaluation.judge_in(folder)
    part = replace(CARD, name="part", weights={"w": "a" * 64}, parents=(f"j@{judge.sha256}",))
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "card.json").write_text(part.dumps())
    card = replace(CARD, classes=data[0].classes, parents=("part@" + "a" * 64,))
    assert evaluation.fitting_judge(folder, card) is not None, "the part is nowhere to be found"
    monkeypatch.setenv("IZOGRAF_MODELS", str(tmp_path))
    with pytest.raises(InvalidInput, match="took part"):
        evaluation.fitting_judge(folder, card)


def test_the_judge_counts_the_asked_class_whatever_the_order_of_classes(trained, data) -> None:
    train, held_out = data
    judge = evaluation.judge_in(trained("classifier"))
    card = replace(CARD, classes=train.classes[::-1])
    asked = evaluation.match_classes(card, held_out)[held_out.class_ids]
    found = evaluation.evaluate(
        card, held_out.images, asked, train, held_out, judge, judge, seed=0
    )  # fmt: skip
    assert found.agreement["value"] == found.real_agreement["value"] > 0.9
    assert set(found.agreement["per_class"]) == {"forest", "sea"}
    wrong = evaluation.evaluate(
        card, held_out.images, 1 - asked, train, held_out, judge, judge, seed=0
    )
    assert wrong.agreement["value"] == pytest.approx(1 - found.agreement["value"])
    entry = found.to_json()[-1]
    assert entry["held_out_real"] == found.real_agreement["value"]
    assert entry["judge_sha256"] == judge.sha256


def test_the_extractor_judge_without_weights_is_the_judge_at_hand(trained) -> None:
    folder = trained("classifier")
    assert evaluation.extractor_for("judge", None, folder).sha256 == (
        evaluation.extractor_for("judge", folder, None).sha256
    )
    with pytest.raises(InvalidInput):
        evaluation.extractor_for("judge", None, None)
    with pytest.raises(NotFound):
        evaluation.extractor_for("oracle", None, None)
