"""SqueezeNet 1.1 (Iandola et al. 2016, table 1, with 1.1's earlier pooling) as extractor.

Features are the spatial mean of fire9, 512-d. The weights are the original Caffe ones: input is
BGR in 0..255 minus a mean per channel, conv1 has stride 2 and no padding, pooling rounds up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from izograf.core.rng import seeded_layers
from izograf.metrics.extractors import checked_pictures
from izograf.metrics.registry import EXTRACTORS, ExtractorSource
from izograf.metrics.resizing import antialiased, antialiased_name, only_resize
from izograf.metrics.weights import frozen, load_weights, required

SQUEEZENET_ID = "squeezenet1.1"
INPUT_SIZE = 227
BGR_MEANS = (103.939, 116.779, 123.68)
NUM_FEATURES = 512


class Fire(nn.Module):
    """Squeeze to few channels by 1x1, then expand by 1x1 and 3x3 side by side (section 3.2)."""

    def __init__(self, in_channels: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze1x1 = nn.Conv2d(in_channels, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze1x1(x))
        return F.relu(torch.cat([self.expand1x1(x), self.expand3x3(x)], dim=1))


class SqueezeNet(nn.Module):
    """uint8 RGB pictures [B,3,H,W] -> fire9 [B,512,13,13]; `logits` gives [B,1000]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, stride=2)
        self.fire2 = Fire(64, 16, 64)
        self.fire3 = Fire(128, 16, 64)
        self.fire4 = Fire(128, 32, 128)
        self.fire5 = Fire(256, 32, 128)
        self.fire6 = Fire(256, 48, 192)
        self.fire7 = Fire(384, 48, 192)
        self.fire8 = Fire(384, 64, 256)
        self.fire9 = Fire(512, 64, 256)
        self.conv10 = nn.Conv2d(NUM_FEATURES, 1000, 1)

    def forward(self, pictures: Tensor) -> Tensor:
        x = _caffe_input(pictures)
        x = _pool(F.relu(self.conv1(x)))
        x = _pool(self.fire3(self.fire2(x)))
        x = _pool(self.fire5(self.fire4(x)))
        return cast(Tensor, self.fire9(self.fire8(self.fire7(self.fire6(x)))))

    def logits(self, pictures: Tensor) -> Tensor:
        """ImageNet-1k class logits."""
        return F.relu(self.conv10(self(pictures))).mean(dim=(2, 3))


def _caffe_input(pictures: Tensor) -> Tensor:
    bgr = antialiased(pictures, INPUT_SIZE).flip(1)
    return bgr - bgr.new_tensor(BGR_MEANS)[:, None, None]


def _pool(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, stride=2, ceil_mode=True)


@dataclass(frozen=True)
class SqueezeNetExtractor:
    """The `squeezenet1.1` feature extractor; scores made with it are `FD-squeezenet1.1`."""

    network: SqueezeNet
    sha256: str
    device: str = "cpu"
    id: str = SQUEEZENET_ID
    dimension: int = NUM_FEATURES
    resize: str = antialiased_name(INPUT_SIZE)

    @torch.no_grad()
    def __call__(self, pictures: Tensor) -> Tensor:
        fire9 = self.network(checked_pictures(pictures).to(self.device))
        return cast(Tensor, fire9.float().mean(dim=(2, 3)).cpu())


@EXTRACTORS.register(SQUEEZENET_ID)
def open_squeezenet(source: ExtractorSource) -> SqueezeNetExtractor:
    """The extractor with the weights at `source.weights`, float16 or float32 safetensors."""
    only_resize(source.resize, antialiased_name(INPUT_SIZE), SQUEEZENET_ID)
    with seeded_layers(SQUEEZENET_ID):
        network = SqueezeNet()
    sha256 = load_weights(network, required(source.weights, SQUEEZENET_ID))
    frozen(network, source.device)
    return SqueezeNetExtractor(network, sha256, source.device)
