"""What a run of `python -m finetune prepare` is asked to do, and what it did."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from u2net_human_plugin.yolo import Detector

from .manifest import Row
from .near_duplicates import NEAR
from .photo import Photo
from .pseudo_labels import Labeler
from .writer import WriteOptions


@dataclass(frozen=True)
class Plan:
    """The settings of a run."""

    write_options: WriteOptions = field(default_factory=WriteOptions)
    detector: Detector | None = None
    #: Which detector it is, by its content; inspections made with another one are not reused.
    detector_id: str = ""
    labeler: Labeler | None = None
    #: Photos in which nobody was found become empty scenes, or are set aside.
    without_person: Literal["negative", "reject"] = "negative"
    #: Rows with a clearly visible person who is not in the mask get a flag, or are set aside.
    unlabelled_person: Literal["flag", "aside"] = "flag"
    #: Patterns (``*``, ``?``, ``[…]``, any case) of the licences to take; empty: all.
    licences: tuple[str, ...] = ()
    val: float = 0.1
    test: float = 0.1
    near: int = NEAR
    workers: int = 2


@dataclass(frozen=True)
class Aside:
    """A photo that does not become part of the set."""

    name: str
    reason: str
    detail: str = ""


@dataclass
class Outcome:
    """What a run did."""

    rows: list[Row] = field(default_factory=list)
    aside: list[Aside] = field(default_factory=list)
    #: Photos on which something went wrong that may go right the next time.
    failed: list[Aside] = field(default_factory=list)
    #: Names of photos that look alike, by group.
    alike: list[list[str]] = field(default_factory=list)
    #: By source: the number of masks that could be read, and how many of them have each doubt.
    masks: Counter[str] = field(default_factory=Counter)
    doubts: dict[str, Counter[str]] = field(default_factory=dict)
    #: The numbers of photos that were given, and that this run inspected and wrote.
    photos: int = 0
    inspected: int = 0
    written: int = 0
    #: Files of earlier runs that the manifest does not name.
    unreferenced: list[str] = field(default_factory=list)

    def set_aside(self, photo: Photo, reason: str, detail: str = "") -> None:
        """Note that ``photo`` does not become part of the set, and why."""
        self.aside.append(Aside(photo.name, reason, detail))
