"""README's tables, from the bundled weights' evaluation reports and size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from u2net_human_plugin import weights
from u2net_human_plugin.errors import DataError

from ..evaluation.report import TRUSTED
from ..evaluation.tables import share_line, slice_table, slowdown
from .provenance import Records, training_runs

#: Sources of test photos in plain words: everyday photos first, those most like the training
#: pictures last.
PHOTOS = {
    "coco": "everyday photos, everybody in them counts",
    "pennfudan": "pedestrians",
    "ecssd_people": "people as the photo's subject",
    "ccp": "full figures in the street",
    "selfies": "selfies",
    "eg1800": "portraits",
}


def against_rembg(reports: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The reports whose "before" is a model as rembg runs it."""
    return [report for report in reports if is_against_rembg(report)]


def is_against_rembg(report: Mapping[str, Any]) -> bool:
    """Whether ``report`` compares with a model as rembg runs it."""
    return bool(report["models"]["before"]["spec"].startswith("minmax:"))


def named_sources(report: Mapping[str, Any]) -> dict[str, Any]:
    """``report`` with its slices by source in the order and the words of :data:`PHOTOS`."""
    slices = dict(report["slices"])
    if found := slices.get("source"):
        names = [
            *(name for name in PHOTOS if name in found),
            *(n for n in found if n not in PHOTOS),
        ]
        slices["source"] = {photos_of(name): found[name] for name in names}
    return {**report, "slices": slices}


def photos_of(source: str) -> str:
    """A source of test photos as tables name it."""
    return f"{PHOTOS[source]} (`{source}`)" if source in PHOTOS else source


def render_front(
    reports: Sequence[Mapping[str, Any]],
    crops: Sequence[Mapping[str, Any]] = (),
    benchmark: Mapping[str, Any] | None = None,
) -> str:
    """The table at the top of README."""
    size = f"{len(weights.bundled().read()) / 1e6:.1f} MB of weights"
    against = against_rembg(reports)
    if official := next((r["models"]["before"].get("bytes") for r in against), None):
        size += f"; `u2netp`: {official / 1e6:.1f} MB"
    lines = {
        "What": "a U²-Net fine-tuned on people, beside a small network that knows what things are, "
        f"as the model `{weights.MODEL_NAME}` inside rembg "
        "and transparent-background: their own commands and functions, unmodified",
        "How good": "<br>".join(_how_good(against)) or "not measured yet",
        "How fast": "<br>".join([*_how_fast(benchmark), *_on_small_figures(crops)])
        or "not measured yet",
        "How large": size,
        "Offline": "yes: the weights are in the package; only YOLO, if asked for, is downloaded",
    }
    table = [f"| **{name}** | {text} |" for name, text in lines.items()]
    return "\n".join(["| | |", "|---|---|", *table])


def _how_good(reports: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = []
    for report in reports:
        sources = named_sources(report)["slices"].get("source", {})
        if sources:
            lines.append(
                "mean IoU on test photos, rembg's own `u2netp` → ours [95 % interval of the "
                "difference; bold where it is all on one side]:"
            )
        for name, scores in sources.items():
            lines.append(f"{scores['pictures']} {name}: {_change(scores['iou'], 1, '.3f', '')}")
        if scenes := report["empty_scenes"]:
            change = _change(scenes["left_empty"], 100, ".0f", " %")
            lines.append(f"{scenes['pictures']} scenes with nobody in them, left empty: {change}")
    return lines


def _change(scores: Mapping[str, Any], scale: float, digits: str, unit: str) -> str:
    """Before → after [interval of the difference]; bold if it is better by the interval."""
    before, after = (f"{scale * scores[k]['mean']:{digits}}{unit}" for k in ("before", "after"))
    low, high = (scores["difference"][key] for key in ("low", "high"))
    if low is None or high is None:  # a single picture
        return f"{before} → {after}"
    if low > 0:
        after = f"**{after}**"
    elif high < 0:
        before = f"**{before}**"
    return f"{before} → {after} [{scale * low:+{digits}}, {scale * high:+{digits}}]"


def _how_fast(benchmark: Mapping[str, Any] | None) -> list[str]:
    if benchmark is None:
        return []
    lines = []
    for size, times in benchmark["predict"].items():
        peaks = benchmark["peak_memory_mb"][size]
        lines.append(
            f"one person, {size}: {times['bundled_s']:.2f} s and {peaks['bundled']:.0f} MB, "
            f"rembg's own `u2netp` {times['u2netp_ms'] / 1000:.2f} s and {peaks['u2netp']:.0f} MB"
        )
    return [*lines, f"on {benchmark['machine']}"]


def _on_small_figures(reports: Sequence[Mapping[str, Any]]) -> list[str]:
    return [
        f"{report['title'].lower()}, looked at closer: {slowdown(report['seconds_per_picture'])}"
        for report in reports
        if report["seconds_per_picture"] and report["models"]["after"]["kind"] == "bundled"
    ]


def render_results(provenance: Records, reports: Sequence[Mapping[str, Any]]) -> str:
    """The text between README's markers of results."""
    parts = []
    if not training_runs(provenance):
        parts.append("The bundled weights are the official U²-Netp, not yet fine-tuned.")
    for report in against_rembg(reports):
        parts.append(
            f"**{report['title']}** ({report['pictures']} pictures; rembg's `u2netp` → ours, in "
            "brackets the 95 % interval of the difference):"
        )
        groups = {"all": report["overall"]} if report["overall"] else {}
        sources = named_sources(report)["slices"].get("source", {})
        if len(sources) > 1:
            groups |= sources
        trusted = report["slices"].get(TRUSTED, {})
        groups |= {f"{name}, no doubt about the mask": trusted[name] for name in trusted}
        parts.append(slice_table("photos", groups))
        if missed := (report["overall"] or {}).get("missed"):
            title = "Pictures whose people are missed altogether"
            parts.append(share_line(title, missed, missed["pictures"]))
        if scenes := report["empty_scenes"]:
            title = "Empty scenes left empty"
            parts.append(share_line(title, scenes["left_empty"], scenes["pictures"]))
    return "\n\n".join(parts)


def fill(readme: str, name: str, text: str, file: str = "README.md") -> str:
    """``readme`` with ``text`` between the markers called ``name``.

    Raises:
        DataError: a marker is missing.
    """
    start, end = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
    if readme.count(start) != 1 or readme.count(end) != 1:
        raise DataError(f"{file}: expected one {start} and one {end}.")
    head, rest = readme.split(start)
    tail = rest.split(end)[1]
    return f"{head}{start}\n{text}\n{end}{tail}"
