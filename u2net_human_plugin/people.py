"""Where the people are, which of them stay, and where the network should look closer.

Boxes and ``size_wh`` are as in :mod:`u2net_human_plugin.boxes`. All functions are pure.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops

from .boxes import Boxes, Size, area_xyxy, clip_xyxy, intersection_xyxy, joined_xyxy
from .errors import PluginError
from .options import Options
from .regions import grow, label_regions, region_boxes_xyxy, region_peaks

#: Alpha from which a cell of the network's coarse map counts as a person when locating:
#: low, because a small figure gets faint answers, and the closer look decides.
LOCATE_ABOVE = 0.03
#: and a region of such cells is a person's only if one of them has at least this alpha: of
#: what the closer look takes for people, that is mostly wrong where the first look saw less.
SEEN_ABOVE = 0.4
#: Ghosts of things stay below this alpha, real people hardly ever.
SURE_ABOVE = 0.9
#: Sides of the four parts in which overlooked people are sought, as shares of the picture's:
#: who stands in one's corner is whole in another.
PART = 0.6
#: They are sought if no region of the coarse map has a side of this share of the picture's.
LARGE = 0.5
#: Whom only a look at a part finds is somebody from this alpha on: people have more, of the
#: things that such a look takes for people half have less.
SURE_IN_PART = 0.975
#: Regions of the coarse map with fewer cells than this are noise, not people,
MIN_CELLS = 4
#: and so are, in a first look, those with less than this share of the largest region's cells.
MIN_SHARE = 0.01
#: A person is looked at closer when the crop's longer side, as a share of the picture's
#: same side, is below this; beyond it the context that a crop cuts away costs more than
#: the pixels it gains.
CLOSER_BELOW = 0.6
#: Room around a box, as a share of its longer side.
MARGIN = 0.25
#: A crop's shorter side is at least this share of its longer one.
SQUARENESS = 0.5
#: No crop is smaller than this many pixels: enlarged to the network's size it would be a blur.
MIN_CROP = 64
#: More crops than this are joined until so many are left, which bounds time and memory.
MAX_CROPS = 8
#: Longer side of the grid on which people of a finished mask are located and told apart.
GRID = 512


def locate(
    alpha: npt.NDArray[np.float32],
    size_wh: Size,
    above: float = LOCATE_ABOVE,
    seen: float = SEEN_ABOVE,
    min_share: float = MIN_SHARE,
) -> Boxes:
    """Boxes of the connected regions of a coarse alpha map: (h,w) in 0…1 → (N,4) xyxy.

    People who touch in the map are one region, hence one box; at the low default even a
    haze between them joins them. The boxes are scaled to a picture of ``size_wh`` pixels.
    Regions without an alpha of ``seen`` are left out, and so are those with less than
    ``min_share`` of the largest one's cells.
    """
    labels = label_regions(alpha >= above)
    cells = np.bincount(labels.ravel())[1:]
    is_seen = region_peaks(alpha, labels) >= seen
    enough = max(MIN_CELLS, min_share * cells[is_seen].max(initial=0))
    boxes = region_boxes_xyxy(labels)[is_seen & (cells >= enough)]
    return _scaled_xyxy(boxes, alpha.shape, size_wh)


def locate_in_mask(mask: Image.Image) -> Boxes:
    """Boxes of the people in a finished "L" mask: (N,4) xyxy. Who touches in it is one."""
    grid = np.asarray(_on_grid(mask), np.float32) / np.float32(255)
    # What is small in it was looked at closer, and is nobody's noise any more.
    return locate(grid, mask.size, above=SEEN_ABOVE, min_share=0)


def parts_xyxy(regions_xyxy: Boxes, size_wh: Size) -> list[tuple[int, int, int, int]]:
    """Where to seek overlooked people: four corners of the picture; nowhere if somebody is large.

    Whoever is a few cells high in the coarse map of the whole picture is easily overlooked;
    in that of a part they are higher, and less stands beside them. ``regions_xyxy`` is what
    :func:`locate` found in the whole.
    """
    width, height = (math.ceil(PART * side) for side in size_wh)
    shares = _larger_share(regions_xyxy, size_wh)
    if shares.max(initial=0) >= LARGE or min(width, height) < MIN_CROP:
        return []
    return [
        (left, top, left + width, top + height)
        for top in (0, size_wh[1] - height)
        for left in (0, size_wh[0] - width)
    ]


def checked_boxes(found: Any, size_wh: Size) -> Boxes:
    """What a detector returned, checked, clipped to the picture, empty boxes removed.

    Raises:
        PluginError: it is not ``((N,4) boxes, (N,) scores)`` of finite numbers.
    """
    try:
        boxes, scores = (np.asarray(part, np.float32) for part in found)
        fits = boxes.size == scores.size == 0 or boxes.shape == (len(scores), 4)
        fits = fits and scores.ndim == 1 and bool(np.isfinite(boxes).all())
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise PluginError(
            "The detector must return (boxes, scores): finite numbers of shape (N,4), "
            f"left, top, right, bottom in pixels, and (N,); it returned {found!r:.200}."
        )
    boxes = clip_xyxy(boxes.reshape(-1, 4), size_wh)
    return boxes[area_xyxy(boxes) > 0]


def choose(boxes_xyxy: Boxes, options: Options, size_wh: Size) -> npt.NDArray[np.bool_]:
    """Which of the people stay, by ``persons``, ``max_persons`` and ``min_person``: (N,) bool.

    "largest" is by area. "center" is by the distance of the box's centre from the
    picture's, in units of the box's own size, so that a large person a little beside the
    centre wins against a passer-by behind them. Both keep one person unless
    ``max_persons`` asks for more; "all" keeps the ``max_persons`` largest.
    """
    areas = area_xyxy(boxes_xyxy)
    if options.persons == "center":
        centres = (boxes_xyxy[:, :2] + boxes_xyxy[:, 2:]) / 2
        away = np.linalg.norm(centres - np.array(size_wh) / 2, axis=1)
        rank = away / np.sqrt(np.maximum(areas, 1))
    else:
        rank = -areas
    single = options.persons in ("largest", "center")
    limit = options.max_persons or (1 if single else len(boxes_xyxy))
    large_enough = areas >= options.min_person * size_wh[0] * size_wh[1]
    order = np.argsort(rank, kind="stable")
    kept = np.zeros(len(boxes_xyxy), bool)
    kept[order[large_enough[order]][:limit]] = True
    return kept


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


def crops_xyxy(boxes_xyxy: Boxes, size_wh: Size) -> list[tuple[int, int, int, int]]:
    """Where to look closer: whole-pixel crops around small people, largest first.

    Each has :data:`MARGIN` around the box. Those that nearly fill the picture are left out,
    because there is nothing to gain, and overlapping ones are joined unless that makes such a one.
    """
    sides = boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]
    longer = np.maximum(sides.max(axis=1, initial=0), MIN_CROP)[:, None]
    half = np.maximum(sides, SQUARENESS * longer) / 2 + MARGIN * longer
    centres = (boxes_xyxy[:, :2] + boxes_xyxy[:, 2:]) / 2
    crops = clip_xyxy(np.concatenate((centres - half, centres + half), axis=1), size_wh)
    crops = crops[_small(crops, size_wh)]
    crops = joined_xyxy(crops, MAX_CROPS, fits=lambda hulls: _small(hulls, size_wh))
    crops = crops[_small(crops, size_wh)]
    crops = crops[np.argsort(-area_xyxy(crops), kind="stable")]
    corners = np.concatenate((np.floor(crops[:, :2]), np.ceil(crops[:, 2:])), axis=1).astype(int)
    return [(left, top, right, bottom) for left, top, right, bottom in corners.tolist()]


def keep_only(mask: Image.Image, kept_xyxy: Boxes, dropped_xyxy: Boxes) -> Image.Image:
    """Remove from an "L" mask everything that does not belong to a kept person.

    Each connected region of the mask goes to the person whose box it overlaps most, and
    stays or goes with them. A region that several people share is split between their
    boxes: what lies in a dropped person's box alone goes. Regions in nobody's box go.
    """
    grid = _on_grid(mask)
    labels = label_regions(np.asarray(grid) >= 128)
    people = np.concatenate((kept_xyxy, dropped_xyxy))
    boxes = _scaled_xyxy(people, (mask.height, mask.width), grid.size)
    is_kept = np.arange(len(people)) < len(kept_xyxy)

    # -1: goes, 0: undecided, +1: stays.
    fate = np.zeros(labels.shape, np.int8)
    shares = _cells_in_boxes(labels, boxes)
    main_region = shares.argmax(axis=1) if shares.size else np.zeros(len(people), int)
    for region in range(1, labels.max(initial=0) + 1):
        owners = np.flatnonzero((main_region == region - 1) & (shares[:, region - 1] > 0))
        if not len(owners):
            best = int(shares[:, region - 1].argmax()) if len(people) else 0
            owners = np.array([best] if len(people) and shares[best, region - 1] > 0 else [], int)
        cells = labels == region
        if is_kept[owners].all():
            fate[cells] = 1 if len(owners) else -1
        elif not is_kept[owners].any():
            fate[cells] = -1
        else:
            mine = _distance(labels.shape, boxes[owners[is_kept[owners]]])
            others = _distance(labels.shape, boxes[owners[~is_kept[owners]]])
            fate[cells] = np.where(mine <= others, 1, -1)[cells]
    # Soft edges reach beyond the cells above one half.
    fate = grow(fate, steps=max(2, max(grid.size) // 40))
    stencil = Image.fromarray(np.where(fate == 1, 255, 0).astype(np.uint8))
    return ImageChops.multiply(mask, stencil.resize(mask.size, Image.Resampling.BILINEAR))


def _small(crops_xyxy: Boxes, size_wh: Size) -> npt.NDArray[np.bool_]:
    return _larger_share(crops_xyxy, size_wh) < CLOSER_BELOW


def _larger_share(boxes_xyxy: Boxes, size_wh: Size) -> npt.NDArray[np.float64]:
    """Of a box's width and height, as shares of the picture's, the larger one: (N,4) → (N,)."""
    sides = boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]
    larger: npt.NDArray[np.float64] = (sides / np.array(size_wh)).max(axis=1, initial=0)
    return larger


def _on_grid(mask: Image.Image) -> Image.Image:
    """The mask, reduced to :data:`GRID` if it is larger."""
    scale = min(1.0, GRID / max(mask.size))
    size = (max(1, round(mask.width * scale)), max(1, round(mask.height * scale)))
    return mask.resize(size, Image.Resampling.BOX)


def _scaled_xyxy(boxes_xyxy: Boxes, from_hw: tuple[int, ...], to_wh: Size) -> Boxes:
    factor = np.array(to_wh, np.float32) / np.array(from_hw[::-1], np.float32)
    return boxes_xyxy * np.tile(factor, 2)


def _cells_in_boxes(labels: npt.NDArray[np.int32], boxes_xyxy: Boxes) -> npt.NDArray[np.int64]:
    """How many cells of each region lie in each box: (N boxes, M regions)."""
    count = int(labels.max(initial=0))
    corners = np.concatenate((np.floor(boxes_xyxy[:, :2]), np.ceil(boxes_xyxy[:, 2:])), axis=1)
    rows = [
        np.bincount(labels[top:bottom, left:right].ravel(), minlength=count + 1)[1:]
        for left, top, right, bottom in corners.astype(int).tolist()
    ]
    return np.array(rows, np.int64).reshape(len(boxes_xyxy), count)


def _distance(shape: tuple[int, ...], boxes_xyxy: Boxes) -> npt.NDArray[np.float32]:
    """From each cell to the nearest of the boxes, zero inside one: (H,W)."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32) + 0.5
    nearest = np.full(shape, np.inf, np.float32)
    for left, top, right, bottom in boxes_xyxy:
        dx = np.maximum(np.maximum(left - x, x - right), 0)
        dy = np.maximum(np.maximum(top - y, y - bottom), 0)
        nearest = np.minimum(nearest, np.hypot(dx, dy))
    return nearest
