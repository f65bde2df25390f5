"""Text and pictures in one space: two encoders trained against each other (Radford et al. 2021).

The text's is a transformer over words; a conditional model reads its tokens. The picture's is the
small ResNet of `models.classifier`; with both, pictures are ranked by their agreement with a text.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from izograf.models.classifier import Classifier, ClassifierConfig
from izograf.models.registry import NETWORKS, NetworkType
from izograf.schema.vocabulary import PADDING, UNKNOWN

LARGEST_SCALE = 100.0  # of the cosines, as in the paper, section 2.5


@dataclass(frozen=True)
class ClipConfig:
    """Shape of both encoders.

    Attributes:
        image_size: H = W of the pictures, a multiple of 16.
        num_words: of the vocabulary, without the two ids that are no words.
        max_words: longest text.
        width: numbers in a text's token, a multiple of `head_dim`.
        depth: transformer blocks of the text.
        head_dim: numbers per attention head.
        mlp_ratio: hidden width of a block's perceptron as a multiple of `width`.
        image_width: channels of the first stage of the picture's network, a multiple of 16.
        image_depth: residual blocks of each of its stages.
        embed_dim: numbers in which texts and pictures are compared, at least 2.
        dropout: in both encoders.
    """

    image_size: int = 64
    num_words: int = 1
    max_words: int = 24
    width: int = 192
    depth: int = 3
    head_dim: int = 64
    mlp_ratio: int = 4
    image_width: int = 48
    image_depth: int = 2
    embed_dim: int = 128
    dropout: float = 0.1

    def __post_init__(self) -> None:
        positive = {
            "num_words": self.num_words, "max_words": self.max_words, "width": self.width,
            "depth": self.depth, "head_dim": self.head_dim, "mlp_ratio": self.mlp_ratio,
        }  # fmt: skip
        for name, value in positive.items():
            if value < 1:
                raise ValueError(f"{name} must be positive, got {value}")
        if self.width % self.head_dim:
            raise ValueError(
                f"width must be a multiple of head_dim {self.head_dim}, got {self.width}"
            )
        if self.embed_dim < 2:
            raise ValueError(f"embed_dim must be at least 2, got {self.embed_dim}")
        self.image_config()  # which refuses the rest

    def image_config(self) -> ClassifierConfig:
        """The picture's network: its "logits" are the embedding."""
        return ClassifierConfig(
            image_size=self.image_size,
            num_classes=self.embed_dim,
            width=self.image_width,
            depth=self.image_depth,
            dropout=self.dropout,
        )


class TextEncoder(nn.Module):
    """Word ids, int64 [B,L], L <= max_words -> tokens [B,max_words + 1,width].

    The first token stands for the text as a whole, the others for its words, and rows without a
    word are zero. Ids are those of `schema.vocabulary`: 0 is no word, 1 an unknown one. An unknown
    word is skipped in attention like no word: it says nothing.
    """

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.max_words = config.max_words
        self.words = nn.Embedding(config.num_words + 2, config.width, padding_idx=PADDING)
        self.sentence = nn.Parameter(0.02 * torch.randn(config.width))
        self.positions = nn.Parameter(0.02 * torch.randn(config.max_words + 1, config.width))
        layer = nn.TransformerEncoderLayer(
            config.width,
            config.width // config.head_dim,
            config.mlp_ratio * config.width,
            config.dropout,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.blocks = nn.TransformerEncoder(layer, config.depth, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(config.width)

    def forward(self, ids: Tensor) -> Tensor:
        length = ids.shape[1]
        if length > self.max_words:
            raise ValueError(f"a text has at most {self.max_words} words here, got {length}")
        ids = F.pad(ids, (0, self.max_words - length), value=PADDING)
        absent = F.pad((ids == PADDING) | (ids == UNKNOWN), (1, 0), value=False)
        first = self.sentence.expand(len(ids), 1, -1)
        tokens = torch.cat([first, self.words(ids)], dim=1) + self.positions
        read: Tensor = self.norm(self.blocks(tokens, src_key_padding_mask=absent))
        return read.masked_fill(absent[..., None], 0.0)


class Clip(nn.Module):
    """(pictures [B,3,S,S] in [-1,1], word ids int64 [B,L]) -> scaled cosines of the pairs [B]."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.text = TextEncoder(config)
        self.from_text = nn.Linear(config.width, config.embed_dim, bias=False)
        self.image = Classifier(config.image_config())
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def embed_text(self, ids: Tensor) -> Tensor:
        """Unit vectors [N,embed_dim] of texts."""
        return F.normalize(self.from_text(self.text(ids)[:, 0]).float(), dim=-1)

    def embed_image(self, images: Tensor) -> Tensor:
        """Unit vectors [B,embed_dim] of pictures."""
        return F.normalize(self.image(images).float(), dim=-1)

    @property
    def scale(self) -> Tensor:
        """What the cosines are multiplied by."""
        return self.log_scale.float().exp().clamp(max=LARGEST_SCALE)

    def forward(self, images: Tensor, ids: Tensor) -> Tensor:
        return self.scale * (self.embed_image(images) * self.embed_text(ids)).sum(dim=1)


NETWORKS.register("clip")(NetworkType(ClipConfig, Clip, "contrastive"))
