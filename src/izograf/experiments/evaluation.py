"""Measuring a generator: samples in the data's class proportions, distances, class agreement."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from izograf.core.pixels import to_uint8
from izograf.core.rng import derive_seed
from izograf.core.storage import load_tensors, write_atomically
from izograf.core.types import Condition, Generator, TextConditioned
from izograf.data.captions import captions_of
from izograf.data.dataset import ImageSet
from izograf.metrics.agreement import class_agreement
from izograf.metrics.evaluate import STANDARD_METRICS, Reference, score_features
from izograf.metrics.extractors import Pictures, extract_features, open_extractor
from izograf.metrics.judge import JudgeExtractor, open_judge
from izograf.metrics.registry import ExtractorSource, FeatureExtractor
from izograf.metrics.score import Score
from izograf.models.classifier import build_classifier
from izograf.schema.card import ModelCard
from izograf.schema.errors import CardError, DataError, InvalidInput, StorageError
from izograf.schema.labels import LANGUAGES
from izograf.schema.library import list_models
from izograf.schema.options import OptionValue
from izograf.schema.prompting import vocabulary_of

MIN_SAMPLES = 4  # what a jackknife interval needs
MIN_REAL = 2  # what a covariance needs
NETWORKS = {"classifier": build_classifier}
SAMPLING_BATCH = 64


@dataclass(frozen=True)
class Evaluation:
    """What one evaluation found.

    Attributes:
        scores: distances between samples and real pictures.
        agreement: the judge's verdict (`metrics.agreement`), or None without a fitting judge.
        real_agreement: the same judge on the held-out real pictures: the best one can expect.
    """

    scores: tuple[Score, ...]
    agreement: Mapping[str, Any] | None
    real_agreement: Mapping[str, Any] | None

    def to_json(self) -> list[dict[str, Any]]:
        """Entries for a card's `metrics`."""
        entries = [score.to_json() | {"relative": score.relative} for score in self.scores]
        if self.agreement is not None and self.real_agreement is not None:
            held_out = self.real_agreement["value"]
            entries.append({**self.agreement, "held_out_real": held_out})
        return entries


def match_classes(card: ModelCard, data: ImageSet) -> Tensor:
    """For each class of `data`, the model's index of the same class, int64 [K].

    Raises:
        DataError: a class of the data is unknown to the model, or pictures are unlabelled.
    """
    index = {label.name: i for i, label in enumerate(card.classes)}
    unknown = [label.name for label in data.classes if label.name not in index]
    if unknown:
        raise DataError(
            f"{card.name} does not know these classes of the data: {', '.join(unknown)}. "
            "Evaluate it on data with the classes it was trained on."
        )
    return torch.tensor([index[label.name] for label in data.classes], dtype=torch.int64)


def check_counts(count: int, train: ImageSet, held_out: ImageSet) -> None:
    """Refuses, before anything is generated, what cannot be measured afterwards.

    Raises:
        InvalidInput: too few samples are asked; DataError: a split has too few pictures.
    """
    if count < MIN_SAMPLES:
        raise InvalidInput(f"At least {MIN_SAMPLES} samples are needed to measure, got {count}.")
    for images, split in ((train, "train"), (held_out, "test")):
        if len(images) < MIN_REAL:
            raise DataError(
                f"Measuring needs at least {MIN_REAL} pictures in the {split} split, and "
                f"{images.name} has {len(images)}: give more pictures."
            )


def asked_classes(card: ModelCard, data: ImageSet, count: int) -> Tensor | None:
    """Model class ids for `count` samples in the proportions of the data; None if unconditional.

    The j-th sample takes the class at the j-th of `count` equal steps through the sorted labels.
    """
    if not card.classes:
        return None
    labelled = data.class_ids[data.class_ids >= 0]
    if len(labelled) == 0:
        raise DataError("The data has no classes, and this model is asked by class.")
    ordered = labelled.sort().values
    steps = (torch.arange(count) * len(ordered)) // count
    return match_classes(card, data)[ordered[steps]]


def asked_prompts(card: ModelCard, data: ImageSet, count: int, *, seed: int) -> list[str] | None:
    """Captions of `count` of the pictures, spread evenly over them.

    In both languages by turns for a model trained here, in English for a checkpoint of another
    program; None for a model that reads no prompts. To be compared with the pictures they
    describe, as a text model's Frechet distance usually is.
    """
    if "text" not in card.conditions:
        return None
    captions = captions_of(data)
    languages = LANGUAGES if vocabulary_of(card) is not None else LANGUAGES[:1]
    rng = random.Random(derive_seed(seed, "evaluation prompts"))
    spread = [(number * len(captions)) // count for number in range(count)]
    return [
        captions.caption(index, rng, languages[number % len(languages)])
        for number, index in enumerate(spread)
    ]


def sample_many(
    generator: Generator,
    class_ids: Tensor | None,
    count: int,
    *,
    seed: int,
    options: Mapping[str, OptionValue],
    on_progress: Callable[[int, int], None],
    prompts: Sequence[str] | None = None,
) -> Tensor:
    """`count` samples, uint8 [N,3,H,W]; sample i has a seed derived from `seed` and i.

    They are asked for by class, by one prompt each, or, without either, for nothing in particular.
    """
    pictures = []
    for start in range(0, count, SAMPLING_BATCH):
        stop = min(count, start + SAMPLING_BATCH)
        seeds = [derive_seed(seed, "evaluation", index) for index in range(start, stop)]
        if prompts is not None and isinstance(generator, TextConditioned):
            condition = generator.text_condition(prompts[start:stop])
        else:
            condition = Condition(class_ids=None if class_ids is None else class_ids[start:stop])
        images = generator.sample(condition, seeds, options=options)
        pictures.append(to_uint8(images))
        on_progress(stop, count)
    return torch.cat(pictures)


def judge_in(folder: Path) -> JudgeExtractor:
    """The classifier model in `folder`, as a judge."""
    judge = open_judge(ExtractorSource(weights=folder, networks=NETWORKS))
    assert isinstance(judge, JudgeExtractor)
    return judge


def fitting_judge(folder: Path, card: ModelCard) -> JudgeExtractor | None:
    """The judge in `folder` if it knows exactly the classes of the card.

    Raises:
        InvalidInput: see `check_independent`.
    """
    judge = judge_in(folder)
    if not card.classes or set(judge.classes) != {label.name for label in card.classes}:
        return None
    check_independent(card, judge)
    return judge


def check_independent(card: ModelCard, judge: JudgeExtractor) -> None:
    """Refuses a judge that the model was trained to please.

    Raises:
        InvalidInput: it is among the model's `parents`, or theirs as far as their cards are found.
    """
    if judge.sha256 in _ancestors(card):
        raise InvalidInput(
            f"This judge took part in training {card.name}, so its verdict would not be "
            "independent: choose another classifier with --judge."
        )


def _ancestors(card: ModelCard) -> set[str]:
    """Fingerprints of the models that took part, directly or through others."""
    if not card.parents:
        return set()
    known = {listed.card.fingerprint: listed.card for listed in list_models() if listed.card}
    found: set[str] = set()
    ahead = list(card.parents)
    while ahead:
        fingerprint = ahead.pop().rpartition("@")[2]
        if fingerprint not in found:
            found.add(fingerprint)
            ahead += known[fingerprint].parents if fingerprint in known else ()
    return found


def extractor_for(
    extractor_id: str, weights: Path | None, judge_folder: Path | None
) -> FeatureExtractor:
    """The extractor asked for; `judge` without weights is the one in `judge_folder`."""
    path = judge_folder if extractor_id == "judge" and weights is None else weights
    return open_extractor(extractor_id, path, networks=NETWORKS)


def remembered_features(folder: Path, pictures: Pictures, extractor: FeatureExtractor) -> Tensor:
    """`extract_features`, kept below `folder` by the hash of pictures, weights and resize."""
    digest = hashlib.sha256()
    for group in [pictures] if isinstance(pictures, Tensor) else pictures:
        digest.update(group.contiguous().numpy().data)
    digest.update("/".join((extractor.id, extractor.sha256, extractor.resize)).encode())
    path = folder / f"{digest.hexdigest()}.safetensors"
    with suppress(CardError):
        return load_tensors(path)["features"]
    features = extract_features(pictures, extractor)
    with suppress(StorageError):  # an unwritable cache only means computing again
        write_atomically(path, save({"features": features}))
    return features


def evaluate(
    card: ModelCard,
    samples: Tensor,
    asked: Tensor | None,
    train: ImageSet,
    held_out: ImageSet,
    extractor: FeatureExtractor,
    judge: JudgeExtractor | None,
    *,
    seed: int,
    metrics: Sequence[str] = STANDARD_METRICS,
    cache: Path | None = None,
) -> Evaluation:
    """Scores of samples uint8 [N,3,H,W] asked with class ids [N] (of the card's classes).

    Features of the real pictures are kept in the folder `cache`, where one is given.

    Raises:
        InvalidInput: see `check_independent`.
    """
    if judge is not None:
        check_independent(card, judge)
    reference = Reference.measure(
        train.images,
        held_out.images,
        extractor,
        split=f"{train.name}-{card.image_size}/{train.split}",
        resize=train.resize,
        seed=seed,
        extract=extract_features if cache is None else partial(remembered_features, cache),
    )
    scores = score_features(extract_features(samples, extractor), reference, metrics=metrics)
    if judge is None or asked is None:
        return Evaluation(scores, None, None)
    names = [label.name for label in card.classes]
    to_judge = torch.tensor([judge.classes.index(name) for name in names])
    agreement = class_agreement(judge.logits(samples), to_judge[asked])
    labelled = held_out.class_ids >= 0
    truth = to_judge[match_classes(card, held_out)[held_out.class_ids[labelled]]]
    real = class_agreement(judge.logits(held_out.images[labelled]), truth)
    named = {judge.classes[int(k)]: v for k, v in agreement["per_class"].items()}
    return Evaluation(scores, {**agreement, "per_class": named, "judge_sha256": judge.sha256}, real)
