"""python -m finetune benchmark looks: what closer looks cost and gain.

The pipeline looks at the whole photo first. What it does then makes the photo one of two kinds:

- ``the first look alone``: nothing more, since somebody is large;
- ``closer``: it looks into the corners for people it has overlooked, and closer at those found.

The report says for each kind how many photos it has, how many of the network's views they took,
and the scores with the first look alone and with all looks.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import typer
from PIL import Image

from u2net_human_plugin import segmenter
from u2net_human_plugin.errors import DataError
from u2net_human_plugin.looks import Alpha, Looks
from u2net_human_plugin.network import Network, load_onnx
from u2net_human_plugin.options import Options
from u2net_human_plugin.segmenter import HumanSegmenter
from u2net_human_plugin.weights import bundled

from ..evaluation.measure import Settings, choose_rows, measure
from ..evaluation.report import summarise
from ..files import write_text
from ..predictors import Predictor
from ..publishing.readme import fill
from .pipeline import pipeline_sha256

ONE, CLOSER = "the first look alone", "closer"
#: Names of the kinds, in the order of the table.
KINDS = (ONE, CLOSER)
_MARK = "looks"


def looks(
    manifest: Annotated[str, typer.Option(help="manifest.jsonl, or the folder that holds it")],
    split: Annotated[str, typer.Option(help="val, train, test or all")] = "test",
    limit: Annotated[
        int | None, typer.Option(min=1, help="measure only so many photos, evenly drawn")
    ] = None,
    out: Annotated[Path | None, typer.Option("--json", help="file for the report")] = None,
    page: Annotated[
        Path | None, typer.Option(help="Markdown file; its block `looks` gets the table")
    ] = None,
) -> None:
    """What closer looks cost and gain, for each kind of photo."""
    report = measure_looks(Settings(manifest, split, limit=limit, consistency=0))
    print(table(report))
    if out is not None:
        write_text(out, json.dumps(report, indent=1) + "\n")
    if page is not None:
        text = page.read_text("utf-8")
        write_text(page, fill(text, _MARK, table(report), file=str(page)))


def measure_looks(settings: Settings, network: Network | None = None) -> dict[str, Any]:
    """Count views and compare scores, for each kind of photo.

    Args:
        settings: which photos to take.
        network: the network; None takes the bundled weights.

    Returns:
        ``weights_sha256``, ``pipeline_sha256``, ``settings``; ``pictures`` and ``views``, the
        numbers of all photos and of the network's views of them. ``kinds`` has an entry for each
        of :data:`KINDS` that occurs: ``pictures`` and ``views``; ``with_people``, how many of the
        photos show somebody; ``people``, their IoU and Boundary IoU, 0…1; ``left_empty``, the
        share of scenes whose mask is empty, 0…1. Each score has the means with the first look
        alone ("before") and with all looks ("after"), and their difference with its interval.

    Raises:
        DataError: a photo cannot be measured; names the first.
    """
    network = network if network is not None else load_onnx(bundled())
    views: list[int] = []

    def everything(image: Image.Image) -> npt.NDArray[np.uint8]:
        with patch.object(segmenter, "Looks", _Counted):
            mask = HumanSegmenter(network=network, options=Options()).mask(image)
        views.append(_Counted.last.views)
        return np.asarray(mask)

    def first_alone(image: Image.Image) -> npt.NDArray[np.uint8]:
        return np.asarray(HumanSegmenter(network=network, options=Options(crop="off")).mask(image))

    models = {
        "before": Predictor("bundled?crop=off", first_alone, {}),
        "after": Predictor("bundled", everything, {}),
    }
    measured = measure(choose_rows(settings), models, settings)
    for row in measured:
        # `views` may or may not have an entry for this photo, so the others could not be matched.
        if "error" in row:
            raise DataError(f"{row['image']}: {row['error']}")
    results = [row for row in measured if "after" in row]
    kinds = {}
    for kind in KINDS:
        chosen = [k for k, count in enumerate(views) if (count == 1) is (kind == ONE)]
        if chosen:
            kinds[kind] = {
                "pictures": len(chosen),
                "views": sum(views[k] for k in chosen),
                **_scores([results[k] for k in chosen]),
            }
    return {
        "weights_sha256": bundled().sha256,
        "pipeline_sha256": pipeline_sha256(),
        "settings": {k: v for k, v in dataclasses.asdict(settings).items() if k != "manifest"},
        "pictures": len(results),
        "views": sum(views),
        "kinds": kinds,
    }


def _scores(results: list[dict[str, Any]]) -> dict[str, Any]:
    summary = summarise(results)
    overall = summary["overall"] or {}
    return {
        "people": {name: overall[name] for name in ("iou", "boundary_iou") if name in overall},
        "left_empty": (summary["empty_scenes"] or {}).get("left_empty"),
        "with_people": overall.get("pictures", 0),
    }


def table(report: dict[str, Any]) -> str:
    """The report as a Markdown table."""
    lines = [
        "| looks after the first one | photos | of the network's views | IoU, first look → all "
        "| Boundary IoU | scenes with nobody left empty |",
        "|---|---|---|---|---|---|",
    ]
    for kind, found in report["kinds"].items():
        lines.append(
            f"| {'none' if kind == ONE else kind} | {found['pictures'] / report['pictures']:.0%} "
            f"| {found['views'] / report['views']:.0%} "
            f"| {_change(found['people'].get('iou'), 3)} "
            f"| {_change(found['people'].get('boundary_iou'), 3)} "
            f"| {_change(found['left_empty'], 2)} |"
        )
    views = report["views"] / report["pictures"]
    return "\n".join([*lines, "", f"{report['pictures']} photos, {views:.2f} views each."])


def _change(scores: dict[str, Any] | None, digits: int) -> str:
    if scores is None:
        return ""
    return f"{scores['before']['mean']:.{digits}f} → {scores['after']['mean']:.{digits}f}"


class _Counted(Looks):
    """Looks that count their views."""

    #: The looks at the latest picture.
    last: _Counted

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.views = 0
        type(self).last = self

    def _alphas(self, views: Any) -> Alpha:
        self.views += len(views)
        return super()._alphas(views)
