"""People without their background, as RGBA."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from u2net_human_plugin.errors import MissingExtraError, install_command

#: Standard deviation, as a share of the longer side, by which a binary mask is softened
#: before colours are estimated at its edge; at least half a pixel.
_SOFTNESS = 0.001


def cut_out(image: Image.Image, mask: Image.Image, estimate: bool) -> Image.Image:
    """The person without background: RGB and "L" of one size → RGBA, black where invisible.

    With ``estimate``, the edge of a binary mask moves inwards by a pixel and is softened, and the
    background is taken out of the colours there (Germer et al., Fast Multi-Level Foreground
    Estimation, 2020), so that no fringe shows on another background.
    """
    alpha = mask
    if estimate:
        if not any(mask.histogram()[1:255]):
            radius = max(0.5, _SOFTNESS * max(image.size))
            inner = mask.filter(ImageFilter.MinFilter(2 * max(1, round(radius)) + 1))
            alpha = inner.filter(ImageFilter.GaussianBlur(radius))
        image = _foreground(image, alpha)
    black = Image.new("RGB", image.size)
    visible = alpha.point(lambda value: 255 if value else 0)
    result = Image.composite(image, black, visible)
    result.putalpha(alpha)
    return result


_foreground_lock = threading.Lock()


def _foreground(image: Image.Image, alpha: Image.Image) -> Image.Image:
    estimate = load_foreground_estimation()
    colours = np.asarray(image, np.float32) / 255
    # Two callers must not enter the thread pool of its compiled loops at once.
    with _foreground_lock:
        estimated = estimate(colours, np.asarray(alpha, np.float32) / 255)
    return Image.fromarray((np.clip(estimated, 0, 1) * 255).round().astype(np.uint8))


def load_foreground_estimation() -> Callable[[Any, Any], Any]:
    """The multi-level foreground estimation of pymatting.

    Raises:
        MissingExtraError: pymatting is not installed.
    """
    try:
        from pymatting.foreground.estimate_foreground_ml import estimate_foreground_ml
    except ImportError:
        raise MissingExtraError(
            "--cutouts estimated needs pymatting, which comes with rembg "
            f"({install_command('rembg')}); or choose --cutouts straight."
        ) from None
    function: Callable[[Any, Any], Any] = estimate_foreground_ml
    return function
