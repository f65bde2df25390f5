"""Denoising score matching: one phase that serves every preconditioner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from izograf.core.types import DROPPED, Batch, Condition, Phase
from izograf.diffusion.denoiser import Denoiser
from izograf.objectives.noise import NoiseLaw, Uniform, Weighting
from izograf.objectives.variational import VarianceBound


class DenoisingObjective:
    """E w(sigma) |F - F*|^2, the network's output against the target its preconditioner defines.

    With w = 1 it equals |D - x0|^2 / c_out^2, under which every noise level has a target of
    comparable size (Karras et al. 2022, section 5). With `variance` the network says its variance
    too, and the bound that teaches it is added (Nichol & Dhariwal 2021, eq. 16). The class is
    dropped with probability `class_dropout`, so that one network serves both arms of
    classifier-free guidance.
    """

    averaged: Sequence[str] = ("denoiser",)

    def __init__(
        self,
        denoiser: Denoiser,
        optimizer: Optimizer,
        *,
        noise_law: NoiseLaw,
        weighting: Weighting | None = None,
        variance: VarianceBound | None = None,
        class_dropout: float = 0.1,
    ) -> None:
        self.modules = nn.ModuleDict({"denoiser": denoiser})
        self._denoiser = denoiser
        self._optimizer = optimizer
        self._noise_law = noise_law
        self._weighting = weighting or Uniform()
        self._variance = variance
        self._class_dropout = class_dropout

    def optimizers(self) -> Mapping[str, Optimizer]:
        return {"denoiser": self._optimizer}

    def phases(self) -> Sequence[Phase]:
        return (Phase("denoise", "denoiser", self._loss),)

    def after_step(self, images_seen: int, stats: Mapping[str, Tensor]) -> None:
        """Nothing adapts to the statistics here."""

    def held_out_loss(self, denoiser: nn.Module, batch: Batch, rng: torch.Generator) -> Tensor:
        """The conditional loss of `denoiser` (the averaged one, say) on images not trained on."""
        assert isinstance(denoiser, Denoiser)
        return self._error(denoiser, batch.image, batch.condition, rng)[0]

    def _loss(self, batch: Batch, rng: torch.Generator) -> tuple[Tensor, Mapping[str, Tensor]]:
        condition = drop_condition(batch.condition, self._class_dropout, rng)
        return self._error(self._denoiser, batch.image, condition, rng)

    def _error(
        self, denoiser: Denoiser, x0: Tensor, condition: Condition, rng: torch.Generator
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        sigma = self._noise_law.sample(len(x0), rng)
        noise = torch.randn(x0.shape, generator=rng, device=x0.device)
        x = x0 + sigma[:, None, None, None] * noise
        scalars = denoiser.precondition(sigma)
        c_skip, c_out = (c[:, None, None, None] for c in (scalars.c_skip, scalars.c_out))
        target = (x0 - c_skip * x) / c_out
        output, share = denoiser.outputs(x, sigma, condition)
        weights = self._weighting(sigma, scalars.c_out)[:, None, None, None]
        loss = (weights * (output - target).square()).mean()
        if self._variance is None or share is None:
            return loss, {}
        predicted = denoiser.from_output(x, sigma, output).detach()
        bound = self._variance(x0, predicted, sigma, share)
        return loss + self._variance.weight * bound, {
            "error": loss.detach(),
            "bits": bound.detach(),
        }


def drop_condition(condition: Condition, probability: float, rng: torch.Generator) -> Condition:
    """The condition with each image's class and prompt taken away with that probability."""
    count = next((len(v) for v in (condition.class_ids, condition.text) if v is not None), 0)
    if count == 0:
        return condition
    dropped = torch.rand(count, generator=rng, device=rng.device) < probability
    ids, text = condition.class_ids, condition.text
    return replace(
        condition,
        class_ids=None if ids is None else torch.where(dropped, DROPPED, ids),
        text=None if text is None else text.masked_fill(dropped[:, None, None], 0.0),
    )
