"""Connected regions of a small mask. scipy, which both hosts bring, is imported when first used."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.int32]


def label_regions(mask: npt.NDArray[np.bool_]) -> Labels:
    """Number the 8-connected regions of a mask: (H,W) bool → (H,W) int32, 0 = background."""
    labels: Labels = _ndimage().label(mask, np.ones((3, 3)))[0]
    return labels


def region_boxes_xyxy(labels: Labels) -> npt.NDArray[np.float32]:
    """Bounding boxes of the regions 1…N: (N,4) left, top, right, bottom (exclusive)."""
    slices = _ndimage().find_objects(labels)
    boxes = [(x.start, y.start, x.stop, y.stop) for y, x in slices]
    return np.array(boxes, np.float32).reshape(-1, 4)


def region_peaks(values: npt.NDArray[np.float32], labels: Labels) -> npt.NDArray[np.float32]:
    """The highest of the values (H,W) in each of the regions 1…N: (N,)."""
    peaks = np.zeros(labels.max(initial=0) + 1, np.float32)
    np.maximum.at(peaks, labels, values)
    return peaks[1:]


def _ndimage() -> Any:
    from scipy import ndimage

    return ndimage
