"""Measures of soft masks: the errors of alpha matting, of the colours at the edge, and haze.

The four errors are those of Rhemann, Rother, Wang, Gelautz, Kohli and Rott, "A Perceptually
Motivated Online Benchmark for Image Matting", CVPR 2009, with the parameters of the authors'
evaluation code. They are summed or averaged over the *unknown band*, the widened part of the true
matte that is neither surely person nor surely background (:func:`unknown_band`). Masks are (H,W),
uint8 in 0…255 or float in 0…1, the predicted one first, at the picture's own size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Mask = npt.NDArray[Any]
Binary = npt.NDArray[np.bool_]
Alpha = npt.NDArray[np.float32]

#: Alpha between these is half transparent.
LOW, HIGH = 0.05, 0.95
#: How far the unknown band reaches from what is half transparent in the true matte, and from its
#: contour, as a share of the picture's diagonal.
BAND = 0.02
#: A true matte has at least this share of half-transparent pixels; with fewer it is a mask.
MATTE = 0.0005

_SIGMA = 1.4
_STEP, _VISIBLE = 0.1, 0.15


def is_matte(truth: Mask) -> bool:
    """Whether a true mask has soft edges; without them the errors of matting mean nothing."""
    return float(_half(alpha(truth)).mean()) >= MATTE


def unknown_band(truth: Mask, width: float = BAND) -> Binary:
    """The widened part of the true matte that is half transparent, and its contour.

    It is made like a trimap: the surely opaque and the surely transparent part are eroded by a
    square that reaches ``width`` of the diagonal to every side; the band is the rest.

    Shape:
        - truth: (H,W); returns (H,W) bool.
    """
    true = alpha(truth)
    reach = max(1, round(width * float(np.hypot(*true.shape))))
    return ~(_eroded(true >= HIGH, reach) | _eroded(true <= LOW, reach))


def sad(predicted: Mask, truth: Mask, unknown: Binary) -> float:
    """Sum of absolute differences over ``unknown``, in thousands of pixels.

    Shape:
        - predicted, truth, unknown: (H,W).
    """
    return float(np.abs(alpha(predicted) - alpha(truth))[unknown].sum(dtype=np.float64)) / 1000


def mse(predicted: Mask, truth: Mask, unknown: Binary) -> float:
    """Mean squared error over ``unknown``, in 0…1; 0 if nothing is unknown.

    Shape:
        - predicted, truth, unknown: (H,W).
    """
    if not unknown.any():
        return 0.0
    difference = (alpha(predicted) - alpha(truth))[unknown]
    return float(np.square(difference).mean(dtype=np.float64))


def gradient_error(predicted: Mask, truth: Mask, unknown: Binary) -> float:
    """Grad: squared differences of the gradients' magnitudes, summed over ``unknown``, / 1000.

    Gradients are convolutions with derivatives of a Gaussian of σ = 1.4, of unit norm.

    Shape:
        - predicted, truth, unknown: (H,W).
    """
    difference = _gradient(alpha(predicted)) - _gradient(alpha(truth))
    return float(np.square(difference[unknown]).sum(dtype=np.float64)) / 1000


def connectivity_error(predicted: Mask, truth: Mask, unknown: Binary) -> float:
    """Conn: differences of how connected each pixel is, summed over ``unknown``, / 1000.

    A pixel is connected up to the highest of the levels 0, 0.1 … 1 at which it belongs to the
    largest 4-connected region where both mattes reach that level. The more its alpha exceeds the
    level, the less connected it is; an excess below 0.15 does not count.

    Shape:
        - predicted, truth, unknown: (H,W).
    """
    one, other = alpha(predicted), alpha(truth)
    both = np.minimum(one, other)
    level = np.zeros(both.shape, np.float32)
    connected = np.ones(both.shape, bool)
    for step in range(1, round(1 / _STEP) + 1):
        # 8-bit steps: 0.1 · 255 is no whole number, and must not decide what reaches a level.
        connected &= _largest_region(both >= np.float32(step * _STEP) - np.float32(1e-6))
        level[connected] = step * _STEP
    difference = np.abs(_connectivity(one, level) - _connectivity(other, level))
    return float(difference[unknown].sum(dtype=np.float64)) / 1000


def colour_error(predicted: Mask, truth: Mask, unknown: Binary) -> float:
    """Mean absolute difference of the colours times alpha over ``unknown``, in 0…1.

    Colours count as far as they are visible: not at all where alpha is 0. 0 if nothing is unknown.

    Shape:
        - predicted, truth: (H,W,4) RGBA, colours not multiplied by alpha; unknown: (H,W).
    """
    if not unknown.any():
        return 0.0
    one, other = (alpha(rgba[unknown]) for rgba in (predicted, truth))
    difference = one[:, :3] * one[:, 3:] - other[:, :3] * other[:, 3:]
    return float(np.abs(difference).mean(dtype=np.float64))


def haze(predicted: Mask, band: Binary) -> float:
    """Share of half-transparent pixels (5 to 95 %) away from every true contour, in 0…1.

    Away means outside ``band``, the true mask's :func:`unknown_band`; 0 if nothing is outside.

    Shape:
        - predicted, band: (H,W).
    """
    away = ~band
    return float(_half(alpha(predicted))[away].mean()) if away.any() else 0.0


def alpha(mask: Mask) -> Alpha:
    """A mask, or a picture, as float32 in 0…1, of the same shape."""
    soft = mask.astype(np.float32)
    return soft / np.float32(255) if mask.dtype == np.uint8 else soft


def _half(values: Alpha) -> Binary:
    return (values >= LOW) & (values <= HIGH)


def _eroded(mask: Binary, reach: int) -> Binary:
    """Erosion by a square of side 2·reach+1; the picture's edge is repeated outside."""
    eroded = mask.astype(np.uint8)
    for axis in (1, 0):
        eroded = ndimage.minimum_filter1d(eroded, 2 * reach + 1, axis=axis, mode="nearest")
    return eroded.astype(bool)


def _gradient(values: Alpha) -> Alpha:
    # As far as the authors' kernel reaches: where the Gaussian falls below 0.01.
    reach = int(np.ceil(_SIGMA * np.sqrt(-2 * np.log(np.sqrt(2 * np.pi) * _SIGMA * 0.01))))
    x = np.arange(-reach, reach + 1, dtype=np.float64)
    bell = np.exp(-(x**2) / (2 * _SIGMA**2))
    slope = x * bell
    bell, slope = (kernel / np.sqrt(np.square(kernel).sum()) for kernel in (bell, slope))
    along = [
        ndimage.correlate1d(
            ndimage.correlate1d(values, slope, axis=axis, mode="nearest"),
            bell,
            axis=1 - axis,
            mode="nearest",
        )
        for axis in (0, 1)
    ]
    magnitude: Alpha = np.hypot(*along)
    return magnitude


def _largest_region(mask: Binary) -> Binary:
    labels, count = ndimage.label(mask)
    if not count:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    region: Binary = labels == sizes.argmax()
    return region


def _connectivity(values: Alpha, level: Alpha) -> Alpha:
    excess = values - level
    return np.float32(1) - excess * (excess >= _VISIBLE)
