"""How the values of a mask file are read: grey levels, labels in a palette, named classes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageFilter

from u2net_human_plugin.errors import DataError, OptionError
from u2net_human_plugin.preprocess import to_rgb

#: Where classes are named, this value does not count: it is the border around PASCAL VOC's
#: objects, and what other sets leave open.
VOID = 255
#: In a binary mask, grey values from this one on are person.
THRESHOLD = 128
#: A grey mask with two values at most, none of them as bright as this, holds labels.
_DARK = 32
#: A grey mask with more values than this is soft: no picture shows so many classes.
_MOST_CLASSES = 10
#: Colour channels of a grey picture differ by less: that much a JPEG or a scan may tint it.
_TINT = 32


@dataclass(frozen=True)
class Reading:
    """How mask files are read. By default bright is person."""

    #: Values (grey levels, or indices of a palette) that are people; empty: not named.
    classes: frozenset[int] = frozenset()
    #: Dark is person.
    invert: bool = False

    def __post_init__(self) -> None:
        if self.classes and self.invert:
            raise OptionError(
                "--invert and --person-value exclude each other; name the values that are people."
            )

    def mask(self, drawn: Image.Image, name: str) -> Image.Image:
        """Return ``drawn``, a mask of any mode, as "L", 0…255, person bright.

        Raises:
            DataError: it holds classes of which none is named, or colours where some are;
                the message begins with ``name``.
        """
        if not self.classes:
            grey = to_grey(drawn, name)
            return grey.point(lambda value: 255 - value) if self.invert else grey
        values = values_of(drawn, name)
        return Image.fromarray(np.isin(values, list(self.classes)).astype(np.uint8) * 255)

    def void(self, drawn: Image.Image, name: str) -> Image.Image | None:
        """Return the part of ``drawn`` that does not count, as "L" 0/255; None if all counts."""
        if not self.classes or VOID in self.classes:
            return None
        void = values_of(drawn, name) == VOID
        return Image.fromarray(void.astype(np.uint8) * 255) if void.any() else None


#: Bright is person.
BRIGHT = Reading()


def parse_classes(entries: list[str]) -> frozenset[int]:
    """{15} from ["15"], {1, …, 19} from ["1-19"].

    Raises:
        OptionError: an entry is neither.
    """
    found: set[int] = set()
    for entry in entries:
        first, dash, last = entry.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise OptionError(f"--person-value {entry!r}: expected a number or a range, as 1-19.")
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


def to_grey(mask: Image.Image, name: str) -> Image.Image:
    """Return a mask picture of any mode as "L", 0…255, person bright.

    Raises:
        DataError: a coloured palette or grey levels are several classes; only the user knows
            which of them are people; or it is coloured.
    """
    if has_alpha(mask):
        alpha = mask.convert("RGBA").getchannel("A")
        if alpha.getextrema() != (255, 255):
            return alpha
    if mask.mode == "P":
        # Label pictures colour class 1 dark red, class 2 dark green …: the number counts.
        colours = np.asarray(mask.convert("RGB"))
        if (colours != colours[..., :1]).any():
            return _only_class(mask, name)
    rgb = to_rgb(mask)
    _require_grey(rgb, name, _TINT)
    grey = rgb.convert("L")
    values = np.flatnonzero(grey.histogram())
    if len(values) <= 2 and 0 < values[-1] < _DARK:  # 0 and 1, or 1 and 2: labels
        return grey.point(lambda value: 255 if value == values[-1] else 0)
    # Where all values are dark the mask is empty, and that reason speaks of classes already.
    few = 2 < len(values) <= _MOST_CLASSES and values[-1] >= THRESHOLD
    dark = [int(value) for value in values if 2 <= value <= _DARK]
    if few and any(_fills_a_patch(grey, value) for value in dark):
        raise _unnamed(name, "grey levels look like classes; they", values.tolist())
    return grey


def has_alpha(image: Image.Image) -> bool:
    """Whether ``image`` has an alpha channel or a transparent colour."""
    return image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info


def _only_class(mask: Image.Image, name: str) -> Image.Image:
    classes = {int(value) for value in np.unique(np.asarray(mask))} - {0}
    if classes not in ({1}, {VOID}):
        raise _unnamed(name, "palette's classes", classes)
    return mask.point(lambda index: 255 if index else 0, "L")


def _fills_a_patch(grey: Image.Image, level: int) -> bool:
    """Whether one level fills 3x3 pixels somewhere, as a class does.

    Where few levels come from smoothed edges or from JPEG's noise, they are strewn or in lines.
    """
    alike = grey.point(lambda value: 255 if value == level else 0)
    return alike.filter(ImageFilter.MinFilter(3)).getbbox() is not None


def _require_grey(mask: Image.Image, name: str, tint: int) -> None:
    red, green, blue = mask.split()[:3]
    for one, other in ((red, green), (green, blue)):
        if np.asarray(ImageChops.difference(one, other)).max(initial=0) > tint:
            raise DataError(
                f"{name}: is coloured; masks are grey, or hold the numbers of classes (grey or "
                "as a palette), of which --person-value names the people; convert it."
            )


def _unnamed(name: str, what: str, classes: Iterable[int]) -> DataError:
    found = ", ".join(map(str, sorted(classes)))
    return DataError(
        f"{name}: its {what} are {found}; `prepare` wants to know which of them are "
        "people, as --person-value 15 (PASCAL VOC) or --person-value 1-19 (all of these)."
    )


def values_of(drawn: Image.Image, name: str) -> npt.NDArray[np.int64]:
    """A mask's own numbers: indices of a palette, or grey levels as stored, (H,W).

    Raises:
        DataError: it is coloured; the message begins with ``name``.
    """
    if drawn.mode in ("RGB", "RGBA"):
        _require_grey(drawn, name, 0)
        drawn = drawn.getchannel("R")
    values = np.asarray(drawn.convert("L") if drawn.mode == "LA" else drawn)
    return values.astype(np.int64)
