"""Whether new weights may take the place of old ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

#: Scores that new weights must not make worse; more is better in each.
GUARDED = ("iou", "boundary_iou", "boundary_accuracy")
#: A mean may fall by this much unpunished, whatever the interval says.
TOLERATED = 0.002
#: A mean must not fall by more than this, even where the interval reaches above zero.
UNBEARABLE = 0.01


def objections(report: Mapping[str, Any]) -> list[str]:
    """Why the weights called "after" in an evaluation's report are worse than "before".

    A score is worse if its mean fell by more than 0.01; or by more than 0.002 while the
    95 % interval of the paired difference lies below zero. IoU, Boundary IoU and boundary
    accuracy are judged over all pictures and within each source, so that a gain on one
    source cannot pay for a loss on another; of empty scenes, the share left empty.
    """
    return [
        f"{where}: {score} fell from {entry['before']['mean']:.4f} to {entry['after']['mean']:.4f}"
        for where, score, entry in _guarded(report)
        if _worse(entry["difference"])
    ]


def _guarded(report: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    groups = {"all pictures": report["overall"] or {}, **report["slices"].get("source", {})}
    for where, scores in groups.items():
        for score in GUARDED:
            if score in scores:
                yield where, score, scores[score]
    if report["empty_scenes"]:
        yield "empty scenes", "the share left empty", report["empty_scenes"]["left_empty"]


def _worse(difference: Mapping[str, float | None]) -> bool:
    mean, high = difference["mean"], difference["high"]
    assert mean is not None
    clearly = high is not None and high < 0
    return mean < -UNBEARABLE or (clearly and mean < -TOLERATED)
