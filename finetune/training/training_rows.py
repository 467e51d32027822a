"""From a row of the manifest to what training sees of it: colours, truth, and where it counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageFilter

from u2net_human_plugin.cutout import upright
from u2net_human_plugin.errors import DataError
from u2net_human_plugin.preprocess import to_rgb

from ..data.manifest import Row
from ..data.masks import THRESHOLD, to_grey
from ..data.pictures import alpha_of, open_image
from ..data.unlabelled import IS_PERSON, IS_SOLID, IS_UNKNOWN, bystanders

#: A photo with its people, a scene with nobody in it, or a cut-out that is only pasted: of
#: somebody, or of a distractor.
Kind = Literal["photo", "scene", "cutout", "distractor"]


@dataclass(frozen=True)
class TrainingRow(Row):
    """A row as training uses it: one picture of the bank, before it is decoded.

    ``band`` is the distance from the mask's contour, in pixels of the file, within which the
    mask is not trusted: a teacher's matte counts there, if there is one, and else nothing does.
    """

    kind: Kind = "photo"
    #: Pictures of a kind are drawn in proportion to it.
    share: float = 1.0
    band: float = 0.0

    @classmethod
    def of(cls, row: Row, kind: Kind, share: float = 1.0, band: float = 0.0) -> TrainingRow:
        """``row`` with what training has to know of it."""
        return cls(**vars(row), kind=kind, share=share, band=band)

    @property
    def has_distractor(self) -> bool:
        """Whether its alpha matte is of something that is nobody, which may be pasted."""
        in_scene = self.kind == "scene" and self.distractor_mask is not None
        return self.kind == "distractor" or in_scene

    @property
    def files(self) -> Iterator[Path]:
        """All files that it is read from."""
        for file in (
            self.image,
            self.mask,
            self.bystanders,
            self.teacher,
            self.teacher_weight,
            self.distractor_mask,
        ):
            if isinstance(file, Path):
                yield file


class Decoded(NamedTuple):
    """A picture as the bank keeps it: squares of one size, uint8."""

    #: (3,R,R).
    rgb: npt.NDArray[np.uint8]
    #: (R,R): 255 is a person, or the distractor that is cut out.
    alpha: npt.NDArray[np.uint8]
    #: (R,R): 0 does not count.
    weight: npt.NDArray[np.uint8]
    #: Width divided by height of the file.
    aspect: float


def training_rows(
    rows: Sequence[Row], coarse: Mapping[str, float], sources: Mapping[str, float] | None = None
) -> list[TrainingRow]:
    """The rows that are of use to training, with their kinds and shares.

    Args:
        rows: the rows to train on.
        coarse: source → pixels within which the contour of its masks cannot be trusted.
        sources: source → its share of all pictures of a kind; the other sources divide the rest
            by their numbers of pictures. None: all pictures are equally likely.

    Raises:
        DataError: no row shows a person, or ``sources`` names a source that is not there.
    """
    kinds = [(row, kind) for row in rows if (kind := _kind(row)) is not None]
    if not any(kind in ("photo", "cutout") for _, kind in kinds):
        raise DataError(
            "no picture with a mask is left to train on; check the manifest's split column."
        )
    sources = sources or {}
    known = {row.source for row in rows}
    if unknown := sources.keys() - known:
        raise DataError(
            f"the recipe names the source {min(unknown)!r}; the manifest has "
            f"{', '.join(sorted(known))}."
        )
    count = Counter((row.source, kind) for row, kind in kinds)
    share = {}
    for kind in {kind for _, kind in kinds}:
        here = {source: number for (source, of), number in count.items() if of == kind}
        others = sum(number for source, number in here.items() if source not in sources)
        rest = 1 - sum(sources[source] for source in here if source in sources)
        for source, number in here.items():
            part = sources.get(source, max(rest, 0) * number / others if others else 0)
            # Photos and cut-outs are drawn together: their shares go by the numbers of both.
            share[source, kind] = part * sum(here.values()) / len(kinds) / number
    return [
        TrainingRow.of(row, kind, share[row.source, kind], float(coarse.get(row.source, 0)))
        for row, kind in kinds
    ]


def _kind(row: Row) -> Kind | None:
    if row.mask is not None:
        return "cutout" if row.mask == "alpha" else "photo"
    if row.is_distractor:
        return "distractor"
    if shows_nobody(row):
        return "scene"
    return None if row.teacher is None else "photo"


def shows_nobody(row: Row) -> bool:
    """Whether a row without a mask is a scene: neither a detector nor a teacher saw anybody.

    If a detector found nobody, the teacher is not asked: many networks mark whatever stands
    out.
    """
    if not row.is_scene or row.has_unlabelled_person:
        return False
    if row.teacher is None or (row.was_searched and not len(row.boxes_xyxy)):
        return True
    matte = np.asarray(open_image(row.teacher, row.where).convert("L"))
    return bool(matte.max() < THRESHOLD)


def decoded(row: TrainingRow, side: int) -> Decoded:
    """Read the files of ``row`` and reduce them to ``side`` x ``side`` pixels.

    Raises:
        DataError: one of them is damaged, or does not fit the picture.
    """
    picture = open_image(row.image, row.where)
    image, size = upright(picture), (side, side)
    aspect = image.width / image.height
    lanczos = Image.Resampling.LANCZOS
    if row.kind in ("cutout", "distractor"):
        # Pillow weights colours with alpha: those of transparent pixels do not bleed in.
        alpha_of(picture, "alpha", row.name)
        reduced = image.convert("RGBA").resize(size, lanczos, reducing_gap=2.0)
        alpha, weight = np.asarray(reduced.getchannel("A")), np.full(size, 255, np.uint8)
        image = reduced
    else:
        alpha, weight = _truth(row, picture, image.size, size)
    rgb = np.asarray(to_rgb(image).resize(size, lanczos, reducing_gap=2.0)).transpose(2, 0, 1)
    return Decoded(rgb, alpha, weight, aspect)


def _truth(
    row: TrainingRow, picture: Image.Image, whole: tuple[int, int], size: tuple[int, int]
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Alpha and weight of a photo or a scene, at ``size``; its mask is of the size ``whole``."""
    counts = np.full(size, 255, np.uint8)
    if row.kind == "scene":
        if row.distractor_mask is None:
            return np.zeros(size, np.uint8), counts
        return _resized(to_grey(open_image(row.distractor_mask), row.name), size), counts

    teacher = None if row.teacher is None else open_image(row.teacher, row.where).convert("L")
    if row.mask is None:
        assert teacher is not None
        mask = teacher.resize(whole, Image.Resampling.BILINEAR)
    else:
        mask = alpha_of(picture, row.mask, row.name)
        if row.band:
            mask = rounded(mask, row.band)
    trimap = bystanders(row, mask)
    known = Image.new("L", mask.size, 255)
    # 0 where it is unknown whether somebody is there.
    known.paste(0, (0, 0), ImageChops.subtract(trimap.point(IS_UNKNOWN), mask.point(IS_SOLID)))
    alpha = _resized(ImageChops.lighter(mask, trimap.point(IS_PERSON)), size)
    weight = _resized(known, size)
    if row.mask is not None and not row.band:
        return alpha, weight
    unsure = np.ones(size, np.bool_) if row.mask is None else _band(mask, row.band, size)
    if teacher is None:
        return alpha, np.where(unsure, 0, weight).astype(np.uint8)
    if row.mask is not None:
        alpha = np.where(unsure, _resized(teacher, size), alpha)
    if row.teacher_weight is not None:
        agreed = _resized(open_image(row.teacher_weight, row.where).convert("L"), size)
        weight = np.where(unsure, np.minimum(weight, agreed), weight)
    return alpha, weight


def rounded(mask: Image.Image, pixels: float) -> Image.Image:
    """Round off steps of about ``pixels`` in a mask, which becomes binary."""
    blurred = mask.filter(ImageFilter.GaussianBlur(0.7 * pixels))
    return blurred.point(IS_SOLID)


def _resized(values: Image.Image, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Resize: to smaller sizes by the mean over areas, to larger ones without steps."""
    smaller = values.width >= size[0] and values.height >= size[1]
    method = Image.Resampling.BOX if smaller else Image.Resampling.BILINEAR
    return np.asarray(values.resize(size, method))


def _band(mask: Image.Image, pixels: float, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """The band within ``pixels`` of the contour of ``mask``, on a grid of ``size``."""
    from scipy.ndimage import maximum_filter, minimum_filter

    reach = 2 * max(1, round(pixels)) + 1
    values = np.asarray(mask)
    varied = maximum_filter(values, reach) - minimum_filter(values, reach)
    unsure: npt.NDArray[np.bool_] = _resized(Image.fromarray(varied), size) > 127
    return unsure
