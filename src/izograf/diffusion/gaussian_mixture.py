"""A Gaussian mixture: data whose denoiser, score, density and samples are known in closed form.

It is the test bench of samplers, guidance and restoration solvers: whatever they compute with a
network, they can compute with `GaussianMixture.denoise`, and there the right answer is known.

With x = x0 + sigma n, n ~ N(0, I), and x0 ~ sum_k w_k N(m_k, C_k), component k of x is
N(m_k, C_k + sigma^2 I), so that (Bishop 2006, eq. 2.113-2.117)

    E[x0 | x] = sum_k r_k(x) (m_k + C_k (C_k + sigma^2 I)^-1 (x - m_k)),
    r_k(x) proportional to w_k N(x; m_k, C_k + sigma^2 I).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from izograf.core.types import DROPPED, Condition


class GaussianMixture:
    """sum_k w_k N(m_k, C_k) over pictures [C,H,W], in float64; classes own components.

    Shapes: K components, D = C * H * W numbers per picture, B pictures in a batch. An argument x
    may have any floating-point dtype; it is computed with in float64, and results that stand for
    pictures are returned in x's dtype. `condition.class_ids` restricts each picture to the
    components of its class; -1, or no ids, means the whole mixture.
    """

    def __init__(
        self,
        weights: Tensor,
        means: Tensor,
        covariances: Tensor,
        *,
        classes: Tensor | None = None,
    ) -> None:
        """The mixture with these components.

        Args:
            weights: [K], positive; normalised here.
            means: [K,C,H,W], or [K,D], which stands for pictures [D,1,1].
            covariances: [K] (times the identity), [K,D] or [K,C,H,W] (diagonal), or [K,D,D].
                Zero variances are allowed wherever sigma > 0: points are components too.
            classes: int [K], the class each component belongs to; by default its own index.

        Raises:
            ValueError: shapes do not agree, a weight is not positive, or a covariance is not
                symmetric positive semi-definite.
        """
        means = means.double()
        if means.ndim == 2:
            means = means[:, :, None, None]
        if means.ndim != 4:
            raise ValueError(f"means must be [K,C,H,W] or [K,D], got {list(means.shape)}")
        count = len(means)
        if weights.shape != (count,) or not bool((weights > 0).all()):
            raise ValueError(f"weights must be {count} positive numbers, got {weights.tolist()}")
        classes = torch.arange(count) if classes is None else classes
        if classes.shape != (count,) or bool((classes < 0).any()):
            raise ValueError(f"classes must be {count} non-negative ids, got {classes.tolist()}")
        self.weights = weights.double() / weights.double().sum()
        self.means = means
        self.classes = classes.to(torch.int64)
        self._flat = means.reshape(count, -1)
        self._variances, self._axes = _eigen(covariances.double(), *self._flat.shape)

    @property
    def shape(self) -> tuple[int, ...]:
        """[C,H,W] of a picture."""
        return tuple(self.means.shape[1:])

    @property
    def covariances(self) -> Tensor:
        """The full covariances [K,D,D]."""
        if self._axes is None:
            return torch.diag_embed(self._variances)
        return (self._axes * self._variances[:, None]) @ self._axes.mT

    def denoise(self, x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
        """E[x0 | x] like x [B,C,H,W], sigma [B]; the exact `core.types.Denoise`."""
        coordinates, variances = self._coordinates(x, sigma)
        shares = self._variances / variances
        expected = self._flat + self._rotated_back(shares * coordinates)
        posterior = self._log_joint(coordinates, variances, condition).softmax(1)
        return torch.einsum("bk,bkd->bd", posterior, expected).reshape(x.shape).to(x.dtype)

    def score(self, x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
        """The gradient of `log_density` in x, like x: (E[x0 | x] - x) / sigma^2 (Tweedie)."""
        coordinates, variances = self._coordinates(x, sigma)
        slopes = self._rotated_back(-coordinates / variances)
        posterior = self._log_joint(coordinates, variances, condition).softmax(1)
        return torch.einsum("bk,bkd->bd", posterior, slopes).reshape(x.shape).to(x.dtype)

    def log_density(self, x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
        """ln p(x | condition) of x = x0 + sigma n, float64 [B]; sigma 0 is the data's density."""
        return self._log_joint(*self._coordinates(x, sigma), condition).logsumexp(1)

    def class_probabilities(self, x: Tensor, sigma: Tensor) -> Tensor:
        """p(class | x), float64 [B, largest class + 1]: the ideal classifier of noisy pictures."""
        components = self._log_joint(*self._coordinates(x, sigma), Condition()).softmax(1)
        result = components.new_zeros(len(x), int(self.classes.max()) + 1)
        return result.index_add(1, self.classes, components)

    def sample(
        self, count: int, rng: torch.Generator, condition: Condition | None = None
    ) -> Tensor:
        """Independent pictures x0, float64 [count,C,H,W]."""
        weights = self._log_prior(condition or Condition()).exp().expand(count, -1)
        chosen = torch.multinomial(weights, 1, generator=rng).squeeze(1)
        normal = torch.randn(count, self._flat.shape[1], generator=rng, dtype=torch.float64)
        scaled = self._variances[chosen].sqrt() * normal
        if self._axes is not None:
            scaled = torch.einsum("bde,be->bd", self._axes[chosen], scaled)
        return (self._flat[chosen] + scaled).reshape(count, *self.shape)

    def moments(self, class_id: int = DROPPED) -> tuple[Tensor, Tensor]:
        """Mean [D] and covariance [D,D] of the data of one class, or of all of it."""
        weights = self._log_prior(Condition(class_ids=torch.tensor([class_id]))).exp()[0]
        mean = weights @ self._flat
        offsets = self._flat - mean
        between = torch.einsum("k,kd,ke->de", weights, offsets, offsets)
        return mean, torch.einsum("k,kde->de", weights, self.covariances) + between

    def posterior(self, measurement: Tensor, operator: Tensor, deviation: float) -> GaussianMixture:
        """The distribution of x0 given y = A x0 + s n: a mixture again (Bishop 2006, eq. 2.116).

        Args:
            measurement: y, M numbers in any shape.
            operator: A [M,D], acting on flattened pictures.
            deviation: s; may be 0 when A C_k A' is invertible for every component.
        """
        y, a = measurement.double().flatten(), operator.double()
        spread = self.covariances @ a.mT
        innovation = a @ spread + deviation**2 * torch.eye(len(y), dtype=torch.float64)
        factor = torch.linalg.cholesky(innovation)
        residual = y - self._flat @ a.mT
        gain = torch.cholesky_solve(spread.mT, factor).mT
        means = self._flat + torch.einsum("kdm,km->kd", gain, residual)
        covariances = self.covariances - gain @ spread.mT
        whitened = torch.linalg.solve_triangular(factor, residual[..., None], upper=False)
        log_evidence = (
            -0.5 * whitened.square().sum((1, 2))
            - factor.diagonal(dim1=1, dim2=2).log().sum(1)
            + self.weights.log()
        )
        # a component that the measurement rules out underflows to 0, which is not a weight
        weights = log_evidence.softmax(0).clamp(min=torch.finfo(torch.float64).tiny)
        symmetric = (covariances + covariances.mT) / 2
        return GaussianMixture(
            weights, means.reshape(-1, *self.shape), symmetric, classes=self.classes
        )

    def probability_flow(
        self, x: Tensor, sigma: float, sigma_end: float, condition: Condition
    ) -> Tensor:
        """Where dx/dsigma = -sigma score(x) leads from (x, sigma) to sigma_end, like x.

        Karras et al. 2022, eq. 3. For a single Gaussian it is solved by scaling each
        eigen-direction of variance c by sqrt((c + sigma_end^2) / (c + sigma^2)).

        Raises:
            ValueError: a picture's condition leaves it more than one component.
        """
        prior = self._log_prior(condition).expand(len(x), -1)
        if not bool((prior.isfinite().sum(1) == 1).all()):
            raise ValueError("the probability flow has a closed form for one component only")
        coordinates, variances = self._coordinates(x, x.new_full((len(x),), sigma))
        scales = ((self._variances + sigma_end**2) / variances).sqrt()
        moved = self._flat + self._rotated_back(scales * coordinates)
        chosen = moved[torch.arange(len(x)), prior.argmax(1)]
        return chosen.reshape(x.shape).to(x.dtype)

    def _coordinates(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """x - m_k along the axes of C_k, and the variances of x there; both [B,K,D]."""
        offsets = x.double().reshape(len(x), 1, -1) - self._flat
        if self._axes is not None:
            offsets = torch.einsum("bkd,kde->bke", offsets, self._axes)
        return offsets, self._variances + sigma.double().square()[:, None, None]

    def _rotated_back(self, coordinates: Tensor) -> Tensor:
        if self._axes is None:
            return coordinates
        return torch.einsum("bke,kde->bkd", coordinates, self._axes)

    def _log_joint(self, coordinates: Tensor, variances: Tensor, condition: Condition) -> Tensor:
        """ln (w_k N(x; m_k, C_k + sigma^2 I)) [B,K]."""
        exponent = coordinates.square() / variances + (2 * math.pi * variances).log()
        return self._log_prior(condition) - 0.5 * exponent.sum(2)

    def _log_prior(self, condition: Condition) -> Tensor:
        """ln w_k among the components allowed to each picture, [B,K], or [1,K] for all alike."""
        ids = condition.class_ids
        if ids is None:
            return self.weights.log()[None]
        if unknown := set(ids.tolist()) - {DROPPED, *self.classes.tolist()}:
            raise ValueError(f"the mixture has no class {min(unknown)}")
        allowed = (ids[:, None] == self.classes) | (ids[:, None] == DROPPED)
        return self.weights.log().masked_fill(~allowed, -math.inf).log_softmax(1)


def _eigen(covariances: Tensor, count: int, size: int) -> tuple[Tensor, Tensor | None]:
    """Variances [K,D] along the axes (columns of [K,D,D]; None for the coordinate axes)."""
    axes: Tensor | None = None
    if covariances.shape == (count,):
        variances = covariances[:, None].expand(count, size)
    elif covariances.ndim in (2, 4) and covariances.numel() == count * size:
        variances = covariances.reshape(count, size)
    elif covariances.shape == (count, size, size):
        if not torch.allclose(covariances, covariances.mT):
            raise ValueError("covariances must be symmetric")
        variances, axes = torch.linalg.eigh(covariances)
        rounding = 1e-9 * variances.abs().amax(1, keepdim=True)
        variances = torch.where(variances.abs() <= rounding, 0.0, variances)
    else:
        raise ValueError(
            f"covariances must be [K], [K,D] or [K,D,D] with K = {count} and D = {size}, "
            f"got {list(covariances.shape)}"
        )
    if bool((variances < 0).any()):
        raise ValueError("covariances must be positive semi-definite")
    return variances, axes
