"""Which of several people stay, and how a mask is divided between those who touch in it.

Boxes and ``size_wh`` are as in :mod:`u2net_human_plugin.boxes`. All functions are pure.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from .boxes import Boxes, Size, area_xyxy, clip_xyxy
from .errors import PluginError
from .options import Options
from .people import scaled_xyxy
from .regions import label_regions, region_boxes_xyxy

#: Longer sides of the grids on which people of a finished mask are located and divided: on a
#: coarser one a dividing line is straight for longer.
LOCATING_GRID, DIVIDING_GRID = 512, 1024
#: The part of a person's box around its centre whose cells are surely theirs, unless they are
#: nearer to the centre of somebody else's box: as a share of its sides.
CORE = 0.2
#: So are the cells that lie farther than this inside their box and outside everybody else's, as a
#: share of a box's sides: nearer, it is not exact enough.
BESIDE = 0.1
#: What a step costs beside its change of colour, as the square of grey levels: less, and ways go
#: around edges.
_LENGTH = 5.0
#: What becomes of a cell of the mask.
STAYS, GOES = 1, 2
#: Every step to a neighbour: where from, where to, and its length.
_STEPS = (
    (np.s_[:, :-1], np.s_[:, 1:], 1.0),
    (np.s_[:-1], np.s_[1:], 1.0),
    (np.s_[:-1, :-1], np.s_[1:, 1:], 2**0.5),
    (np.s_[:-1, 1:], np.s_[1:, :-1], 2**0.5),
)

Labels = npt.NDArray[np.int32]


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


def people_in_mask(mask: Image.Image) -> Boxes:
    """Boxes of the people in a finished "L" mask: (N,4) xyxy.

    Each connected region is somebody; one with several heads side by side is several people.
    """
    on_grid = np.asarray(_on_grid(mask, LOCATING_GRID)) >= 128
    labels = label_regions(on_grid)
    boxes = [
        box
        for number, around in enumerate(region_boxes_xyxy(labels).astype(int).tolist(), 1)
        for box in _heads_apart(labels == number, around)
    ]
    return scaled_xyxy(np.array(boxes, np.float32).reshape(-1, 4), on_grid.shape, mask.size)


def keep_only(mask: Image.Image, rgb: Image.Image, kept_xyxy: Boxes, dropped_xyxy: Boxes) -> None:
    """Remove from an "L" mask, in place, everything that does not belong to a kept person.

    Each connected region of the mask goes to the person whose box it overlaps most, and
    stays or goes with them. A region that several people share is divided along the
    picture's own edges, starting from the core of each one's box and from what lies in that box
    alone. Regions in nobody's box go.

    Args:
        mask: mode "L".
        rgb: the picture, mode "RGB", of the same size.
        kept_xyxy: boxes of those who stay.
        dropped_xyxy: boxes of those who do not.
    """
    grid = _on_grid(mask, DIVIDING_GRID)
    labels = label_regions(np.asarray(grid) >= 128)
    people = np.concatenate((kept_xyxy, dropped_xyxy))
    boxes = scaled_xyxy(people, (mask.height, mask.width), grid.size)
    fates = np.where(np.arange(len(people)) < len(kept_xyxy), STAYS, GOES)
    known = np.array([0, GOES, *fates], np.uint8)[_markers(labels, boxes)]
    if not (known == STAYS).any():
        mask.paste(0, (0, 0, *mask.size))
        return
    goes = _spread(known, labels, rgb) == GOES
    stencil = Image.fromarray(np.where(goes, 255, 0).astype(np.uint8))
    mask.paste(0, (0, 0), stencil.resize(mask.size, Image.Resampling.BILINEAR))


def _spread(
    known: npt.NDArray[np.uint8], labels: Labels, rgb: Image.Image
) -> npt.NDArray[np.uint8]:
    """Give every cell the value of the known one from which the way changes colour least: (H,W).

    The geodesic segmentation of Bai and Sapiro (2007): a way costs its steps' differences of
    colour, squared so that one edge is dearer than many small ones, and its length. Ways stay in
    the regions; beyond them, who is nearest has a cell.
    """
    from scipy import ndimage, sparse

    inside = labels > 0
    if (inside & (known == 0)).any():
        # Every way crosses noise; the edges between people stand out of it when it is smoothed.
        colours = np.asarray(rgb.resize(inside.shape[::-1], Image.Resampling.BOX), np.float32)
        colours = ndimage.gaussian_filter(colours, (1, 1, 0))
        # scipy before 1.12 takes no other indices.
        number = np.arange(inside.size, dtype=np.int32).reshape(inside.shape)
        starts, ends, costs = [], [], []
        for one, other, length in _STEPS:
            both = inside[one] & inside[other]
            change = np.abs(colours[one] - colours[other]).max(axis=2)
            starts.append(number[one][both])
            ends.append(number[other][both])
            costs.append((change**2 + _LENGTH * length)[both])
        ways = sparse.coo_array(
            (np.concatenate(costs), (np.concatenate(starts), np.concatenate(ends))),
            shape=(inside.size, inside.size),
        )
        sources = np.flatnonzero(known)
        *_, nearest = sparse.csgraph.dijkstra(
            ways.tocsr(), directed=False, indices=sources, min_only=True, return_predecessors=True
        )
        reached = nearest >= 0  # what is beyond the regions is not
        known = np.where(reached, known.ravel()[nearest.clip(0)], 0).reshape(inside.shape)
    indices = ndimage.distance_transform_edt(
        known == 0, return_distances=False, return_indices=True
    )
    return np.asarray(known[tuple(indices)])


def _markers(labels: Labels, boxes_xyxy: Boxes) -> Labels:
    """What is whose for sure: (H,W), 0 = not known, 1 = nobody's, 2 + n = that of box n."""
    count = int(labels.max(initial=0))
    shares = _cells_in_boxes(labels, boxes_xyxy)
    main = shares.argmax(axis=1) + 1 if shares.size else np.zeros(len(boxes_xyxy), int)
    markers = np.zeros(labels.shape, np.int32)
    for region in range(1, count + 1):
        cells = labels == region
        owners = np.flatnonzero((main == region) & (shares[:, region - 1] > 0))
        if not len(owners):  # a hat above a gap, or nobody
            best = int(shares[:, region - 1].argmax()) if len(boxes_xyxy) else 0
            nobody = not len(boxes_xyxy) or not shares[best, region - 1]
            markers[cells] = 1 if nobody else 2 + best
        elif len(owners) == 1:
            markers[cells] = 2 + owners[0]
        else:
            away = np.stack([_from_centre(labels.shape, boxes_xyxy[owner]) for owner in owners])
            away[:, ~cells] = np.inf
            nearest = away.argmin(axis=0)
            near = [_within(labels.shape, boxes_xyxy[owner], BESIDE) for owner in owners]
            alone = cells & (np.sum(near, axis=0) == 1)
            for number, owner in enumerate(owners):
                mine = np.where(nearest == number, away[number], np.inf)
                core = np.isfinite(mine) & (mine <= max(CORE, mine.min()))
                inner = _within(labels.shape, boxes_xyxy[owner], -BESIDE)
                markers[core | alone & inner] = 2 + owner
    return markers


def _from_centre(shape: tuple[int, ...], box: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """How far each cell is from a box's centre; 1 at the ellipse in the box: (H,W)."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    across = np.abs(2 * (x + 0.5) - box[0] - box[2]) / max(1, box[2] - box[0])
    down = np.abs(2 * (y + 0.5) - box[1] - box[3]) / max(1, box[3] - box[1])
    away: npt.NDArray[np.float32] = np.hypot(across, down).astype(np.float32)
    return away


def _within(
    shape: tuple[int, ...], box: npt.NDArray[np.float32], room: float
) -> npt.NDArray[np.bool_]:
    """Which cells lie in a box that is larger by a share of its sides on every side: (H,W)."""
    left, top, right, bottom = box.tolist()
    across, down = room * (right - left), room * (bottom - top)
    within = np.zeros(shape, bool)
    rows = slice(max(0, round(top - down)), round(bottom + down))
    within[rows, max(0, round(left - across)) : round(right + across)] = True
    return within


def _heads_apart(region: npt.NDArray[np.bool_], box: list[int]) -> list[list[int]]:
    """Boxes of the people side by side in one region, of whom each has a head of their own.

    Heads are the peaks of the region's upper contour, as broad as heads are and as high; what
    lies between two valleys of that contour is one person's, if it is a quarter of the largest
    one's or more. One box if that is not so.
    """
    from scipy import signal

    left, top, right, bottom = box
    part = region[top:bottom, left:right]
    height = part.shape[0]
    contour = np.where(part.any(axis=0), height - part.argmax(axis=0), 0)
    # Of two equal peaks the one on the right counts as the higher: both would stand out otherwise,
    # however shallow the dip between them, and hair with a parting be two heads.
    tilted = np.pad(contour, 1) + np.linspace(0, 0.5, len(contour) + 2)
    peaks, _ = signal.find_peaks(
        tilted, prominence=0.1 * height, width=0.07 * height, rel_height=0.5
    )
    valleys = [
        int(one + contour[one:other].argmin())
        for one, other in zip(peaks[:-1] - 1, peaks[1:] - 1, strict=True)
    ]
    slices = [slice(*ends) for ends in zip([0, *valleys], [*valleys, right - left], strict=True)]
    cells = np.array([part[:, columns].sum() for columns in slices])
    if len(slices) == 1 or cells.min() < cells.max() / 4:
        return [box]
    found = []
    for columns in slices:
        rows = np.flatnonzero(part[:, columns].any(axis=1))
        found.append(
            [left + columns.start, top + int(rows[0]), left + columns.stop, top + int(rows[-1]) + 1]
        )
    return found


def _cells_in_boxes(labels: Labels, boxes_xyxy: Boxes) -> npt.NDArray[np.int64]:
    """How many cells of each region lie in each box: (N boxes, M regions)."""
    count = int(labels.max(initial=0))
    corners = np.concatenate((np.floor(boxes_xyxy[:, :2]), np.ceil(boxes_xyxy[:, 2:])), axis=1)
    rows = [
        np.bincount(labels[top:bottom, left:right].ravel(), minlength=count + 1)[1:]
        for left, top, right, bottom in corners.astype(int).tolist()
    ]
    return np.array(rows, np.int64).reshape(len(boxes_xyxy), count)


def _on_grid(mask: Image.Image, longer_side: int) -> Image.Image:
    """The mask, reduced to that size if it is larger."""
    scale = min(1.0, longer_side / max(mask.size))
    size = (max(1, round(mask.width * scale)), max(1, round(mask.height * scale)))
    return mask.resize(size, Image.Resampling.BOX)
