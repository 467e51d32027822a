"""How good a mask is: pure functions on arrays, each with one fixed definition.

A *mask* here is (H,W): bool; or uint8 in 0…255; or float in 0…1. Where a definition needs
two classes, everything from one half up is person (:func:`binary`). The predicted mask
always comes first, and both masks have the picture's own size.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageEnhance, ImageOps
from scipy import ndimage

Mask = npt.NDArray[Any]
Binary = npt.NDArray[np.bool_]

#: Width of the contour's surroundings, as a share of the picture's diagonal.
BOUNDARY = 0.02
#: A mask that covers less of the picture than this counts as empty.
EMPTY = 0.005
#: People of whom less than this share is marked are missed altogether.
MISSED = 0.1


def binary(mask: Mask) -> Binary:
    """Person or not: bool as it is, uint8 from 128 up, float from 0.5 up.

    Shape:
        - mask: (H,W); returns (H,W) bool.
    """
    if mask.dtype == np.bool_:
        return mask
    return mask >= (128 if mask.dtype == np.uint8 else 0.5)


def iou(predicted: Mask, truth: Mask) -> float:
    """Intersection over union at 0.5, in 0…1. Two masks without a person: 1.

    Shape:
        - predicted, truth: (H,W).
    """
    predicted, truth = _pair(predicted, truth)
    union = int(np.count_nonzero(predicted | truth))
    return int(np.count_nonzero(predicted & truth)) / union if union else 1.0


def boundary_iou(predicted: Mask, truth: Mask, width: float = BOUNDARY) -> float:
    """Boundary IoU, in 0…1: the IoU of the two masks' inner rims.

    A rim is what an erosion by ``d`` pixels takes away, ``d`` being ``width`` of the
    diagonal, rounded, and at least 1. As in the authors' own evaluation code, distance is
    the larger of the horizontal and the vertical one, and the picture's edge counts as
    contour where a mask touches it. Two masks without a person: 1; one of them: 0.

    Cheng et al., "Boundary IoU: Improving Object-Centric Image Segmentation Evaluation",
    CVPR 2021, arXiv:2103.16562.

    Shape:
        - predicted, truth: (H,W).
    """
    predicted, truth = _pair(predicted, truth)
    reach = max(1, round(_reach(truth, width)))
    return iou(predicted & ~_eroded(predicted, reach), truth & ~_eroded(truth, reach))


def boundary_accuracy(predicted: Mask, truth: Mask, width: float = BOUNDARY) -> float:
    """Share of pixels on the right side near the true contour, in 0…1.

    Near is a Euclidean distance of at most ``width`` of the diagonal from the closest
    pixel of the other class in ``truth``, on both sides; the picture's edge is no contour.
    A truth without a contour (nobody, or nothing else) is judged by all its pixels.

    Shape:
        - predicted, truth: (H,W).
    """
    predicted, truth = _pair(predicted, truth)
    rows, columns, band = _contour_band(truth, _reach(truth, width))
    right = predicted[rows, columns] == truth[rows, columns]
    return float(right[band].mean())


def mae(predicted: Mask, truth: Mask) -> float:
    """Mean absolute error of the soft mask, in 0…1; lower is better.

    Shape:
        - predicted, truth: (H,W).
    """
    _check(predicted, truth)
    difference = _soft(predicted) - _soft(truth)
    return float(np.abs(difference, out=difference).mean(dtype=np.float64))


def is_empty(mask: Mask, share: float = EMPTY) -> bool:
    """Whether the person's pixels are fewer than ``share`` of the picture.

    Shape:
        - mask: (H,W).
    """
    return bool(np.count_nonzero(binary(mask)) < share * mask.size)


def is_missed(predicted: Mask, truth: Mask, share: float = MISSED) -> bool:
    """Whether less than ``share`` of the people in ``truth`` is marked.

    However small they are; :func:`is_empty` would call a well marked figure of a few pixels
    empty.

    Shape:
        - predicted, truth: (H,W); somebody is in ``truth``.
    """
    found = np.count_nonzero(binary(predicted) & binary(truth))
    return bool(found < share * np.count_nonzero(binary(truth)))


class Version(NamedTuple):
    """A changed picture and how its mask lies over the mask of the unchanged one."""

    name: str
    image: Image.Image
    #: Mask of the changed picture → the part that both show, as the unchanged one shows it.
    restore: Callable[[Mask], Mask]
    #: Mask of the unchanged picture → the part that both show.
    visible: Callable[[Mask], Mask]


def versions(image: Image.Image) -> Iterator[Version]:
    """The changes that should not change a mask: five of them, drawn one at a time.

    Mirrored; 15 % brighter; 15 % darker; saved as JPEG at quality 60; moved by 3 % of its
    width and height to the lower right, the gap filled with the outermost pixels.

    Shape:
        - image: RGB, W x H; every version has the same size.
    """

    def same(mask: Mask) -> Mask:
        return mask

    yield Version("mirrored", ImageOps.mirror(image), lambda mask: mask[:, ::-1], same)
    brightness = ImageEnhance.Brightness(image)
    yield Version("brighter", brightness.enhance(1.15), same, same)
    yield Version("darker", brightness.enhance(0.85), same, same)
    with io.BytesIO() as file:
        image.save(file, "JPEG", quality=60)
        decoded = Image.open(file).convert("RGB")
    yield Version("jpeg", decoded, same, same)
    right, down = max(1, round(0.03 * image.width)), max(1, round(0.03 * image.height))
    moved = np.pad(np.asarray(image), ((down, 0), (right, 0), (0, 0)), "edge")
    yield Version(
        "moved",
        Image.fromarray(moved[: image.height, : image.width]),
        lambda mask: mask[down:, right:],
        lambda mask: mask[: mask.shape[0] - down, : mask.shape[1] - right],
    )


def visual_consistency(
    segment: Callable[[Image.Image], Mask], image: Image.Image, mask: Mask | None = None
) -> float:
    """Mean IoU, in 0…1, between a picture's mask and those of its :func:`versions`.

    Only what a version still shows is compared; no true mask is needed.

    Args:
        segment: picture → mask of the picture's size.
        image: the picture, RGB.
        mask: ``segment(image)``, if it is there already.

    Shape:
        - image: W x H; mask: (H,W).
    """
    reference = segment(image) if mask is None else mask
    return float(
        np.mean(
            [
                iou(version.restore(segment(version.image)), version.visible(reference))
                for version in versions(image)
            ]
        )
    )


def _check(predicted: Mask, truth: Mask) -> None:
    if predicted.shape != truth.shape or truth.ndim != 2 or truth.size == 0:
        raise ValueError(
            f"masks of one size are compared, (H,W): got {predicted.shape} and {truth.shape}."
        )


def _pair(predicted: Mask, truth: Mask) -> tuple[Binary, Binary]:
    _check(predicted, truth)
    return binary(predicted), binary(truth)


def _soft(mask: Mask) -> npt.NDArray[np.float32]:
    soft = mask.astype(np.float32)
    if mask.dtype == np.uint8:
        soft /= np.float32(255)
    return soft


def _reach(mask: Mask, width: float) -> float:
    return width * float(np.hypot(*mask.shape))


def _eroded(mask: Binary, reach: int) -> Binary:
    """Erosion by a square of side 2·reach+1; outside the picture there is no person."""
    # Two passes along the axes cost the same for every reach: 0.1 s for 12 megapixels.
    eroded = mask.view(np.uint8) if mask.flags.c_contiguous else mask.astype(np.uint8)
    for axis in (1, 0):
        eroded = ndimage.minimum_filter1d(eroded, 2 * reach + 1, axis=axis, mode="constant")
    return eroded.view(np.bool_)


def _contour_band(truth: Binary, reach: float) -> tuple[slice, slice, Binary]:
    """The pixels within ``reach`` of the other class: a window, and a mask inside of it."""
    whole = slice(0, truth.shape[0]), slice(0, truth.shape[1])
    if truth.all() or not truth.any():
        return *whole, np.ones_like(truth)
    # Distances are wanted only around the person: exact transforms are slow on large photos.
    margin = int(reach) + 1
    rows, columns = (
        slice(max(0, int(found[0]) - margin), int(found[-1]) + 1 + margin)
        for found in (np.flatnonzero(truth.any(axis=axis)) for axis in (1, 0))
    )
    window = truth[rows, columns]
    # A pixel is 1 away from its neighbour, so half a pixel away from the contour itself:
    # the same rule on both sides.
    inside = ndimage.distance_transform_edt(window)
    outside = ndimage.distance_transform_edt(~window)
    return rows, columns, np.where(window, inside, outside) <= reach
