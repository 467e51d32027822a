"""Inspects photos: reads picture and mask, finds the people, and judges the mask."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from u2net_human_plugin.boxes import (
    Boxes,
    area_xyxy,
    clip_xyxy,
    intersection_xyxy,
)
from u2net_human_plugin.cutout import upright
from u2net_human_plugin.errors import DataError
from u2net_human_plugin.people import extended_xyxy, locate
from u2net_human_plugin.preprocess import to_rgb
from u2net_human_plugin.settings import Settings
from u2net_human_plugin.yolo import Detector

from ..files import file_sha256, write_png
from .coco import draw_people
from .doubts import AGREEING, LABELLED, covered_shares, doubts
from .inspection import Inspection, tuples
from .masks import BRIGHT, THRESHOLD, has_alpha
from .near_duplicates import perceptual_hashes
from .photo import CocoMask, Photo
from .pictures import SizeError, alpha_of, fit_mask, open_image, void_of
from .pseudo_labels import Labeler
from .unlabelled import UNKNOWN

Scores = npt.NDArray[np.float32]

#: To be raised with every change that makes an inspection come out differently.
VERSION = 4
#: The answer of a detector that is not asked.
NOBODY: tuple[Boxes, Scores] = np.zeros((0, 4), np.float32), np.zeros(0, np.float32)

#: Shares of the picture below and above which a mask counts as empty and as all-foreground.
EMPTY, FULL = 1e-4, 0.999
#: A mask is not doubted because of boxes with a lower score or a smaller share of the picture.
CLEAR_SCORE, CLEAR_SHARE = 0.5, 0.01
#: A region of a mask whose box is smaller than this share of the largest is a speck, not a person.
_SPECK = 0.02
#: Longer side, in pixels, of the grid on which the regions of a mask are found.
_GRID = 256


@dataclass(frozen=True)
class Inspector:
    """Inspects photos; thread-safe if its detector and its labeler are.

    ``detector_id`` and the labeler's id are part of :meth:`key`, so that inspections made with
    others are not reused. ``labels`` is the folder for masks that the labeler makes.
    """

    labels: Path
    detector: Detector | None = None
    detector_id: str = ""
    labeler: Labeler | None = None

    def key(self, photo: Photo) -> str:
        """A hash of everything that an inspection depends on.

        Raises:
            OSError: a file cannot be read.
        """
        mask: Any = photo.mask
        if isinstance(mask, Path):
            mask = ["file", file_sha256(mask)]
            if photo.reading != BRIGHT:
                mask += [sorted(photo.reading.classes), photo.reading.invert]
            if photo.bystanders:
                mask += ["bystanders", file_sha256(photo.bystanders)]
        elif isinstance(mask, CocoMask):
            mask = ["coco", [dict(each) for each in mask.annotations], mask.size_wh]
        elif mask == "label":
            mask = ["label", self.labeler.id if self.labeler else None]
        parts = [VERSION, file_sha256(photo.image), mask, self.detector_id]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def searches(self, photo: Photo) -> bool:
        """Whether the detector looks for people in this photo."""
        # The colours under the transparent parts of a cut-out mean nothing.
        return self.detector is not None and photo.mask not in ("alpha", "distractor")

    def inspect(self, photo: Photo, key: str) -> Inspection:
        """Open the picture and its mask, find the people, and judge the pair."""
        inspection = partial(Inspection, key, file_sha256(photo.image))
        try:
            picture = open_image(photo.image)
            rgb = to_rgb(upright(picture))
            inspection = partial(inspection, rgb.size, _hashes(picture, rgb))
            searched = self.searches(photo)
            seen, scores = self._detect(rgb) if searched else NOBODY
            if photo.mask == "label" and self.detector and not len(seen):
                return inspection()
            mask, drawn = self.truth(photo, picture, rgb, key)
        except SizeError as error:
            return inspection(reason="size mismatch", detail=str(error))
        except DataError as error:
            return inspection(reason="unreadable", detail=str(error))
        binary = np.asarray(mask) >= THRESHOLD
        share = float(binary.mean())
        inspection = partial(inspection, share=share)
        if photo.mask == "label":
            assert self.labeler is not None
            inspection = partial(inspection, labelled_by=self.labeler.name)
        elif share < EMPTY and not _says_nobody(photo):
            return inspection(reason="empty mask", detail=_why_empty(mask))
        if share > FULL:
            return inspection(reason="all-foreground mask", detail="the mask covers all pixels")

        covered = covered_shares(binary, seen)
        clear = (scores >= CLEAR_SCORE) & (area_xyxy(seen) >= CLEAR_SHARE * binary.size)
        regions = _regions(mask)
        own = regions if drawn is None else drawn
        missed = own[_largest_share_inside(own, seen[covered >= LABELLED]) < AGREEING]
        # Detectors cut off feet, hats and bags: a box grows to hold the whole region of the mask.
        people = _widened(np.concatenate((seen[covered >= LABELLED], missed)), regions)
        everybody = np.column_stack(
            (np.concatenate((seen, missed)), np.concatenate((scores, np.ones(len(missed)))))
        )
        return inspection(
            boxes=tuples(np.round(everybody, 2).tolist()),
            people=tuples(np.round(people, 2).tolist()),
            unlabelled=tuples(np.round(seen[clear & (covered < LABELLED)], 2).tolist()),
            flags=doubts(binary, seen, covered, searched),
        )

    def truth(
        self, photo: Photo, picture: Image.Image, rgb: Image.Image, key: str
    ) -> tuple[Image.Image, Boxes | None]:
        """The mask ("L", upright, 0…255) and, if annotations tell people apart, their boxes.

        ``picture`` is as opened, ``rgb`` upright. The labeler's masks are made once and then
        read from the labels folder.
        """
        if photo.mask == "label":
            file = self.labels / f"{key}.png"
            if not file.is_file():
                assert self.labeler is not None
                mask = self.labeler(rgb)
                write_png(file, mask)
            return open_image(file), None
        if isinstance(photo.mask, CocoMask):
            return draw_people(photo.mask, picture, photo.name)
        if photo.mask == "distractor":
            if alpha_of(picture, "alpha", photo.name).getbbox() is None:
                raise DataError(f"{photo.image}: is all transparent; remove it.")
            return Image.new("L", rgb.size), None
        return alpha_of(picture, photo.mask, photo.name, photo.reading), None

    def unknown(self, photo: Photo, picture: Image.Image) -> Image.Image | None:
        """The trimap of what is not in the mask, if there is one: "L", upright, of the mask's size.

        0 is nobody, 128 does not count, 255 is a person. It is the manifest's, or what the mask
        file itself leaves open.
        """
        if photo.bystanders is not None:
            name = f"{photo.name} with bystanders {photo.bystanders}"
            return fit_mask(picture, open_image(photo.bystanders).convert("L"), name)
        if not isinstance(photo.mask, Path):
            return None
        void = void_of(picture, photo.mask, photo.name, photo.reading)
        return void and void.point(lambda value: UNKNOWN if value else 0)

    def _detect(self, rgb: Image.Image) -> tuple[Boxes, Scores]:
        assert self.detector is not None
        boxes, scores = self.detector(rgb)
        boxes = clip_xyxy(boxes, rgb.size)
        kept = area_xyxy(boxes) > 0
        return boxes[kept], scores[kept]


def _says_nobody(photo: Photo) -> bool:
    mask = photo.mask
    if isinstance(mask, CocoMask):
        return not mask.annotations
    return photo.shows_nobody or bool(photo.reading.classes)


def _why_empty(mask: Image.Image) -> str:
    brightest = mask.getextrema()[1]
    hint = ""
    if brightest:
        hint = f"; its values end at {brightest} of 255: if that is a class, --person-value"
    return f"no pixel of the mask is a person{hint}"


def _hashes(picture: Image.Image, rgb: Image.Image) -> tuple[str, str] | tuple[()]:
    # On grey, because the colours under transparent pixels mean nothing.
    if has_alpha(picture):
        cutout = upright(picture).convert("RGBA")
        grey = Image.new("RGBA", cutout.size, (128, 128, 128, 255))
        rgb = Image.alpha_composite(grey, cutout).convert("RGB")
    return perceptual_hashes(rgb)


def _regions(mask: Image.Image) -> Boxes:
    scale = min(1.0, _GRID / max(mask.size))
    size = (max(1, round(mask.width * scale)), max(1, round(mask.height * scale)))
    grid = np.asarray(mask.resize(size, Image.Resampling.BOX), np.float32) / np.float32(255)
    boxes = locate(grid, mask.size, Settings())
    areas = area_xyxy(boxes)
    boxes = boxes[areas >= _SPECK * areas.max(initial=0)]
    if not len(boxes) and mask.getbbox():  # too small or too thin for the grid
        box = mask.point(lambda value: 255 if value >= THRESHOLD else 0).getbbox()
        boxes = np.array([box] if box else [], np.float32).reshape(-1, 4)
    return boxes


def _widened(boxes: Boxes, regions: Boxes) -> Boxes:
    """Each box, grown to hold the regions that it alone overlaps."""
    touches = intersection_xyxy(boxes, regions) > 0
    return extended_xyxy(boxes, regions[touches.sum(axis=0) == 1])


def _largest_share_inside(boxes: Boxes, others: Boxes) -> npt.NDArray[np.float32]:
    """The largest share of each box that lies in one of the others: (N,)."""
    inside = intersection_xyxy(boxes, others).max(axis=1, initial=0)
    share: npt.NDArray[np.float32] = inside / np.maximum(area_xyxy(boxes), 1)
    return share
