"""From each picture's scores to means with intervals, slices, and Markdown tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .bootstrap import compare

#: Title of the slices by source among pictures whose mask `prepare` did not put in doubt.
TRUSTED = "source, without doubt about the mask"
#: One picture: "source", "empty_scene", "height", "area", "persons", "flags", and under
#: "before" and "after" the scores of each model.
Picture = Mapping[str, Any]

#: Scores of pictures with people: name in tables, and whether more is better.
METRICS = {
    "iou": ("IoU", True),
    "boundary_iou": ("Boundary IoU", True),
    "boundary_accuracy": ("Boundary accuracy", True),
    "mae": ("MAE", False),
    "consistency": ("Visual consistency", True),
    "missed": ("People missed altogether", False),
}

#: Upper ends of the slices by size, shares of the picture.
HEIGHTS = (0.05, 0.15, 0.3, 0.6, math.inf)
AREAS = (0.02, 0.1, 0.25, 0.5, 1.0)


def summarise(pictures: Sequence[Picture]) -> dict[str, Any]:
    """Overall, by slice, and for empty scenes: both models' means and their difference.

    Scores of masks are means over pictures with people. Empty scenes stand apart: for them
    only the share left empty and the MAE say something.
    """
    people = [picture for picture in pictures if not picture["empty_scene"]]
    scenes = [picture for picture in pictures if picture["empty_scene"]]
    trusted = [picture for picture in people if _flags(picture) == "none"]
    slices = {
        "source": _by(people, _source),
        "height of the people": _by(people, lambda picture: _range(picture["height"], HEIGHTS)),
        "area of the mask": _by(people, lambda picture: _range(picture["area"], AREAS)),
        "number of people": _by(people, _persons),
        "doubt about the mask": _by(people, _flags),
        TRUSTED: (_by(trusted, _source) if len(trusted) < len(people) else {}),
    }
    return {
        "overall": _scores(people) if people else None,
        "slices": {
            title: {name: _scores(group) for name, group in groups.items()}
            for title, groups in slices.items()
            # One slice is no slice: it repeats the overall numbers.
            if len(groups) > 1 or title == "source"
        },
        "empty_scenes": _empty_scenes(scenes) if scenes else None,
        "seconds_per_picture": {
            model: float(np.median([picture[model]["seconds"] for picture in pictures]))
            for model in ("before", "after")
        }
        if pictures
        else None,
    }


def markdown(report: Mapping[str, Any]) -> str:
    """The report as Markdown, complete with what it was measured on."""
    before, after = (report["models"][model] for model in ("before", "after"))
    parts = [
        f"# {before['spec']} → {after['spec']}",
        f"{report['pictures']} pictures of split `{report['settings']['split']}` in "
        f"`{report['settings']['manifest']}`, at their own resolution. In brackets: bootstrap "
        "95 % intervals; the difference is paired by picture.",
        tables(report),
        f"Time per picture (median): before "
        f"{report['seconds_per_picture']['before']:.2f} s, after "
        f"{report['seconds_per_picture']['after']:.2f} s, {report['settings']['workers']} at a "
        "time."
        if report["seconds_per_picture"]
        else "",
    ]
    for title, entries in (("Set aside", "set_aside"), ("Failed", "failures")):
        if report[entries]:
            lines = [
                f"- {e['image']}: {e.get('reason') or e.get('error')}" for e in report[entries]
            ]
            parts += [f"## {title}", "\n".join(lines)]
    return "\n\n".join(part for part in parts if part) + "\n"


def tables(report: Mapping[str, Any]) -> str:
    """Only the tables: overall, empty scenes, slices."""
    parts = []
    if report["overall"]:
        parts.append(overall_table(report["overall"]))
    if report["empty_scenes"]:
        scenes = report["empty_scenes"]
        title = "Empty scenes left empty (mask under 0.5 % of the picture)"
        parts.append(share_line(title, scenes["left_empty"], scenes["pictures"]))
    parts += [slice_table(title, groups) for title, groups in report["slices"].items()]
    return "\n\n".join(parts)


def overall_table(scores: Mapping[str, Any]) -> str:
    """One line per metric: before, after, difference, error cut."""
    lines = [
        f"| {scores['pictures']} pictures with people | before | after | difference | error cut |",
        "|---|---|---|---|---|",
    ]
    for metric, (title, _) in METRICS.items():
        if metric in scores:
            entry = scores[metric]
            count = "" if entry["pictures"] == scores["pictures"] else f" ({entry['pictures']})"
            cells = [_cell(entry[key], key == "difference") for key in _COLUMNS]
            cut = entry["error_cut"]
            cells.append("–" if cut is None else f"{100 * cut:.0f} %")
            lines.append(f"| {title}{count} | {' | '.join(cells)} |")
    return "\n".join(lines)


def slice_table(title: str, groups: Mapping[str, Any]) -> str:
    """One line per slice: number of pictures, and before → after (difference) of each score."""
    shown = [m for m in METRICS if any(m in scores for scores in groups.values())]
    shown = [m for m in shown if m not in ("mae", "missed")]
    lines = [
        f"| {title} | pictures | {' | '.join(METRICS[m][0] for m in shown)} |",
        "|---|---|" + "---|" * len(shown),
    ]
    for name, scores in groups.items():
        cells = [_arrow(scores.get(metric), scores["pictures"]) for metric in shown]
        lines.append(f"| {name} | {scores['pictures']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def crop_table(reports: Sequence[Mapping[str, Any]]) -> str:
    """One line per report on a `crop` setting: what a closer look gains, and what it costs.

    Where only some of the pictures have masks without doubt, those have a line of their own.
    Boundary IoU is left out: the rim it looks at is wider than a small figure.
    """
    lines = [
        "| pictures | | crop | IoU | error 1−IoU cut | time |",
        "|---|---|---|---|---|---|",
    ]
    for report in reports:
        before, after = (report["models"][model] for model in ("before", "after"))
        weights = after["spec"].partition("?")[0].rpartition("/")[2]
        seconds = report["seconds_per_picture"]
        groups = {report["title"]: report["overall"]}
        doubts = report["slices"].get("doubt about the mask", {})
        if trusted := doubts.get("none"):
            groups["… without doubt about the mask"] = trusted
        for title, scores in groups.items():
            whole = scores is report["overall"]
            cells = [
                title,
                str(scores["pictures"]),
                f"{weights}: {before['options']['crop']} → {after['options']['crop']}",
                _arrow(scores["iou"]),
                f"{100 * scores['iou']['error_cut']:.0f} %",
                f"× {seconds['after'] / seconds['before']:.1f}" if whole else "",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


_COLUMNS = ("before", "after", "difference")


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
                # How much of the distance to a perfect score is gone; negative: grew.
                "error_cut": float(1 - abs(perfect - after.mean()) / error) if error else None,
            }
    return scores


def _empty_scenes(scenes: Sequence[Picture]) -> dict[str, Any]:
    return {
        "pictures": len(scenes),
        "left_empty": compare(*_values(scenes, "empty")),
        "mae": compare(*_values(scenes, "mae")),
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
            if math.isinf(end):  # people whom the picture's edge cuts
                return f"{100 * start:.0f} % and more"
            return f"{100 * start:.0f}–{100 * end:.0f} %"
        start = end
    raise AssertionError


def _source(picture: Picture) -> str:
    return picture["source"] or "unnamed"


def _persons(picture: Picture) -> str:
    return "unknown" if picture["persons"] is None else str(picture["persons"])


def _flags(picture: Picture) -> str:
    """By `prepare`'s flags: "unlabelled_person" means that the true mask leaves somebody out."""
    flags = picture.get("flags")
    return "unknown" if flags is None else ", ".join(flags).replace("_", " ") or "none"


def _cell(estimate: Mapping[str, float | None], signed: bool) -> str:
    sign = "+" if signed else ""
    text = f"{estimate['mean']:{sign}.4f}"
    if estimate["low"] is not None:
        text += f" [{estimate['low']:{sign}.4f}, {estimate['high']:{sign}.4f}]"
    return text


def _arrow(entry: Mapping[str, Any] | None, pictures: int | None = None) -> str:
    """Before → after; with the number of pictures if it is not that of the whole line."""
    if entry is None:
        return "–"
    difference = entry["difference"]
    text = f"{entry['before']['mean']:.3f} → {entry['after']['mean']:.3f}"
    if difference["low"] is not None:
        text += f" [{difference['low']:+.3f}, {difference['high']:+.3f}]"
    return text if pictures in (None, entry["pictures"]) else f"{text} ({entry['pictures']})"


def share_line(title: str, shares: Mapping[str, Any], pictures: int) -> str:
    """Before → after of a share of ``pictures``, in per cent."""
    before, after = (100 * shares[model]["mean"] for model in ("before", "after"))
    return f"{title}: {before:.1f} % → {after:.1f} % of {pictures}."
