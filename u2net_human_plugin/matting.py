"""Alpha matting, on request, and a foreground without the background's colour.

Both are pymatting's, which both hosts bring, imported when first used; that, with numba's
compiler, takes a while once.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from .errors import importing

#: Pictures are reduced to this longer side for matting, whose time grows faster than their area.
LONGER_SIDE = 1600
#: How far beyond what is unsure in the mask the edge may be, as a share of the longer side.
BAND = 0.008
_REMEDY = "install it with `pip install pymatting`, or leave the option off."


def matted(mask: Image.Image, rgb: Image.Image) -> Image.Image:
    """The closed-form matte (Levin, Lischinski, Weiss, 2008) in the unknown band of an "L" mask.

    Args:
        mask: mode "L"; what is neither nearly 0 nor nearly 255 in it is unknown, and what is near
            to that.
        rgb: the picture, mode "RGB", of the same size.

    Raises:
        MissingExtraError: pymatting is not installed.
    """
    from scipy import ndimage

    scale = min(1.0, LONGER_SIDE / max(mask.size))
    size = (max(1, round(mask.width * scale)), max(1, round(mask.height * scale)))
    known = np.asarray(mask.resize(size, Image.Resampling.BOX))
    # A hard edge has no unsure pixel, yet may be in the wrong place.
    unsure = ((known > 12) & (known < 243)) | (ndimage.morphological_gradient(known, 3) > 128)
    steps = max(1, round(BAND * max(size)))
    band = ndimage.binary_dilation(unsure, iterations=steps)
    if not band.any() or not ((known > 127) & ~band).any() or not ((known < 128) & ~band).any():
        return mask
    with importing("pymatting", _REMEDY):
        from pymatting import estimate_alpha_cf
    colours = np.asarray(rgb.resize(size, Image.Resampling.BOX)) / 255
    alpha = estimate_alpha_cf(colours, np.where(band, 0.5, known > 127))
    matte = Image.fromarray((alpha * 255).round().astype(np.uint8))
    where = Image.fromarray(np.where(band, 255, 0).astype(np.uint8))
    matte, where = (one.resize(mask.size, Image.Resampling.BILINEAR) for one in (matte, where))
    return Image.composite(matte, mask, where)


def decontaminated(rgb: Image.Image, mask: Image.Image) -> Image.Image:
    """The picture with the foreground's own colours where an "L" mask is neither 0 nor 255: RGB.

    A pixel of an edge holds the background's colour, too, which shows on a new ground. The
    multi-level estimate (Germer and others, 2020) replaces it there alone.

    Raises:
        MissingExtraError: pymatting is not installed.
    """
    alpha = np.asarray(mask)
    band = (alpha > 0) & (alpha < 255)
    box = Image.fromarray(band).getbbox()
    if box is None:
        return rgb
    with importing("pymatting", _REMEDY):
        from pymatting import estimate_foreground_ml
    part, part_alpha = rgb.crop(box), mask.crop(box)
    colours = estimate_foreground_ml(np.asarray(part) / 255, np.asarray(part_alpha) / 255)
    pure = Image.fromarray((colours.clip(0, 1) * 255).round().astype(np.uint8))
    result = rgb.copy()
    result.paste(pure, box, Image.fromarray(band).crop(box))
    return result
