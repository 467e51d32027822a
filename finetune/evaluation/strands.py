"""Hair with exactly known alpha: strands drawn at eight times the size, and reduced.

Every small pixel of the large drawing belongs to the background, to the person's body or to one
strand. So alpha is the share of small pixels that are not background, and the foreground's colour
is their mean colour: both are exact, whatever the strands look like. Points are (x, y) in pixels of
the reduced picture, whose top left corner is (0, 0).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Points = npt.NDArray[np.float64]
Field = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]

#: Small pixels along the side of a pixel.
FACTOR = 8
#: Widths of strands at their roots, in pixels.
WIDTHS = (0.3, 3.0)
#: A head of a smaller radius, in pixels, gets no hair.
SMALLEST_HEAD = 10.0
#: The strands of a lock run alike.
_LOCK = 8
#: A disc that touches the figure's top is the head; a chest is deeper below it than it is wide.
_ROUND = 0.7
#: Length of the straight pieces of which a curve is made, in pixels.
_PIECE = 3.0


class Strand(NamedTuple):
    """A cubic Bézier curve that becomes thinner from its root to its tip."""

    #: (4,2): root, two control points, tip.
    points: Points
    #: Widths at root and tip, in pixels.
    widths: tuple[float, float]
    #: (3,) uint8 RGB.
    colour: Pixels


class Layer(NamedTuple):
    """The part of a picture in front of the background."""

    #: (H,W) float64 in 0…1.
    alpha: npt.NDArray[np.float64]
    #: (H,W,3) float64 in 0…255: the colour times alpha.
    premultiplied: npt.NDArray[np.float64]


class Head(NamedTuple):
    """A head: the largest disc in a figure that nearly touches its top."""

    x: float
    y: float
    #: In pixels.
    radius: float


def render(body: Field, rgb: Pixels, strands: Sequence[Strand]) -> Layer:
    """The person's body, where ``body`` is above one half, with ``strands`` drawn over it.

    Shape:
        - body: (H,W) in 0…1, interpolated between the middles of pixels; rgb: (H,W,3).
    """
    height, width = body.shape
    # 0 nobody, 1 the body, from 2 on the strands.
    owner = (_enlarged(body) > 0.5).astype(np.uint16)
    for number, strand in enumerate(strands, start=2):
        _draw(strand, owner, number)
    colours = np.zeros((len(strands) + 2, 3), np.uint8)
    if strands:
        colours[2:] = [strand.colour for strand in strands]
    alpha = np.empty((height, width))
    premultiplied = np.empty((height, width, 3))
    for row in range(height):  # all at once would take a gigabyte
        small = owner[row * FACTOR : (row + 1) * FACTOR].reshape(FACTOR, width, FACTOR)
        alpha[row] = (small > 0).mean(axis=(0, 2))
        of_body = (small == 1).mean(axis=(0, 2))
        premultiplied[row] = colours[small].mean(axis=(0, 2)) + of_body[:, None] * rgb[row]
    return Layer(alpha, premultiplied)


def find_head(body: Field) -> Head | None:
    """Where a figure's head is; None if it is too small, or cut by the picture's edge at its top.

    Shape:
        - body: (H,W) in 0…1.
    """
    inside = body > 0.5
    rows = np.flatnonzero(inside.any(axis=1))
    if not rows.size or rows[0] == 0:
        return None
    depth = ndimage.distance_transform_edt(inside)
    below_top = np.arange(len(body))[:, None] - rows[0] + 1
    depth[depth < _ROUND * below_top] = 0
    y, x = np.unravel_index(depth.argmax(), depth.shape)
    head = Head(x + 0.5, y + 0.5, float(depth[y, x]))
    return head if head.radius >= SMALLEST_HEAD else None


def grow(body: Field, rgb: Pixels, head: Head, rng: np.random.Generator) -> list[Strand]:
    """Locks of strands from the outline around ``head``, in the colours found below their roots.

    Shape:
        - body: (H,W) in 0…1; rgb: (H,W,3).
    """
    roots, outwards = _outline(body, head)
    if not len(roots):
        return []
    widest = min(WIDTHS[1], max(2 * WIDTHS[0], 0.03 * head.radius))
    strands = []
    for _ in range(max(1, round(rng.uniform(0.4, 1.2) * len(roots) / _LOCK))):
        place = int(rng.integers(len(roots)))
        turn, curl = rng.normal(0, 0.5), rng.normal(0, 0.6)
        length = head.radius * rng.uniform(0.15, 0.9)
        fall = rng.uniform(0, 0.8)
        for _ in range(_LOCK):
            near = (place + int(rng.integers(-_LOCK, _LOCK + 1))) % len(roots)
            root, out = roots[near], outwards[near]
            ways = [
                _turned(out, turn + rng.normal(0, 0.15) + step * (curl + rng.normal(0, 0.1)))
                for step in range(3)
            ]
            third = length * rng.uniform(0.6, 1.1) / 3
            points = [root - out]
            for step, way in enumerate(ways):
                points.append(points[-1] + third * (way + np.array([0, fall * step / 2])))
            width = float(np.exp(rng.uniform(*np.log((WIDTHS[0], widest)))))
            below = root - out * rng.uniform(2, 6)
            column, row = np.clip(below.astype(int), 0, (body.shape[1] - 1, body.shape[0] - 1))
            colour = (rgb[row, column] * rng.uniform(0.75, 1.25)).clip(0, 255).astype(np.uint8)
            tip = max(WIDTHS[0], width * rng.uniform(0.3, 1))
            strands.append(Strand(np.array(points), (width, tip), colour))
    return strands


def _outline(body: Field, head: Head) -> tuple[Points, Points]:
    """Points of the outline around the head, a pixel or less apart, and unit vectors outwards."""
    from skimage import measure

    contours = [contour[:, ::-1] for contour in measure.find_contours(body, 0.5)]
    points = np.concatenate([*contours, np.empty((0, 2))])
    size = np.array(body.shape[::-1])
    x, y = points.T
    around = np.hypot(x + 0.5 - head.x, y + 0.5 - head.y) <= 1.6 * head.radius
    around &= y <= head.y + 0.3 * head.radius
    around &= ((points > 2) & (points < size - 3)).all(axis=1)  # not where the frame cuts
    points = points[around]
    slopes = [ndimage.gaussian_filter(body, 2, order=order) for order in ((0, 1), (1, 0))]
    at = points[:, ::-1].T
    outwards = -np.stack([ndimage.map_coordinates(slope, at, order=1) for slope in slopes], axis=1)
    lengths = np.hypot(*outwards.T)
    known = lengths > 1e-6
    # A contour's coordinates are those of the middles of pixels.
    return points[known] + 0.5, outwards[known] / lengths[known, None]


def _turned(vector: Points, angle: float) -> Points:
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.array([[cosine, -sine], [sine, cosine]]) @ vector


def _enlarged(body: Field) -> Field:
    from PIL import Image

    size = (body.shape[1] * FACTOR, body.shape[0] * FACTOR)
    large = Image.fromarray(body.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
    return np.asarray(large)


def _draw(strand: Strand, owner: npt.NDArray[np.uint16], number: int) -> None:
    """Mark the small pixels whose middles a strand covers."""
    from skimage.draw import polygon

    across = np.diff(strand.points, axis=0)
    pieces = max(2, int(np.ceil(np.hypot(*across.T).sum() / _PIECE)))
    t = np.linspace(0, 1, pieces + 1)[:, None]
    weights = np.hstack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3])
    slopes = np.hstack([(1 - t) ** 2, 2 * t * (1 - t), t**2]) @ across
    lengths = np.hypot(*slopes.T)[:, None]
    normals = slopes[:, ::-1] * (1, -1) / np.maximum(lengths, 1e-9)
    half = (strand.widths[0] * (1 - t) + strand.widths[1] * t) / 2
    middle = weights @ strand.points
    # A small pixel's middle is a whole number to `polygon`.
    left, right = (FACTOR * (middle + sign * half * normals) - 0.5 for sign in (-1, 1))
    for piece in range(pieces):
        ends = slice(piece, piece + 2)
        x, y = np.concatenate([left[ends], right[ends][::-1]]).T
        owner[polygon(y, x, owner.shape)] = number
