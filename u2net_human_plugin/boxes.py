"""Boxes: their areas, overlaps and hulls.

float32 arrays of shape (N,4); ``xyxy`` in a name is their axis order: left, top, right, bottom,
in pixels, the last two exclusive. ``size_wh`` is (width, height). All functions are pure.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Boxes = npt.NDArray[np.float32]
Size = tuple[int, int]
#: One box in whole pixels: left, top, right, bottom, the last two exclusive.
Box = tuple[int, int, int, int]


def area_xyxy(boxes_xyxy: Boxes) -> npt.NDArray[np.float32]:
    """(N,4) → (N,), zero for boxes that are turned inside out."""
    sides = np.maximum(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], 0)
    area: npt.NDArray[np.float32] = sides[:, 0] * sides[:, 1]
    return area


def clip_xyxy(boxes_xyxy: Boxes, size_wh: Size) -> Boxes:
    """The parts of the boxes inside a picture of that size: (N,4) → (N,4)."""
    return boxes_xyxy.clip(0, np.array([*size_wh, *size_wh], np.float32)).astype(np.float32)


def intersection_xyxy(first_xyxy: Boxes, second_xyxy: Boxes) -> npt.NDArray[np.float32]:
    """Common area of every pair: (N,4), (M,4) → (N,M)."""
    low = np.maximum(first_xyxy[:, None, :2], second_xyxy[None, :, :2])
    high = np.minimum(first_xyxy[:, None, 2:], second_xyxy[None, :, 2:])
    sides = np.maximum(high - low, 0)
    area: npt.NDArray[np.float32] = sides[..., 0] * sides[..., 1]
    return area


def iou_xyxy(first_xyxy: Boxes, second_xyxy: Boxes) -> npt.NDArray[np.float32]:
    """Intersection over union of every pair, in 0…1: (N,4), (M,4) → (N,M).

    Unions below one pixel count as one.
    """
    common = intersection_xyxy(first_xyxy, second_xyxy)
    union = area_xyxy(first_xyxy)[:, None] + area_xyxy(second_xyxy)[None] - common
    iou: npt.NDArray[np.float32] = common / np.maximum(union, 1)
    return iou


def hull_xyxy(boxes_xyxy: Boxes) -> Boxes:
    """The smallest box that holds all of at least one: (N,4) → (1,4)."""
    low, high = boxes_xyxy[:, :2].min(axis=0), boxes_xyxy[:, 2:].max(axis=0)
    return np.concatenate((low, high))[None]


def joined_xyxy(
    boxes_xyxy: Boxes,
    at_most: int,
    fits: Callable[[Boxes], npt.NDArray[np.bool_]] | None = None,
) -> Boxes:
    """Join overlapping boxes into their common hull, then the closest, until ``at_most``.

    (N,4) → (M,4). Boxes stay apart although they overlap if ``fits``, (K,4) → (K,) bool, is
    false of their hull; ``at_most`` may force others to overlap.
    """
    boxes = boxes_xyxy
    overlap, added = _gains(boxes, boxes, fits)
    twice = np.tril_indices(len(boxes))  # each pair counts once, and no box with itself
    overlap[twice], added[twice] = 0, np.inf
    while len(boxes) > 1:
        if overlap.any():
            i, j = np.unravel_index(overlap.argmax(), overlap.shape)
        elif len(boxes) > at_most:
            i, j = np.unravel_index(added.argmin(), added.shape)
        else:
            break
        hull = _hulls(boxes[[i]], boxes[[j]])[0]
        stay = np.delete(np.arange(len(boxes)), [i, j])
        boxes = boxes[stay]
        new = _gains(boxes, hull, fits)
        overlap = _with_last(overlap[np.ix_(stay, stay)], new[0], 0)
        added = _with_last(added[np.ix_(stay, stay)], new[1], np.inf)
        boxes = np.concatenate((boxes, hull))
    return boxes


def _gains(
    first_xyxy: Boxes,
    second_xyxy: Boxes,
    fits: Callable[[Boxes], npt.NDArray[np.bool_]] | None,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Of every pair, (N,4), (M,4) → twice (N,M): the common area, and what the hull adds.

    If the hull does not fit, the common area counts as 0.
    """
    hulls = _hulls(first_xyxy, second_xyxy)
    overlap = intersection_xyxy(first_xyxy, second_xyxy)
    if fits is not None:
        overlap *= fits(hulls.reshape(-1, 4)).reshape(overlap.shape)
    added = area_xyxy(hulls.reshape(-1, 4)).reshape(overlap.shape)
    return overlap, added - area_xyxy(first_xyxy)[:, None] - area_xyxy(second_xyxy)[None]


def _hulls(first_xyxy: Boxes, second_xyxy: Boxes) -> Boxes:
    """Common hull of every pair: (N,4), (M,4) → (N,M,4)."""
    low = np.minimum(first_xyxy[:, None, :2], second_xyxy[None, :, :2])
    high = np.maximum(first_xyxy[:, None, 2:], second_xyxy[None, :, 2:])
    return np.concatenate((low, high), axis=2)


def _with_last(
    pairs: npt.NDArray[np.float32], column: npt.NDArray[np.float32], rest: float
) -> npt.NDArray[np.float32]:
    """(N,N) and (N,1) → (N+1,N+1): one more box, whose row is ``rest``."""
    count = len(pairs)
    larger = np.full((count + 1, count + 1), rest, np.float32)
    larger[:count, :count], larger[:count, count:] = pairs, column
    return larger
