"""An upscaler: twice the height and width, computed at the small size (Lim et al. 2017, EDSR).

Residual blocks without normalisation (section 3.1), then one convolution whose channels are
shuffled into pixels (Shi et al. 2016, section 3.2). Its output is added to the bicubic enlargement,
as in Kim et al. 2016 (VDSR), and starts at zero: an untrained upscaler is bicubic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from izograf.models.layers import zeroed
from izograf.models.registry import NETWORKS, NetworkType

FACTOR = 2
BICUBIC_REACH = 2  # pixels of the small picture that Keys' kernel looks at on either side


@dataclass(frozen=True)
class UpscalerConfig:
    """Shape of the upscaler. The default has 0.6 M parameters, 0.6 M MAC per pixel it is given.

    Attributes:
        width: channels.
        depth: residual blocks.
    """

    width: int = 64
    depth: int = 8

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"width must be at least 1, got {self.width}")
        if self.depth < 0:
            raise ValueError(f"depth must not be negative, got {self.depth}")

    @property
    def reach(self) -> int:
        """How many pixels away, in the picture given, a pixel still changes the result."""
        convolutions = 2 * self.depth + 3
        return max(convolutions, BICUBIC_REACH)


class Upscaler(nn.Module):
    """Pictures, float [B,3,H,W] in [-1,1] of any size -> float32 [B,3,2H,2W], not clipped."""

    def __init__(self, config: UpscalerConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.head = nn.Conv2d(3, width, 3, padding=1)
        self.blocks = nn.Sequential(*(Block(width) for _ in range(config.depth)))
        self.join = nn.Conv2d(width, width, 3, padding=1)
        self.tail = zeroed(nn.Conv2d(width, 3 * FACTOR**2, 3, padding=1))

    def forward(self, image: Tensor) -> Tensor:
        first = self.head(image.to(self.head.weight.dtype))
        features = first + self.join(self.blocks(first))
        detail = F.pixel_shuffle(self.tail(features), FACTOR)
        return bicubic(image) + detail.float()


class Block(nn.Module):
    """Convolution, ReLU, convolution, added to its input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, x + self.second(F.relu(self.first(x))))


def bicubic(image: Tensor, factor: int = FACTOR) -> Tensor:
    """[B,C,H,W] -> float32 [B,C,factor H,factor W] by cubic convolution with a = -1/2 (Keys 1981).

    Not clipped: it overshoots at edges.
    """
    # torch has -1/2, as Pillow does, under the name of antialiasing, which enlarging has none of
    return F.interpolate(image.float(), scale_factor=factor, mode="bicubic", antialias=True)


NETWORKS.register("upscaler")(NetworkType(UpscalerConfig, Upscaler, "upscaler"))
