"""What a prompt does in the U-Net: where it joins, what none is, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from izograf.core.rng import generator, seeded_layers
from izograf.core.types import Condition
from izograf.models.layers import CrossAttention
from izograf.models.unet import UNetConfig, build_unet

SMALL: dict[str, Any] = {
    "image_size": 8, "num_classes": 2, "patch_size": 2, "width": 16, "multipliers": (1, 2),
    "depth": 1, "attention": (2,), "head_dim": 16,
}  # fmt: skip
TEXT = {"text_tokens": 4, "text_dim": 6}
CLASSES = torch.tensor([0, 1])


def perturbed(**changes: Any) -> nn.Module:
    with seeded_layers("tests", "unet"):
        network = build_unet(UNetConfig(**{**SMALL, **changes})).eval()
    rng = generator("tests", "unet")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=rng)
    return network


def normal(*shape: int | str) -> Tensor:
    sizes = [part for part in shape if isinstance(part, int)]
    return torch.randn(*sizes, generator=generator("tests", *shape))


def run(network: nn.Module, text: Tensor | None, ids: Tensor | None = CLASSES) -> Tensor:
    with torch.no_grad():
        condition = Condition(class_ids=ids, text=text)
        output: Tensor = network(normal(2, 3, 8, 8), normal(2), condition)
    return output


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return perturbed(**TEXT)


def test_the_network_answers_zero_before_it_has_learned() -> None:
    fresh = build_unet(UNetConfig(**SMALL, **TEXT))
    assert float(run(fresh, normal(2, 4, 6)).abs().max()) == 0


def test_a_prompt_matters_and_none_is_a_prompt_of_zeros(network: nn.Module) -> None:
    prompt = normal(2, 4, 6)
    assert torch.equal(run(network, None), run(network, torch.zeros(2, 4, 6)))
    assert not torch.allclose(run(network, prompt), run(network, None), atol=1e-5)
    assert not torch.allclose(run(network, prompt.flip(1)), run(network, prompt), atol=1e-5)


def test_a_short_prompt_is_filled_up_with_zeros(network: nn.Module) -> None:
    prompt = normal(2, 4, 6)
    short = torch.cat([prompt[:, :2], torch.zeros(2, 2, 6)], dim=1)
    assert torch.equal(run(network, prompt[:, :2]), run(network, short))


@pytest.mark.parametrize("token", [0, 1, 3])
def test_the_sentence_and_every_word_matter(network: nn.Module, token: int) -> None:
    """Words only through the pixels that attend to them, the sentence also everywhere."""
    prompt = normal(2, 4, 6)
    changed = prompt.clone()
    changed[:, token] += 1
    assert not torch.allclose(run(network, changed), run(network, prompt), atol=1e-6)


def test_each_picture_follows_its_own_prompt(network: nn.Module) -> None:
    prompt = normal(2, 4, 6)
    changed = torch.stack([prompt[0], -prompt[1]])
    before, after = run(network, prompt), run(network, changed)
    torch.testing.assert_close(after[0], before[0])
    assert not torch.allclose(after[1], before[1], atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 5, 6), (2, 4, 7)])
def test_a_prompt_of_another_shape_is_refused(network: nn.Module, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="at most 4 tokens of 6 numbers"):
        run(network, torch.zeros(shape))


def test_a_network_without_text_pays_no_heed_to_a_prompt() -> None:
    plain = perturbed()
    assert torch.equal(run(plain, normal(2, 4, 6)), run(plain, None))
    assert not any("text" in name or "reading" in name for name in plain.state_dict())


def test_without_attention_the_sentence_still_joins() -> None:
    blind = perturbed(**TEXT, attention=())
    prompt = normal(2, 4, 6)
    assert not torch.allclose(run(blind, prompt), run(blind, None), atol=1e-5)


def test_a_network_that_reads_only_prompts_takes_no_classes() -> None:
    reader = perturbed(**TEXT, num_classes=0)
    prompt = normal(2, 4, 6)
    assert not torch.allclose(run(reader, prompt, None), run(reader, None, None), atol=1e-5)


def test_cross_attention_starts_as_the_identity_and_does_not_know_the_order_of_tokens() -> None:
    """Positions are added before, by `TextTokens`."""
    with seeded_layers("tests", "cross"):
        layer = CrossAttention(16, 6, 8)
    x, tokens = normal(2, 16, 4, 4), normal(2, 5, 6)
    assert torch.equal(layer(x, tokens), x)
    nn.init.normal_(layer.out.weight, generator=generator("tests", "cross"))
    assert not torch.allclose(layer(x, tokens), x, atol=1e-3)
    torch.testing.assert_close(layer(x, tokens.flip(1)), layer(x, tokens))
    with pytest.raises(ValueError, match="head_dim 8 must divide the 12 channels"):
        CrossAttention(12, 6, 8)
