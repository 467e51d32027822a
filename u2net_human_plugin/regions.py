"""Connected regions of a small mask, in numpy alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def label_regions(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """Number the 8-connected regions of a mask: (H,W) bool → (H,W) int32, 0 = background.

    Works on runs of set cells in each row, joined with the runs they touch in the row
    above by union-find (Rosenfeld and Pfaltz, 1966).
    """
    height, width = mask.shape
    padded = np.zeros((height, width + 2), np.int8)
    padded[:, 1:-1] = mask
    step = np.diff(padded, axis=1)
    rows, starts = np.nonzero(step == 1)
    ends = np.nonzero(step == -1)[1]
    roots = _join_runs(rows, starts, ends, height)
    numbers = np.unique(roots, return_inverse=True)[1].reshape(-1) + 1

    # Each run writes its number where it starts and takes it back where it ends.
    change = np.zeros((height, width + 1), np.int32)
    np.add.at(change, (rows, starts), numbers)
    np.subtract.at(change, (rows, ends), numbers)
    labels: npt.NDArray[np.int32] = np.cumsum(change, axis=1, dtype=np.int32)[:, :width]
    return labels


def region_boxes_xyxy(labels: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
    """Bounding boxes of the regions 1…N: (H,W) → (N,4) left, top, right, bottom (exclusive)."""
    count = int(labels.max(initial=0))
    rows, columns = np.nonzero(labels)
    region = labels[rows, columns] - 1
    boxes = np.zeros((count, 4), np.float32)
    boxes[:, :2] = max(labels.shape, default=0)
    np.minimum.at(boxes[:, 0], region, columns)
    np.minimum.at(boxes[:, 1], region, rows)
    np.maximum.at(boxes[:, 2], region, columns + 1)
    np.maximum.at(boxes[:, 3], region, rows + 1)
    return boxes


def grow(values: npt.NDArray[np.int8], steps: int) -> npt.NDArray[np.int8]:
    """Spread non-zero values into the zeros around them, one cell in every step.

    Where two values meet, each keeps its ground; at a tie the larger one wins.
    """
    values = values.copy()
    for _ in range(steps):
        around = np.zeros_like(values)
        for target, source in _NEIGHBOURS:
            here, there = around[target], values[source]
            np.copyto(here, np.where(here == 0, there, np.maximum(here, there)), where=there != 0)
        values = np.where(values == 0, around, values)
    return values


_NEIGHBOURS = (
    (np.s_[1:, :], np.s_[:-1, :]),
    (np.s_[:-1, :], np.s_[1:, :]),
    (np.s_[:, 1:], np.s_[:, :-1]),
    (np.s_[:, :-1], np.s_[:, 1:]),
)


def _join_runs(
    rows: npt.NDArray[np.int64],
    starts: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
    height: int,
) -> list[int]:
    """For each run, the first run of its region."""
    parent = list(range(len(rows)))

    def root(run: int) -> int:
        while parent[run] != run:
            parent[run] = parent[parent[run]]
            run = parent[run]
        return run

    first = np.searchsorted(rows, np.arange(height + 1)).tolist()
    left, right = starts.tolist(), ends.tolist()
    for row in range(1, height):
        above, here = first[row - 1], first[row]
        while above < first[row] and here < first[row + 1]:
            # Ends are exclusive, so "<=" lets runs touch at a corner.
            if left[above] <= right[here] and left[here] <= right[above]:
                one, other = root(above), root(here)
                parent[max(one, other)] = min(one, other)
            if right[above] < right[here]:
                above += 1
            else:
                here += 1
    return [root(run) for run in range(len(rows))]
