"""What was found out about one picture; kept between runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Inspection:
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
    #: Other doubts about the mask, see :func:`.doubts.doubts`.
    flags: tuple[str, ...] = ()
    labelled_by: str | None = None
    #: Why it cannot be used: a short reason that reports count by, and the particulars.
    reason: str = ""
    detail: str = ""

    def to_json(self) -> dict[str, Any]:
        """What the cache keeps."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Inspection:
        """The inverse of :meth:`to_json`."""
        lists = {name: tuples(value) for name, value in content.items()}
        return cls(**lists)


def tuples(value: Any) -> Any:
    """Lists as tuples, at every depth."""
    is_list = isinstance(value, Sequence) and not isinstance(value, str)
    return tuple(tuples(item) for item in value) if is_list else value
