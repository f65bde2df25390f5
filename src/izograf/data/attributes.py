"""Attributes measured in photographs: what can be said about a picture without a trained model.

Every picture is reduced to 32x32 pixels by area and measured for itself, so that the result
depends neither on the batch nor, closely, on the picture's size. The words for the values are in
`schema.attributes`; the thresholds were set by looking at photographs of landscapes and streets.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional as F

from izograf.data.shards import Images
from izograf.schema.attributes import PictureAttributes, value_names
from izograf.schema.errors import InvalidInput

_GRID = 32
_CHUNK = 512

_FINE_GRID = 64

_GREY_CHROMA = 4.0
_DARK, _BRIGHT = 66.0, 150.0
_LOW_CONTRAST, _HIGH_CONTRAST = 105.0, 222.0
_CONTRAST_TAILS = 0.05
_COLD, _WARM = -0.2, 0.2
_NO_SKY, _MIN_SKY, _MIN_UNUSUAL_SKY = 0.02, 0.1, 0.2
_MIN_SKY_WIDTH, _MIN_SUNSET_WIDTH = 0.45, 0.75
_CLOUD_STEP, _GLOW_STEP = 2.5, 2.0
_SUNSET_SHARE = 0.2
_SMALL_SKY, _LARGE_SKY = 0.22, 0.5
_MIN_COLOUR, _MAX_COLOURS = 0.18, 3


@dataclass(frozen=True)
class Measured:
    """The attributes of N pictures; codes count the values in `schema.attributes.value_names`.

    Attributes:
        greyscale: bool [N], whether all pixels are grey.
        brightness: int64 [N], dark, normal, bright: the mean luma.
        contrast: int64 [N], low, normal, high: the range of luma without its outer twentieths.
        light: int64 [N], warm, neutral, cold: the balance of red and blue.
        sky: int64 [N], the colour of the smooth region at the upper edge, or none; -1 where it
            cannot be told.
        sky_share: float32 [N] in [0,1], its part of the picture.
        colours: int64 [N,3], basic colour terms by share, -1 where there are fewer.
    """

    greyscale: Tensor
    brightness: Tensor
    contrast: Tensor
    light: Tensor
    sky: Tensor
    sky_share: Tensor
    colours: Tensor

    def __len__(self) -> int:
        return len(self.greyscale)

    def codes(self, attribute: str) -> Tensor:
        """int64 [N], [N,3] for `colours`: the codes of the values of `attribute`, -1 for none."""
        if attribute == "greyscale":
            return (~self.greyscale).long()
        if attribute == "sky_share":
            edges = torch.tensor([1e-6, _SMALL_SKY, _LARGE_SKY])
            code = torch.bucketize(self.sky_share, edges, right=True)
            return torch.where(self.sky < 0, -1, code)
        codes: Tensor = getattr(self, attribute)
        return codes

    def per_picture(self) -> tuple[PictureAttributes, ...]:
        """The names of the values of every picture, as captions and `phrase` take them."""
        return tuple(self._names())

    def _names(self) -> Iterator[PictureAttributes]:
        names = {field.name: value_names(field.name) for field in fields(self)}
        codes = {name: self.codes(name).tolist() for name in names}
        for index in range(len(self)):
            yield {
                name: tuple(values[code] for code in _listed(codes[name][index]) if code >= 0)
                for name, values in names.items()
            }


def _listed(codes: int | list[int]) -> list[int]:
    return codes if isinstance(codes, list) else [codes]


def measure(images: Images) -> Measured:
    """The attributes of uint8 pictures [N,3,H,W].

    Raises:
        InvalidInput: another type or shape.
    """
    shape = tuple(images.shape)
    if len(shape) != 4 or shape[1] != 3 or images.dtype != torch.uint8:
        raise InvalidInput(f"Pictures must be uint8 [N,3,H,W], got {images.dtype} {list(shape)}.")
    chunks = [images[start : start + _CHUNK] for start in range(0, max(1, shape[0]), _CHUNK)]
    parts = [_measure(chunk) for chunk in chunks]
    return Measured(
        **{
            field.name: torch.cat([getattr(part, field.name) for part in parts])
            for field in fields(Measured)
        }
    )


def _measure(images: Tensor) -> Measured:
    """The attributes of a chunk, which may be empty."""
    if not len(images):
        images = images.new_zeros(1, 3, _GRID, _GRID)
        none = _measure(images)
        return Measured(**{field.name: getattr(none, field.name)[:0] for field in fields(none)})
    small = F.adaptive_avg_pool2d(images.float(), _GRID).round()
    luma = luma_of(small)
    value, lowest = small.amax(1), small.amin(1)
    mean = _mean(luma)
    sky, share = _sky(small, luma)
    return Measured(
        greyscale=_mean(value - lowest) < _GREY_CHROMA,
        brightness=_bucket(mean, _DARK, _BRIGHT),
        contrast=_bucket(_spread(images), _LOW_CONTRAST, _HIGH_CONTRAST),
        light=2 - _bucket(_warmth(small, luma), _COLD, _WARM),
        sky=sky,
        sky_share=share,
        colours=_colours(small),
    )


def luma_of(pixels: Tensor) -> Tensor:
    """Luma of R, G and B in dimension 1, 0 to 255 (ITU-R BT.601)."""
    red, green, blue = pixels.unbind(1)
    return (299 * red + 587 * green + 114 * blue) / 1000


def _mean(values: Tensor) -> Tensor:
    """The mean over each picture [N,h,w] -> [N], in double precision whatever the batch."""
    return values.double().flatten(1).mean(1)


def _bucket(values: Tensor, low: float, high: float) -> Tensor:
    return (values >= low).long() + (values > high).long()


def _spread(images: Tensor) -> Tensor:
    """The range that luma has in nine tenths of the pixels, at 64x64 pixels: [N], 0 to 255."""
    fine = images.float()
    if min(images.shape[-2:]) > _FINE_GRID:
        fine = F.adaptive_avg_pool2d(fine, _FINE_GRID).round()
    levels = _counts(luma_of(fine).long(), 256).cumsum(1)
    pixels = levels[:, -1:]
    low = (levels <= _CONTRAST_TAILS * pixels).sum(1)
    high = (levels < (1 - _CONTRAST_TAILS) * pixels).sum(1)
    return high - low


def _counts(codes: Tensor, num_codes: int) -> Tensor:
    """How often each code is in each picture: int64 [N,...] -> [N,num_codes]."""
    rows = num_codes * torch.arange(len(codes)).unsqueeze(1)
    flat = (codes.flatten(1) + rows).flatten()
    return torch.bincount(flat, minlength=num_codes * len(codes)).view(-1, num_codes)


def _warmth(small: Tensor, luma: Tensor) -> Tensor:
    """Red against blue, relative to the luma, positive where the light is warm: [N].

    Leaves in any light have less blue than red, therefore green pixels are not warm.
    """
    red, green, blue = small.unbind(1)
    balance = torch.where(green > red, (red - blue).clamp_max(0), red - blue)
    return _mean(balance) / _mean(luma).clamp_min(1)


def _sky(small: Tensor, luma: Tensor) -> tuple[Tensor, Tensor]:
    """Code of the sky's colour and its share of the picture, [N] each."""
    names = value_names("sky")
    dark, orange, pink, none = map(names.index, ("dark", "orange", "pink", "none"))
    inside = _sky_region(small, luma)
    count = inside.sum((1, 2))
    share = count / (_GRID * _GRID)
    code = _sky_colour(small, inside)

    def mean_where(where: Tensor) -> Tensor:
        return (luma.double() * where).sum((1, 2)) / where.sum((1, 2)).clamp_min(1)

    sunset = (code == orange) | (code == pink)
    found = share >= torch.where(sunset | (code == dark), _MIN_UNUSUAL_SKY, _MIN_SKY)
    width = inside[:, 1].double().mean(1)
    found &= width >= torch.where(sunset, _MIN_SUNSET_WIDTH, _MIN_SKY_WIDTH)
    found &= ~sunset | (mean_where(inside) >= 1.1 * mean_where(~inside))
    code = torch.where(found, code, torch.where(share < _NO_SKY, none, -1))
    return code, torch.where(found, share, 0.0).float()


def _sky_region(small: Tensor, luma: Tensor) -> Tensor:
    """The pixels that belong to the sky if there is one: bool [N,h,w].

    From the upper edge downwards every column belongs to it until the first edge, or the first
    pixel whose colour no sky has. An edge is higher where the picture is brighter, and higher
    still between pixels that can be clouds in blue sky or the glow of a low sun.
    """
    red, green, blue = small.unbind(1)
    airy = (luma > 90) & (blue >= red - 8) & (blue >= green - 8)
    glowing = (red > 120) & (red > green + 10) & (red > 1.4 * blue) & (green > 0.35 * red)
    step = (5 + 0.08 * luma) * torch.where(airy, _CLOUD_STEP, 1.0)
    step = torch.where(glowing, _GLOW_STEP * step, step)
    down = (small[:, :, 1:] - small[:, :, :-1]).abs().amax(1)
    across = (small[..., 1:] - small[..., :-1]).abs().amax(1)
    calm = F.pad(down, (0, 0, 1, 0)) < step
    calm &= torch.minimum(F.pad(across, (1, 0)), F.pad(across, (0, 1))) < step
    leafy = (green > red + 6) & (green > blue + 6)
    return (calm & ~leafy).long().cumprod(1).bool()


def _sky_colour(small: Tensor, inside: Tensor) -> Tensor:
    """Code of the colour that most of the sky has; a sunset needs less than half of it."""
    names = value_names("sky")
    value, hue, saturation = _hsv(small)
    luma = luma_of(small)
    pink = (hue >= 260) | ((hue < 14) & (saturation < 0.5))
    warm = (hue < 70) & ~pink
    code = torch.full_like(hue, names.index("blue"), dtype=torch.long)
    code[warm] = names.index("orange")
    code[pink] = names.index("pink")
    least = torch.where(
        warm, 0.26, torch.where(pink & (hue < 14), 0.17, torch.where(pink, 0.12, 0.14))
    )
    pale = saturation < least
    code[pale] = names.index("grey")
    code[pale & (luma > 200)] = names.index("white")
    code[(luma < 58) & (value < 90)] = names.index("dark")
    votes = _counts(torch.where(inside, code, len(names)), len(names) + 1)[:, :-1]
    sunset = torch.tensor([name in ("orange", "pink") for name in names])
    enough = (votes * sunset).sum(1) >= _SUNSET_SHARE * votes.sum(1)
    return torch.where(enough.unsqueeze(1), votes * sunset, votes).argmax(1)


def _hsv(colour: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Value 0 to 255, hue 0 to 360 degrees and saturation 0 to 1 of RGB in dimension 1."""
    red, green, blue = colour.unbind(1)
    value, lowest = colour.amax(1), colour.amin(1)
    chroma = value - lowest
    divisor = chroma.clamp_min(1e-6)
    hue = torch.where(
        value == red,
        (green - blue) / divisor % 6,
        torch.where(value == green, (blue - red) / divisor + 2, (red - green) / divisor + 4),
    )
    return value, hue * 60, chroma / value.clamp_min(1e-6)


def _colours(small: Tensor) -> Tensor:
    """Codes of the basic colour terms by share, int64 [N,3], -1 below the least share."""
    names = value_names("colours")
    counts = _counts(_term(small, names), len(names))
    share, code = counts.sort(dim=1, descending=True, stable=True)
    enough = share[:, :_MAX_COLOURS] >= _MIN_COLOUR * _GRID * _GRID
    enough[:, 0] = True
    return torch.where(enough, code[:, :_MAX_COLOURS], -1)


def _term(small: Tensor, names: tuple[str, ...]) -> Tensor:
    """The basic colour term of every pixel (Berlin and Kay, "Basic Color Terms", 1969)."""
    value, hue, saturation = _hsv(small)
    code = torch.full_like(hue, names.index("red"), dtype=torch.long)
    for start, name in ((14, "orange"), (46, "yellow"), (64, "green"), (165, "blue"),
                        (255, "purple"), (295, "pink"), (345, "red")):  # fmt: skip
        code[hue >= start] = names.index(name)
    reddish = (hue < 64) | (hue >= 330)
    code[reddish & (value < 150) & (saturation < 0.85)] = names.index("brown")
    code[(hue < 46) & (value < 215) & (saturation < 0.5)] = names.index("brown")
    code[(hue >= 46) & (hue < 64) & (value < 150)] = names.index("green")
    code[((hue < 14) | (hue >= 345)) & (value >= 170) & (saturation < 0.5)] = names.index("pink")
    pale = (saturation < 0.17) | (saturation * value < 20)
    code[pale] = names.index("grey")
    code[pale & (value > 195)] = names.index("white")
    code[value < 48] = names.index("black")
    return code
