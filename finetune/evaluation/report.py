"""From each picture's scores to means with intervals, over all and by slice."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .bootstrap import compare

#: Title of the slices by source among pictures whose mask `prepare` did not put in doubt.
TRUSTED = "source, without doubt about the mask"
#: The result of one picture: "source", "empty_scene", "height", "area", "persons", "flags", and the
#: scores of each model under "before" and "after".
Picture = Mapping[str, Any]

#: Scores of pictures with people: their name in tables, and whether more is better.
METRICS = {
    "iou": ("IoU", True),
    "boundary_iou": ("Boundary IoU", True),
    "boundary_accuracy": ("Boundary accuracy", True),
    "mae": ("MAE", False),
    "haze": ("Haze", False),
    "sad": ("SAD, thousands, of mattes", False),
    "mse": ("MSE of mattes", False),
    "grad": ("Grad of mattes", False),
    "conn": ("Conn of mattes", False),
    "consistency": ("Visual consistency", True),
    "missed": ("People missed altogether", False),
}

#: Upper ends of the slices by size, shares of the picture.
HEIGHTS = (0.05, 0.15, 0.3, 0.6, math.inf)
AREAS = (0.02, 0.1, 0.25, 0.5, 1.0)


def summarise(pictures: Sequence[Picture]) -> dict[str, Any]:
    """Both models' means and their difference: overall, by slice, and for empty scenes.

    Scores of masks are means over pictures with people. Empty scenes are reported separately, by
    the share left empty, the MAE and the haze.
    """
    people = [picture for picture in pictures if not picture["empty_scene"]]
    scenes = [picture for picture in pictures if picture["empty_scene"]]
    return {
        "overall": _scores(people) if people else None,
        "slices": {
            title: {name: _scores(group) for name, group in groups.items()}
            for title, groups in slices_of(people).items()
        },
        "empty_scenes": _empty_scenes(scenes) if scenes else None,
        "seconds_per_picture": {
            model: float(np.median([picture[model]["seconds"] for picture in pictures]))
            for model in ("before", "after")
        }
        if pictures
        else None,
    }


def slices_of(people: Sequence[Picture]) -> dict[str, dict[str, list[Picture]]]:
    """Pictures with people, by title and name of slice, in the order to show."""
    trusted = [picture for picture in people if _flags(picture) == "none"]
    slices = {
        "source": _by(people, _source),
        "height of the people": _by(people, lambda picture: _range(picture["height"], HEIGHTS)),
        "area of the mask": _by(people, lambda picture: _range(picture["area"], AREAS)),
        "number of people": _by(people, _persons),
        "doubt about the mask": _by(people, _flags),
        TRUSTED: (_by(trusted, _source) if len(trusted) < len(people) else {}),
    }
    # A single slice would repeat the overall numbers.
    return {t: groups for t, groups in slices.items() if len(groups) > 1 or t == "source"}


def _scores(pictures: Sequence[Picture]) -> dict[str, Any]:
    scores: dict[str, Any] = {"pictures": len(pictures)}
    for metric, (_, more_is_better) in METRICS.items():
        measured = [picture for picture in pictures if metric in picture["after"]]
        if measured:
            before, after = _values(measured, metric)
            perfect = 1.0 if more_is_better else 0.0
            error = abs(perfect - before.mean())
            scores[metric] = {
                "pictures": len(measured),
                **compare(before, after),
                # By how much the distance to a perfect score shrank; negative: it grew.
                "error_cut": float(1 - abs(perfect - after.mean()) / error) if error else None,
            }
    return scores


def _empty_scenes(scenes: Sequence[Picture]) -> dict[str, Any]:
    return {
        "pictures": len(scenes),
        "left_empty": compare(*_values(scenes, "empty")),
        "mae": compare(*_values(scenes, "mae")),
        "haze": compare(*_values(scenes, "haze")),
    }


def _values(pictures: Sequence[Picture], metric: str) -> tuple[Any, Any]:
    before, after = (
        np.array([picture[model][metric] for picture in pictures], np.float64)
        for model in ("before", "after")
    )
    return before, after


def _by(pictures: Sequence[Picture], key: Callable[[Picture], str]) -> dict[str, list[Picture]]:
    groups: dict[str, list[Picture]] = {}
    for picture in pictures:
        groups.setdefault(key(picture), []).append(picture)
    return dict(sorted(groups.items(), key=lambda item: (item[0] == "unknown", _natural(item[0]))))


def _natural(name: str) -> tuple[int, str]:
    digits = "".join(character for character in name.partition("–")[0] if character.isdigit())
    return (int(digits) if digits else 0, name)


def _range(share: float, ends: Sequence[float]) -> str:
    start = 0.0
    for end in ends:
        if share < end or end == ends[-1]:
            if math.isinf(end):  # people who are cut off by the picture's edge
                return f"{100 * start:.0f} % and more"
            return f"{100 * start:.0f}–{100 * end:.0f} %"
        start = end
    raise AssertionError


def _source(picture: Picture) -> str:
    return picture["source"] or "unnamed"


def _persons(picture: Picture) -> str:
    return "unknown" if picture["persons"] is None else str(picture["persons"])


def _flags(picture: Picture) -> str:
    """`prepare`'s flags in words; with "unlabelled person" somebody is not in the true mask."""
    flags = picture["flags"]
    return "unknown" if flags is None else ", ".join(flags).replace("_", " ") or "none"
