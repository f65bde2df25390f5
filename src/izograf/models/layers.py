"""Small layers that several architectures share."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Activation = Literal["silu", "relu", "leaky_relu", "gelu"]

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "silu": nn.SiLU,
    "relu": nn.ReLU,
    "gelu": nn.GELU,
}


def activation(name: Activation) -> nn.Module:
    """The activation module of that name; leaky_relu has the GAN literature's slope of 0.2."""
    return nn.LeakyReLU(0.2) if name == "leaky_relu" else _ACTIVATIONS[name]()


def num_groups(channels: int, *, size: int = 16, most: int = 32) -> int:
    """The largest divisor of `channels` that is at most 32 and leaves groups of >= 16 channels."""
    wanted = max(1, min(most, channels // size))
    return next(n for n in range(wanted, 0, -1) if channels % n == 0)


def zeroed(layer: nn.Conv2d | nn.Linear) -> nn.Module:
    """`layer` with all parameters zero, so that a residual branch starts as the identity."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


# tokens up to which the plain product beats the fused CPU kernel (benchmarks/attention.py)
SMALL_ATTENTION = {torch.bfloat16: 256, torch.float32: 64}
# tokens from which, in bfloat16, chunks of it beat a fused kernel that has no matrix unit (AMX)
LONG_ATTENTION = 1024
CHUNK = 2**22  # weights held at once by `chunked_attention`


def _has_matrix_unit() -> bool:
    capabilities = getattr(torch.cpu, "get_capabilities", None)  # not in every torch
    return capabilities is None or bool(capabilities().get("amx_bf16"))


FUSED_IS_FAST = _has_matrix_unit()


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Scaled dot-product attention over [B,heads,tokens,head_dim] (Vaswani et al. 2017, eq. 1).

    Few tokens on a CPU go through matmul-softmax-matmul: the fused kernel's backward there is
    about twice as slow. Many are never given all their weights at once, so that memory grows with
    the tokens and not with their square.
    """
    tokens = k.shape[-2]
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v)
    if tokens <= SMALL_ATTENTION.get(q.dtype, 0):
        return plain_attention(q, k, v)
    slow = q.dtype == torch.bfloat16 and not FUSED_IS_FAST and tokens >= LONG_ATTENTION
    if slow and not torch.is_grad_enabled():
        return chunked_attention(q, k, v)
    return F.scaled_dot_product_attention(q, k, v)


def plain_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Matmul, softmax, matmul, with all weights [B,heads,queries,tokens] in memory."""
    weights = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    mixed: Tensor = weights.softmax(dim=-1).to(v.dtype) @ v
    return mixed


def chunked_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`plain_attention` for some queries at a time, with at most `CHUNK` weights in memory.

    For inference: a backward pass would keep the weights of every chunk.
    """
    per_query = q.shape[0] * q.shape[1] * k.shape[-2]
    rows = max(1, CHUNK // per_query)
    mixed = torch.empty(*q.shape[:-1], v.shape[-1], dtype=v.dtype, device=v.device)
    for start in range(0, q.shape[-2], rows):
        part = slice(start, start + rows)
        mixed[..., part, :] = plain_attention(q[..., part, :], k, v)
    return mixed


class NoiseLevelEmbedding(nn.Module):
    """Sinusoidal embedding of a noise level (Vaswani et al. 2017, section 3.5), then an MLP.

    Takes c_noise [B], of order one; the frequencies run from 1 to 1000 radians per unit.
    Computed in float32 whatever the network's precision: 1000 radians do not survive bfloat16.
    """

    def __init__(self, dim: int, *, num_frequencies: int = 128) -> None:
        super().__init__()
        self.num_frequencies = num_frequencies
        self.mlp = nn.Sequential(
            nn.Linear(2 * num_frequencies, dim), nn.SiLU(), nn.Linear(dim, dim)
        )

    def forward(self, c_noise: Tensor) -> Tensor:
        exponents = torch.linspace(0, 1, self.num_frequencies, device=c_noise.device)
        angles = c_noise.float()[:, None] * torch.exp(exponents * math.log(1000.0))
        features = torch.cat([angles.cos(), angles.sin()], dim=1)
        embedded: Tensor = self.mlp(features.to(next(self.mlp.parameters()).dtype))
        return embedded


class HeadNorm(nn.Module):
    """Root-mean-square norm of the last axis with a learned scale, in the input's precision.

    Zhang & Sennrich 2019; unlike `nn.RMSNorm` it keeps bfloat16 under autocast.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], self.weight.to(x.dtype), eps=1e-6)


class SelfAttention(nn.Module):
    """Multi-head self-attention over the pixels of [B,C,H,W], residual, pre-normalised.

    Queries and keys are normalised per head (Henry et al. 2020), which keeps bfloat16 stable.
    """

    def __init__(self, channels: int, head_dim: int) -> None:
        super().__init__()
        if channels % head_dim:
            raise ValueError(f"head_dim {head_dim} must divide the {channels} channels")
        self.num_heads = channels // head_dim
        self.norm = nn.GroupNorm(num_groups(channels), channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.query_norm = HeadNorm(head_dim)
        self.key_norm = HeadNorm(head_dim)
        self.out = zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        qkv = self.qkv(self.norm(x)).reshape(b, 3, self.num_heads, c // self.num_heads, h * w)
        q, k, v = qkv.transpose(-1, -2).unbind(1)
        mixed = attend(self.query_norm(q), self.key_norm(k), v)
        return x + self.out(mixed.transpose(-1, -2).reshape(b, c, h, w))  # type: ignore[no-any-return]


class CrossAttention(nn.Module):
    """The pixels of [B,C,H,W] attend to tokens [B,L,D]; residual, pre-normalised.

    Queries and keys are normalised per head, as in `SelfAttention`; it starts as the identity.
    """

    def __init__(self, channels: int, token_dim: int, head_dim: int) -> None:
        super().__init__()
        if channels % head_dim:
            raise ValueError(f"head_dim {head_dim} must divide the {channels} channels")
        self.num_heads = channels // head_dim
        self.norm = nn.GroupNorm(num_groups(channels), channels)
        self.query = nn.Conv2d(channels, channels, 1)
        self.token_norm = nn.LayerNorm(token_dim)
        self.key_value = nn.Linear(token_dim, 2 * channels)
        self.query_norm = HeadNorm(head_dim)
        self.key_norm = HeadNorm(head_dim)
        self.out = zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        b, c, h, w = x.shape
        query = self.query(self.norm(x)).reshape(b, self.num_heads, c // self.num_heads, h * w)
        tokens = self.token_norm(tokens.to(self.key_value.weight.dtype))
        pair = self.key_value(tokens).unflatten(-1, (2, self.num_heads, -1))
        k, v = pair.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = attend(self.query_norm(query.transpose(-1, -2)), self.key_norm(k), v)
        return x + self.out(mixed.transpose(-1, -2).reshape(b, c, h, w))  # type: ignore[no-any-return]
