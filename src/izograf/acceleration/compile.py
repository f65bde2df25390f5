"""torch.compile: operations fused into generated kernels, after seconds to minutes of compiling."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from typing import cast

import torch
from torch import Tensor, nn

from izograf.acceleration.eager import placed
from izograf.core.backends import BACKENDS
from izograf.core.devices import Placement
from izograf.core.types import Cond
from izograf.models.conditioning import Conditioned, DeepReusing

COMPILERS = ("g++", "clang++", "c++")
CALLED_DIRECTLY = ("denoiser", "generator")  # other kinds have methods, which stay eager


class Compiled:
    """`torch.compile` with its defaults; it compiles at the first call of every new shape."""

    devices: tuple[str, ...] = ("cpu", "cuda")
    summary = "torch.compile: seconds to minutes at the first picture, then faster"

    def missing(self) -> str:
        named = os.environ.get("CXX")
        if not any(shutil.which(name) for name in ((named,) if named else COMPILERS)):
            return "torch.compile needs a C++ compiler, install g++"
        if torch.cuda.is_available() and find_spec("triton") is None:
            return "torch.compile needs triton on this device, install it"
        return ""

    def version(self) -> str:
        return ""

    def place(
        self,
        network: nn.Module,
        placement: Placement,
        *,
        kind: str,
        identity: str,
        weights: str = "",
    ) -> nn.Module:
        del identity, weights
        network = placed(network, placement)
        if kind not in CALLED_DIRECTLY:
            return network
        if isinstance(network, Conditioned):  # its encoder is cheap, and branches on what is there
            return Conditioned(network.encoder, _backbone(network.backbone))
        return _compiled(network)


def _backbone(backbone: nn.Module) -> nn.Module:
    if isinstance(backbone, DeepReusing):
        return CompiledReusing(backbone, backbone)
    return _compiled(backbone)


class CompiledReusing(nn.Module):
    """A backbone with all three ways of calling it compiled, each when it is first used."""

    def __init__(self, backbone: nn.Module, ways: DeepReusing) -> None:
        super().__init__()
        self.backbone = backbone
        self._whole = torch.compile(backbone)
        self.keeping = torch.compile(ways.keeping)
        self.reusing = torch.compile(ways.reusing)

    def forward(self, x: Tensor, c_noise: Tensor, cond: Cond) -> Tensor:
        return self._whole(x, c_noise, cond)  # type: ignore[no-any-return]


def _compiled(module: nn.Module) -> nn.Module:
    return cast(nn.Module, torch.compile(module))


BACKENDS.register("compile")(Compiled())
