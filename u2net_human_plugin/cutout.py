"""A picture file in, the file of its cut-out out: what is around the segmenter where no host is."""

from __future__ import annotations

import io
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageOps

from .errors import DataError

#: "png" and "webp": the picture with the mask as its alpha channel; "mask": the mask alone, grey.
Form = Literal["png", "webp", "mask"]
#: What the names of such files end with.
SUFFIX: dict[str, str] = {"png": ".png", "webp": ".webp", "mask": ".png"}
#: WebP's quality of the colours; the alpha channel is kept without loss.
WEBP_QUALITY = 90


def opened(picture: bytes | npt.NDArray[np.uint8]) -> Image.Image:
    """A picture file's content, upright, or an array, as a loaded Pillow image.

    Raises:
        DataError: neither of them.
        OSError: a damaged file.
    """
    if isinstance(picture, np.ndarray):
        return Image.fromarray(picture)
    if not picture:
        raise DataError("the file is empty.")
    with Image.open(io.BytesIO(picture)) as image:
        image.load()
        return upright(image)


def upright(image: Image.Image) -> Image.Image:
    """``image`` with its EXIF orientation applied; broken EXIF counts as none."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # noqa: BLE001 - damaged EXIF raises struct, Syntax, Value, … errors
        return image


def encoded(image: Image.Image, mask: Image.Image, form: Form) -> bytes:
    """The cut-out's file. Nothing of the background's colours is left under its alpha of 0."""
    file = io.BytesIO()
    if form == "mask":
        mask.save(file, "PNG")
        return file.getvalue()
    rgba = image.convert("RGBA")
    alpha = ImageChops.multiply(mask, rgba.getchannel("A"))
    rgba.paste((0, 0, 0, 0), mask=alpha.point(lambda value: 255 * (value == 0)))
    rgba.putalpha(alpha)
    # A profile of other channels, such as CMYK's, would be wrong for the file made.
    profile = image.info.get("icc_profile") if image.mode in ("RGB", "RGBA") else None
    settings = {"quality": WEBP_QUALITY} if form == "webp" else {}
    rgba.save(file, form.upper(), icc_profile=profile, **settings)
    return file.getvalue()
