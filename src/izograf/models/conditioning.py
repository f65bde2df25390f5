"""From what the user asked (`Condition`) to what a network sees (`Cond`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from izograf.core.types import Cond, Condition


@dataclass(frozen=True)
class ClassRows:
    """Rows of a table of classes, int64 [B]: row 0 is "no class", row i + 1 class i.

    With `towards` and `share` (float [B]) an image lies between two rows. At the shares 0 and 1
    its row is bitwise the plain one.
    """

    rows: Tensor
    towards: Tensor | None = None
    share: Tensor | None = None

    @classmethod
    def of(cls, condition: Condition, like: Tensor) -> ClassRows:
        """The rows for `len(like)` images on its device; no class ids at all is row 0."""
        if condition.class_ids is None:
            return cls(torch.zeros(len(like), dtype=torch.int64, device=like.device))
        rows = condition.class_ids + 1
        if condition.towards_ids is None or condition.share is None:
            return cls(rows)
        return cls(rows, condition.towards_ids + 1, condition.share)

    def of_table(self, table: nn.Module) -> Tensor:
        """Vectors [B,D] of an embedding table, interpolated linearly where asked."""
        vectors: Tensor = table(self.rows)
        if self.towards is None or self.share is None:
            return vectors
        return vectors.lerp(table(self.towards), self.share[:, None].to(vectors.dtype))


class ClassEncoder(nn.Module):
    """Class ids -> a learned vector [B,dim]; id -1 (dropped) and no ids at all share the null row.

    Row 0 is the null class of classifier-free guidance (Ho & Salimans 2022).
    """

    def __init__(self, num_classes: int, dim: int) -> None:
        super().__init__()
        self.table = nn.Embedding(num_classes + 1, dim)

    def forward(self, condition: Condition, batch_size: int) -> Cond:
        like = self.table.weight.new_empty(batch_size)
        return Cond(vector=ClassRows.of(condition, like).of_table(self.table))


class ConditionEncoder(ClassEncoder):
    """Class ids -> a learned vector, and what else there is handed on: prompt and picture.

    Of a `Condition`, `text` becomes tokens [B,L,D], and `image` with its `mask` behind it maps
    [B,C,h,w]; the backbone projects them, and stands in for those that are missing.
    """

    def forward(self, condition: Condition, batch_size: int) -> Cond:
        present = [part for part in (condition.image, condition.mask) if part is not None]
        return Cond(
            vector=super().forward(condition, batch_size).vector,
            tokens=condition.text,
            spatial=torch.cat(present, dim=1) if present else None,
        )


class TextTokens(nn.Module):
    """Prompt tokens [B,L,text_dim] -> [B,text_tokens,D], linear, plus its position.

    No prompt is a prompt of zeros, so that its tokens are learned: the null of classifier-free
    guidance. A shorter prompt is filled up with zeros.
    """

    def __init__(self, text_tokens: int, text_dim: int, width: int) -> None:
        super().__init__()
        self.shape = (text_tokens, text_dim)
        self.project = nn.Linear(text_dim, width)
        self.positions = nn.Parameter(0.02 * torch.randn(text_tokens, width))

    def forward(self, text: Tensor | None, batch_size: int) -> Tensor:
        length, dim = self.shape
        if text is None:
            text = self.positions.new_zeros(batch_size, length, dim)
        if text.shape[1] > length or text.shape[2] != dim:
            raise ValueError(
                f"a prompt of this network has at most {length} tokens of {dim} numbers, "
                f"got {text.shape[1]} of {text.shape[2]}"
            )
        text = F.pad(text, (0, 0, 0, length - text.shape[1]))
        tokens: Tensor = self.project(text.to(self.project.weight.dtype))
        return tokens + self.positions.to(tokens.dtype)


@runtime_checkable
class DeepReusing(Protocol):
    """A backbone whose deep layers need not be computed at every step (Ma et al. 2024, DeepCache).

    Neighbouring noise levels give them nearly the same answer; the outermost layers, which see
    the noise itself, are cheap.
    """

    def keeping(self, x: Tensor, c_noise: Tensor, cond: Cond) -> tuple[Tensor, Tensor]:
        """The backbone's answer, and what its deep layers gave, [B,...]."""
        ...

    def reusing(self, x: Tensor, c_noise: Tensor, cond: Cond, kept: Tensor) -> Tensor:
        """The answer with `kept` in place of the deep layers; equal at the same x and level."""
        ...


class Conditioned(nn.Module):
    """A denoising backbone with its condition encoder: (x, c_noise [B], Condition) -> like x."""

    def __init__(self, encoder: nn.Module, backbone: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.backbone = backbone

    def forward(self, x: Tensor, c_noise: Tensor, condition: Condition) -> Tensor:
        return self.backbone(x, c_noise, self.encoder(condition, len(x)))  # type: ignore[no-any-return]

    @property
    def reuses(self) -> bool:
        """Whether `keeping` and `reusing` can be called."""
        return isinstance(self.backbone, DeepReusing)

    def keeping(self, x: Tensor, c_noise: Tensor, condition: Condition) -> tuple[Tensor, Tensor]:
        """As `forward`, and what the deep layers gave, [B,...]."""
        return self._backbone.keeping(x, c_noise, self.encoder(condition, len(x)))

    def reusing(self, x: Tensor, c_noise: Tensor, condition: Condition, kept: Tensor) -> Tensor:
        """As `forward`, with `kept` of an earlier call in place of the deep layers."""
        return self._backbone.reusing(x, c_noise, self.encoder(condition, len(x)), kept)

    @property
    def _backbone(self) -> DeepReusing:
        if not isinstance(self.backbone, DeepReusing):
            raise TypeError(f"{type(self.backbone).__name__} has no deep layers to reuse")
        return self.backbone
