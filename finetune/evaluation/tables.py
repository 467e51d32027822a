"""An evaluation's report as Markdown tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .report import METRICS

_COLUMNS = ("before", "after", "difference")
#: Scores for which the tables by slice have no room.
_NOT_BY_SLICE = ("mae", "missed", "sad", "mse", "grad", "conn")


def markdown(report: Mapping[str, Any]) -> str:
    """The report as Markdown, with the pictures it was measured on."""
    before, after = (report["models"][model] for model in ("before", "after"))
    parts = [
        f"# {before['spec']} → {after['spec']}",
        f"{report['pictures']} pictures of split `{report['settings']['split']}` in "
        f"`{report['settings']['manifest']}`, at their own resolution. In brackets: bootstrap "
        "95 % intervals; the difference is paired by picture. Haze is the share of pixels away "
        "from every true contour that are half transparent (5 to 95 %).",
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
        title = "Half-transparent pixels in them"
        parts.append(share_line(title, scenes["haze"], scenes["pictures"]))
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
            cells = [cell(entry[key], key == "difference") for key in _COLUMNS]
            cut = entry["error_cut"]
            cells.append("–" if cut is None else f"{100 * cut:.0f} %")
            lines.append(f"| {title}{count} | {' | '.join(cells)} |")
    return "\n".join(lines)


def slice_table(title: str, groups: Mapping[str, Any]) -> str:
    """One line per slice: number of pictures, and before → after (difference) of each score."""
    shown = [m for m in METRICS if any(m in scores for scores in groups.values())]
    shown = [m for m in shown if m not in _NOT_BY_SLICE]
    lines = [
        f"| {title} | pictures | {' | '.join(METRICS[m][0] for m in shown)} |",
        "|---|---|" + "---|" * len(shown),
    ]
    for name, scores in groups.items():
        cells = [_arrow(scores.get(metric), scores["pictures"]) for metric in shown]
        lines.append(f"| {name} | {scores['pictures']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def slowdown(seconds: Mapping[str, float]) -> str:
    """How many times as long a picture takes "after" as "before"."""
    return f"× {seconds['after'] / seconds['before']:.1f}"


def crop_table(reports: Sequence[Mapping[str, Any]]) -> str:
    """One line per report on a `crop` setting: what a closer look gains, and what it costs.

    If only some of the pictures have masks without doubt, these have a line of their own. Boundary
    IoU is left out: its rim is wider than a small figure.
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
                slowdown(seconds) if whole else "",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(estimate: Mapping[str, float | None], signed: bool) -> str:
    """A mean and its interval, with signs for a difference."""
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
