"""What `prepare` found out about a photo; it is kept between runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Inspection:
    """What is known of a photo. Boxes are left, top, right, bottom, in upright pixels."""

    key: str
    sha256: str = ""
    size_wh: tuple[int, int] = (0, 0)
    hashes: tuple[str, str] | tuple[()] = ()
    #: Share of the picture that the mask covers, 0…1.
    share: float = 0.0
    #: Everybody who was detected or is in the mask, each box with a score.
    boxes: tuple[tuple[float, float, float, float, float], ...] = ()
    #: The people whose boxes the mask covers.
    people: tuple[tuple[float, float, float, float], ...] = ()
    #: Clearly visible people who are not in the mask.
    unlabelled: tuple[tuple[float, float, float, float], ...] = ()
    #: Other doubts about the mask, see :func:`.doubts.doubts`.
    flags: tuple[str, ...] = ()
    labelled_by: str | None = None
    #: Why the photo cannot be used: a short reason, by which reports count, and its details.
    reason: str = ""
    detail: str = ""

    def to_json(self) -> dict[str, Any]:
        """The JSON that is kept."""
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
