"""The Inception v3 that defines the FID: TensorFlow's frozen graph of December 2015.

Szegedy et al. 2016, with that graph's peculiarities: average pooling counts no padding, the last
block pools by maximum, 1008 outputs. Tensor names are those under which its weights circulate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from izograf.core.rng import seeded_layers
from izograf.metrics.extractors import checked_pictures
from izograf.metrics.inception_resize import RESIZES
from izograf.metrics.registry import EXTRACTORS, INCEPTION_ID, ExtractorSource
from izograf.metrics.weights import frozen, load_weights, required
from izograf.schema.errors import InvalidInput

NUM_FEATURES = 2048
NUM_LOGITS = 1008
DEFAULT_RESIZE = "legacy_tf"

Kernel = tuple[int, int]
Pool = Literal["average", "maximum", "strided maximum"]


@dataclass(frozen=True)
class Layer:
    """One convolution of a branch; `padded` keeps the size, else it shrinks (stride 2)."""

    name: str
    out_channels: int
    kernel: Kernel = (1, 1)
    padded: bool = True


@dataclass(frozen=True)
class Mix:
    """A block: branches side by side, then a pooled branch; outputs are concatenated in order.

    Attributes:
        branches: chains of layers; a tuple at the end of a chain is two layers side by side.
        pool: how the last branch pools; strided pooling has no convolution behind it.
        pool_channels: of that convolution.
    """

    branches: tuple[tuple[Layer | tuple[Layer, Layer], ...], ...]
    pool: Pool
    pool_channels: int = 0


def _grid_35(pool_channels: int) -> Mix:
    """The 35x35 blocks; after figure 5, but with a 5x5 convolution."""
    return Mix(
        (
            (Layer("branch1x1", 64),),
            (Layer("branch5x5_1", 48), Layer("branch5x5_2", 64, (5, 5))),
            (
                Layer("branch3x3dbl_1", 64),
                Layer("branch3x3dbl_2", 96, (3, 3)),
                Layer("branch3x3dbl_3", 96, (3, 3)),
            ),
        ),
        "average",
        pool_channels,
    )


def _grid_17(channels: int) -> Mix:
    """Figure 6 with n = 7: the 17x17 blocks."""
    return Mix(
        (
            (Layer("branch1x1", 192),),
            (
                Layer("branch7x7_1", channels),
                Layer("branch7x7_2", channels, (1, 7)),
                Layer("branch7x7_3", 192, (7, 1)),
            ),
            (
                Layer("branch7x7dbl_1", channels),
                Layer("branch7x7dbl_2", channels, (7, 1)),
                Layer("branch7x7dbl_3", channels, (1, 7)),
                Layer("branch7x7dbl_4", channels, (7, 1)),
                Layer("branch7x7dbl_5", 192, (1, 7)),
            ),
        ),
        "average",
        192,
    )


def _grid_8(pool: Pool) -> Mix:
    """Figure 7: the 8x8 blocks."""

    def pair(name: str) -> tuple[Layer, Layer]:
        return Layer(f"{name}a", 384, (1, 3)), Layer(f"{name}b", 384, (3, 1))

    return Mix(
        (
            (Layer("branch1x1", 320),),
            (Layer("branch3x3_1", 384), pair("branch3x3_2")),
            (
                Layer("branch3x3dbl_1", 448),
                Layer("branch3x3dbl_2", 384, (3, 3)),
                pair("branch3x3dbl_3"),
            ),
        ),
        pool,
        192,
    )


FROM_35_TO_17 = Mix(
    (
        (Layer("branch3x3", 384, (3, 3), padded=False),),
        (
            Layer("branch3x3dbl_1", 64),
            Layer("branch3x3dbl_2", 96, (3, 3)),
            Layer("branch3x3dbl_3", 96, (3, 3), padded=False),
        ),
    ),
    "strided maximum",
)
FROM_17_TO_8 = Mix(
    (
        (Layer("branch3x3_1", 192), Layer("branch3x3_2", 320, (3, 3), padded=False)),
        (
            Layer("branch7x7x3_1", 192),
            Layer("branch7x7x3_2", 192, (1, 7)),
            Layer("branch7x7x3_3", 192, (7, 1)),
            Layer("branch7x7x3_4", 192, (3, 3), padded=False),
        ),
    ),
    "strided maximum",
)
BLOCKS: Mapping[str, Mix] = {
    "Mixed_5b": _grid_35(32),
    "Mixed_5c": _grid_35(64),
    "Mixed_5d": _grid_35(64),
    "Mixed_6a": FROM_35_TO_17,
    "Mixed_6b": _grid_17(128),
    "Mixed_6c": _grid_17(160),
    "Mixed_6d": _grid_17(160),
    "Mixed_6e": _grid_17(192),
    "Mixed_7a": FROM_17_TO_8,
    "Mixed_7b": _grid_8("average"),
    "Mixed_7c": _grid_8("maximum"),
}


class ConvNorm(nn.Module):
    """Convolution without bias, batch norm, ReLU."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: Kernel,
        *,
        stride: int = 1,
        padding: Kernel = (0, 0),
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class MixedBlock(nn.Module):
    """A `Mix`, built; `out_channels` is the sum over its branches."""

    def __init__(self, in_channels: int, mix: Mix) -> None:
        super().__init__()
        self.mix = mix
        self.out_channels = 0
        for branch in mix.branches:
            channels = in_channels
            for step in branch:
                layers = step if isinstance(step, tuple) else (step,)
                for layer in layers:
                    self.add_module(layer.name, _conv_norm(channels, layer))
                channels = sum(layer.out_channels for layer in layers)
            self.out_channels += channels
        if mix.pool_channels:
            self.branch_pool = ConvNorm(in_channels, mix.pool_channels, (1, 1))
        self.out_channels += mix.pool_channels or in_channels

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(
            [*(self._run(branch, x) for branch in self.mix.branches), self._pool(x)], 1
        )

    def _run(self, branch: Sequence[Layer | tuple[Layer, Layer]], x: Tensor) -> Tensor:
        for step in branch:
            layers = step if isinstance(step, tuple) else (step,)
            x = torch.cat([self.get_submodule(layer.name)(x) for layer in layers], dim=1)
        return x

    def _pool(self, x: Tensor) -> Tensor:
        if self.mix.pool == "strided maximum":
            return F.max_pool2d(x, 3, stride=2)
        if self.mix.pool == "maximum":
            x = F.max_pool2d(x, 3, stride=1, padding=1)
        else:
            x = F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
        return cast(Tensor, self.branch_pool(x))


def _conv_norm(in_channels: int, layer: Layer) -> ConvNorm:
    height, width = layer.kernel
    if layer.padded:
        padding = (height // 2, width // 2)
        return ConvNorm(in_channels, layer.out_channels, layer.kernel, padding=padding)
    return ConvNorm(in_channels, layer.out_channels, layer.kernel, stride=2)


@dataclass(frozen=True)
class Taps:
    """Spatial means after four stages, and the logits without and with their bias, all [B,...]."""

    pool1: Tensor
    pool2: Tensor
    grid_17: Tensor
    pool3: Tensor
    logits_unbiased: Tensor
    logits: Tensor


class Inception(nn.Module):
    """Float [B,3,299,299], scaled by one of `RESIZES` -> `Taps` of 64, 192, 768, 2048 and 1008."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = ConvNorm(3, 32, (3, 3), stride=2)
        self.Conv2d_2a_3x3 = ConvNorm(32, 32, (3, 3))
        self.Conv2d_2b_3x3 = ConvNorm(32, 64, (3, 3), padding=(1, 1))
        self.Conv2d_3b_1x1 = ConvNorm(64, 80, (1, 1))
        self.Conv2d_4a_3x3 = ConvNorm(80, 192, (3, 3))
        channels = 192
        for name, mix in BLOCKS.items():
            block = MixedBlock(channels, mix)
            self.add_module(name, block)
            channels = block.out_channels
        self.fc = nn.Linear(channels, NUM_LOGITS)

    def forward(self, x: Tensor) -> Taps:
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = F.max_pool2d(x, 3, stride=2)
        pool1 = x.mean(dim=(2, 3))
        x = F.max_pool2d(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)), 3, stride=2)
        pool2 = x.mean(dim=(2, 3))
        for name in BLOCKS:
            x = self.get_submodule(name)(x)
            if name == "Mixed_6e":
                grid_17 = x.mean(dim=(2, 3))
        pool3 = x.mean(dim=(2, 3))
        unbiased = F.linear(pool3, self.fc.weight)
        return Taps(pool1, pool2, grid_17, pool3, unbiased, unbiased + self.fc.bias)


@dataclass(frozen=True)
class InceptionExtractor:
    """The `inception-2015` feature extractor; only scores made with it are called FID and KID."""

    network: Inception
    sha256: str
    resize: str = DEFAULT_RESIZE
    device: str = "cpu"
    id: str = INCEPTION_ID
    dimension: int = NUM_FEATURES

    @torch.no_grad()
    def __call__(self, pictures: Tensor) -> Tensor:
        return self.taps(pictures).pool3.cpu()

    @torch.no_grad()
    def taps(self, pictures: Tensor) -> Taps:
        """All taps of uint8 pictures [B,3,H,W], on the extractor's device."""
        pictures = checked_pictures(pictures).to(self.device)
        return cast(Taps, self.network(RESIZES[self.resize](pictures)))


@EXTRACTORS.register(INCEPTION_ID)
def open_inception(source: ExtractorSource) -> InceptionExtractor:
    """The extractor with the weights at `source.weights`, resize `legacy_tf` unless said.

    Raises:
        InvalidInput: no path was given, or the resize is unknown.
        NotFound, UnsafeFile, CardError: see `load_weights`.
    """
    resize = source.resize or DEFAULT_RESIZE
    if resize not in RESIZES:
        raise InvalidInput(
            f"The extractor {INCEPTION_ID} has no resize {resize!r}: it has {', '.join(RESIZES)}."
        )
    with seeded_layers(INCEPTION_ID):
        network = Inception()
    sha256 = load_weights(network, required(source.weights, INCEPTION_ID))
    frozen(network, source.device)
    return InceptionExtractor(network, sha256, resize, source.device)
