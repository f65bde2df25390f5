"""Pictures that a user names: read from disk, with a sentence for each way that fails."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from izograf.schema.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from torch import Tensor

    from izograf.generators.original import Original
    from izograf.schema.card import ModelCard


def read_square(path: Path, image_size: int) -> Tensor:
    """The centre square of the picture, uint8 [3,S,S]."""
    from izograf.data.preprocess import prepare

    return _read(path, lambda content: prepare(content, image_size))


def read_whole(path: Path) -> Tensor:
    """The whole picture, upright, uint8 [3,H,W]."""
    from izograf.data.preprocess import prepare_whole

    return _read(path, prepare_whole)


def read_original(card: ModelCard, picture: Path, mask: Path | None) -> Original:
    """A picture to start from, and the mask that is white where it may change.

    Raises:
        InvalidInput: as `generators.original.prepare_original`, or a file cannot be read.
        NotFound: there is no such file.
    """
    from izograf.generators.original import brightness, prepare_original

    repaint = None if mask is None else brightness(read_whole(mask))
    return prepare_original(card, read_whole(picture), repaint)


def _read(path: Path, prepared: Callable[[bytes], Any]) -> Tensor:
    import torch

    from izograf.data.preprocess import pillow_warnings
    from izograf.data.scan import Unreadable

    try:
        with pillow_warnings():
            return torch.from_numpy(prepared(path.read_bytes()))
    except FileNotFoundError:
        raise NotFound(f"There is no file {path}.") from None
    except IsADirectoryError:
        raise InvalidInput(f"{path} is a folder: name one picture.") from None
    except Unreadable as error:
        raise InvalidInput(f"{path} cannot be read as a picture: {error}.") from None
