"""What a reconstruction costs: negative log-likelihoods in nats per picture, by name.

Every loss sees the decoder's output and the picture x [B,C,S,S] in [-1,1]; the reconstruction is
m = tanh(output). They are likelihoods, so that the cost of a picture and the KL divergence of its
code are in the same unit and beta = 1 is the evidence lower bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from izograf.core.registry import Registry

Distance = Callable[[Tensor, Tensor], Tensor]
"""Two batches of pictures [B,3,S,S] in [-1,1] -> how far apart they look, [B]."""

ReconstructionLoss = Callable[[Distance | None], nn.Module]
"""(distance) -> module (output, picture) -> nats [B]; only `perceptual` needs the distance."""

RECONSTRUCTION_LOSSES: Registry[ReconstructionLoss] = Registry(
    "reconstruction loss", package="izograf.objectives"
)

# Pixels are stored in steps of 2 / 255: no deviation below that of their rounding is meaningful.
SMALLEST_DEVIATION = 2 / 255 / math.sqrt(12)
PERCEPTUAL = "perceptual"  # the one loss that needs a network
PERCEPTUAL_WEIGHT = 1.0


class Likelihood(nn.Module):
    """A likelihood without parameters, as the module that its registry promises."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self._function = function

    def forward(self, output: Tensor, image: Tensor) -> Tensor:
        return self._function(output, image)


class LearnedGaussian(nn.Module):
    """N(x; m, sigma^2 I) with one learned sigma (Rybkin et al. 2021, section 3).

    ln sigma approaches its lower bound softly, so that a step too far leaves a way back.
    """

    def __init__(self) -> None:
        super().__init__()
        self.unbounded = nn.Parameter(torch.zeros(()))

    @property
    def log_deviation(self) -> Tensor:
        """ln sigma, a scalar."""
        lowest = math.log(SMALLEST_DEVIATION)
        return lowest + F.softplus(self.unbounded - lowest)

    def forward(self, output: Tensor, image: Tensor) -> Tensor:
        errors = squared_error(output, image)
        return gaussian(errors, 2 * self.log_deviation, image[0].numel())


def binary_cross_entropy(output: Tensor, image: Tensor) -> Tensor:
    """Bernoulli cross-entropy of p = (m + 1) / 2 against (x + 1) / 2, in nats [B].

    A likelihood where every pixel is black or white; on grey values it is a cost without a
    normaliser (Loaiza-Ganem & Cunningham 2019), in use all the same.
    """
    target = ((image + 1) / 2).float()
    logits = 2 * output.float()  # sigmoid(2 a) = (tanh(a) + 1) / 2
    cost = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return cost.flatten(1).sum(1)


def mean_squared_error(output: Tensor, image: Tensor) -> Tensor:
    """|x - m|^2 / 2, the Gaussian of unit variance without its constant, in nats [B]."""
    return squared_error(output, image) / 2


def optimal_gaussian(output: Tensor, image: Tensor) -> Tensor:
    """N(x; m, sigma^2 I) with the sigma^2 that fits the batch best, its mean squared error.

    The analytic sigma-VAE of Rybkin et al. 2021, eq. 7: no weight between reconstruction and KL
    divergence is left to be chosen. In nats [B].
    """
    errors, size = squared_error(output, image), image[0].numel()
    return gaussian(errors, _log_optimum(errors, size), size)


class Perceptual(nn.Module):
    """As `optimal_gaussian`, of the error in pixels plus `weight` times that in features.

    A Gaussian in the features of a frozen network (Larsen et al. 2016, eq. 7; Hou et al. 2017)
    beside that in pixels, under one variance that fits the batch best.
    """

    def __init__(self, distance: Distance | None, *, weight: float = PERCEPTUAL_WEIGHT) -> None:
        super().__init__()
        if distance is None:
            raise ValueError("a perceptual loss needs a distance")
        self._distance, self._weight = distance, weight

    def forward(self, output: Tensor, image: Tensor) -> Tensor:
        size = image[0].numel()
        apart = self._distance(output.float().tanh(), image).float()
        errors = squared_error(output, image) + self._weight * size * apart
        return gaussian(errors, _log_optimum(errors, size), size)


def squared_error(output: Tensor, image: Tensor) -> Tensor:
    """|x - m|^2 of each picture, [B]."""
    return (output.float().tanh() - image.float()).square().flatten(1).sum(1)


def gaussian(errors: Tensor, log_variance: Tensor, size: int) -> Tensor:
    """-ln N of pictures of `size` values with these squared errors [B], in nats [B]."""
    normaliser = size * (math.log(2 * math.pi) + log_variance)
    return (errors * (-log_variance).exp() + normaliser) / 2


def _log_optimum(errors: Tensor, size: int) -> Tensor:
    """ln of the variance that maximises the likelihood of the batch.

    Without gradient: at the optimum the derivative with respect to it is zero.
    """
    optimum = errors.detach().mean() / size
    return optimum.clamp(min=SMALLEST_DEVIATION**2).log()


def _plain(function: Callable[[Tensor, Tensor], Tensor]) -> ReconstructionLoss:
    return lambda distance: Likelihood(function)  # noqa: ARG005


RECONSTRUCTION_LOSSES.register("binary-cross-entropy")(_plain(binary_cross_entropy))
RECONSTRUCTION_LOSSES.register("mean-squared-error")(_plain(mean_squared_error))
RECONSTRUCTION_LOSSES.register("sigma-vae")(_plain(optimal_gaussian))
RECONSTRUCTION_LOSSES.register(PERCEPTUAL)(Perceptual)
RECONSTRUCTION_LOSSES.register("sigma-vae-learned")(lambda distance: LearnedGaussian())  # noqa: ARG005
