"""The judge: a small pre-activation ResNet that names the class of a picture (He et al. 2016b).

Trained on the training split only and never part of a generator's loss, so that the features
and verdicts it gives on generated pictures are independent of how they were made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn
from torch.nn import functional as F

from izograf.core.config import config_from_json
from izograf.models.registry import NETWORKS, NetworkType

ACTIVATIONS: Mapping[str, type[nn.Module]] = {"silu": nn.SiLU, "relu": nn.ReLU, "gelu": nn.GELU}
MULTIPLIERS = (1, 2, 3)  # channels per stage in units of the width; each stage halves H and W
STEM_PATCH = 2
GROUP_SIZE = 16


@dataclass(frozen=True)
class ClassifierConfig:
    """Shape of the classifier. The default has 1.1 M parameters and 56 M MAC at 64 px.

    Attributes:
        image_size: H = W of the input, a multiple of 16.
        num_classes: at least 2.
        width: channels of the first stage, a multiple of 16; the features have 3 * width.
        depth: residual blocks per stage.
        dropout: between the two convolutions of a block (Zagoruyko & Komodakis 2016, section
            2.4) and before the last layer.
        activation: silu, relu or gelu.
    """

    image_size: int
    num_classes: int
    width: int = 48
    depth: int = 2
    dropout: float = 0.1
    activation: str = "silu"

    def __post_init__(self) -> None:
        factor = STEM_PATCH * 2 ** len(MULTIPLIERS)
        if self.image_size < factor or self.image_size % factor:
            raise ValueError(f"image_size must be a multiple of {factor}, got {self.image_size}")
        if self.num_classes < 2:
            raise ValueError(f"num_classes must be at least 2, got {self.num_classes}")
        if self.width < GROUP_SIZE or self.width % GROUP_SIZE:
            raise ValueError(f"width must be a multiple of {GROUP_SIZE}, got {self.width}")
        if self.depth < 1:
            raise ValueError(f"depth must be at least 1, got {self.depth}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be from 0 to below 1, got {self.dropout}")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}")


class Classifier(nn.Module):
    """Images, float [B,3,S,S] in [-1,1] -> class logits [B,num_classes].

    Groups, not batches, are normalised, so an image's verdict never depends on its batch mates.
    """

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        self.unshuffle = nn.PixelUnshuffle(STEM_PATCH)
        self.stem = nn.Conv2d(3 * STEM_PATCH**2, config.width, 3, padding=1)
        blocks: list[nn.Module] = []
        channels = config.width
        for multiplier in MULTIPLIERS:
            for index in range(config.depth):
                out_channels = multiplier * config.width
                blocks.append(Block(channels, out_channels, 2 if index == 0 else 1, config))
                channels = out_channels
        self.blocks = nn.Sequential(*blocks)
        self.norm = _norm(channels)
        self.activation = ACTIVATIONS[config.activation]()
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(channels, config.num_classes)
        self.num_features = channels

    def features(self, x: Tensor) -> Tensor:
        """The pooled penultimate layer [B,D], D = 3 * width.

        Raises:
            ValueError: the input is not [B,3,image_size,image_size].
        """
        size = self.config.image_size
        if x.ndim != 4 or x.shape[1:] != (3, size, size):
            raise ValueError(f"expected images [B,3,{size},{size}], got {list(x.shape)}")
        x = self.blocks(self.stem(self.unshuffle(x)))
        return cast(Tensor, self.activation(self.norm(x)).mean(dim=(2, 3)))

    def stages(self, x: Tensor) -> list[Tensor]:
        """The maps after the stem and after each stage, fine to coarse, [B,C,h,w].

        The pictures may have any height and width that are multiples of 16.
        """
        maps = [self.stem(self.unshuffle(x))]
        for start in range(0, len(self.blocks), self.config.depth):
            maps.append(self.blocks[start : start + self.config.depth](maps[-1]))
        return maps

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.head(self.dropout(self.features(x))))


class Block(nn.Module):
    """Pre-activation residual block: norm, activation, convolution, twice (figure 1b).

    A block that changes shape takes its shortcut from the first activation, average-pooled
    where the stride is 2 (He et al. 2019, ResNet-D).
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, config: ClassifierConfig
    ) -> None:
        super().__init__()
        self.stride = stride
        self.activation = ACTIVATIONS[config.activation]()
        self.norm1 = _norm(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.norm2 = _norm(out_channels)
        self.dropout = nn.Dropout(config.dropout)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        nn.init.zeros_(self.conv2.weight)  # the network starts shallow (Goyal et al. 2017)
        changes = stride != 1 or in_channels != out_channels
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1, bias=False) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        h = self.activation(self.norm1(x))
        if self.shortcut is not None:
            x = self.shortcut(F.avg_pool2d(h, self.stride) if self.stride > 1 else h)
        h = self.conv1(h)
        h = self.conv2(self.dropout(self.activation(self.norm2(h))))
        return cast(Tensor, x + h)


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(channels // GROUP_SIZE, channels)


def build_classifier(values: Mapping[str, Any]) -> Classifier:
    """The classifier of a model card's `network["config"]` object.

    Raises:
        CardError: an unknown field, or a value that the config refuses.
    """
    return Classifier(config_from_json(ClassifierConfig, values, source="classifier config"))


NETWORKS.register("classifier")(NetworkType(ClassifierConfig, Classifier, "classifier"))
