"""The manifest: one JSON line per picture, and how picture and mask of a row are read.

A row names a picture and its mask (paths are relative to the manifest's folder), their source and
their split:

    {"image": "images/a.jpg", "mask": "masks/a.png", "source": "studio", "split": "train",
     "licence": "CC0-1.0"}

``"mask": "alpha"`` means the picture's own alpha channel, ``"mask": null`` a scene with
nobody in it. With ``"thing": true`` as well, the picture is a distractor: the cut-out of an object
or animal, to be pasted into pictures. Further files of a row are ``"bystanders"``, a trimap of
people who are not in the mask (:mod:`.unlabelled`); ``"teacher"``, an 8-bit matte that networks
drew; ``"teacher_weight"``, how far they agreed; and ``"thing_mask"``, in a scene, the mask of a
thing that may be cut out as a distractor. Further keys are kept in :attr:`Row.extra` and written
back unchanged. One of these, ``"detector"``, names what found ``"boxes"``; without it, or with
null, the boxes tell nothing of people who are not in the mask.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import ExifTags, Image

from u2net_human_plugin.boxes import Boxes
from u2net_human_plugin.cutout import upright
from u2net_human_plugin.errors import DataError
from u2net_human_plugin.preprocess import to_rgb

from ..files import write_text
from .masks import BRIGHT, Reading, has_alpha

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

#: In a binary mask, grey values from this one on are person.
THRESHOLD = 128
#: The mask lacks a person if it covers less than this share of the person's box.
LABELLED = 0.35

_ALPHA: Literal["alpha"] = "alpha"
#: Keys that name further files, and the fields of :class:`Row` for them.
_FILES = {
    "bystanders": "bystanders",
    "teacher": "teacher",
    "teacher_weight": "teacher_weight",
    "thing_mask": "distractor_mask",
}
_KEYS = ("image", "mask", "source", "split", "licence", *_FILES)


class SizeError(DataError):
    """A mask has another size than its picture."""


@dataclass(frozen=True)
class Row:
    """A line of the manifest: one picture."""

    #: Absolute path of the picture.
    image: Path
    #: Absolute path of the mask, ``"alpha"`` for the picture's own, None for an empty scene.
    mask: Path | Literal["alpha"] | None
    source: str = ""
    #: None if the manifest states none; `python -m finetune prepare` then draws one.
    split: Split | None = None
    licence: str = ""
    #: All other keys of the row, for example "sha256", "boxes", "group", "flags".
    extra: Mapping[str, Any] = field(default_factory=dict)
    #: "manifest.jsonl:17", for messages.
    where: str = field(default="", compare=False)
    #: Absolute path of a trimap of people who are not in the mask: 0 nobody, 128 unknown, 255 a
    #: person. None if there is none.
    bystanders: Path | None = None
    #: Absolute path of a matte, 8-bit and of any size, that networks drew; None if there is none.
    #: In a row with a mask it says where the edge is, in one without it is all that is known.
    teacher: Path | None = None
    #: Absolute path of a map of how far to trust it: 255 wholly, 0 not at all. None: wholly.
    teacher_weight: Path | None = None
    #: Absolute path of the mask, in a scene, of a thing that may be cut out as a distractor.
    distractor_mask: Path | None = None

    @property
    def is_distractor(self) -> bool:
        """Whether the picture is the cut-out of a distractor."""
        return self.mask is None and bool(self.extra.get("thing"))

    @property
    def is_scene(self) -> bool:
        """Whether the row states that nobody is in the picture."""
        return self.mask is None and not self.is_distractor

    @property
    def has_unlabelled_person(self) -> bool:
        """Whether `prepare` saw somebody who is not in the mask, or in a scene."""
        return "unlabelled_person" in (self.extra.get("flags") or ())

    @property
    def was_searched(self) -> bool:
        """Whether a detector searched the picture, also for people who are not in the mask."""
        return "boxes" in self.extra and self.extra.get("detector") is not None

    @property
    def boxes_xyxy(self) -> Boxes:
        """Boxes of the people that a detector saw, (N,4) float32 xyxy in pixels of the picture."""
        listed = self.extra["boxes"] if self.was_searched else ()
        boxes = [box[:4] for box in listed]  # a score may follow
        return np.array(boxes, np.float32).reshape(-1, 4)

    @property
    def name(self) -> str:
        """The row's name in messages: its place in the manifest and its picture."""
        return f"{self.where}: {self.image}" if self.where else str(self.image)


def read_manifest(path: Path | str, *, check_files: bool = True) -> list[Row]:
    """Return the rows of ``path`` in their order, with absolute paths.

    Args:
        path: a manifest, or a folder that holds a ``manifest.jsonl``.
        check_files: raise if a picture or mask does not exist, rather than hours later.

    Raises:
        DataError: the file is missing or a line is not a row; names the file and the line.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "manifest.jsonl"
    try:
        # Not splitlines: that splits at characters, too, that may stand in a file's name.
        lines = path.read_text("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: cannot be read as a manifest ({error}); expected a JSON-lines file as "
            "written by `python -m u2net_human_plugin.finetune prepare`."
        ) from None
    rows = [
        _parse(line, path, number) for number, line in enumerate(lines, start=1) if line.strip()
    ]
    for row in rows if check_files else ():
        for file in (row.image, row.mask, *(getattr(row, name) for name in _FILES.values())):
            if isinstance(file, Path) and not file.is_file():
                raise DataError(
                    f"{row.where}: {file} does not exist; restore it, remove the line, or run "
                    "`python -m u2net_human_plugin.finetune prepare` on this manifest, which sets "
                    "such rows aside."
                )
    return rows


def write_manifest(path: Path, rows: Iterable[Row]) -> None:
    """Write ``rows`` to ``path`` in one step, file paths relative to its folder."""
    write_text(path, "".join(to_json(row, path.parent) + "\n" for row in rows))


def to_json(row: Row, folder: Path) -> str:
    """Return ``row`` as one line of a manifest in ``folder``."""
    content = {
        "image": _relative(row.image, folder),
        "mask": _relative(row.mask, folder) if isinstance(row.mask, Path) else row.mask,
        "source": row.source,
        "split": row.split,
        "licence": row.licence,
        **{
            key: _relative(file, folder)
            for key, name in _FILES.items()
            if (file := getattr(row, name))
        },
        **row.extra,
    }
    return json.dumps(content, ensure_ascii=False)


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

    ``picture`` is as :func:`open_image` returns it, ``mask`` as in :class:`Row`, ``name``
    what messages call the picture. A mask file may be 1-bit, grey, RGB or palette, hold 0/1
    instead of 0/255, or be drawn for the picture as stored instead of upright; all come
    back as the same kind of mask.

    Raises:
        DataError: picture or mask cannot be read, or their sizes differ.
    """
    if mask == _ALPHA:
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
    """Return the part of a mask file that does not count, as "L" of the picture's upright size."""
    name = f"{name} with mask {mask}"
    void = reading.void(upright(open_image(mask)), name)
    return None if void is None else fit_mask(picture, void, name)


def open_image(path: Path, where: str = "") -> Image.Image:
    """Open and fully decode ``path``; orientation is left as stored.

    Raises:
        DataError: the file is missing, damaged, too large or no picture.
    """
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except Exception as error:  # noqa: BLE001 - Pillow's decoders raise a dozen unrelated types
        reason = f"{type(error).__name__}: " + " ".join(str(error).split())[:200]
        # Once imported, ultralytics looks into whatever Pillow does not know for a HEIC photo.
        if isinstance(error, ImportError) and path.suffix.lower() not in (".heic", ".heif"):
            reason = "it is no picture of a known kind"
        prefix = f"{where}: " if where else ""
        raise DataError(
            f"{prefix}{path}: cannot be read as a picture ({reason}); replace or remove it."
        ) from None


def fit_mask(picture: Image.Image, mask: Image.Image, name: str) -> Image.Image:
    """Return ``mask`` turned upright as ``picture`` is, if it was drawn for the stored pixels.

    ``picture`` is as opened, with its EXIF orientation not yet applied. Which of the two a
    mask was drawn for shows in its size; where both fit, upright is taken.

    Raises:
        SizeError: it fits neither the upright nor the stored picture.
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


def _parse(line: str, path: Path, number: int) -> Row:
    where = f"{path}:{number}"
    try:
        content = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where}: not JSON ({error}); correct or remove the line.") from None
    if not isinstance(content, dict):
        raise DataError(f"{where}: expected an object with the keys {', '.join(_KEYS)}.")
    missing = [key for key in ("image", "mask") if key not in content]
    if missing:
        raise DataError(
            f'{where}: "{missing[0]}" is missing; a row has the keys {", ".join(_KEYS)} '
            '(mask: a path, "alpha", or null for an empty scene).'
        )
    for key in _KEYS:
        value = content.get(key)
        if not isinstance(value, str) and not (value is None and key != "image"):
            raise DataError(f'{where}: "{key}" is {value!r}; expected text.')
    split = content.get("split")
    if split is not None and split not in SPLITS:
        raise DataError(
            f'{where}: "split" is {split!r}; expected one of {", ".join(SPLITS)}, or null.'
        )
    mask = content["mask"]
    folder = path.parent.absolute()
    return Row(
        image=folder / content["image"],
        mask=folder / mask if mask not in (_ALPHA, None) else mask,
        source=content.get("source") or "",
        split=split,
        licence=content.get("licence") or "",
        extra={key: value for key, value in content.items() if key not in _KEYS},
        where=where,
        **{name: folder / content[key] for key, name in _FILES.items() if content.get(key)},
    )


def _relative(file: Path, folder: Path) -> str:
    return Path(os.path.relpath(file, folder.absolute())).as_posix()
