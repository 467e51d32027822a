"""From an inspected photo to files: pictures cropped around people, their masks, and cut-outs."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import ExifTags, Image, ImageDraw

from u2net_human_plugin.boxes import area_xyxy, clip_xyxy, joined_xyxy
from u2net_human_plugin.cutout import upright
from u2net_human_plugin.preprocess import to_rgb

from ..files import file_sha256, written_atomically
from .cutouts import cut_out
from .inspection import Inspection
from .inspector import Inspector
from .manifest import Row
from .photo import Photo
from .pictures import open_image
from .unlabelled import UNKNOWN, left_out

Box = tuple[int, int, int, int]

#: To be raised with every change that makes other files.
VERSION = 3
#: A photo of which a crop would be more than this share is kept whole.
WHOLE = 0.8
#: Pictures in these formats become PNG, others JPEG of this quality.
_LOSSLESS = frozenset(("PNG", "TIFF", "BMP", "PPM", "GIF"))
_QUALITY = 95
#: Masks with values of 5 to 95 per cent are soft and stored with 8 bits, others with one.
_SOFT = slice(13, 243)


@dataclass(frozen=True)
class WriteOptions:
    """How photos are cropped and written."""

    crop: bool = True
    #: Room around a person's box, as a share of its longer side.
    margin: float = 0.25
    #: Crops with a shorter side are not made.
    min_side: int = 96
    #: "estimated": the background is taken out of the colours at the cut-outs' edges;
    #: "straight": colours stay as they are; "none": no cut-outs are written.
    cutouts: Literal["estimated", "straight", "none"] = "estimated"

    def key(self, inspection: Inspection) -> str:
        """A hash of everything that the files made from an inspection depend on."""
        parts = [VERSION, inspection.key, asdict(self)]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def crop_boxes(inspection: Inspection, options: WriteOptions) -> list[Box | None]:
    """The crops to make of a picture, largest first; None stands for the whole picture.

    Overlapping people share a crop. A picture is kept whole if it has no people, if a crop
    would be nearly all of it, or if all are too small to be cropped.
    """
    people = np.array(inspection.people, np.float32).reshape(-1, 4)
    if not options.crop or not len(people):
        return [None]
    people = joined_xyxy(people, at_most=len(people))
    room = options.margin * (people[:, 2:] - people[:, :2]).max(axis=1, keepdims=True)
    crops = clip_xyxy(
        people + np.concatenate((-room, -room, room, room), axis=1), inspection.size_wh
    )
    areas = area_xyxy(crops)
    if areas.max() > WHOLE * inspection.size_wh[0] * inspection.size_wh[1]:
        return [None]
    crops = crops[np.argsort(-areas, kind="stable")].round().astype(int)
    large = [
        (left, top, right, bottom)
        for left, top, right, bottom in crops.tolist()
        if min(right - left, bottom - top) >= options.min_side
    ]
    return [*large] or [None]


@dataclass(frozen=True)
class Writer:
    """Writes the files of one photo below ``out``; thread-safe."""

    out: Path
    options: WriteOptions
    inspector: Inspector

    def write(self, photo: Photo, inspection: Inspection) -> list[dict[str, Any]]:
        """Write all files; return the values of their rows, file names relative to ``out``.

        Each file appears whole or not at all. The names hold a hash of the content and of
        the options, so that no two of them get one name.

        Raises:
            OSError: a file cannot be read or written.
            DataError: the picture has become unreadable meanwhile.
        """
        picture = open_image(photo.image)
        rgb = to_rgb(upright(picture))
        stem = re.sub(r"[^A-Za-z0-9_-]+", "-", photo.image.stem)[:40]
        stem = f"{stem}-{self.options.key(inspection)[:12]}"
        mask = unknown = None
        if photo.mask is not None and inspection.people:
            mask = self.inspector.truth(photo, picture, rgb, inspection.key)[0]
            unknown = self.inspector.unknown(photo, picture)
        rows = []
        boxes = crop_boxes(inspection, self.options)
        for number, box in enumerate(boxes, start=1):
            name = stem if boxes == [None] else f"{stem}-p{number}"
            if photo.mask in ("alpha", "distractor"):
                rgba = upright(picture).convert("RGBA")
                row = self._write_rgba(rgba, box, name, photo.mask == "distractor")
            else:
                row = self._write_pair(photo.image, picture, rgb, mask, box, name)
            row |= _people_in(box, inspection)
            if box is not None:
                row["is_crop"] = True
            if mask is not None and unknown is not None:
                row["bystanders"] = f"bystanders/{name}.png"
                cut = (unknown, mask) if box is None else (unknown.crop(box), mask.crop(box))
                trimap = self._with_left_out(*cut, row["boxes"], photo)
                self._save(trimap, row["bystanders"])
            rows.append(row)
        return rows

    def _write_rgba(
        self, rgba: Image.Image, box: Box | None, name: str, is_distractor: bool
    ) -> dict[str, Any]:
        """Write an RGBA picture, which holds its own mask."""
        file = f"images/{name}.png"
        self._save(rgba.crop(box) if box else rgba, file)
        if is_distractor:
            return {"image": file, "mask": None, "thing": True} | self._hash(file)
        return {"image": file, "mask": "alpha", "cutout": file} | self._hash(file)

    def _write_pair(
        self,
        original: Path,
        picture: Image.Image,
        rgb: Image.Image,
        mask: Image.Image | None,
        box: Box | None,
        name: str,
    ) -> dict[str, Any]:
        lossless = picture.format in _LOSSLESS
        file = f"images/{name}.{'png' if lossless else 'jpg'}"
        image = rgb.crop(box) if box else rgb
        as_it_is = box is None and picture.mode == "RGB" and picture.format in ("PNG", "JPEG")
        if as_it_is and picture.getexif().get(ExifTags.Base.Orientation, 1) == 1:
            self._atomically(file, lambda path: path.write_bytes(original.read_bytes()))
        else:
            self._save(image, file)
        row: dict[str, Any] = {"image": file, "mask": None} | self._hash(file)
        if mask is not None:
            mask = mask.crop(box) if box else mask
            row["mask"] = f"masks/{name}.png"
            self._save(
                mask
                if any(mask.histogram()[_SOFT])
                else mask.convert("1", dither=Image.Dither.NONE),
                row["mask"],
            )
            if self.options.cutouts != "none":
                row["cutout"] = f"cutouts/{name}.png"
                self._save(cut_out(image, mask, self.options.cutouts == "estimated"), row["cutout"])
        return row

    def _with_left_out(
        self, trimap: Image.Image, mask: Image.Image, boxes: Any, photo: Photo
    ) -> Image.Image:
        """``trimap`` with the boxes of people who are not in the mask; a manifest's stays as it is.

        `train` knows of such people from the trimap alone.
        """
        if photo.bystanders is None and self.inspector.searches(photo):
            trimap = trimap.copy()
            extra = {"boxes": boxes, "detector": self.inspector.detector_id}
            for box in left_out(Row(photo.image, None, extra=extra), mask):
                ImageDraw.Draw(trimap).rectangle([round(side) for side in box], fill=UNKNOWN)
            trimap.paste(0, (0, 0), mask)
        return trimap

    def _hash(self, file: str) -> dict[str, str]:
        return {"sha256": file_sha256(self.out / file)}

    def _save(self, image: Image.Image, file: str) -> None:
        if file.endswith(".png"):
            # Level 3 takes half the time of the default 6, for a few per cent more bytes.
            self._atomically(file, lambda path: image.save(path, "PNG", compress_level=3))
        else:
            self._atomically(
                file, lambda path: image.save(path, "JPEG", quality=_QUALITY, subsampling=0)
            )

    def _atomically(self, file: str, write: Callable[[Path], object]) -> None:
        with written_atomically(self.out / file) as temporary:
            write(temporary)


def _people_in(box: Box | None, inspection: Inspection) -> dict[str, Any]:
    """The values of a row's "boxes", "persons" and "flags", in pixels of the crop."""
    left, top, right, bottom = box or (0, 0, *inspection.size_wh)
    offset = np.array((left, top, left, top), np.float32)
    size = (right - left, bottom - top)

    def inside(boxes: Any) -> tuple[Any, Any]:
        whole = np.array(boxes, np.float32).reshape(-1, 4)
        clipped = clip_xyxy(whole - offset, size)
        # A sliver at the edge of the crop is not counted.
        return clipped, area_xyxy(clipped) >= 0.1 * np.maximum(area_xyxy(whole), 1)

    boxes, kept = inside([box[:4] for box in inspection.boxes])
    scores = [box[4] for box in inspection.boxes]
    listed = [
        [*(round(value, 1) for value in values), score]
        for values, score, keep in zip(boxes.tolist(), scores, kept, strict=True)
        if keep
    ]
    flags = list(inspection.flags)
    if inside(inspection.unlabelled)[1].any():
        flags.append("unlabelled_person")
    about = {"boxes": listed, "persons": int(inside(inspection.people)[1].sum())}
    return about | ({"flags": flags} if flags else {})


def to_row(written: dict[str, Any], out: Path, extra: dict[str, Any]) -> Row:
    """A manifest row from what :meth:`Writer.write` returned and what was decided."""
    values = written | extra
    mask, bystanders = values.pop("mask"), values.pop("bystanders", None)
    return Row(
        image=out / values.pop("image"),
        mask=out / mask if mask not in (None, "alpha") else mask,
        source=values.pop("source"),
        split=values.pop("split"),
        licence=values.pop("licence"),
        extra=values,
        bystanders=out / bystanders if bystanders else None,
    )
