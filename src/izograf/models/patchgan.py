"""PatchGAN: a discriminator that judges overlapping patches (Isola et al. 2017, section 3.2.2).

Without normalisation across pictures or positions; spectral norm keeps it smooth instead (Miyato
et al. 2018). It is needed in training only and on no card, hence in no registry.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


@dataclass(frozen=True)
class PatchGANConfig:
    """Shape of the discriminator.

    Attributes:
        width: channels after the first layer; doubled by each further one, up to eightfold.
        depth: strided layers; a verdict sees 9 * 2^depth - 2 pixels along each side: 34 with two,
            and with three the 70 of the paper.
    """

    width: int = 64
    depth: int = 2

    def __post_init__(self) -> None:
        if self.width < 1 or self.depth < 1:
            raise ValueError("width and depth must be positive")


class PatchGAN(nn.Module):
    """Images [B,3,H,W] -> logits [B,1,h,w], large for real; h = H / 2^depth - 2 or so."""

    def __init__(self, config: PatchGANConfig) -> None:
        super().__init__()
        c = config.width
        layers: list[nn.Module] = [nn.Conv2d(3, c, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for level in range(1, config.depth):
            wider = config.width * min(8, 2**level)
            layers += [_normed(c, wider, stride=2), nn.LeakyReLU(0.2)]
            c = wider
        wider = config.width * min(8, 2**config.depth)
        layers += [_normed(c, wider, stride=1), nn.LeakyReLU(0.2)]
        # no bias: under the hinge loss its gradients of real and fake cancel exactly
        self.layers = nn.Sequential(*layers, nn.Conv2d(wider, 1, 4, padding=1, bias=False))

    def forward(self, image: Tensor) -> Tensor:
        return self.layers(image)  # type: ignore[no-any-return]


def _normed(c_in: int, c_out: int, *, stride: int) -> nn.Module:
    return spectral_norm(nn.Conv2d(c_in, c_out, 4, stride=stride, padding=1))
