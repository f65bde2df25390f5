"""A convolutional autoencoder with one latent vector per picture; variational or not.

The variational autoencoder of Kingma & Welling 2014, conditional on the class in both halves
(Sohn et al. 2015); residual blocks instead of plain convolutions, and a first and last layer that
works on 2x2 pixels at a time, which is what makes it fast on a CPU.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from izograf.core.types import Condition
from izograf.models.conditioning import ClassRows
from izograf.models.layers import Activation, activation, num_groups, zeroed
from izograf.models.registry import NETWORKS, NetworkType

PATCH = 2
BOTTOM, LARGEST_BOTTOM = 4, 8  # H = W where halving stops, and the largest that is still flattened
LOG_VARIANCE_RANGE = (-20.0, 10.0)


@dataclass(frozen=True)
class VAEConfig:
    """Shape of encoder and decoder. The default has 9.4 M parameters at 64 px.

    Attributes:
        image_size: even, and 2 to 8 after halving it a few times: 4, 8, 12, 16, 24, 28, 32, ...
        num_classes: 0 for an unconditional model.
        channels: of the picture.
        latent_dim: length of the code.
        width: channels at half the picture's resolution; doubled at each coarser one, up to
            `max_multiplier` times the width.
        depth: residual blocks at each resolution, in each half.
        class_dim: dimension of the class embedding.
        variational: the encoder gives mean and variance; False is a plain autoencoder.
    """

    image_size: int = 64
    num_classes: int = 0
    channels: int = 3
    latent_dim: int = 128
    width: int = 64
    max_multiplier: int = 4
    depth: int = 1
    activation: Activation = "silu"
    class_dim: int = 64
    variational: bool = True

    def __post_init__(self) -> None:
        if self.image_size < 2 * PATCH or self.image_size % PATCH:
            raise ValueError(f"image_size must be even and at least 4, got {self.image_size}")
        if self.sizes[-1] > LARGEST_BOTTOM:
            raise ValueError(
                f"image_size must be at most 8 after halving it until it is odd, as 28, 32, 48 or "
                f"64 are, got {self.image_size}"
            )
        if self.num_classes < 0:
            raise ValueError(f"num_classes must not be negative, got {self.num_classes}")
        positive = ("channels", "latent_dim", "width", "max_multiplier", "depth", "class_dim")
        for name in positive:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    @property
    def sizes(self) -> tuple[int, ...]:
        """H = W of the feature maps, finest first."""
        sizes = [self.image_size // PATCH]
        while sizes[-1] > BOTTOM and sizes[-1] % 2 == 0:
            sizes.append(sizes[-1] // 2)
        return tuple(sizes)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the feature maps, finest first."""
        return tuple(self.width * min(self.max_multiplier, 1 << i) for i in range(len(self.sizes)))

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of one code."""
        return (self.latent_dim,)


class Residual(nn.Module):
    """Pre-activation residual block (He et al. 2016b) whose second norm is scaled by the class."""

    def __init__(self, channels: int, config: VAEConfig) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(num_groups(channels), channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(num_groups(channels), channels)
        self.modulate = nn.Linear(config.class_dim, 2 * channels)
        self.conv2 = zeroed(nn.Conv2d(channels, channels, 3, padding=1))
        self.act = activation(config.activation)

    def forward(self, x: Tensor, classes: Tensor) -> Tensor:
        scale, shift = self.modulate(classes)[..., None, None].chunk(2, dim=1)
        h = self.norm2(self.conv1(self.act(self.norm1(x))))
        h = torch.addcmul(shift, h, 1 + scale).to(x.dtype)
        return cast(Tensor, x + self.conv2(self.act(h)))


class Encoder(nn.Module):
    """(image [B,C,S,S] in [-1,1], Condition) -> [B,out], out = 2 L if variational, else L."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        widths, bottom = config.widths, config.sizes[-1]
        self.classes = nn.Embedding(config.num_classes + 1, config.class_dim)
        self.stem = nn.Sequential(
            nn.PixelUnshuffle(PATCH), nn.Conv2d(config.channels * PATCH**2, widths[0], 3, padding=1)
        )
        self.stages = nn.ModuleList(
            nn.ModuleList(Residual(width, config) for _ in range(config.depth)) for width in widths
        )
        self.down = nn.ModuleList(
            nn.Conv2d(fine, coarse, 3, stride=2, padding=1)
            for fine, coarse in itertools.pairwise(widths)
        )
        self.norm = nn.GroupNorm(num_groups(widths[-1]), widths[-1])
        self.act = activation(config.activation)
        out = config.latent_dim * (2 if config.variational else 1)
        self.head = nn.Linear(widths[-1] * bottom**2, out)

    def forward(self, image: Tensor, condition: Condition) -> Tensor:
        classes = ClassRows.of(condition, image).of_table(self.classes)
        x = self.stem(image)
        for index, blocks in enumerate(self.stages):
            if index:
                x = self.down[index - 1](x)
            for block in cast(nn.ModuleList, blocks):
                x = block(x, classes)
        return cast(Tensor, self.head(self.act(self.norm(x)).flatten(1)))


class Decoder(nn.Module):
    """(code [B,L], Condition) -> output [B,C,S,S]; the picture in [-1,1] is its tanh."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        widths = config.widths[::-1]
        self.bottom = config.sizes[-1]
        self.classes = nn.Embedding(config.num_classes + 1, config.class_dim)
        self.project = nn.Linear(config.latent_dim + config.class_dim, widths[0] * self.bottom**2)
        self.stages = nn.ModuleList(
            nn.ModuleList(Residual(width, config) for _ in range(config.depth)) for width in widths
        )
        self.up = nn.ModuleList(
            nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(coarse, fine, 3, padding=1))
            for coarse, fine in itertools.pairwise(widths)
        )
        self.norm = nn.GroupNorm(num_groups(widths[-1]), widths[-1])
        self.act = activation(config.activation)
        self.to_image = nn.Sequential(
            nn.Conv2d(widths[-1], config.channels * PATCH**2, 3, padding=1), nn.PixelShuffle(PATCH)
        )

    def forward(self, code: Tensor, condition: Condition) -> Tensor:
        classes = ClassRows.of(condition, code).of_table(self.classes)
        x = self.project(torch.cat([code.to(classes.dtype), classes], dim=1))
        x = x.reshape(len(code), -1, self.bottom, self.bottom)
        x = x.contiguous(memory_format=torch.channels_last)
        for index, blocks in enumerate(self.stages):
            if index:
                x = self.up[index - 1](x)
            for block in cast(nn.ModuleList, blocks):
                x = block(x, classes)
        return cast(Tensor, self.to_image(self.act(self.norm(x))))


class VAE(nn.Module):
    """Encoder, decoder, and the Gaussian from which codes are drawn to make new pictures.

    The prior N(prior_mean, factor factor^T) is N(0, I) unless one was fitted to the codes of a
    trained model (`fit_gaussian`), as a plain autoencoder needs.
    """

    prior_mean: Tensor
    prior_factor: Tensor

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.register_buffer("prior_mean", torch.zeros(config.latent_dim))
        self.register_buffer("prior_factor", torch.eye(config.latent_dim))

    def encode(self, image: Tensor, condition: Condition) -> tuple[Tensor, Tensor | None]:
        """Mean and log variance of the posterior, float32 [B,L]; no variance in a plain one."""
        moments = self.encoder(image, condition).float()
        if not self.config.variational:
            return moments, None
        mean, log_variance = moments.chunk(2, dim=1)
        return mean, log_variance.clamp(*LOG_VARIANCE_RANGE)

    def decode(self, code: Tensor, condition: Condition) -> Tensor:
        """Output float32 [B,C,S,S], of which the tanh is the picture."""
        return cast(Tensor, self.decoder(code, condition).float())

    def forward(self, image: Tensor, noise: Tensor, condition: Condition) -> Tensor:
        """The picture, reconstructed from its posterior at `noise` [B,L]; 0 is the mean."""
        mean, log_variance = self.encode(image, condition)
        code = mean if log_variance is None else mean + (log_variance / 2).exp() * noise
        return self.decode(code, condition).tanh()

    def from_prior(self, normal: Tensor) -> Tensor:
        """Codes [B,L] for standard normal vectors [B,L]."""
        return normal.float() @ self.prior_factor.float().T + self.prior_mean.float()

    def to_prior(self, code: Tensor) -> Tensor:
        """The vectors [B,L] that `from_prior` turns into these codes."""
        centred = (code.float() - self.prior_mean.float()).T
        factor = self.prior_factor.float()
        return cast(Tensor, torch.linalg.solve_triangular(factor, centred, upper=False).T)


def fit_gaussian(codes: Tensor, *, shrinkage: float = 1e-3) -> tuple[Tensor, Tensor]:
    """Mean [L] and lower Cholesky factor [L,L] of the Gaussian of these codes [N,L], float32.

    Density estimation after the fact (Ghosh et al. 2020, section 4), in float64. `shrinkage` of
    the mean variance is added to each, so that codes that never vary, or fewer of them than
    dimensions, still have a factor that can be inverted.
    """
    exact = codes.double()
    mean = exact.mean(0)
    centred = exact - mean
    covariance = centred.T @ centred / max(1, len(codes) - 1)
    ridge = shrinkage * covariance.diagonal().mean() + 1e-12
    factor = torch.linalg.cholesky(covariance + ridge * torch.eye(len(mean), dtype=torch.float64))
    return mean.float(), factor.float()


NETWORKS.register("vae")(NetworkType(VAEConfig, VAE, "autoencoder"))
