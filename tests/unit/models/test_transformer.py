"""Vision-Transformer denoisers: what text and a picture as condition do, patches, attention."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from izograf.core.rng import generator, seeded_layers
from izograf.core.types import Condition
from izograf.models import layers
from izograf.models.dit import build_dit
from izograf.models.layers import attend, chunked_attention, plain_attention
from izograf.models.transformer import TransformerConfig, sincos_positions, to_picture
from izograf.models.uvit import build_uvit

SMALL: dict[str, Any] = {
    "image_size": 8, "num_classes": 2, "patch_size": 2, "width": 32, "depth": 3, "head_dim": 16,
}  # fmt: skip
BUILD = {"dit": build_dit, "uvit": build_uvit}


@pytest.fixture(params=BUILD)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def perturbed(name: str, **changes: Any) -> nn.Module:
    with seeded_layers("tests", name):
        network = BUILD[name](TransformerConfig(**{**SMALL, **changes})).eval()
    rng = generator("tests", name)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=rng)
    return network


def normal(*shape: int | str) -> Tensor:
    sizes = [part for part in shape if isinstance(part, int)]
    return torch.randn(*sizes, generator=generator("tests", *shape))


def run(network: nn.Module, condition: Condition) -> Tensor:
    with torch.no_grad():
        output: Tensor = network(normal(2, 3, 8, 8), normal(2), condition)
    return output


CLASSES = torch.tensor([0, 1])


def test_the_network_answers_zero_before_it_has_learned(name: str) -> None:
    network = BUILD[name](TransformerConfig(**SMALL))
    assert float(run(network, Condition(class_ids=CLASSES)).abs().max()) == 0


def test_a_prompt_matters_and_none_is_a_prompt_of_zeros(name: str) -> None:
    network = perturbed(name, text_tokens=4, text_dim=6)
    prompt = normal(2, 4, 6)

    def output(text: Tensor | None) -> Tensor:
        return run(network, Condition(class_ids=CLASSES, text=text))

    assert torch.equal(output(None), output(torch.zeros(2, 4, 6)))
    assert not torch.allclose(output(prompt), output(None), atol=1e-5)
    short = torch.cat([prompt[:, :2], torch.zeros(2, 2, 6)], dim=1)
    assert torch.equal(output(prompt[:, :2]), output(short))
    assert not torch.allclose(output(prompt.flip(1)), output(prompt), atol=1e-5), "order matters"


@pytest.mark.parametrize("shape", [(2, 5, 6), (2, 4, 7)])
def test_a_prompt_of_another_shape_is_refused(name: str, shape: tuple[int, ...]) -> None:
    network = perturbed(name, text_tokens=4, text_dim=6)
    with pytest.raises(ValueError, match="at most 4 tokens of 6 numbers"):
        run(network, Condition(text=torch.zeros(shape)))


def test_a_picture_as_condition_matters_and_none_is_zeros(name: str) -> None:
    network = perturbed(name, image_channels=4)
    image, mask = normal(2, 3, 8, 8), (normal(2, 1, 8, 8) > 0).float()

    def output(image: Tensor | None, mask: Tensor | None) -> Tensor:
        return run(network, Condition(class_ids=CLASSES, image=image, mask=mask))

    assert torch.equal(output(None, None), output(0 * image, 0 * mask))
    assert not torch.allclose(output(image, mask), output(None, None), atol=1e-5)
    assert not torch.allclose(output(image, mask), output(image, 1 - mask), atol=1e-5)
    plain = [torch.full((2, channels, 16, 16), 0.4) for channels in (3, 1)]
    torch.testing.assert_close(output(*plain), output(*(part[..., :8, :8] for part in plain)))
    with pytest.raises(ValueError, match="has 3 channels, this network takes 4"):
        output(image, None)


def test_a_network_without_picture_or_prompt_pays_no_heed_to_them(name: str) -> None:
    """A picture to start from, say, which concerns the sampler."""
    network = perturbed(name)
    condition = Condition(class_ids=CLASSES, image=normal(2, 3, 8, 8), text=normal(2, 4, 6))
    assert torch.equal(run(network, condition), run(network, Condition(class_ids=CLASSES)))


def test_tokens_know_where_they_are(name: str) -> None:
    """Without positions attention would only see a bag of patches."""
    network = perturbed(name)
    x, level = normal(1, 3, 8, 8), normal(1)
    with torch.no_grad():
        rolled = network(x.roll(2, 3), level, Condition())
        expected = network(x, level, Condition()).roll(2, 3)
    assert not torch.allclose(rolled[..., 4:], expected[..., 4:], atol=1e-4)


def test_positions_are_all_different_and_bounded() -> None:
    positions = sincos_positions(16, 64)
    assert positions.shape == (256, 64)
    distances = torch.cdist(positions, positions) + 9 * torch.eye(256)
    assert float(distances.min()) > 0.1
    assert float(positions.abs().max()) <= 1


def test_patches_return_to_their_place() -> None:
    """The inverse of cutting a picture into patches, row by row."""
    x = normal(2, 3, 12, 12)
    patches = F.unfold(x, 4, stride=4).transpose(1, 2)  # [B,9,3*16]
    assert torch.equal(to_picture(patches, 3, 4), x)


@pytest.mark.parametrize("chunk", [1, 1000, 10**9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_in_chunks_is_attention(
    chunk: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers, "CHUNK", chunk)
    q, k = normal(2, 3, 37, 16, "q").to(dtype), normal(2, 3, 29, 16, "k").to(dtype)
    v = normal(2, 3, 29, 16, "v").to(dtype)
    exact = F.scaled_dot_product_attention(q.double(), k.double(), v.double())
    tolerance = 1e-5 if dtype == torch.float32 else 3e-2
    for found in (chunked_attention(q, k, v), plain_attention(q, k, v)):
        torch.testing.assert_close(found.double(), exact, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("tokens", [16, 300, 1100])
def test_every_way_of_attending_gives_the_same(
    tokens: int, fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers, "FUSED_IS_FAST", fast)
    q, k, v = (normal(1, 2, tokens, 8, part).bfloat16() for part in "qkv")
    exact = F.scaled_dot_product_attention(q.double(), k.double(), v.double())
    with torch.no_grad():
        torch.testing.assert_close(attend(q, k, v).double(), exact, rtol=3e-2, atol=3e-2)


def test_long_sequences_never_have_all_weights_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen by the largest tensor that is made."""
    monkeypatch.setattr(layers, "FUSED_IS_FAST", False)
    monkeypatch.setattr(layers, "CHUNK", 2**16)
    largest = 0
    q, k, v = (normal(1, 2, 2048, 8, part).bfloat16() for part in "qkv")

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal largest
            made = function(*args, **(kwargs or {}))
            if isinstance(made, Tensor):
                largest = max(largest, made.numel())
            return made

    with torch.no_grad(), Watch():
        attend(q, k, v)
    assert 2**15 <= largest <= 2**16, "all weights would be 2^23"
