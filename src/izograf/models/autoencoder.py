"""The KL autoencoder whose latents a diffusion model learns (Rombach et al. 2022, section 3.1).

ResNet blocks on a pixel-unshuffle stem (Shi et al. 2016). Unlike the original it has neither
attention nor group norm: every layer sees a neighbourhood only (the norm is over the channels of
one position, Ba et al. 2016), so that a picture of any size can be decoded in tiles, exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from izograf.models.layers import Activation, activation, zeroed
from izograf.models.registry import NETWORKS, NetworkType

LOG_VARIANCE = (-30.0, 20.0)  # beyond these exp() of either sign leaves float32's useful range


@dataclass(frozen=True)
class KLAutoencoderConfig:
    """Shape of both halves. The default is f4 with 2.9 M parameters.

    Attributes:
        image_size: H = W of the pictures it is trained on, a multiple of `factor`.
        latent_channels: channels of a latent.
        patch_size: pixel-unshuffle factor of the stem, a power of two, 1 for none.
        width: channels of the finest level.
        multipliers: channels of each level as a multiple of `width`; each level halves H and W.
        depth: ResNet blocks per level; the decoder has one more.
    """

    image_size: int = 64
    latent_channels: int = 4
    patch_size: int = 2
    width: int = 96
    multipliers: tuple[int, ...] = (1, 2)
    depth: int = 1
    activation: Activation = "silu"

    def __post_init__(self) -> None:
        if not self.multipliers:
            raise ValueError("multipliers must name at least one level")
        positive = (self.latent_channels, self.width, self.depth, self.patch_size)
        if min(*positive, *self.multipliers) < 1:
            raise ValueError(
                "latent_channels, width, depth, patch_size and multipliers must be positive"
            )
        if self.patch_size & (self.patch_size - 1):
            raise ValueError(f"patch_size must be a power of two, got {self.patch_size}")
        if self.image_size < self.factor or self.image_size % self.factor:
            raise ValueError(
                f"image_size must be a multiple of {self.factor} for this network, "
                f"got {self.image_size}"
            )

    @property
    def factor(self) -> int:
        """Pixels per latent along each side: 4 for f4."""
        return int(self.patch_size * 2 ** (len(self.multipliers) - 1))

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, h, w) of one picture's latent."""
        side = self.image_size // self.factor
        return self.latent_channels, side, side

    @property
    def reach(self) -> int:
        """How far, in latents, a pixel of the decoder sees beyond the latent it lies in."""
        radius = 1  # the last convolution, at the finest level
        for _ in self.multipliers[1:]:
            radius += 2 * (self.depth + 1) + 1  # a level's blocks, and the upsampling before them
            radius = -(-radius // 2)  # seen from the next coarser level
        return radius + 2 * (self.depth + 1) + 3  # coarsest level, middle block, first convolution


class PositionNorm(nn.Module):
    """Layer norm over the channels of each position of [B,C,H,W] (Ba et al. 2016)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        last = x.permute(0, 2, 3, 1)  # contiguous where x is channels_last
        return F.layer_norm(last, last.shape[3:], self.weight, self.bias).permute(0, 3, 1, 2)


class LocalBlock(nn.Module):
    """norm, act, conv, norm, act, conv, plus skip; changes C, keeps H and W."""

    def __init__(self, config: KLAutoencoderConfig, c_in: int, c_out: int) -> None:
        super().__init__()
        self.norm_in = PositionNorm(c_in)
        self.conv_in = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.norm_out = PositionNorm(c_out)
        self.conv_out = zeroed(nn.Conv2d(c_out, c_out, 3, padding=1))
        self.skip = nn.Identity() if c_in == c_out else nn.Conv2d(c_in, c_out, 1)
        self.act = activation(config.activation)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv_in(self.act(self.norm_in(x)))
        h = self.conv_out(self.act(self.norm_out(h)))
        return self.skip(x) + h  # type: ignore[no-any-return]


class Encoder(nn.Module):
    """Images [B,3,H,W] -> mean and log-variance of their latents, [B,2C,H/f,W/f]."""

    def __init__(self, config: KLAutoencoderConfig) -> None:
        super().__init__()
        widths = [config.width * factor for factor in config.multipliers]
        self.patch_size = config.patch_size
        self.stem = nn.Conv2d(3 * config.patch_size**2, widths[0], 3, padding=1)
        layers: list[nn.Module] = []
        c = widths[0]
        for level, width in enumerate(widths):
            if level:
                layers.append(nn.Conv2d(c, c, 3, stride=2, padding=1))
            for _ in range(config.depth):
                layers.append(LocalBlock(config, c, width))
                c = width
        self.blocks = nn.Sequential(*layers, LocalBlock(config, c, c))
        self.norm = PositionNorm(c)
        self.act = activation(config.activation)
        self.out = nn.Conv2d(c, 2 * config.latent_channels, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.blocks(self.stem(F.pixel_unshuffle(image, self.patch_size)))
        return self.out(self.act(self.norm(x)))  # type: ignore[no-any-return]


class Upsample(nn.Module):
    """Nearest-neighbour doubling of H and W, then a convolution (Odena et al. 2016)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """Latents [B,C,h,w] -> images [B,3,f h,f w], about [-1,1] and not clipped."""

    def __init__(self, config: KLAutoencoderConfig) -> None:
        super().__init__()
        widths = [config.width * factor for factor in config.multipliers]
        self.patch_size = config.patch_size
        c = widths[-1]
        self.stem = nn.Conv2d(config.latent_channels, c, 3, padding=1)
        layers: list[nn.Module] = [LocalBlock(config, c, c)]
        for level in reversed(range(len(widths))):
            for _ in range(config.depth + 1):
                layers.append(LocalBlock(config, c, widths[level]))
                c = widths[level]
            if level:
                layers.append(Upsample(c))
        self.blocks = nn.Sequential(*layers)
        self.norm = PositionNorm(c)
        self.act = activation(config.activation)
        self.out = nn.Conv2d(c, 3 * config.patch_size**2, 3, padding=1)

    def forward(self, latent: Tensor) -> Tensor:
        x = self.blocks(self.stem(latent))
        return F.pixel_shuffle(self.out(self.act(self.norm(x))), self.patch_size)


class KLAutoencoder(nn.Module):
    """(image [B,3,S,S] in [-1,1], noise [B,*config.latent_shape]) -> reconstruction [B,3,S,S].

    The latent is drawn as mean + deviation * noise (Kingma & Welling 2014, section 2.4). Any
    multiple of `factor` may stand for S.
    """

    def __init__(self, config: KLAutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)

    def posterior(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the latent, float32 [B,C,h,w] each."""
        mean, log_variance = self.encoder(image).float().chunk(2, dim=1)
        return mean, log_variance.clamp(*LOG_VARIANCE)

    def forward(self, image: Tensor, noise: Tensor) -> Tensor:
        mean, log_variance = self.posterior(image)
        latent = torch.addcmul(mean, (log_variance / 2).exp(), noise)
        return self.decoder(latent.to(noise.dtype))  # type: ignore[no-any-return]


NETWORKS.register("kl-autoencoder")(NetworkType(KLAutoencoderConfig, KLAutoencoder, "codec"))
