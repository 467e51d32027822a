"""How pictures and masks are loaded: upright, and each mask of its picture's size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import ExifTags, Image

from u2net_human_plugin.cutout import upright
from u2net_human_plugin.errors import DataError, OptionError
from u2net_human_plugin.preprocess import to_rgb

from .manifest import Row
from .masks import BRIGHT, THRESHOLD, Reading, has_alpha, values_of


class SizeError(DataError):
    """A mask has another size than its picture."""


def load_image(row: Row) -> Image.Image:
    """Return the row's picture as upright 8-bit RGB (EXIF orientation applied).

    Raises:
        DataError: the picture is missing, damaged or of an unknown kind.
    """
    return to_rgb(upright(open_image(row.image, row.where)))


def load_mask(row: Row) -> Image.Image:
    """Return the row's mask as "L" with only 0 and 255 (person), of the picture's upright size.

    Raises:
        DataError: picture or mask cannot be read, or their sizes differ.
    """
    return load_alpha(row).point(lambda value: 255 if value >= THRESHOLD else 0)


def load_alpha(row: Row) -> Image.Image:
    """Return the row's mask as "L" with whatever soft values it has, 0…255.

    Raises:
        DataError: picture or mask cannot be read, or their sizes differ.
    """
    return alpha_of(open_image(row.image, row.where), row.mask, row.name)


def alpha_of(
    picture: Image.Image,
    mask: Path | Literal["alpha"] | None,
    name: str,
    reading: Reading = BRIGHT,
) -> Image.Image:
    """Return a picture's mask as "L", 0…255, of the picture's upright size.

    A mask file may be 1-bit, grey, RGB or palette, hold 0/1 instead of 0/255, or be drawn for
    the picture as stored instead of upright; all come back as the same kind of mask.

    Args:
        picture: as :func:`open_image` returns it.
        mask: as in :class:`Row`; None gives a mask of zeros.
        name: what messages call the picture.
        reading: what the values of a mask file mean.

    Raises:
        DataError: the mask cannot be read, or it has another size than the picture; or it is
            "alpha" and the picture has no alpha channel.
    """
    if mask == "alpha":
        if not has_alpha(picture):
            raise DataError(
                f'{name}: mask is "alpha" but the picture has no alpha channel '
                f"(mode {picture.mode}); give a mask file, or null for an empty scene."
            )
        return upright(picture).convert("RGBA").getchannel("A")
    if mask is None:
        return Image.new("L", upright(picture).size)
    name = f"{name} with mask {mask}"
    return fit_mask(picture, reading.mask(upright(open_image(Path(mask))), name), name)


def void_of(picture: Image.Image, mask: Path, name: str, reading: Reading) -> Image.Image | None:
    """Return the part of a mask file that does not count, as "L" 0/255; None if all counts.

    The parameters are those of :func:`alpha_of`; the result has the picture's upright size.

    Raises:
        DataError: the mask file cannot be read, or it has another size than the picture.
    """
    name = f"{name} with mask {mask}"
    void = reading.void(upright(open_image(mask)), name)
    return None if void is None else fit_mask(picture, void, name)


def check_classes(classes: frozenset[int], masks: Iterable[Path], folders: Sequence[Path]) -> None:
    """Make sure that some mask holds one of the classes; else all pictures would show nobody.

    Masks that cannot be read are left to the inspection of each.

    Raises:
        OptionError: no mask does; the message names the ``folders`` and what their masks hold.
    """
    held: set[int] = set()
    for mask in masks:
        try:
            held.update(np.unique(values_of(open_image(mask), str(mask))).tolist())
        except DataError:
            continue
        if held & classes:
            return
    if held:
        names = ", ".join(map(str, folders))
        raise OptionError(
            f"no mask of {names} holds the value {_listed(classes, 'or')}; they hold "
            f"{_listed(held, 'and')}: give those that are people as --person-value."
        )


def open_image(path: Path, where: str = "") -> Image.Image:
    """Open and fully decode ``path``; mode and orientation are left as stored.

    Args:
        path: a picture file.
        where: the manifest's line that names it, which the error then begins with.

    Raises:
        DataError: the file is missing, damaged, too large or no picture.
    """
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except Exception as error:  # noqa: BLE001 - Pillow's decoders raise a dozen unrelated types
        reason = f"{type(error).__name__}: " + " ".join(str(error).split())[:200]
        # ultralytics, once imported, takes any file that Pillow does not know for a HEIC photo
        # and asks for a library that reads those.
        if isinstance(error, ImportError) and path.suffix.lower() not in (".heic", ".heif"):
            reason = "it is no picture of a known kind"
        prefix = f"{where}: " if where else ""
        raise DataError(
            f"{prefix}{path}: cannot be read as a picture ({reason}); replace or remove it."
        ) from None


def fit_mask(picture: Image.Image, mask: Image.Image, name: str) -> Image.Image:
    """Return ``mask`` with the upright size of ``picture``, turned if need be.

    A mask is drawn for the upright picture or for the picture as stored. Its size shows which;
    a mask that fits both is taken as upright.

    Args:
        picture: as opened; its EXIF orientation is not yet applied.
        mask: of any mode.
        name: what the error calls the mask.

    Raises:
        SizeError: the mask fits neither the upright nor the stored picture.
    """
    size = upright(picture).size
    if mask.size == size:
        return mask
    if mask.size == picture.size:
        turned = mask.copy()
        turned.getexif()[ExifTags.Base.Orientation] = picture.getexif()[ExifTags.Base.Orientation]
        return upright(turned)
    raise SizeError(
        f"{name}: the mask is {mask.width}x{mask.height} pixels, the picture "
        f"{size[0]}x{size[1]}; they must be equal."
    )


def _listed(values: Iterable[int], last: str) -> str:
    """Write them as "1, 2 and 3"; of many, only the ends."""
    *others, final = map(str, sorted(values))
    if len(others) >= 10:
        return f"{others[0]} … {final}"
    return f"{', '.join(others)} {last} {final}" if others else final
