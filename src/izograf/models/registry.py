"""Networks by the name a model card carries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from izograf.core.registry import Registry

Kind = Literal[
    "denoiser",
    "generator",
    "discriminator",
    "classifier",
    "autoencoder",
    "codec",
    "contrastive",
    "upscaler",
]


@dataclass(frozen=True)
class NetworkType:
    """A network's frozen config type, the constructor that takes one, and how it is called.

    Attributes:
        kind: "denoiser" (x [B,C,H,W], c_noise [B], Condition) -> like x;
            "generator" (z [B,config.latent_dim], Condition) -> image [B,3,H,W] in [-1,1];
            "discriminator" (image, Condition) -> logits [B];
            "classifier" (image) -> logits [B,config.num_classes];
            "autoencoder" (image, noise [B,*config.latent_shape], Condition) -> image, by way of
            mean + deviation * noise where the encoder gives a posterior;
            "codec" (image, noise [B,*config.latent_shape]) -> image, the same without classes;
            "contrastive" (image, word ids int64 [B,L]) -> agreement of each with its own [B];
            "upscaler" (image [B,3,H,W], any size) -> image [B,3,2H,2W].
    """

    config: type[Any]
    build: Callable[[Any], nn.Module]
    kind: Kind


NETWORKS: Registry[NetworkType] = Registry("network", package="izograf.models")
