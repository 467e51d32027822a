"""A photo that may become part of a data set, before it is inspected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from .manifest import Split
from .masks import BRIGHT, Reading


@dataclass(frozen=True)
class CocoMask:
    """The person annotations of one COCO image, drawn when the picture is read."""

    annotations: tuple[Mapping[str, Any], ...]
    #: Width and height according to the JSON; None if it states none.
    size_wh: tuple[int, int] | None


@dataclass(frozen=True)
class Photo:
    """A picture file and its mask, before they have a row in the manifest."""

    image: Path
    #: A mask file, the picture's own "alpha", COCO annotations, None (an empty scene),
    #: "thing" (a cut-out of something that is not a person), or "label": there is none yet.
    mask: Path | Literal["alpha", "label", "distractor"] | CocoMask | None
    source: str
    #: Its name in reports: the source and the path inside the input.
    name: str
    licence: str = ""
    #: The split that a manifest states; None: `prepare` draws one.
    split: Split | None = None
    #: How the values of a mask file are read.
    reading: Reading = BRIGHT
    #: A manifest's trimap of people who are not in the mask.
    bystanders: Path | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    #: Why it cannot be used, if that is known without opening it.
    problem: str = ""

    @property
    def shows_nobody(self) -> bool:
        """Whether it is given as an empty scene or as a distractor."""
        return self.mask in (None, "distractor")


@dataclass(frozen=True)
class Origin:
    """Where all pictures of an input come from, and under which licence."""

    #: None takes the folder's name.
    source: str | None = None
    licence: str = ""

    def name(self, folder: Path) -> str:
        """The source's name for pictures of ``folder``."""
        if self.source:
            return self.source
        folder = folder.absolute()
        generic = folder.name.lower() in ("images", "imgs", "image", "photos", "jpg", "jpegs")
        return printable(folder.parent.name if generic and folder.parent.name else folder.name)


def printable(name: str) -> str:
    """A file's name, with escapes for bytes that are not UTF-8."""
    return name.encode(errors="backslashreplace").decode()
