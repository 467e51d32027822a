"""What `python -m finetune prepare` finds out about one picture before it decides anything."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
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
    hull_xyxy,
    intersection_xyxy,
    iou_xyxy,
)
from u2net_human_plugin.errors import DataError
from u2net_human_plugin.people import extended_xyxy, locate
from u2net_human_plugin.preprocess import to_rgb
from u2net_human_plugin.yolo import Detector

from ..files import file_sha256, written_atomically
from .coco import draw_people
from .manifest import LABELLED, THRESHOLD, SizeError, alpha_of, has_alpha, open_image, upright
from .near_duplicates import perceptual_hashes
from .pseudo_labels import Labeler
from .sources import Candidate, CocoMask

Scores = npt.NDArray[np.float32]

#: Raised whenever a picture would be judged differently than before.
VERSION = 2
#: What a detector that was not asked would have found.
NOBODY: tuple[Boxes, Scores] = np.zeros((0, 4), np.float32), np.zeros(0, np.float32)

#: Shares of the picture below and above which a mask counts as empty and as all-foreground.
EMPTY, FULL = 1e-4, 0.999
#: Boxes with a lower score or a smaller share of the picture raise no doubt about a mask.
CLEAR_SCORE, CLEAR_SHARE = 0.5, 0.01
#: A mask whose bounding box overlaps no person's box by this IoU disagrees with the detector.
AGREEING = 0.5
#: Regions of a mask below this share of the largest one's box are specks, not people.
_SPECK = 0.02
#: Longer side of the grid on which a mask's separate regions are found.
_GRID = 256


@dataclass(frozen=True)
class Finding:
    """One picture, looked at. All boxes are in upright pixels: left, top, right, bottom."""

    key: str
    sha256: str = ""
    size_wh: tuple[int, int] = (0, 0)
    hashes: tuple[str, str] | tuple[()] = ()
    #: Share of the picture that the mask covers.
    share: float = 0.0
    #: Everybody that was detected or is labelled, with a score.
    boxes: tuple[tuple[float, float, float, float, float], ...] = ()
    #: Those of them that the mask covers.
    people: tuple[tuple[float, float, float, float], ...] = ()
    #: Clearly visible people whom the mask leaves out.
    unlabelled: tuple[tuple[float, float, float, float], ...] = ()
    #: Other doubts about the mask, see :func:`_doubts`.
    flags: tuple[str, ...] = ()
    labelled_by: str | None = None
    #: Why it cannot be used: a short reason that reports count by, and the particulars.
    reason: str = ""
    detail: str = ""

    def to_json(self) -> dict[str, Any]:
        """What the cache keeps."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Finding:
        """The inverse of :meth:`to_json`."""
        lists = {name: _tuples(value) for name, value in content.items()}
        return cls(**lists)


@dataclass(frozen=True)
class Inspector:
    """Looks at candidates; thread-safe as far as its detector and labeler are.

    ``detector_id`` and the labeler's id stand for them in :meth:`key`: findings made
    with others are not taken for these. ``labels`` is the folder for masks it makes.
    """

    labels: Path
    detector: Detector | None = None
    detector_id: str = ""
    labeler: Labeler | None = None

    def key(self, candidate: Candidate) -> str:
        """A hash of everything that a finding depends on.

        Raises:
            OSError: a file cannot be read.
        """
        mask: Any = candidate.mask
        if isinstance(mask, Path):
            mask = ["file", file_sha256(mask)]
        elif isinstance(mask, CocoMask):
            mask = ["coco", [dict(item) for item in mask.annotations], mask.size_wh]
        elif mask == "label":
            mask = ["label", self.labeler.id if self.labeler else None]
        parts = [VERSION, file_sha256(candidate.image), mask, self.detector_id]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def searches(self, candidate: Candidate) -> bool:
        """Whether a detector looks for everybody in the picture."""
        # Under a cut-out's transparent parts lies anything, or nothing.
        return self.detector is not None and candidate.mask not in ("alpha", "thing")

    def inspect(self, candidate: Candidate, key: str) -> Finding:
        """Open the picture and its mask, find the people, and judge the pair."""
        finding = partial(Finding, key, file_sha256(candidate.image))
        try:
            picture = open_image(candidate.image)
            rgb = to_rgb(upright(picture))
            finding = partial(finding, rgb.size, _hashes(picture, rgb))
            searched = self.searches(candidate)
            seen, scores = self._detect(rgb) if searched else NOBODY
            if candidate.mask == "label" and self.detector and not len(seen):
                return finding()
            mask, drawn = self.truth(candidate, picture, rgb, key)
        except SizeError as error:
            return finding(reason="size mismatch", detail=str(error))
        except DataError as error:
            return finding(reason="unreadable", detail=str(error))
        binary = np.asarray(mask) >= THRESHOLD
        share = float(binary.mean())
        finding = partial(finding, share=share)
        if candidate.mask == "label":
            assert self.labeler is not None
            finding = partial(finding, labelled_by=self.labeler.name)
        elif share < EMPTY and not _says_nobody(candidate):
            return finding(reason="empty mask", detail="no pixel of the mask is a person")
        if share > FULL:
            return finding(reason="all-foreground mask", detail="the mask covers all pixels")

        covered = _covered(binary, seen)
        clear = (scores >= CLEAR_SCORE) & (area_xyxy(seen) >= CLEAR_SHARE * binary.size)
        regions = _regions(mask)
        own = regions if drawn is None else drawn
        missed = own[_largest_share_inside(own, seen[covered >= LABELLED]) < AGREEING]
        # Detectors cut off feet, hats and bags; what the mask holds of a person belongs to them.
        people = _widened(np.concatenate((seen[covered >= LABELLED], missed)), regions)
        everybody = np.column_stack(
            (np.concatenate((seen, missed)), np.concatenate((scores, np.ones(len(missed)))))
        )
        return finding(
            boxes=_tuples(np.round(everybody, 2).tolist()),
            people=_tuples(np.round(people, 2).tolist()),
            unlabelled=_tuples(np.round(seen[clear & (covered < LABELLED)], 2).tolist()),
            flags=_doubts(binary, seen, covered) if searched else (),
        )

    def truth(
        self, candidate: Candidate, picture: Image.Image, rgb: Image.Image, key: str
    ) -> tuple[Image.Image, Boxes | None]:
        """The mask ("L", upright, 0…255) and, where annotations tell them apart, the people.

        ``picture`` is as opened, ``rgb`` upright. A mask that has to be made is made once
        and then read from the labels folder.
        """
        if candidate.mask == "label":
            file = self.labels / f"{key}.png"
            if not file.is_file():
                assert self.labeler is not None
                mask = self.labeler(rgb)
                with written_atomically(file) as temporary:
                    mask.save(temporary, "PNG")
            return open_image(file), None
        if isinstance(candidate.mask, CocoMask):
            return draw_people(candidate.mask, picture, candidate.name)
        if candidate.mask == "thing":
            if alpha_of(picture, "alpha", candidate.name).getbbox() is None:
                raise DataError(f"{candidate.image}: is all transparent; remove it.")
            return Image.new("L", rgb.size), None
        return alpha_of(picture, candidate.mask, candidate.name), None

    def _detect(self, rgb: Image.Image) -> tuple[Boxes, Scores]:
        assert self.detector is not None
        boxes, scores = self.detector(rgb)
        boxes = clip_xyxy(boxes, rgb.size)
        kept = area_xyxy(boxes) > 0
        return boxes[kept], scores[kept]


def _doubts(
    binary: npt.NDArray[np.bool_], seen: Boxes, covered: npt.NDArray[np.float32]
) -> tuple[str, ...]:
    """What makes a mask doubtful to somebody who trusts the detector.

    "nobody_detected": it shows somebody, the detector saw nobody. "mask_disagrees": it
    covers another place or extent than the people who were seen.
    """
    if not binary.any():
        return ()
    if not len(seen):
        return ("nobody_detected",)
    labelled = seen[covered >= LABELLED]
    hulls = np.concatenate((labelled, hull_xyxy(labelled))) if len(labelled) else labelled
    agrees = iou_xyxy(_bounding_box(binary), hulls).max(initial=0) >= AGREEING
    return () if agrees else ("mask_disagrees",)


def _says_nobody(candidate: Candidate) -> bool:
    mask = candidate.mask
    return candidate.shows_nobody or (isinstance(mask, CocoMask) and not mask.annotations)


def _hashes(picture: Image.Image, rgb: Image.Image) -> tuple[str, str] | tuple[()]:
    # Colours under transparent pixels are anything; on grey a cut-out hashes as it looks.
    if has_alpha(picture):
        cutout = upright(picture).convert("RGBA")
        grey = Image.new("RGBA", cutout.size, (128, 128, 128, 255))
        rgb = Image.alpha_composite(grey, cutout).convert("RGB")
    return perceptual_hashes(rgb)


def _regions(mask: Image.Image) -> Boxes:
    scale = min(1.0, _GRID / max(mask.size))
    size = (max(1, round(mask.width * scale)), max(1, round(mask.height * scale)))
    grid = np.asarray(mask.resize(size, Image.Resampling.BOX), np.float32) / np.float32(255)
    boxes = locate(grid, mask.size)
    areas = area_xyxy(boxes)
    boxes = boxes[areas >= _SPECK * areas.max(initial=0)]
    if not len(boxes) and mask.getbbox():  # too small or thin for the grid
        box = mask.point(lambda value: 255 if value >= THRESHOLD else 0).getbbox()
        boxes = np.array([box] if box else [], np.float32).reshape(-1, 4)
    return boxes


def _widened(boxes: Boxes, regions: Boxes) -> Boxes:
    """Boxes that hold the regions they overlap, unless several boxes share such a region."""
    touches = intersection_xyxy(boxes, regions) > 0
    return extended_xyxy(boxes, regions[touches.sum(axis=0) == 1])


def _covered(binary: npt.NDArray[np.bool_], boxes: Boxes) -> npt.NDArray[np.float32]:
    """The share of each box that the mask covers: (H,W), (N,4) → (N,)."""
    corners = np.concatenate((np.floor(boxes[:, :2]), np.ceil(boxes[:, 2:])), axis=1).astype(int)
    shares = [binary[top:bottom, left:right].mean() for left, top, right, bottom in corners]
    return np.array(shares, np.float32)


def _largest_share_inside(boxes: Boxes, others: Boxes) -> npt.NDArray[np.float32]:
    """For each box the largest share of it that lies in one of the others: (N,)."""
    inside = intersection_xyxy(boxes, others).max(axis=1, initial=0)
    share: npt.NDArray[np.float32] = inside / np.maximum(area_xyxy(boxes), 1)
    return share


def _bounding_box(binary: npt.NDArray[np.bool_]) -> Boxes:
    return np.array([Image.fromarray(binary).getbbox()], np.float32)


def _tuples(value: Any) -> Any:
    is_list = isinstance(value, Sequence) and not isinstance(value, str)
    return tuple(_tuples(item) for item in value) if is_list else value
