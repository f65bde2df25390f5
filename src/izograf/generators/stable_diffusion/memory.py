"""Whether weights and pictures fit into the memory there is, said before it is tried."""

from __future__ import annotations

import torch

from izograf.core.devices import Placement
from izograf.core.memory import free_bytes
from izograf.generators.stable_diffusion.checkpoint import Checkpoint
from izograf.generators.stable_diffusion.codec import SizedCodec
from izograf.schema.errors import InvalidInput

# Feature maps of the widest layer at full size that are alive at once; measured generously low,
# so that only what cannot work is refused.
_MAPS = 4


def check_loading(checkpoint: Checkpoint, placement: Placement) -> None:
    """
    Raises:
        InvalidInput: the weights in the precision of `placement` do not fit.
    """
    stored = sum(file.stat().st_size for file in checkpoint.files.values())
    needed = stored // (2 if placement.dtype.itemsize == 2 else 1)
    free = free_bytes(torch.device(placement.device))
    if free is not None and needed > free:
        raise InvalidInput(
            f"The weights of {checkpoint.single or checkpoint.folder} need {_size(needed)} in "
            f"{placement.precision}, and {_size(free)} are free on {placement.device}: close "
            "other programs, or choose another precision or a smaller model."
        )


def needed_bytes(checkpoint: Checkpoint, codec: SizedCodec) -> int:
    """What decoding one picture, or one tile of it, takes at least."""
    widths = checkpoint.vae["block_out_channels"]
    side = [codec.factor * min(length, codec.tile) for length in codec.shape[1:]]
    widest = int(widths[min(1, len(widths) - 1)])
    return _MAPS * widest * side[0] * side[1] * codec.dtype.itemsize


def check_sampling(checkpoint: Checkpoint, codec: SizedCodec, device: torch.device) -> None:
    """
    Raises:
        InvalidInput: a picture of the codec's size does not fit beside what is there already.
    """
    needed, free = needed_bytes(checkpoint, codec), free_bytes(device)
    if free is not None and needed > free:
        height, width = (codec.factor * length for length in codec.shape[1:])
        raise InvalidInput(
            f"A picture of {width} x {height} needs about {_size(needed)} of memory with this "
            f"model, and {_size(free)} are free: ask for a smaller one or a smaller tile."
        )


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
