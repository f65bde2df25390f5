"""Training on prompts: what a class model hands down, captions by seed and step, refusals."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from izograf.checkpoints.files import read_weights
from izograf.checkpoints.load import load_generator
from izograf.data.batches import BatchStream
from izograf.data.captions import CaptionSource, captions_of
from izograf.data.dataset import load_images
from izograf.generators.text_to_image import TextToImageGenerator
from izograf.recipes import prompts as prompts_module
from izograf.recipes.captioned import CaptionedBatches
from izograf.recipes.registry import RECIPES, Hyperparameters, RunRequest
from izograf.schema.card import ModelCard
from izograf.schema.errors import InvalidInput, NotFound
from izograf.schema.library import read_card
from izograf.schema.vocabulary import Vocabulary
from izograf.training.ema import MovingAverage
from izograf.training.run import Averaged, Job
from izograf.training.trainer import TrainingState, train

UNET = ("width=16", "depth=1", "head_dim=16")
SMALL = {
    "diffusion-unet": UNET,
    "text-to-image": UNET,
    "clip": ("width=32", "depth=1", "head_dim=16", "image_width=16", "image_depth=1"),
}
BASE = Hyperparameters(images=16, batch_size=8, device="cpu", precision="fp32")
MakeJob = Callable[..., Job]


@pytest.fixture(scope="module")
def sets(pictures: Path) -> list[Any]:
    return [load_images([pictures], 16, split=split) for split in ("train", "test")]


@pytest.fixture(scope="module")
def job_of(sets: list[Any]) -> MakeJob:
    def make(recipe: str, *settings: str, data: list[Any] | None = None, **chosen: Any) -> Job:
        asked = replace(BASE, settings=(*SMALL[recipe], *settings), **chosen)
        RECIPES[recipe].check(asked)
        train, held_out = data or sets
        return RECIPES[recipe].build(RunRequest("tiny", train, held_out, "CC0-1.0", asked))

    return make


def averages(job: Job) -> Averaged:
    return {name: job.objective.modules[name] for name in job.objective.averaged}


def exported(job: Job, folder: Path) -> Path:
    assert job.export is not None
    job.export(averages(job), folder, {"images_seen": 0})
    return folder


def noisy(job: Job) -> Job:
    """The untrained network with every number moved, so that each can be recognised."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in job.objective.modules.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return job


@pytest.fixture(scope="module")
def encoder(job_of: MakeJob, tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(exported(job_of("clip"), tmp_path_factory.mktemp("encoders") / "clip"))


@pytest.fixture(scope="module")
def class_model(job_of: MakeJob, tmp_path_factory: pytest.TempPathFactory) -> Path:
    job = noisy(job_of("diffusion-unet"))
    return exported(job, tmp_path_factory.mktemp("parents") / "classes")


def network_of(job: Job) -> nn.Module:
    network: nn.Module = job.objective.modules["denoiser"].network  # type: ignore[assignment]
    return network


def test_the_card_tells_what_the_model_reads_and_the_model_holds_its_encoder(
    job_of: MakeJob, encoder: str, tmp_path: Path
) -> None:
    folder = exported(job_of("text-to-image", text_encoder=encoder), tmp_path / "model")
    card, parent = read_card(folder), read_card(Path(encoder))
    assert (card.family, card.conditions, card.classes) == ("text-to-image", ("text",), ())
    assert card.parents == (f"{parent.name}@{parent.fingerprint}",)
    assert card.recipe["hyperparameters"]["text_encoder"] == "clip"
    assert card.network["config"]["num_classes"] == 0
    assert {"guidance_scale", "guidance_low"} <= {option.name for option in card.options}
    assert "negative_class" not in {option.name for option in card.options}
    generator, _ = load_generator(str(folder), device="cpu", precision="fp32")
    assert isinstance(generator, TextToImageGenerator)
    shape = (card.network["config"]["text_tokens"], card.network["config"]["text_dim"])
    assert generator.reader.shape == shape == (25, 32)
    assert str(tmp_path) not in (folder / "card.json").read_text()


def test_all_that_fits_is_taken_over_from_a_class_model(
    job_of: MakeJob, encoder: str, class_model: Path
) -> None:
    job = job_of("text-to-image", text_encoder=encoder, init_from=str(class_model), seed=9)
    loaded, _ = load_generator(str(class_model), device="cpu", precision="fp32")
    theirs = loaded.denoiser.network.state_dict()  # type: ignore[attr-defined]
    ours = network_of(job).state_dict()
    fresh = network_of(job_of("text-to-image", text_encoder=encoder, seed=9)).state_dict()
    table = "encoder.table.weight"
    new = ours.keys() - theirs.keys()
    assert new
    assert all("text" in name or "sentence" in name or "reading" in name for name in new)
    assert all(torch.equal(ours[name], fresh[name]) for name in new)
    assert torch.equal(ours[table], theirs[table][:1]), "row 0 is no class"
    assert len(theirs[table]) == 3
    for name in theirs.keys() - {table}:
        assert torch.equal(ours[name], theirs[name]), name


def test_the_card_names_both_parents(
    job_of: MakeJob, encoder: str, class_model: Path, tmp_path: Path
) -> None:
    job = job_of("text-to-image", text_encoder=encoder, init_from=str(class_model))
    card = read_card(exported(job, tmp_path / "model"))
    both = (read_card(class_model), read_card(Path(encoder)))
    assert card.parents == tuple(f"{parent.name}@{parent.fingerprint}" for parent in both)


def test_a_text_model_can_be_trained_on_also_with_a_reader_of_another_width(
    job_of: MakeJob, encoder: str, tmp_path: Path
) -> None:
    parent = exported(noisy(job_of("text-to-image", text_encoder=encoder)), tmp_path / "parent")
    loaded, _ = load_generator(str(parent), device="cpu", precision="fp32")
    theirs = loaded._inner.denoiser.network.state_dict()  # type: ignore[attr-defined]
    on = job_of("text-to-image", text_encoder=encoder, init_from=str(parent), seed=9)
    ours = network_of(on).state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    wide = exported(job_of("clip", "width=48", "max_words=30"), tmp_path / "wide")
    other = job_of("text-to-image", text_encoder=str(wide), init_from=str(parent), seed=9)
    changed = network_of(other).state_dict()
    unlike = {name for name in changed if changed[name].shape != theirs[name].shape}
    assert unlike == {
        "backbone.text.project.weight", "backbone.text.positions", "backbone.sentence.weight"
    }  # fmt: skip
    assert all(torch.equal(changed[n], theirs[n]) for n in changed.keys() - unlike)


def test_a_text_encoder_can_be_trained_on_with_the_same_words(
    job_of: MakeJob, encoder: str, tmp_path: Path
) -> None:
    on = job_of("clip", init_from=encoder, seed=9)
    theirs = read_weights(Path(encoder), read_card(Path(encoder)))
    ours = on.objective.modules["clip"].state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    parent = read_card(Path(encoder))
    card = read_card(exported(on, tmp_path / "on"))
    assert card.parents == (f"{parent.name}@{parent.fingerprint}",)

    path = Path(encoder).parent / "renamed"
    shutil.copytree(encoder, path)
    words = str(parent.sampling["vocabulary"])
    config = {**parent.network["config"], "num_words": len(words.split()) - 1}
    fewer = replace(
        parent,
        sampling={"vocabulary": words.replace(" forest ", " ")},
        network={**parent.network, "config": config},
    )
    for other in (fewer, replace(parent, sampling={"vocabulary": words.replace("sea", "tea")})):
        (path / "card.json").write_text(other.dumps())
        with pytest.raises(InvalidInput, match="knows other words than the captions of this data"):
            job_of("clip", init_from=str(path))
    with pytest.raises(InvalidInput, match="num_words follows from the data"):
        job_of("clip", "num_words=9")


def test_a_shape_that_is_no_matter_of_words_must_still_agree(
    job_of: MakeJob, encoder: str, class_model: Path
) -> None:
    with pytest.raises(InvalidInput, match="width is 16 there and 32 here"):
        job_of("text-to-image", "width=32", text_encoder=encoder, init_from=str(class_model))
    with pytest.raises(InvalidInput, match="add --objective flow"):
        job_of("text-to-image", text_encoder=encoder, init_from=str(class_model), objective="edm")
    with pytest.raises(InvalidInput, match="its network is 'clip', and here it is unet"):
        job_of("text-to-image", text_encoder=encoder, init_from=encoder)


def test_what_is_no_text_encoder_is_refused(
    job_of: MakeJob, encoder: str, class_model: Path, pictures: Path
) -> None:
    with pytest.raises(InvalidInput, match="tiny is a diffusion model: train one with `izograf"):
        job_of("text-to-image", text_encoder=str(class_model))
    with pytest.raises(NotFound):
        job_of("text-to-image", text_encoder="clyp")
    with pytest.raises(InvalidInput, match="--text-encoder"):
        job_of("text-to-image")
    with pytest.raises(InvalidInput, match="leave out --text-encoder"):
        job_of("diffusion-unet", text_encoder=encoder)
    larger = [load_images([pictures], 32, split=split) for split in ("train", "test")]
    with pytest.raises(InvalidInput, match="of 16 pixels, and this run has 32: use --image-size"):
        job_of("text-to-image", text_encoder=encoder, data=larger)


class Said:
    """A caption source that notes what it was asked for."""

    def __init__(self, inner: CaptionSource) -> None:
        self.inner, self.asked = inner, list[tuple[int, str, bool]]()
        self.attributes = inner.attributes

    def __len__(self) -> int:
        return len(self.inner)

    def caption(self, index: int, rng: random.Random, language: str, held_out: bool = False) -> str:
        self.asked.append((index, language, held_out))
        return self.inner.caption(index, rng, language, held_out)

    def vocabulary(self) -> tuple[str, ...]:
        return self.inner.vocabulary()


def captioned(sets: list[Any], **changes: Any) -> CaptionedBatches:
    source = Said(captions_of(sets[0]))
    stream = BatchStream(sets[0].images, sets[0].class_ids, 8, seed=1)
    vocabulary = Vocabulary(source.vocabulary())
    return CaptionedBatches(stream, source, vocabulary, 24, **{"seed": 1, **changes})


def text_of(batches: CaptionedBatches, step: int) -> Tensor:
    text = batches(step).condition.text
    assert text is not None
    return text


def test_captions_are_the_same_for_a_seed_and_a_step_and_others_for_others(sets: list[Any]) -> None:
    first, again = text_of(captioned(sets), 3), text_of(captioned(sets), 3)
    assert torch.equal(first, again)
    assert first.shape == (8, 2, 24)
    assert not torch.equal(first, text_of(captioned(sets), 4))
    assert not torch.equal(first, text_of(captioned(sets, seed=2), 3))
    # five batches of 8 are an epoch of the 40 pictures: the same pictures, said otherwise
    assert not torch.equal(first.sort(0).values, text_of(captioned(sets), 8).sort(0).values)


def test_every_picture_has_the_caption_of_its_own(sets: list[Any]) -> None:
    batches = captioned(sets)
    batch = batches(2)
    index = batches.pictures.indices(2).tolist()
    assert isinstance(batches.captions, Said)
    assert [i for i, _, _ in batches.captions.asked] == [i for i in index for _ in range(2)]
    assert [language for _, language, _ in batches.captions.asked] == ["en", "ru"] * 8
    assert torch.equal(batch.image, batches.pictures(2).image)
    assert batch.condition.class_ids is None


def test_of_one_language_both_are_drawn(sets: list[Any]) -> None:
    batches = captioned(sets, one_language=True)
    assert text_of(batches, 0).shape == (8, 24)
    assert isinstance(batches.captions, Said)
    text_of(batches, 1)
    assert {language for _, language, _ in batches.captions.asked} == {"en", "ru"}


def test_training_reads_trained_frames_and_evaluation_held_out_ones(
    job_of: MakeJob, encoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources: list[Said] = []

    def noted(images: Any) -> Said:
        sources.append(Said(captions_of(images)))
        return sources[-1]

    monkeypatch.setattr(prompts_module, "captions_of", noted)
    job = job_of("text-to-image", text_encoder=encoder)
    for source in sources:
        source.asked.clear()
    tokens = job.batches(0).condition.text
    assert tokens is not None
    assert tokens.shape == (8, 25, 32)
    assert not tokens.requires_grad
    training, judging = sources
    assert [held_out for _, _, held_out in training.asked] == [False] * 8
    assert judging.asked == []
    assert job.evaluate is not None
    first = job.evaluate(averages(job))
    assert first == job.evaluate(averages(job))
    assert {held_out for _, _, held_out in judging.asked} == {True}
    assert len(training.asked) == 8, "the held-out pictures have captions of their own"


def test_the_encoder_stays_as_it_is(job_of: MakeJob, encoder: str, tmp_path: Path) -> None:
    job = job_of("text-to-image", text_encoder=encoder, learning_rate=0.01)
    average = MovingAverage(job.objective.modules, job.objective.averaged, share=0.05)
    before = network_of(job).state_dict()["backbone.sentence.weight"].clone()
    train(job.objective, job.batches, job.training, TrainingState(average), job.placement, nothing)
    assert not torch.equal(network_of(job).state_dict()["backbone.sentence.weight"], before)
    assert job.export is not None
    job.export(average.modules, tmp_path / "model", {"images_seen": 16})
    made = read_weights(tmp_path / "model", read_card(tmp_path / "model"))
    told = read_weights(Path(encoder), read_card(Path(encoder)))
    assert all(torch.equal(made[f"clip.{key}"], value) for key, value in told.items())


def nothing(*_: object) -> None:
    return


def test_data_without_held_out_pictures_trains_without_evaluation(
    job_of: MakeJob, encoder: str, sets: list[Any]
) -> None:
    none = replace(sets[1], images=sets[1].images[:0], class_ids=sets[1].class_ids[:0], names=())
    for recipe, chosen in (("clip", {}), ("text-to-image", {"text_encoder": encoder})):
        job = job_of(recipe, data=[sets[0], none], **chosen)
        assert job.evaluate is None
        assert len(job.batches(0)) == 8


def test_a_preview_shows_prompts_in_both_languages(
    job_of: MakeJob, encoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    original = TextToImageGenerator.text_condition

    def noted(self: TextToImageGenerator, prompts: list[str]) -> Any:
        asked.extend(prompts)
        return original(self, prompts)

    monkeypatch.setattr(TextToImageGenerator, "text_condition", noted)
    monkeypatch.setattr(prompts_module, "PREVIEWED", 2)
    job = job_of("text-to-image", text_encoder=encoder)
    assert job.preview is not None
    job.preview(averages(job), tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").stat().st_size > 0
    texts = list(dict.fromkeys(asked))
    assert len(asked) == 2 * 6
    cyrillic = [any("а" <= letter <= "я" for letter in text) for text in texts]
    assert True in cyrillic
    assert False in cyrillic


def test_the_card_of_a_text_encoder_has_its_vocabulary(encoder: str, sets: list[Any]) -> None:
    card: ModelCard = read_card(Path(encoder))
    assert (card.family, card.task, card.conditions) == ("clip", "rank", ("text",))
    words = card.sampling["vocabulary"].split()
    assert tuple(words) == captions_of(sets[0]).vocabulary()
    assert card.network["config"]["num_words"] == len(words)
