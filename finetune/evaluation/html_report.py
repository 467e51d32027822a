"""An evaluation's report as one HTML file that loads nothing else."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from PIL import Image

from .contact_sheet import cut_out
from .examples import Shown
from .report import METRICS, slices_of
from .tables import cell

_QUALITY = 85
#: Scores that stand large above all others.
_TILES = ("iou", "boundary_iou", "haze", "sad")
_COLUMNS = ("before", "after", "difference")


def html(
    report: Mapping[str, Any], results: Sequence[Mapping[str, Any]], examples: Sequence[Shown]
) -> str:
    """The whole report: tables, a dot per picture, and pictures to compare with a slider.

    Args:
        report: as `evaluate` writes it to report.json.
        results: every picture's result.
        examples: the pictures to show.
    """
    people = [r for r in results if "after" in r and not r["empty_scene"]]
    groups = slices_of(people)
    slices = [
        {
            "id": f"s{place}",
            "title": title,
            "name": name,
            "table": _table(report["slices"][title][name]),
            "pictures": report["slices"][title][name]["pictures"],
        }
        for place, (title, name) in enumerate((t, n) for t in groups for n in groups[t])
    ]
    ids: dict[int, list[str]] = {}
    for entry in slices:
        for result in groups[entry["title"]][entry["name"]]:
            ids.setdefault(result["row"], []).append(entry["id"])
    overall = _table(report["overall"]) if report["overall"] else []
    dots = [_dot(result, ids.get(result["row"], [])) for result in people]
    return template("report.html.jinja").render(
        report=report,
        names=_names(report["models"]),
        tiles=[line for line in overall if line["metric"] in _TILES],
        overall=overall,
        scenes=_scenes(report["empty_scenes"]),
        slices=slices,
        dots=dots,
        start=_start([dot[axis] for dot in dots for axis in "xy"]),
        pictures=[_picture(shown, ids.get(shown.result["row"], [])) for shown in examples],
        facts=json.dumps(
            {key: report[key] for key in ("settings", "models", "machine", "data_sha256")},
            indent=1,
            ensure_ascii=False,
        ),
    )


def template(name: str) -> Template:
    """A template of this folder; its values are escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def data_uri(image: Image.Image) -> str:
    """A picture as JPEG in a ``data:`` URL."""
    with io.BytesIO() as file:
        image.save(file, "JPEG", quality=_QUALITY)
        return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def _names(models: Mapping[str, Any]) -> dict[str, str]:
    """Each model's file and options; all that was said of it where those do not tell them apart."""
    specs = {name: str(model["spec"]) for name, model in models.items()}
    short = {}
    for name, spec in specs.items():
        file, mark, options = spec.partition("?")
        short[name] = Path(file.rpartition(":")[2]).name + mark + options
    return short if len(set(short.values())) == len(short) else specs


def _start(values: Sequence[float]) -> float:
    """Where axes up to 1 begin, so that there is room between the dots: a tenth."""
    return min(int(10 * min(values, default=0)) / 10, 0.9)


def _parted(estimate: Mapping[str, Any], column: str) -> tuple[str, str]:
    """A mean, and its interval in brackets."""
    text = cell(estimate, column == "difference").replace("-", "−")
    value, bracket, interval = text.partition(" [")
    return value, bracket.strip() + interval


def _table(scores: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A line per score, with a "verdict" if the interval of the difference excludes zero."""
    lines = []
    for metric, (title, more_is_better) in METRICS.items():
        if metric not in scores:
            continue
        entry = scores[metric]
        ends = entry["difference"]["low"], entry["difference"]["high"]
        clear = None not in ends and ends[0] * ends[1] > 0
        gained = (entry["difference"]["mean"] > 0) == more_is_better
        lines.append(
            {
                "metric": metric,
                "title": title,
                "pictures": entry["pictures"],
                "cells": [_parted(entry[column], column) for column in _COLUMNS],
                "cut": "–" if entry["error_cut"] is None else f"{100 * entry['error_cut']:.0f} %",
                "verdict": ("better" if gained else "worse") if clear else "",
            }
        )
    return lines


def _scenes(scenes: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    if not scenes:
        return []
    titles = {"left_empty": "left empty, share", "mae": "MAE", "haze": "Haze"}
    return [
        {
            "title": title,
            "pictures": scenes["pictures"],
            "cells": [_parted(scenes[key][column], column) for column in _COLUMNS],
            "cut": "",
            "verdict": "",
        }
        for key, title in titles.items()
        if key in scenes
    ]


def _dot(result: Mapping[str, Any], ids: Sequence[str]) -> dict[str, Any]:
    before, after = (result[model]["iou"] for model in ("before", "after"))
    return {"x": before, "y": after, "name": result["image"], "ids": " ".join(ids)}


def _picture(shown: Shown, ids: Sequence[str]) -> dict[str, Any]:
    masks = {name: np.asarray(mask) for name, mask in shown.masks.items()}
    return {
        "name": shown.result["image"],
        "kinds": shown.kinds,
        "ids": " ".join(ids),
        "width": shown.image.width,
        "height": shown.image.height,
        "photo": data_uri(shown.image),
        **{name: data_uri(cut_out(shown.image, mask)) for name, mask in masks.items()},
        "scores": [
            _scored(metric, shown.result["before"][metric], shown.result["after"][metric])
            for metric in _TILES
            if metric in shown.result["after"]
        ],
    }


def _scored(metric: str, before: float, after: float) -> tuple[str, float, float, str]:
    """A score's title, its values, and whether it shows a change in the digits that are shown."""
    title, more_is_better = METRICS[metric]
    if round(before, 3) == round(after, 3):
        return title, before, after, ""
    return title, before, after, "better" if (after > before) == more_is_better else "worse"
