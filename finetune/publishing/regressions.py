"""The guard of `export`: whether new weights may replace old ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..evaluation.report import METRICS

#: Scores that new weights must not make worse. The first three are of masks cut at one half; the
#: last, of which less is better, also covers people who become transparent, and haze around them.
GUARDED = ("iou", "boundary_iou", "boundary_accuracy", "mae")
#: A mean may get worse by this much, whatever the interval is.
TOLERATED = 0.002
#: A mean must not get worse by more than this, even where the interval reaches beyond zero.
UNBEARABLE = 0.01


def objections(report: Mapping[str, Any]) -> list[str]:
    """Why the weights called "after" in an evaluation's report are worse than "before".

    A score is worse if its mean fell by more than 0.01; or by more than 0.002 while the
    95 % interval of the paired difference lies below zero (MAE: rose, above). IoU, Boundary
    IoU, boundary accuracy and MAE are judged over all pictures and within each source, so
    that a gain on one source cannot pay for a loss on another; of empty scenes, MAE and the
    share left empty.
    """
    return [
        f"{where}: {score} {'fell' if more_is_better else 'rose'} from "
        f"{entry['before']['mean']:.4f} to {entry['after']['mean']:.4f}"
        for where, score, more_is_better, entry in _guarded(report)
        if _worse(entry["difference"], more_is_better)
    ]


def _guarded(report: Mapping[str, Any]) -> Iterator[tuple[str, str, bool, Mapping[str, Any]]]:
    groups = {"all pictures": report["overall"] or {}, **report["slices"].get("source", {})}
    for where, scores in groups.items():
        for score in GUARDED:
            if score in scores:
                yield where, score, METRICS[score][1], scores[score]
    if scenes := report["empty_scenes"]:
        yield "empty scenes", "the share left empty", True, scenes["left_empty"]
        yield "empty scenes", "mae", METRICS["mae"][1], scenes["mae"]


def _worse(difference: Mapping[str, float | None], more_is_better: bool) -> bool:
    sign = 1 if more_is_better else -1
    mean, end = difference["mean"], difference["high" if more_is_better else "low"]
    assert mean is not None
    clearly = end is not None and sign * end < 0
    return sign * mean < -UNBEARABLE or (clearly and sign * mean < -TOLERATED)
