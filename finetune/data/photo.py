"""One picture that may become part of a data set, before anybody has looked at it."""

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
    #: Width and height that the JSON states, None where it does not.
    size_wh: tuple[int, int] | None


@dataclass(frozen=True)
class Photo:
    """One picture that may become part of the training set."""

    image: Path
    #: A mask file, the picture's own "alpha", COCO annotations, None (an empty scene),
    #: "thing" (the cut-out of something that is nobody), or "label": there is none yet.
    mask: Path | Literal["alpha", "label", "distractor"] | CocoMask | None
    source: str
    #: What reports call it: the source and the path inside the input.
    name: str
    licence: str = ""
    #: The split a manifest states; None leaves it to `prepare`.
    split: Split | None = None
    #: What the values of a mask file mean.
    reading: Reading = BRIGHT
    #: A manifest's trimap of who, beside the mask, is there or may be.
    bystanders: Path | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    #: Why it cannot be used, if that shows without opening it.
    problem: str = ""

    @property
    def shows_nobody(self) -> bool:
        """Whether it is given as an empty scene or as a distractor."""
        return self.mask in (None, "distractor")


@dataclass(frozen=True)
class Origin:
    """What to say of all pictures of an input: where they come from and on what terms."""

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
    """A file's name as it can be written anywhere: what is no UTF-8 becomes escapes."""
    return name.encode(errors="backslashreplace").decode()
