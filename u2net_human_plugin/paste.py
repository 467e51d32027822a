"""Putting the mask of a crop back into the picture's mask without a visible seam."""

from __future__ import annotations

import numpy as np
from PIL import Image

#: Width of the blend along a crop's border, as a share of the crop's side.
BLEND = 0.1


def paste(mask: Image.Image, closer: Image.Image, box: tuple[int, int, int, int]) -> None:
    """Blend ``closer`` into ``mask`` at ``box`` (left, top, right, bottom), in place.

    Both are "L". Inside the box the closer look counts alone; towards its border it
    gives way to the mask that was there, except where the border is the picture's.
    """
    left, top, right, bottom = box
    across = _ramp(right - left, left > 0, right < mask.width)
    down = _ramp(bottom - top, top > 0, bottom < mask.height)
    mask.paste(closer, box, Image.fromarray(np.minimum.outer(down, across)))


def _ramp(length: int, rises: bool, falls: bool) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    """Weights from 0 at a border to blend over, up to 255: (length,) uint8."""
    weights = np.full(length, 255.0)
    place = (np.arange(length) + 0.5) * (255 / max(1.0, BLEND * length))
    if rises:
        weights = np.minimum(weights, place)
    if falls:
        weights = np.minimum(weights, place[::-1])
    return weights.round().astype(np.uint8)
