"""Connected regions of a small mask, in numpy alone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]


class Runs(NamedTuple):
    """The runs of set cells in each row of a mask, all (R,): where they are and whose.

    ``starts`` and ``ends`` (exclusive) are columns; ``regions`` counts from 1.
    """

    rows: Indices
    starts: Indices
    ends: Indices
    regions: Indices


def region_runs(mask: npt.NDArray[np.bool_]) -> Runs:
    """Find the 8-connected regions of a mask (H,W), as the runs of cells they consist of.

    Runs are joined with those they touch in the row above by union-find (Rosenfeld and
    Pfaltz, 1966).
    """
    height, width = mask.shape
    padded = np.zeros((height, width + 2), np.int8)
    padded[:, 1:-1] = mask
    step = np.diff(padded, axis=1)
    rows, starts = np.nonzero(step == 1)
    ends = np.nonzero(step == -1)[1]
    roots = _join_runs(rows, starts, ends, height)
    regions = np.unique(roots, return_inverse=True)[1].reshape(-1) + 1
    return Runs(rows, starts, ends, regions)


def label_regions(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """Number the regions of a mask: (H,W) bool → (H,W) int32, 0 = background."""
    height, width = mask.shape
    rows, starts, ends, regions = region_runs(mask)
    # Each run writes its number where it starts and takes it back where it ends.
    change = np.zeros((height, width + 1), np.int32)
    np.add.at(change, (rows, starts), regions)
    np.subtract.at(change, (rows, ends), regions)
    labels: npt.NDArray[np.int32] = np.cumsum(change, axis=1, dtype=np.int32)[:, :width]
    return labels


def region_boxes_xyxy(runs: Runs) -> npt.NDArray[np.float32]:
    """Bounding boxes of the regions 1…N: (N,4) left, top, right, bottom (exclusive)."""
    count = int(runs.regions.max(initial=0))
    boxes = np.zeros((count, 4), np.float32)
    boxes[:, :2] = np.inf
    for column, edge, extreme in (
        (0, runs.starts, np.minimum),
        (1, runs.rows, np.minimum),
        (2, runs.ends, np.maximum),
        (3, runs.rows + 1, np.maximum),
    ):
        extreme.at(boxes[:, column], runs.regions - 1, edge)
    return boxes


def region_cells(runs: Runs) -> npt.NDArray[np.float64]:
    """How many cells the regions 1…N have: (N,)."""
    cells = np.zeros(int(runs.regions.max(initial=0)))
    np.add.at(cells, runs.regions - 1, runs.ends - runs.starts)
    return cells


def region_peaks(values: npt.NDArray[np.float32], runs: Runs) -> npt.NDArray[np.float32]:
    """The highest of the values (H,W) in each of the regions 1…N: (N,)."""
    width = values.shape[1]
    # Every other one is a run's maximum; the cell at the end is for runs that end there.
    bounds = np.stack((runs.starts, runs.ends), axis=1) + width * runs.rows[:, None]
    flat = np.append(values, values.dtype.type(0))
    highest = np.maximum.reduceat(flat, bounds.ravel())[::2] if bounds.size else flat[:0]
    peaks = np.zeros(int(runs.regions.max(initial=0)), values.dtype)
    np.maximum.at(peaks, runs.regions - 1, highest)
    return peaks


def without_weak_regions(
    values: npt.NDArray[np.float32], low: float, high: float
) -> npt.NDArray[np.float32]:
    """Set to zero the regions of cells from ``low`` on that nowhere reach ``high``: (H,W).

    The hysteresis thresholding of Canny's edge detector (1986), for a soft map: what
    stays keeps its values. Returns ``values`` itself if nothing goes.
    """
    runs = region_runs(values >= low)
    weak = (region_peaks(values, runs) < high)[runs.regions - 1]
    if not weak.any():
        return values
    values = values.copy()
    for row, start, end in zip(runs.rows[weak], runs.starts[weak], runs.ends[weak], strict=True):
        values[row, start:end] = 0
    return values


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
    rows: Indices,
    starts: Indices,
    ends: Indices,
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
