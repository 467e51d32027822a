"""Where the people are, and where the network should look closer.

Boxes and ``size_wh`` are as in :mod:`u2net_human_plugin.boxes`. All functions are pure.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from .boxes import Box, Boxes, Size, area_xyxy, clip_xyxy, intersection_xyxy, joined_xyxy
from .looks import Alpha
from .regions import label_regions, region_boxes_xyxy, region_peaks
from .settings import Settings

#: More crops than this are joined until so many are left, which bounds time and memory.
MAX_CROPS = 8


def locate(alpha: Alpha, size_wh: Size, settings: Settings, seen: float | None = None) -> Boxes:
    """Boxes of the connected regions of a coarse alpha map: (h,w) in 0…1 → (N,4) xyxy.

    Regions are of cells from ``settings.haze`` on; those that nowhere reach ``seen``, by default
    ``settings.floor``, are left out. People who touch in the map are one region, hence one box.
    The boxes are scaled to a picture of ``size_wh`` pixels.
    """
    seen = settings.floor if seen is None else seen
    labels = label_regions(alpha >= settings.haze)
    boxes = region_boxes_xyxy(labels)[region_peaks(alpha, labels) >= seen]
    return scaled_xyxy(boxes, alpha.shape, size_wh)


def large(regions_xyxy: Boxes, size_wh: Size, settings: Settings) -> bool:
    """Whether somebody is large in a picture of that size."""
    return bool((_larger_share(regions_xyxy, size_wh) >= settings.small).any())


def parts_xyxy(size_wh: Size, settings: Settings) -> list[Box]:
    """Where to seek people whom the first look overlooks: four overlapping corners of the picture.

    Whoever is a few cells high in the coarse map of the whole picture is easily overlooked;
    in that of a part they are higher, and less stands beside them.
    """
    width, height = (math.ceil(settings.small * side) for side in size_wh)
    return [
        (left, top, left + width, top + height)
        for top in (0, size_wh[1] - height)
        for left in (0, size_wh[0] - width)
    ]


def overlooked_xyxy(
    parts: list[Box], alphas: list[Alpha], regions_xyxy: Boxes, settings: Settings
) -> Boxes:
    """People whom looks at parts of the picture are sure of, apart from known regions: (N,4)."""
    found = [regions_xyxy[:0]]
    for (left, top, right, bottom), alpha in zip(parts, alphas, strict=True):
        boxes = locate(alpha, (right - left, bottom - top), settings, seen=settings.sure)
        found.append(boxes + np.array([left, top, left, top], np.float32))
    apart = apart_xyxy(np.concatenate(found), regions_xyxy)
    return joined_xyxy(apart, at_most=len(apart))  # whom two parts show is one


def extended_xyxy(boxes_xyxy: Boxes, regions_xyxy: Boxes) -> Boxes:
    """Boxes widened to hold every region of the coarse map, see :func:`locate`, they overlap.

    The safeguard against cutting: a hat, a ski, a stroller or a hugging partner that the
    coarse map shows as one with the person lies inside the box, whatever the detector
    thought of it.
    """
    touching = intersection_xyxy(boxes_xyxy, regions_xyxy) > 0
    extended = boxes_xyxy.copy()
    for box, touches in zip(extended, touching, strict=True):
        if touches.any():
            box[:2] = np.minimum(box[:2], regions_xyxy[touches, :2].min(axis=0))
            box[2:] = np.maximum(box[2:], regions_xyxy[touches, 2:].max(axis=0))
    return extended


def apart_xyxy(regions_xyxy: Boxes, boxes_xyxy: Boxes) -> Boxes:
    """The regions of the coarse map that overlap no box: people whom the detector missed."""
    return regions_xyxy[~(intersection_xyxy(regions_xyxy, boxes_xyxy) > 0).any(axis=1)]


def crops_xyxy(boxes_xyxy: Boxes, size_wh: Size, settings: Settings) -> list[Box]:
    """Where to look closer: whole-pixel crops around small people, largest first.

    Each is a square with ``settings.margin`` around the box, as far as the picture goes. Those that
    are not small are left out, because there is nothing to gain, and overlapping ones are joined
    unless that makes such a one.
    """
    longer = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).max(axis=1, initial=0)
    half = np.maximum((0.5 + settings.margin) * longer, settings.min_crop / 2)[:, None]
    centres = (boxes_xyxy[:, :2] + boxes_xyxy[:, 2:]) / 2
    crops = clip_xyxy(np.concatenate((centres - half, centres + half), axis=1), size_wh)
    crops = crops[_small(crops, size_wh, settings)]
    crops = joined_xyxy(crops, MAX_CROPS, fits=lambda hulls: _small(hulls, size_wh, settings))
    crops = crops[_small(crops, size_wh, settings)]
    crops = crops[np.argsort(-area_xyxy(crops), kind="stable")]
    corners = np.concatenate((np.floor(crops[:, :2]), np.ceil(crops[:, 2:])), axis=1).astype(int)
    return [(left, top, right, bottom) for left, top, right, bottom in corners.tolist()]


def scaled_xyxy(boxes_xyxy: Boxes, from_hw: tuple[int, ...], to_wh: Size) -> Boxes:
    """Boxes on a grid of ``from_hw`` cells, on one of ``to_wh`` pixels: (N,4) → (N,4)."""
    factor = np.array(to_wh, np.float32) / np.array(from_hw[::-1], np.float32)
    return boxes_xyxy * np.tile(factor, 2)


def _small(crops_xyxy: Boxes, size_wh: Size, settings: Settings) -> npt.NDArray[np.bool_]:
    return _larger_share(crops_xyxy, size_wh) < settings.small


def _larger_share(boxes_xyxy: Boxes, size_wh: Size) -> npt.NDArray[np.float64]:
    """Of a box's width and height, as shares of the picture's, the larger one: (N,4) → (N,)."""
    sides = boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]
    larger: npt.NDArray[np.float64] = (sides / np.array(size_wh)).max(axis=1, initial=0)
    return larger
