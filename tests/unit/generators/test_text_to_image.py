"""A model that reads prompts: its null, negative prompts, ranking, and the way back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from izograf.checkpoints.files import read_weights
from izograf.checkpoints.load import load_generator
from izograf.core.devices import Placement
from izograf.core.types import TextConditioned
from izograf.engine.worker import model_bytes
from izograf.generators.network import modules_of
from izograf.generators.ranking import Ranks, best, ranking
from izograf.generators.registry import TakesGuide
from izograf.generators.render import Picture, read_png, render, save_png, verify
from izograf.generators.text_to_image import TextToImageGenerator, build
from izograf.schema.errors import CardError, InvalidInput
from izograf.schema.library import read_card
from izograf.schema.prompting import compose_prompt
from izograf.schema.request import GenerationRequest
from izograf.schema.resolve import resolve_request

FEW = {"num_inference_steps": 3, "guidance_scale": 3.0}
ONE = {"num_inference_steps": 1, "sampler": "euler"}
ENVIRONMENT = {"device": "cpu", "backend": "eager"}


@pytest.fixture(scope="module")
def folder(trained: Callable[[str], Path]) -> Path:
    return trained("text-to-image")


@pytest.fixture(scope="module")
def model(folder: Path) -> TextToImageGenerator:
    """The tiny model with its silent layers woken, so that prompts matter to it."""
    generator, _ = load_generator(str(folder), device="cpu", precision="fp32")
    assert isinstance(generator, TextToImageGenerator)
    network: nn.Module = generator._inner.denoiser.network  # type: ignore[attr-defined]
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return generator


def test_its_memory_is_that_of_the_denoiser_and_of_the_reader(model: TextToImageGenerator) -> None:
    kinds = {type(module).__name__ for module in modules_of(model)}
    assert {"UNet", "Clip"} <= kinds
    stored = sum(tensor.nbytes for tensor in model.reader.clip.parameters())
    network = model._inner.denoiser.network  # type: ignore[attr-defined]
    stored += sum(tensor.nbytes for tensor in network.parameters())
    assert model_bytes(model) >= stored > 0


def request_for(model: TextToImageGenerator, prompt: str, count: int, **chosen: Any) -> Any:
    options = chosen.pop("options", FEW)
    condition = compose_prompt(model.card, prompt, **chosen).condition
    return resolve_request(model.card, GenerationRequest("m", condition, count, 3, options))


def pictures(model: TextToImageGenerator, prompt: str, count: int = 2, **chosen: Any) -> Any:
    return list(render(model, request_for(model, prompt, count, **chosen), ENVIRONMENT))


def pixels(*args: Any, **chosen: Any) -> Tensor:
    return torch.stack([picture.pixels.int() for picture in pictures(*args, **chosen)])


def test_it_is_what_it_says(model: TextToImageGenerator) -> None:
    assert isinstance(model, TextConditioned)
    assert isinstance(model, Ranks)
    assert isinstance(model, TakesGuide)


@pytest.mark.parametrize("prompt", ["", "  \n", "...", "xyzzy хобот"])
def test_a_prompt_without_a_known_word_is_the_null(
    model: TextToImageGenerator, prompt: str
) -> None:
    """The denoiser was trained on captions and on zeros, and on nothing between."""
    text = model.text_condition(["a sea", prompt]).text
    assert text is not None
    assert text.shape == (2, *model.reader.shape)
    assert float(text[0].abs().max()) > 0
    assert torch.equal(text[1], torch.zeros_like(text[1]))


def test_an_unknown_word_among_known_ones_leaves_a_gap_and_no_more(
    model: TextToImageGenerator,
) -> None:
    text = model.text_condition(["sea xyzzy", "sea"]).text
    assert text is not None
    torch.testing.assert_close(text[0], text[1])


def test_the_prompt_matters_and_the_case_of_its_letters_does_not(
    model: TextToImageGenerator,
) -> None:
    sea = pixels(model, "a sea under a blue sky")
    assert torch.equal(pixels(model, "A SEA under a BLUE sky!"), sea)
    assert not torch.equal(pixels(model, "тёмный лес"), sea)


def test_a_negative_prompt_is_what_guidance_moves_away_from(model: TextToImageGenerator) -> None:
    """In one step the picture is the guided answer itself: n + s (c - n)."""

    def answer(prompt: str, scale: float, negative: str = "") -> Tensor:
        condition = model.text_condition([prompt] * 2)
        if negative:
            condition = replace(condition, negative=model.text_condition([negative] * 2))
        return model.sample(condition, [0, 1], options=ONE | {"guidance_scale": scale})

    wanted, unwanted, null = answer("sea", 1.0), answer("forest", 1.0), answer("", 1.0)
    assert float((wanted - unwanted).abs().max()) > 1e-3
    inside = torch.stack([wanted, unwanted, null]).abs().amax(0) < 1  # the others were clipped
    assert float(inside.float().mean()) > 0.3
    for given, other in (("forest", unwanted), ("", null)):
        expected = (other + 3 * (wanted - other)).clamp(-1, 1)
        found = answer("sea", 3.0, given)
        torch.testing.assert_close(found[inside], expected[inside], rtol=1e-4, atol=1e-4)
    assert torch.equal(answer("sea", 1.0, "forest"), wanted), "without guidance there is no away"


def test_a_negative_prompt_changes_the_picture_and_one_of_unknown_words_does_not(
    model: TextToImageGenerator,
) -> None:
    plain = pixels(model, "sea")
    assert not torch.equal(pixels(model, "sea", negative="forest"), plain)
    assert torch.equal(pixels(model, "sea", negative="xyzzy"), plain)


@pytest.mark.parametrize("chosen", [{}, {"negative": "forest"}, {"style": "noir"}])
def test_a_picture_can_be_made_again_bit_by_bit(
    model: TextToImageGenerator, tmp_path: Path, chosen: dict[str, str]
) -> None:
    for picture in pictures(model, "a sea", 3, **chosen)[1:]:
        save_png(tmp_path / "a.png", picture)
        told, record = read_png(tmp_path / "a.png")
        assert record["request"]["condition"] == picture.record["request"]["condition"]
        result = verify(told, record, model, ENVIRONMENT)
        assert (result.verdict, result.remarks) == ("bit-exact", ())
    unlike = {**record, "request": pictures(model, "a forest")[0].record["request"]}
    assert verify(told, unlike, model, ENVIRONMENT).verdict == "different"


def test_the_best_pictures_are_those_of_the_highest_cosines(model: TextToImageGenerator) -> None:
    request = request_for(model, "a sea", 5)
    drawn = list(render(model, request, ENVIRONMENT))
    images = torch.stack([picture.pixels for picture in drawn]).float() / 127.5 - 1
    cosines = model.agreement(images, "a sea")
    assert cosines.shape == (5,)
    assert float(cosines.abs().max()) <= 1 + 1e-6
    order = cosines.argsort(descending=True).tolist()
    assert best(model, request, drawn, 3) == [drawn[index] for index in order[:3]]


class Green:
    """Ranks by the green of a picture, against that of its prompt's first word."""

    def __init__(self, card: Any) -> None:
        self.card = card
        self.asked: list[str] = []

    def agreement(self, images: Tensor, prompt: str) -> Tensor:
        self.asked.append(prompt)
        return images[:, 1].mean((1, 2))

    def sample(self, *_: Any, **__: Any) -> Tensor:
        raise AssertionError("nothing is to be drawn")


def test_ranking_keeps_the_order_of_equals_and_asks_for_the_whole_prompt(
    model: TextToImageGenerator,
) -> None:
    levels = [10, 200, 90, 200, 0]
    drawn = [Picture(i, torch.full((3, 4, 4), v, dtype=torch.uint8), {}) for i, v in
             enumerate(levels)]  # fmt: skip
    green = Green(model.card)
    kept = best(green, request_for(model, "sea", 5, style="noir"), drawn, 3)
    assert [picture.seed for picture in kept] == [1, 3, 2]
    assert green.asked == [compose_prompt(model.card, "sea", style="noir").condition["prompt"]]


def test_a_picture_of_another_size_is_compared_too(model: TextToImageGenerator) -> None:
    image = torch.rand(1, 3, 16, 16) * 2 - 1
    large = image.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(
        model.agreement(large, "sea"), model.agreement(image, "sea"), rtol=0, atol=0.05
    )


def test_a_model_that_cannot_rank_says_so(trained: Callable[[str], Path]) -> None:
    gan, _ = load_generator(str(trained("dcgan")), device="cpu", precision="fp32")
    with pytest.raises(InvalidInput, match="cannot compare pictures with a prompt: leave out"):
        ranking(gan)


def test_a_model_that_reads_no_prompts_says_so(trained: Callable[[str], Path]) -> None:
    gan, _ = load_generator(str(trained("dcgan")), device="cpu", precision="fp32")
    request = GenerationRequest("m", {"type": "text", "prompt": "sea"})
    with pytest.raises(InvalidInput, match="does not read prompts"):
        next(render(gan, request, ENVIRONMENT))


def test_a_guide_is_handed_to_the_denoiser(model: TextToImageGenerator) -> None:
    taken: list[Any] = []

    class Inner(Green):
        def take_guide(self, read: Callable[[], Mapping[str, Tensor]], /) -> None:
            taken.append(read)

    def read() -> Mapping[str, Tensor]:
        raise AssertionError("not before it is used")

    TextToImageGenerator(Inner(model.card), model.reader).take_guide(read)  # type: ignore[arg-type]
    assert taken == [read]
    TextToImageGenerator(Green(model.card), model.reader).take_guide(read)
    assert taken == [read], "an inner model without autoguidance has no use for one"


def test_a_strip_leads_from_seed_to_seed_under_one_prompt(model: TextToImageGenerator) -> None:
    condition = {"type": "text", "prompt": "a sea"}
    asked = GenerationRequest("m", condition, 3, 0, FEW, {"seed": 5})
    strip = list(render(model, resolve_request(model.card, asked), ENVIRONMENT))
    ends = [GenerationRequest("m", condition, 1, seed, FEW) for seed in (0, 5)]
    for made, end in zip((strip[0], strip[-1]), ends, strict=True):
        (plain,) = render(model, resolve_request(model.card, end), ENVIRONMENT)
        assert int((made.pixels.int() - plain.pixels.int()).abs().max()) <= 1


def test_a_card_without_its_text_encoder_is_refused(folder: Path) -> None:
    card = read_card(folder)
    tensors = read_weights(folder, card)
    place = Placement("cpu", "fp32")
    without = {name: fact for name, fact in card.sampling.items() if name != "text"}
    text = card.sampling["text"]
    other = {"name": "dcgan-generator", "config": {"image_size": 16}}
    for facts, sentence in (
        (without, "lacks its text encoder"),
        ({**without, "text": {"network": text["network"]}}, "has no vocabulary"),
        ({**without, "text": {**text, "network": other}}, "do not fit its card"),
        ({**without, "text": {**text, "vocabulary": "sea"}}, "num_words is 1, but"),
    ):
        with pytest.raises(CardError, match=sentence):
            build(replace(card, sampling=facts), tensors, place)
