"""From the network's coarse alpha map to an alpha matte of the photo's size.

:func:`upsample_logits` interpolates; :func:`guided_filter` besides moves the edge to where the
photo has one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image

Array = npt.NDArray[np.float32]

#: Logits beyond this are as good as certain: 255 / (1 + e^8) rounds to 0.
_LOGIT_LIMIT = 8.0
#: Where the logit is nearer to 0 than this, that of an alpha of 2 of 255, there may be an edge.
_UNSURE = 4.84
#: About as many cells has the longer side of the grid on which the guided filter is fitted; they
#: are squares of whole pixels.
GRID = 256
#: Radius of its windows, in cells of the grid: wider ones blur thin limbs away.
RADIUS = 2
#: Its regularisation, for a guide in 0…1: textures of a smaller variance leave no trace.
EPSILON = 1e-3
#: How much of what the photo's colours do not explain stays of the network's answer. With less,
#: outlines give way to the photo's textures; with more, they follow its edges less.
KEPT = 0.5
#: Height, and least width, of the pieces in which the filter is applied, in cells of the grid.
_PIECE = 6
#: Their width at most, in pixels, which keeps them in the processor's cache.
_WIDEST = 256
#: Rows of a mask that are turned from logits into alpha at a time.
_ROWS = 256


def upsample_logits(alpha: Array, size_wh: tuple[int, int]) -> Image.Image:
    """Resize a network's (h,w) alpha in 0…1 to an "L" mask of ``size_wh`` pixels.

    The logit of alpha is interpolated, not alpha itself: near an edge it changes
    linearly, so the half-way line stays where it is and the edge stays as steep as it was
    in cells of the map. Interpolating in 8 bits costs a fraction of floating point.
    """
    mask = Image.fromarray(_steps(alpha).round().astype(np.uint8))
    mask = mask.resize(size_wh, Image.Resampling.BILINEAR)
    for top in range(0, mask.height, _ROWS):  # whole, it would be in memory twice
        band = mask.crop((0, top, mask.width, min(top + _ROWS, mask.height)))
        mask.paste(band.point(_ALPHA_OF_STEP), (0, top))
    return mask


def guided_filter(alpha: Array, image: Image.Image) -> Image.Image:
    """Resize a network's (h,w) alpha in 0…1 to a photo's size, with the photo's own edges.

    In each window alpha's logit is explained as a linear function of the photo's colour
    (He, Sun, Tang: Guided Image Filtering, PAMI 2013, with a colour guide); the logit,
    as for :func:`upsample_logits`, so that the edge stays as steep as it was. As in their Fast
    Guided Filter (2015) the functions are fitted on a small grid and applied at full
    resolution, here only in the pieces of the picture through which an edge runs. Elsewhere
    the mask is 0 or 255. Unlike theirs, the outcome lies half way between what the colours
    explain and what the network said: where they explain little, its outline stays.

    Args:
        alpha: what the network says of the whole image.
        image: mode "RGB".

    Returns:
        mode "L", of the image's size.
    """
    cell = max(1, round(max(image.size) / GRID))
    steps = _at_cells(_steps(alpha), image.size, cell)
    near = _near_edges(steps)
    guide = np.asarray(image.reduce(cell), np.float32) / np.float32(255)
    fitted = _fit(guide.transpose(2, 0, 1), steps, near)
    across, down = (_interpolation(side, cell) for side in image.size)
    mask = Image.new("L", image.size)
    # Strip by strip: in one array, the mask would be in memory twice.
    for first in range(0, len(steps), _PIECE):
        top, bottom = first * cell, min((first + _PIECE) * cell, image.height)
        rows = slice(max(0, first - 1), first + _PIECE + 1)
        strip = _binary(steps[first : first + _PIECE], cell)[: bottom - top, : image.width]
        for start, stop in _runs(near[first : first + _PIECE], _WIDEST // cell):
            left, right = start * cell, min(stop * cell, image.width)
            columns = slice(max(0, start - 1), stop + 1)
            weights = across[left:right, columns].T
            linear = down[top:bottom, rows] @ (fitted[:, rows, columns] @ weights)
            linear[:3] *= np.asarray(image.crop((left, top, right, bottom))).transpose(2, 0, 1)
            sharp = linear.sum(axis=0).clip(0, 255).astype(np.uint8)
            strip[:, left:right] = np.frombuffer(
                sharp.tobytes().translate(_ALPHA_TABLE), np.uint8
            ).reshape(sharp.shape)
        mask.paste(Image.fromarray(strip), (0, top))
    return mask


def _steps(alpha: Array) -> Array:
    """The logits of alpha, of which ±``_LOGIT_LIMIT`` is 0…255."""
    tiny = np.float32(1e-6)
    inside = alpha.clip(tiny, 1 - tiny)
    steps = np.log(inside / (1 - inside)) * np.float32(127.5 / _LOGIT_LIMIT) + np.float32(127.5)
    clipped: Array = steps.clip(0, 255)
    return clipped


def _at_cells(values: Array, size_wh: tuple[int, int], cell: int) -> Array:
    """A map (h,w) of a picture, resized to the picture's grid of cells of so many pixels."""
    grid = [-(-pixels // cell) for pixels in size_wh]
    # The outermost cells may reach beyond the picture.
    ends = [
        count * cells * cell / pixels
        for count, cells, pixels in zip(values.shape[::-1], grid, size_wh, strict=True)
    ]
    beyond = [
        (0, math.ceil(end) - count) for end, count in zip(ends[::-1], values.shape, strict=True)
    ]
    padded = Image.fromarray(np.pad(values, beyond, "edge"))
    return np.asarray(padded.resize(grid, Image.Resampling.BILINEAR, (0, 0, *ends)))


def _binary(steps: Array, cell: int) -> npt.NDArray[np.uint8]:
    """A mask that is 0 or 255 in each cell of so many pixels: (h,w) → (h cell,w cell)."""
    cells = (steps > 127.5).astype(np.uint8) * np.uint8(255)
    return np.repeat(np.repeat(cells, cell, axis=1), cell, axis=0)


def _interpolation(pixels: int, cell: int) -> Array:
    """Bilinear interpolation of cells of so many pixels at each pixel: (pixels,cells) weights."""
    cells = -(-pixels // cell)
    places = ((np.arange(pixels) + 0.5) / cell - 0.5).clip(0, cells - 1)
    below = places.astype(int)
    weights = np.zeros((pixels, cells), np.float32)
    weights[np.arange(pixels), (below + 1).clip(max=cells - 1)] = places - below
    weights[np.arange(pixels), below] += 1 - (places - below)
    return weights


def _fit(guide: Array, values: Array, cells: npt.NDArray[np.bool_]) -> Array:
    """The linear functions of a guide (3,h,w) in 0…1 that give about ``values`` (h,w).

    Outside ``cells`` (h,w) the values are taken as constant in each window.
    Returns slopes, of a guide in 0…255, and offset, half a step higher for rounding: (4,h,w).
    """
    pairs = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]
    squares = np.stack([guide[one] * guide[other] for one, other in pairs])
    planes = _window_mean(np.concatenate((guide, values[None], guide * values, squares)))
    means = planes[:, cells]
    mean_guide, mean_values = means[:3], means[3]
    x, y, z = means[4:7] - mean_guide * mean_values
    spread = (
        mean - mean_guide[one] * mean_guide[other] + np.float32(EPSILON * (one == other))
        for mean, (one, other) in zip(means[7:], pairs, strict=True)
    )
    # In single precision the cofactors of a grey photo's matrix would cancel out.
    xx, xy, xz, yy, yz, zz = (plane.astype(np.float64) for plane in spread)
    # The inverse of the symmetric matrix by its cofactors, symmetric as well.
    c_xx, c_xy, c_xz = yy * zz - yz * yz, xz * yz - xy * zz, xy * yz - xz * yy
    c_yy, c_yz, c_zz = xx * zz - xz * xz, xy * xz - xx * yz, xx * yy - xy * xy
    determinant = xx * c_xx + xy * c_xy + xz * c_xz
    rows = ((c_xx, c_xy, c_xz), (c_xy, c_yy, c_yz), (c_xz, c_yz, c_zz))
    solved = [(by_x * x + by_y * y + by_z * z) / determinant for by_x, by_y, by_z in rows]
    slopes = np.array(solved, np.float32)
    functions = np.concatenate((np.zeros_like(planes[:3]), planes[3:4]))
    functions[:3, cells] = slopes / np.float32(255)
    functions[3, cells] -= (slopes * mean_guide).sum(axis=0)
    functions = _window_mean(functions)
    explained = (functions[:3] * guide).sum(axis=0) * np.float32(255) + functions[3]
    functions[3] += np.float32(KEPT) * (values - explained) + np.float32(0.5)
    return functions


def _window_mean(planes: Array) -> Array:
    """Means over the (2 RADIUS + 1)² window around each cell: (n,h,w) → (n,h,w).

    Beyond the border the outermost cells go on.
    """
    from scipy import ndimage

    size = 2 * RADIUS + 1
    means: Array = ndimage.uniform_filter(planes, (1, size, size), mode="nearest")
    return means


def _near_edges(steps: Array) -> npt.NDArray[np.bool_]:
    """The cells (h,w) on which the filter's outcome depends on an edge of the mask."""
    from scipy import ndimage

    unsure = np.abs(steps - 127.5) < _UNSURE * 127.5 / _LOGIT_LIMIT
    near: npt.NDArray[np.bool_] = ndimage.maximum_filter(unsure, 4 * RADIUS + 1)
    return near


def _runs(cells: npt.NDArray[np.bool_], widest: int) -> Iterator[tuple[int, int]]:
    """Columns of a strip (_PIECE,w) of the grid that hold ``cells``: first, last + 1.

    They come in steps of the strip's height, up to ``widest`` at once.
    """
    width = cells.shape[1]
    columns = np.add.reduceat(cells.any(axis=0), range(0, width, _PIECE)) > 0
    ends = np.flatnonzero(np.diff(np.pad(columns.astype(np.int8), 1)))
    for start, stop in (ends.reshape(-1, 2) * _PIECE).clip(max=width).tolist():
        for left in range(start, stop, max(_PIECE, widest)):
            yield left, min(left + max(_PIECE, widest), stop)


_STEPS = (np.arange(256) - 127.5) * (_LOGIT_LIMIT / 127.5)
_ALPHA_OF_STEP: list[int] = (255 / (1 + np.exp(-_STEPS))).round().astype(int).tolist()
_ALPHA_TABLE = bytes(_ALPHA_OF_STEP)  # Pillow's point() converts a list anew each time
