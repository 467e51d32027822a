"""Sharp edges at full resolution: mask in, mask out.

The network's map is far coarser than a large photo. :func:`enlarge` brings it to the
photo's size; :func:`sharpen` then moves the edge to where the photo has one.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

Array = npt.NDArray[np.float32]

#: Logits beyond this are as good as certain: 255 / (1 + e^8) rounds to 0.
_LOGIT_LIMIT = 8.0
#: Longer side of the grid on which the guided filter is fitted, in cells.
GRID = 320
#: Radius of its windows, in cells of the grid: wider ones blur thin limbs away.
RADIUS = 2
#: Its regularisation, for a guide in 0…1: textures of a smaller variance leave no trace.
EPSILON = 1e-3
#: Side of the pieces in which the filter is applied, in cells of the grid.
_PIECE = 32


def enlarge(alpha: Array, size_wh: tuple[int, int]) -> Image.Image:
    """Resize a network's (h,w) alpha in 0…1 to an "L" mask of ``size_wh`` pixels.

    The logit of alpha is interpolated, not alpha itself: near an edge it changes
    linearly, so the half-way line stays where it is and the edge stays as steep as it was
    in cells of the map. Interpolating in 8 bits costs a fraction of floating point.
    """
    tiny = np.float32(1e-6)
    inside = alpha.clip(tiny, 1 - tiny)
    logit = np.log(inside / (1 - inside)) * np.float32(127.5 / _LOGIT_LIMIT) + np.float32(127.5)
    steps = Image.fromarray(logit.clip(0, 255).round().astype(np.uint8))
    return steps.resize(size_wh, Image.Resampling.BILINEAR).point(_ALPHA_OF_STEP)


def sharpen(mask: Image.Image, image: Image.Image) -> Image.Image:
    """Fit the edge of an "L" mask to the photo's: the guided filter, in the edge's band.

    In each window the mask is explained as a linear function of the photo's brightness
    (He, Sun, Tang: Guided Image Filtering, PAMI 2013). As in their Fast Guided Filter
    (2015) the functions are fitted on a small grid and applied at full resolution, here
    only in the pieces of the picture through which an edge runs.

    Args:
        mask: mode "L".
        image: mode "RGB", of the same size.
    """
    brightness = image.convert("L")
    scale = min(1.0, GRID / max(mask.size))
    grid_wh = (max(1, round(mask.width * scale)), max(1, round(mask.height * scale)))
    coarse = mask.resize(grid_wh, Image.Resampling.BOX)
    slope, offset = _fit(_unit(brightness.resize(grid_wh, Image.Resampling.BOX)), _unit(coarse))
    across, down = mask.width / grid_wh[0], mask.height / grid_wh[1]
    result = mask.copy()
    for cells in _edge_pieces(np.asarray(coarse)):
        left, right = round(cells[0] * across), round(cells[2] * across)
        top, bottom = round(cells[1] * down), round(cells[3] * down)
        size = (right - left, bottom - top)
        exact = (left / across, top / down, right / across, bottom / down)
        gain = np.asarray(slope.resize(size, Image.Resampling.BILINEAR, box=exact))
        base = np.asarray(offset.resize(size, Image.Resampling.BILINEAR, box=exact))
        guide = np.asarray(brightness.crop((left, top, right, bottom)), np.float32)
        sharp = (gain * guide + base * np.float32(255)).clip(0, 255).round().astype(np.uint8)
        result.paste(Image.fromarray(sharp), (left, top))
    return result


def _fit(guide: Array, mask: Array) -> tuple[Image.Image, Image.Image]:
    """Slope and offset of the window's linear functions, both as mode "F" images."""
    mean_guide, mean_mask = _box_mean(guide), _box_mean(mask)
    covariance: Array = _box_mean(guide * mask) - mean_guide * mean_mask
    variance: Array = _box_mean(guide * guide) - mean_guide * mean_guide
    slope: Array = covariance / (variance + np.float32(EPSILON))
    offset = mean_mask - slope * mean_guide
    return Image.fromarray(_box_mean(slope)), Image.fromarray(_box_mean(offset))


def _box_mean(values: Array) -> Array:
    """Mean over the (2 RADIUS + 1)² window around each cell, windows cut at the border."""
    for axis in (0, 1):
        length = values.shape[axis]
        ends = np.minimum(np.arange(length) + RADIUS + 1, length)
        starts = np.maximum(np.arange(length) - RADIUS, 0)
        total = np.insert(np.cumsum(values, axis=axis, dtype=np.float64), 0, 0.0, axis=axis)
        count = (ends - starts).reshape((-1, 1) if axis == 0 else (1, -1))
        mean = (total.take(ends, axis) - total.take(starts, axis)) / count
        values = mean.astype(np.float32)
    return values


def _edge_pieces(mask: npt.NDArray[np.uint8]) -> list[tuple[int, int, int, int]]:
    """Squares of the grid that hold or touch an edge: left, top, right, bottom in cells."""
    unsure = Image.fromarray(((mask > 2) & (mask < 253)).astype(np.uint8))
    height, width = mask.shape
    pieces = []
    for top in range(0, height, _PIECE):
        for left in range(0, width, _PIECE):
            right, bottom = min(left + _PIECE, width), min(top + _PIECE, height)
            reach = 2 * RADIUS
            around = (
                max(0, left - reach),
                max(0, top - reach),
                min(width, right + reach),
                min(height, bottom + reach),
            )
            if unsure.crop(around).getbbox():
                pieces.append((left, top, right, bottom))
    return pieces


def _unit(image: Image.Image) -> Array:
    return np.asarray(image, np.float32) / np.float32(255)


_STEPS = (np.arange(256) - 127.5) * (_LOGIT_LIMIT / 127.5)
_ALPHA_OF_STEP: list[int] = (255 / (1 + np.exp(-_STEPS))).round().astype(int).tolist()
