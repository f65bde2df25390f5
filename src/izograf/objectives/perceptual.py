"""How different two pictures look to a frozen network (Zhang et al. 2018, section 3.1).

The network must not be the judge that measures the finished model: a model trained to please the
judge's features would be praised for that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

Features = Callable[[Tensor], Sequence[Tensor]]
"""Images [B,3,H,W] in [-1,1] -> maps [B,C_l,H_l,W_l] of several stages, fine to coarse."""

EPSILON = 1e-8


def feature_distance(features: Features, a: Tensor, b: Tensor) -> Tensor:
    """The distance of two batches [B,3,H,W] in [-1,1], float32 [B], 0 for equal pictures.

    d = mean over stages and positions of |u(a) - u(b)|^2, where u has unit length across the
    channels of each position: equation 1 of Zhang et al. 2018 with all weights equal, since ours
    are not fitted to people's verdicts. It lies in [0, 4]. Gradients reach both batches.

    Raises:
        ValueError: the network gives no stages.
    """
    pairs = list(zip(features(a), features(b), strict=True))
    if not pairs:
        raise ValueError("a perceptual distance needs the features of at least one stage")
    stages = [(_unit(x) - _unit(y)).square().sum(1).mean((1, 2)) for x, y in pairs]
    return sum(stages[1:], start=stages[0]) / len(stages)


def _unit(maps: Tensor) -> Tensor:
    maps = maps.float()
    length = (maps.square().sum(1, keepdim=True) + EPSILON).sqrt()
    return maps / length
