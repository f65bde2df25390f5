"""Contact sheets: many small pictures on one page."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

PAPER = (250, 248, 244)
INK = (28, 27, 25)
GAP = 8


FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf", "Arial.ttf")
ABSENT = "\U0010ffff"  # a character no font has: what it draws is what any missing one draws
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def label_font(size: int, text: str) -> Font:
    """The first font found that has every letter of `text`, else Pillow's own (Latin only)."""
    for name in FONTS:
        with suppress(OSError):  # not installed
            font = ImageFont.truetype(name, size)
            if all(has_letter(font, letter) for letter in set(text)):
                return font
    return ImageFont.load_default(size)


def has_letter(font: Font, letter: str) -> bool:
    """Whether the font draws the letter, and not the box that stands for missing ones."""
    if letter.isspace():
        return True
    return bytes(font.getmask(letter)) != bytes(font.getmask(ABSENT))


def drawable(label: str, font: Font) -> str:
    """The words of `label` that the font can draw: `mountain (горы)`, or `mountain`."""
    words = [word for word in label.split() if all(has_letter(font, letter) for letter in word)]
    return " ".join(words)


def to_pil(pixels: Tensor) -> Image.Image:
    """A uint8 tensor [3,H,W] as a Pillow image."""
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy(), "RGB")


def contact_sheet(
    pixels: Tensor, *, columns: int, row_labels: Sequence[str] = (), scale: int = 1
) -> Image.Image:
    """Pictures [N,3,H,W] uint8 in rows of `columns`, each enlarged `scale` times without blur.

    `row_labels` are written to the left of their rows. Where no installed font has all their
    letters, letters it lacks are left out rather than drawn as boxes.
    """
    count, _, height, width = pixels.shape
    rows = -(-count // columns)
    cell_w, cell_h = width * scale, height * scale
    font = label_font(max(10, min(16, cell_h // 4)), "".join(row_labels))
    row_labels = [drawable(label, font) for label in row_labels]
    margin = GAP + max((round(font.getlength(label)) + GAP for label in row_labels), default=0)
    size = margin + columns * (cell_w + GAP), GAP + rows * (cell_h + GAP)
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    for row, label in enumerate(row_labels[:rows]):
        middle = GAP + row * (cell_h + GAP) + cell_h // 2
        draw.text((GAP, middle), label, fill=INK, font=font, anchor="lm")
    for index, picture in enumerate(pixels):
        row, column = divmod(index, columns)
        cell = to_pil(picture).resize((cell_w, cell_h), Image.Resampling.NEAREST)
        sheet.paste(cell, (margin + column * (cell_w + GAP), GAP + row * (cell_h + GAP)))
    return sheet
