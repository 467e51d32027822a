"""The manifest: one JSON line, a row, per picture. :mod:`.pictures` loads what a row names.

A row names a picture, its mask, their source and their split. Paths are relative to the
manifest's folder:

    {"image": "images/a.jpg", "mask": "masks/a.png", "source": "studio", "split": "train",
     "licence": "CC0-1.0"}

``"mask": "alpha"`` means the picture's own alpha channel, ``"mask": null`` a scene: nobody is in
it. ``"mask": null`` with ``"thing": true`` is a distractor: the cut-out of an object or animal, to
be pasted into pictures. A row may name further files:

- ``"bystanders"``: a trimap of people who are not in the mask (:mod:`.unlabelled`);
- ``"teacher"``: an 8-bit matte that networks drew;
- ``"teacher_weight"``: a map of how far these networks agreed;
- ``"thing_mask"``: in a scene, the mask of an object that may be cut out as a distractor.

All other keys are kept in :attr:`Row.extra` and written back unchanged. One of them,
``"detector"``, names what found the ``"boxes"``. If it is missing or null, no detector searched
the picture, and people who are not in the mask may have no box.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from u2net_human_plugin.boxes import Boxes
from u2net_human_plugin.errors import DataError

from ..files import write_text

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

_ALPHA: Literal["alpha"] = "alpha"
#: Keys that name further files, and the fields of :class:`Row` for them.
_FILES = {
    "bystanders": "bystanders",
    "teacher": "teacher",
    "teacher_weight": "teacher_weight",
    "thing_mask": "distractor_mask",
}
_KEYS = ("image", "mask", "source", "split", "licence", *_FILES)


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
    #: In a row with a mask it says where the edge is; in a row without one it is all that is known.
    teacher: Path | None = None
    #: Absolute path of a map of how far to trust the matte: 255 wholly, 0 not at all. None: wholly.
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
        """Whether `prepare` saw somebody who is not in the mask, or somebody in a scene."""
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
        check_files: whether to raise now if a file that a row names does not exist; a command
            would else fail on it hours later.

    Raises:
        DataError: the file is missing or a line is not a row; names the file and the line.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "manifest.jsonl"
    try:
        # Not splitlines: it also splits at characters that may stand in a file's name.
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
