"""DCGAN with classes: transposed convolutions against strided ones.

After Radford et al. 2016 (section 3), with what later work showed to be needed for classes and
stability: class-conditional batch norm in the generator (Dumoulin et al. 2017), and in the
discriminator, which has no norm at all, projection conditioning (Miyato & Koyama 2018, eq. 5) and
the minibatch deviation feature of Karras et al. 2018, section 3. R1 keeps it smooth.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from izograf.core.types import Condition
from izograf.models.conditioning import ClassRows
from izograf.models.layers import Activation, activation
from izograf.models.registry import NETWORKS, NetworkType

BOTTOM = 4  # H = W of the coarsest feature map


@dataclass(frozen=True)
class DCGANConfig:
    """Shape of both players.

    Attributes:
        image_size: 4 times a power of two.
        num_classes: 0 for an unconditional pair.
        latent_dim: dimension of z ~ N(0, I).
        width: channels at half the image's resolution; doubled at each coarser one, up to
            `max_width`.
        depth: 3x3 convolutions after each change of resolution, besides the 4x4 one.
        activation: of the generator; the discriminator has leaky_relu as in the paper.
        class_dim: dimension of the class embedding.
    """

    image_size: int = 64
    num_classes: int = 0
    latent_dim: int = 128
    width: int = 64
    max_width: int = 512
    depth: int = 0
    activation: Activation = "relu"
    class_dim: int = 64

    def __post_init__(self) -> None:
        stages = (self.image_size // BOTTOM).bit_length() - 1
        if stages < 1 or BOTTOM << stages != self.image_size:
            raise ValueError(
                f"image_size must be 8, 16, 32, 64, 128, ... for this network, got "
                f"{self.image_size}"
            )
        if self.num_classes < 0:
            raise ValueError(f"num_classes must not be negative, got {self.num_classes}")
        if min(self.latent_dim, self.width, self.max_width, self.class_dim) < 1 or self.depth < 0:
            raise ValueError("latent_dim, width, max_width and class_dim must be positive")

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels from 4x4 up to half the image's resolution."""
        stages = (self.image_size // BOTTOM).bit_length() - 1
        return tuple(min(self.max_width, self.width << i) for i in reversed(range(stages)))


class ClassBatchNorm(nn.Module):
    """Batch norm whose scale and shift are learned per class; row 0 serves dropped classes."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.scale = nn.Embedding(num_classes + 1, channels)
        self.shift = nn.Embedding(num_classes + 1, channels)
        nn.init.normal_(self.scale.weight, 1.0, 0.02)
        nn.init.zeros_(self.shift.weight)

    def forward(self, x: Tensor, rows: ClassRows) -> Tensor:
        scale, shift = (rows.of_table(t)[..., None, None] for t in (self.scale, self.shift))
        return torch.addcmul(shift, self.norm(x), scale.to(x.dtype)).to(x.dtype)


class GeneratorStage(nn.Module):
    """Doubles H and W: [B,C_in,H,W] -> [B,C_out,2H,2W]."""

    def __init__(self, config: DCGANConfig, c_in: int, c_out: int) -> None:
        super().__init__()
        convolutions: list[nn.Module] = [
            nn.ConvTranspose2d(c_in, c_out, 4, stride=2, padding=1, bias=False)
        ]
        convolutions += [
            nn.Conv2d(c_out, c_out, 3, padding=1, bias=False) for _ in range(config.depth)
        ]
        self.convolutions = nn.ModuleList(convolutions)
        self.norms = nn.ModuleList(ClassBatchNorm(c_out, config.num_classes) for _ in convolutions)
        self.act = activation(config.activation)

    def forward(self, x: Tensor, rows: ClassRows) -> Tensor:
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = self.act(norm(convolution(x), rows))
        return x


class DCGANGenerator(nn.Module):
    """(z [B,latent_dim], Condition) -> image [B,3,S,S] in [-1,1]."""

    def __init__(self, config: DCGANConfig) -> None:
        super().__init__()
        widths = config.widths
        self.classes = nn.Embedding(config.num_classes + 1, config.class_dim)
        self.project = nn.Linear(config.latent_dim + config.class_dim, widths[0] * BOTTOM**2)
        self.norm = ClassBatchNorm(widths[0], config.num_classes)
        self.act = activation(config.activation)
        self.stages = nn.ModuleList(
            GeneratorStage(config, c_in, c_out) for c_in, c_out in itertools.pairwise(widths)
        )
        self.to_image = nn.ConvTranspose2d(widths[-1], 3, 4, stride=2, padding=1)
        _initialise(self)

    def forward(self, z: Tensor, condition: Condition) -> Tensor:
        rows = ClassRows.of(condition, z)
        x = self.project(torch.cat([z, rows.of_table(self.classes).to(z.dtype)], dim=1))
        x = x.reshape(len(z), -1, BOTTOM, BOTTOM)
        x = self.act(self.norm(x, rows))
        for stage in self.stages:
            x = stage(x, rows)
        return self.to_image(x).tanh()  # type: ignore[no-any-return]


class DCGANDiscriminator(nn.Module):
    """(image [B,3,S,S], Condition) -> logits [B], large for real."""

    def __init__(self, config: DCGANConfig) -> None:
        super().__init__()
        widths = config.widths[::-1]
        layers: list[nn.Module] = []
        for c_in, c_out in zip((3, *widths[:-1]), widths, strict=True):
            layers += [nn.Conv2d(c_in, c_out, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
            for _ in range(config.depth):
                layers += [nn.Conv2d(c_out, c_out, 3, padding=1), nn.LeakyReLU(0.2)]
        self.trunk = nn.Sequential(*layers)
        top = widths[-1]
        self.last = nn.Conv2d(top + 1, top, 3, padding=1)
        self.act = nn.LeakyReLU(0.2)
        self.score = nn.Linear(top, 1)
        self.classes = nn.Embedding(config.num_classes + 1, top)
        _initialise(self)

    def features(self, image: Tensor) -> Tensor:
        """Pooled features [B,C] of the last layer."""
        x = self.trunk(image)
        x = self.act(self.last(torch.cat([x, minibatch_deviation(x)], dim=1)))
        return x.mean((2, 3))  # type: ignore[no-any-return]

    def forward(self, image: Tensor, condition: Condition) -> Tensor:
        features = self.features(image)
        embedded = ClassRows.of(condition, image).of_table(self.classes)
        return self.score(features).squeeze(1) + (embedded * features).sum(1)  # type: ignore[no-any-return]


def minibatch_deviation(x: Tensor, *, group: int = 8) -> Tensor:
    """The mean deviation over groups of the batch as one extra channel [B,1,H,W].

    Lets the discriminator see a generator that repeats itself (Karras et al. 2018, section 3).
    """
    count, _, height, width = x.shape
    size = next(n for n in range(min(group, count), 0, -1) if count % n == 0)
    grouped = x.float().reshape(size, count // size, -1)
    variance = grouped.var(0, unbiased=False)
    deviation = (variance + 1e-8).sqrt().mean(1)
    return deviation.repeat(size).to(x.dtype)[:, None, None, None].expand(-1, 1, height, width)


def _initialise(network: nn.Module) -> None:
    """N(0, 0.02) kernels (Radford et al. 2016, section 4)."""
    for module in network.modules():
        if isinstance(module, nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


NETWORKS.register("dcgan-generator")(NetworkType(DCGANConfig, DCGANGenerator, "generator"))
NETWORKS.register("dcgan-discriminator")(
    NetworkType(DCGANConfig, DCGANDiscriminator, "discriminator")
)
