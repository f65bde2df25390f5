"""The text encoder: what words say, what no word says, and pairs in one space."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from izograf.core.rng import generator, seeded_layers
from izograf.models.clip import LARGEST_SCALE, Clip, ClipConfig
from izograf.schema.vocabulary import PADDING, UNKNOWN

CONFIG = ClipConfig(
    image_size=16, num_words=9, max_words=6, width=32, depth=2, head_dim=16, image_width=16,
    image_depth=1, embed_dim=8,
)  # fmt: skip
WORDS = st.lists(st.integers(UNKNOWN + 1, CONFIG.num_words + 1), min_size=1, max_size=5)


@pytest.fixture(scope="module")
def clip() -> Clip:
    with seeded_layers("tests", "clip"):
        network = Clip(CONFIG).eval()
    rng = generator("tests", "clip")
    with torch.no_grad():
        for parameter in network.text.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=rng)
    return network.requires_grad_(False)


def read(clip: Clip, *ids: int) -> Tensor:
    tokens: Tensor = clip.text(torch.tensor([ids], dtype=torch.int64))[0]
    return tokens


@settings(max_examples=15)
@given(ids=WORDS, extra=st.integers(0, 1))
def test_padding_does_not_matter_and_its_rows_are_zero(
    clip: Clip, ids: list[int], extra: int
) -> None:
    plain = read(clip, *ids)
    assert plain.shape == (CONFIG.max_words + 1, CONFIG.width)
    torch.testing.assert_close(read(clip, *ids, *[PADDING] * extra), plain)
    assert torch.equal(plain[1 + len(ids) :], torch.zeros_like(plain[1 + len(ids) :]))
    assert float(plain[: 1 + len(ids)].abs().min(dim=1).values.max()) > 0


def test_a_text_does_not_depend_on_its_batch_mates(clip: Clip) -> None:
    batch = torch.tensor([[2, 3, 0, 0], [4, 5, 6, 7]])
    torch.testing.assert_close(clip.text(batch)[0], read(clip, 2, 3))
    torch.testing.assert_close(clip.text(batch)[1], read(clip, 4, 5, 6, 7))


def test_an_unknown_word_says_nothing(clip: Clip) -> None:
    assert torch.equal(read(clip, 2, UNKNOWN, 3), read(clip, 2, PADDING, 3))
    assert torch.equal(read(clip, 2, UNKNOWN, 3)[2], torch.zeros(CONFIG.width))
    assert torch.equal(read(clip, UNKNOWN), read(clip, PADDING))


@settings(max_examples=15)
@given(ids=WORDS)
def test_words_and_their_order_matter(clip: Clip, ids: list[int]) -> None:
    sentence = read(clip, *ids)[0]
    other = [2 if ids[0] != 2 else 3, *ids[1:]]
    assert not torch.allclose(read(clip, *other)[0], sentence, atol=1e-4)
    if ids != ids[::-1]:
        assert not torch.allclose(read(clip, *ids[::-1])[0], sentence, atol=1e-4)


def test_a_text_too_long_is_refused(clip: Clip) -> None:
    assert read(clip, *[2] * 6).shape == (7, 32)
    with pytest.raises(ValueError, match="at most 6 words here, got 7"):
        read(clip, *[2] * 7)


def test_embeddings_are_unit_vectors_and_pairs_are_their_scaled_cosines(clip: Clip) -> None:
    images = torch.randn(2, 3, 16, 16, generator=generator("tests", "images"))
    ids = torch.tensor([[2, 3], [4, 5]])
    pictures, texts = clip.embed_image(images), clip.embed_text(ids)
    for vectors in (pictures, texts):
        assert vectors.shape == (2, CONFIG.embed_dim)
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2))
    expected = clip.scale * torch.cosine_similarity(pictures, texts)
    torch.testing.assert_close(clip(images, ids), expected)


def test_the_scale_begins_at_the_papers_and_has_its_bound() -> None:
    network = Clip(CONFIG)
    assert network.scale.item() == pytest.approx(1 / 0.07)
    with torch.no_grad():
        network.log_scale.fill_(20.0)
    assert network.scale.item() == LARGEST_SCALE


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"num_words": 0}, "num_words must be positive"),
        ({"width": 40, "head_dim": 16}, "width must be a multiple of head_dim 16, got 40"),
        ({"embed_dim": 1}, "embed_dim must be at least 2"),
        ({"image_size": 20}, "image_size"),
        ({"dropout": 1.0}, "dropout"),
    ],
)
def test_a_shape_that_cannot_be_is_refused(changes: dict[str, int], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        ClipConfig(**changes)
