"""Bystanders: people in a photo who are not in its mask, and trimaps of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from u2net_human_plugin.boxes import clip_xyxy
from u2net_human_plugin.people import crops_xyxy
from u2net_human_plugin.settings import Settings

from .doubts import LABELLED
from .manifest import Row
from .masks import THRESHOLD
from .pictures import SizeError, open_image

if TYPE_CHECKING:
    from ..predictors import Segment

#: From this alpha on a pixel surely is a person; up to one minus this it surely is not.
SURE = 0.9
#: A person who is found fills at least this share of what the mask leaves bare of the box; with
#: less, all of the box is unknown.
FOUND = 0.2
#: Detectors cut off feet and hands: so much around a box is looked at, as a share of its sides.
AROUND = 0.08
#: The trimap's middle value.
UNKNOWN = 128
#: Lookup tables (``Image.point``) that make one of a trimap's values 255 and the others 0.
IS_UNKNOWN = [255 if value == UNKNOWN else 0 for value in range(256)]
IS_PERSON = [255 if value == 255 else 0 for value in range(256)]
#: The lookup table that makes a soft mask binary.
IS_SOLID = [255 if value >= THRESHOLD else 0 for value in range(256)]

Box = tuple[float, float, float, float]


def left_out(row: Row, mask: Image.Image) -> list[Box]:
    """The manifest's person boxes, xyxy in pixels, that ``mask`` leaves almost bare."""
    found = []
    for left, top, right, bottom in clip_xyxy(row.boxes_xyxy, mask.size).tolist():
        inside = np.asarray(mask.crop((round(left), round(top), round(right), round(bottom))))
        if inside.size and inside.mean() < 255 * LABELLED:
            found.append((left, top, right, bottom))
    return found


def bystanders(row: Row, mask: Image.Image) -> Image.Image:
    """The trimap of the people who are not in ``mask``; if there is none, their boxes are unknown.

    Raises:
        DataError: the row's trimap cannot be read or is of another size than ``mask``.
    """
    if row.bystanders is not None:
        drawn = open_image(row.bystanders, row.where).convert("L")
        if drawn.size != mask.size:
            raise SizeError(
                f"{row.bystanders}: is {drawn.width}x{drawn.height} pixels, {row.name} "
                f"{mask.width}x{mask.height}; run "
                "`python -m u2net_human_plugin.finetune complete` again."
            )
        return drawn
    unknown = Image.new("L", mask.size, 0)
    for left, top, right, bottom in left_out(row, mask):
        box = (round(left), round(top), round(right), round(bottom))
        ImageDraw.Draw(unknown).rectangle(box, fill=UNKNOWN)
    unknown.paste(0, (0, 0), mask.point(IS_SOLID))
    return unknown


def trimap(
    image: Image.Image, mask: Image.Image, boxes: Sequence[Box], segment: Segment
) -> npt.NDArray[np.uint8]:
    """Draw the people in ``boxes``: (H,W) uint8 of 0 (nobody), 128 (unknown) and 255 (a person).

    Args:
        image: the photo, RGB.
        mask: "L" of its size; the trimap is 0 where the mask has a person.
        boxes: of people who are not in the mask, xyxy in pixels.
        segment: the model that draws them; it sees each box with some room around it.
    """
    drawn = np.zeros((image.height, image.width), np.uint8)
    bare = np.asarray(mask) < 255
    for box in boxes:
        xyxy = np.array([box], np.float32)
        # There is no crop for somebody who fills the picture.
        crops = crops_xyxy(xyxy, image.size, Settings())
        (left, top, right, bottom), *_ = crops or [(0, 0, *image.size)]
        alpha = segment(image.crop((left, top, right, bottom))) / np.float32(255)
        values = np.full(alpha.shape, UNKNOWN, np.uint8)
        values[alpha >= SURE] = 255
        values[alpha <= 1 - SURE] = 0

        around = AROUND * (xyxy[:, 2:] - xyxy[:, :2])
        wider = clip_xyxy(
            np.concatenate((xyxy[:, :2] - around, xyxy[:, 2:] + around), 1), image.size
        )
        x, y, x_end, y_end = (round(float(value)) for value in wider[0])
        values = values[y - top : y_end - top, x - left : x_end - left]
        # People of the mask who reach into the box are not the one to be found.
        seen = values[bare[y:y_end, x:x_end]] == 255
        if not seen.any() or seen.mean() < FOUND:
            values = np.full_like(values, UNKNOWN)
        place = drawn[y:y_end, x:x_end]
        np.maximum(place, values, out=place)
    drawn[~bare] = 0
    return drawn
