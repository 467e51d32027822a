"""From an image to the network's input: the one preprocessing of inference and training.

As in U²-Net's own training, colours are divided by the image's brightest value and then
standardised with ImageNet's mean and standard deviation.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image

from .errors import DataError

#: Side of the square the network sees, in pixels, unless its file fixes another (the
#: official ONNX files: 320). Wants to be a multiple of 32.
SIZE = 384
#: What rembg's own U²-Net sessions feed theirs, whatever the file.
REMBG_SIZE = 320
#: Per-channel mean and standard deviation (RGB, of values in 0…1).
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
#: What masks are made from: a Pillow image of any mode, or a uint8 array (H,W), (H,W,3) or
#: (H,W,4). EXIF orientation is not applied.
Picture = Image.Image | npt.NDArray[np.uint8]
#: Pixels of a deep image that are converted at a time.
_BAND = 1 << 20


def to_rgb(picture: Picture) -> Image.Image:
    """Return a picture as 8-bit RGB, whatever its mode; the size stays the same.

    16-bit, 32-bit integer and float greys are scaled by their own type's range (or, for
    floats beyond 0…1, by their own maximum), where Pillow's conversion would clip them to white.
    Transparency is dropped: colours under transparent pixels are kept as stored, which is
    what rembg's own sessions see.

    Raises:
        DataError: no picture, or one without pixels.
    """
    image = _checked(picture)
    if image.mode == "RGB":
        return image
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _grey(image)
    elif image.mode == "La":  # Pillow converts it to nothing else
        image = image.convert("LA")
    return image.convert("RGB")


def reduced(image: Image.Image, size: int = SIZE) -> npt.NDArray[np.uint8]:
    """Resize an RGB image to ``size`` x ``size``: (size,size,3) uint8.

    The aspect ratio is not kept, as in U²-Net's training. Images more than 2.6 times that size
    are first reduced by whole factors (``reducing_gap``), which takes 0.4 of a full Lanczos
    pass's time at 1 megapixel and 0.14 at 12, and changes the result by 0.6 grey levels on
    average.
    """
    return np.asarray(image.resize((size, size), Image.Resampling.LANCZOS, reducing_gap=1.3))


def brightest_value(rgb: npt.NDArray[np.uint8]) -> int:
    """The highest value of an array of colours; 1 if it is black, since one divides by it."""
    return max(1, int(rgb.max(initial=0)))


def normalize(rgb: npt.NDArray[np.uint8], brightest: int | None = None) -> npt.NDArray[np.float32]:
    """Standardise one RGB image: (H,W,3) uint8 → (3,H,W) float32, C-contiguous.

    ``brightest`` is the value that counts as 1 before that, and with it whatever is brighter:
    None, the image's own highest; for a part of a picture, the highest of the whole as the
    network saw it, without which a dark part would become bright.
    """
    if brightest is None:
        brightest = brightest_value(rgb)
    else:
        rgb = np.minimum(rgb, brightest)
    planes = np.ascontiguousarray(rgb.transpose(2, 0, 1)).astype(np.float32)
    planes /= np.float32(brightest)
    planes -= MEAN[:, None, None]
    planes /= STD[:, None, None]
    return planes


def _checked(picture: Picture) -> Image.Image:
    if isinstance(picture, np.ndarray):
        shape, dtype = picture.shape, picture.dtype
        try:
            picture = Image.fromarray(picture)
        except (IndexError, TypeError, ValueError):
            raise DataError(
                f"an array {shape} of {dtype}: expected uint8 in the shape (height, width, 3), "
                "with colours in the order red, green, blue."
            ) from None
    if not isinstance(picture, Image.Image):
        raise DataError(f"a {type(picture).__name__}: expected a Pillow image or a uint8 array.")
    if 0 in picture.size:
        raise DataError(f"a picture of {picture.width} x {picture.height} pixels: nothing to see.")
    return picture


def _grey(deep: Image.Image) -> Image.Image:
    """A deep grey image as mode "L", with what its file says about it, such as orientation."""
    if deep.mode.startswith("I;16"):
        full_scale = 65535.0
    else:
        top = max((values.max(initial=0.0) for _, values in _bands(deep)), default=0.0)
        full_scale = next(scale for scale in (1.0, 255.0, 65535.0, max(top, 1.0)) if top <= scale)
    grey = Image.new("L", deep.size)
    # The shade that is transparent is one of the old range; transparency is dropped anyway.
    grey.info = {key: value for key, value in deep.info.items() if key != "transparency"}
    for row, values in _bands(deep):
        shades = (values * (255.0 / full_scale)).round().astype(np.uint8)
        grey.paste(Image.fromarray(shades), (0, row))
    return grey


def _bands(deep: Image.Image) -> Iterator[tuple[int, npt.NDArray[np.float64]]]:
    """First row and values, finite and not negative, of a few rows at a time.

    In one piece, a picture of 48 megapixels would take a gigabyte more than itself.
    """
    rows = max(1, _BAND // max(1, deep.width))
    for row in range(0, deep.height, rows):
        band = deep.crop((0, row, deep.width, min(row + rows, deep.height)))
        with np.errstate(invalid="ignore"):  # signalling NaNs, which damaged files hold
            values = np.asarray(band).astype(np.float64)
        yield row, np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0).clip(min=0.0)
