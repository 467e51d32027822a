"""Sheets of example pictures: a photo, and what masks leave of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

_CELL = (300, 300)
_CAPTION = 22
_GAP = 6


class Example(NamedTuple):
    """One line of a sheet."""

    image: Image.Image
    #: (H,W) uint8 masks of the picture, 255 = person.
    masks: Sequence[npt.NDArray[np.uint8]]
    #: One per picture shown: the photo's, then one per mask.
    captions: Sequence[str]


def draw_sheet(examples: Sequence[Example]) -> Image.Image:
    """All examples as one RGB picture, one below the other, each fitted into its cell.

    Removed background is shown as a checkerboard, from which white clothes and dark hair differ.
    """
    columns = max(len(example.captions) for example in examples)
    width = columns * (_CELL[0] + _GAP) + _GAP
    height = len(examples) * (_CELL[1] + _CAPTION + _GAP) + _GAP
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=13)
    for line, example in enumerate(examples):
        top = _GAP + line * (_CELL[1] + _CAPTION + _GAP)
        pictures = [example.image, *(cut_out(example.image, mask) for mask in example.masks)]
        for column, (picture, caption) in enumerate(zip(pictures, example.captions, strict=True)):
            left = _GAP + column * (_CELL[0] + _GAP)
            shown = _fitted(picture)
            indent = (_CELL[0] - shown.width) // 2
            sheet.paste(shown, (left + indent, top + (_CELL[1] - shown.height) // 2))
            draw.text((left, top + _CELL[1] + 3), caption, fill="black", font=font)
    return sheet


def save_sheet(examples: Sequence[Example], path: Path) -> None:
    """Write the sheet of ``examples`` to ``path`` as JPEG, in one step."""
    from ..files import written_atomically

    with written_atomically(path) as temporary:
        draw_sheet(examples).save(temporary, "JPEG", quality=90)


def cut_out(image: Image.Image, mask: npt.NDArray[np.uint8]) -> Image.Image:
    """What ``mask`` leaves of ``image``, on a checkerboard."""
    return Image.composite(image, _checkerboard(image.size), Image.fromarray(mask))


def _checkerboard(size: tuple[int, int]) -> Image.Image:
    # Its squares have the same size on the sheet for all pictures.
    side = max(1, round(12 * max(size[0] / _CELL[0], size[1] / _CELL[1])))
    y, x = np.ogrid[: size[1], : size[0]]
    grey = np.where((x // side + y // side) % 2, 235, 200).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")


def _fitted(picture: Image.Image) -> Image.Image:
    scale = min(_CELL[0] / picture.width, _CELL[1] / picture.height)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.LANCZOS)
