"""What `python -m finetune prepare` is asked to do, and what it did."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from u2net_human_plugin.yolo import Detector

from .manifest import Row
from .near_duplicates import NEAR
from .pseudo_labels import Labeler
from .writer import WriteOptions


@dataclass(frozen=True)
class Plan:
    """Everything that decides what becomes of the photos."""

    write_options: WriteOptions = field(default_factory=WriteOptions)
    detector: Detector | None = None
    #: What detector it is, by content: others' inspections are not used.
    detector_id: str = ""
    labeler: Labeler | None = None
    #: Photos in which nobody was found: empty scenes of the training set, or set aside.
    without_person: Literal["negative", "reject"] = "negative"
    #: Rows with a clearly visible person whom the mask leaves out.
    unlabelled_person: Literal["flag", "aside"] = "flag"
    #: Patterns (``*``, ``?``, ``[…]``; case does not matter) of licences to take; none: all.
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
    #: Masks that could be read, by source, and of these how many have each doubt.
    masks: Counter[str] = field(default_factory=Counter)
    doubts: dict[str, Counter[str]] = field(default_factory=dict)
    photos: int = 0
    inspected: int = 0
    written: int = 0
    #: Files of earlier runs that the manifest does not name.
    unreferenced: list[str] = field(default_factory=list)
