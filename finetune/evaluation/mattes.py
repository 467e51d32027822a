r"""python -m finetune mattes: compare ways to cut people out where the alpha is known exactly.

    python -m finetune hair --manifest data --out runs/hair
    python -m finetune mattes --manifest runs/hair --before minmax:u2netp.onnx --out runs/mattes

A cut-out is a mask and colours. The ways to make it (:mod:`.cutout_ways`) are rembg's commands,
without and with `-a` (alpha matting); our `refine`, without and with decontaminated colours; and
closed-form matting that gets the true unknown band. All are measured in that band
(:mod:`.matting`). `evaluate` compares the masks of two networks on photos; here colours count, too.
The command writes ``report.json`` and ``report.md`` to ``--out``.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from PIL import Image

import u2net_human_plugin
from u2net_human_plugin.errors import DataError

from ..data.manifest import Row, read_manifest
from ..data.pictures import load_alpha, load_image, open_image
from ..files import file_sha256, write_text
from ..predictors import Predictor, load_predictor
from . import matting
from .bootstrap import RESAMPLES, compare, estimate
from .cutout_ways import Way, refined, through_rembg, told_the_trimap
from .evaluate import machine
from .hair import GROUNDS
from .measure import evenly, progress

#: The scores, their column titles in the table, and the factors by which they are shown.
METRICS: dict[str, tuple[str, int]] = {
    "sad": ("SAD", 1),
    "mse": ("MSE · 10³", 1000),
    "grad": ("Grad", 1),
    "conn": ("Conn", 1),
    "colour": ("colour · 10³", 1000),
}
#: The scores that the table shows with an interval.
_WITH_INTERVAL = ("sad", "colour")


def mattes(
    manifest: Annotated[Path, typer.Option(help="What `hair` has made: its folder or manifest.")],
    out: Annotated[Path, typer.Option(help="Folder for the report; made if missing.")],
    before: Annotated[
        str | None,
        typer.Option(help="The model to compare with, as evaluate names it: minmax:u2netp.onnx."),
    ] = None,
    after: Annotated[
        str, typer.Option(help="The model to judge: bundled, a .onnx or a .pth file.")
    ] = "bundled",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Measure only so many pictures, evenly drawn.")
    ] = None,
) -> None:
    """Compare ways to cut people out where alpha and colours are known exactly."""
    file = manifest / "manifest.jsonl" if manifest.is_dir() else manifest
    rows = evenly(read_manifest(file), limit)
    unfit = [row.name for row in rows if "foreground" not in row.extra]
    if unfit or not rows:
        raise DataError(
            f"{[*unfit, file][0]}: no foreground is known; expected what "
            "`python -m u2net_human_plugin.finetune hair` writes."
        )
    models, ways = _ways(before, after)
    out.mkdir(parents=True, exist_ok=True)
    measured = (_measured(row, file.parent, ways) for row in rows)
    report = make_report(list(progress(measured, len(rows))), models, file)
    write_text(out / "report.json", json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    write_text(out / "report.md", tables(report))
    print(tables(report))
    for failure in report["failures"]:
        typer.echo(f"failed: {failure['image']}: {failure['error']}", err=True)
    if report["failures"]:
        raise typer.Exit(1)


def make_report(
    results: Sequence[Mapping[str, Any]], models: Mapping[str, Predictor], manifest: Path
) -> dict[str, Any]:
    """The report of a run, ready for JSON.

    Each score of a way has a mean with its interval, and "difference": its difference from the
    first way's, paired by picture.
    """
    pictures = [result for result in results if "ways" in result]
    if not pictures:
        raise DataError(f"{manifest}: not one picture could be measured: {list(results[:3])}")
    names = list(pictures[0]["ways"])
    checksums = "\n".join(sorted(f"{p['image']} {p['sha256']}" for p in pictures))
    return {
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "version": u2net_human_plugin.__version__,
        "settings": {"band": matting.BAND, "resamples": RESAMPLES},
        "models": {name: {"spec": model.spec, **model.facts} for name, model in models.items()},
        "machine": machine(),
        "pictures": len(pictures),
        "grounds": dict(Counter(picture["ground"] for picture in pictures)),
        "manifest_sha256": file_sha256(manifest),
        "data_sha256": hashlib.sha256(checksums.encode(errors="backslashreplace")).hexdigest(),
        "ways": {name: _summary(pictures, name, names[0]) for name in names},
        "failures": [result for result in results if "error" in result],
    }


def tables(report: Mapping[str, Any]) -> str:
    """Markdown: every way's errors and seconds, then SAD by ground."""
    grounds = report["grounds"]
    titles = [title for title, _ in METRICS.values()]
    counted = [f"{ground} ({count})" for ground, count in grounds.items()]
    lines, by_ground = [
        [
            f"| {head} | {' | '.join(columns)} |",
            "|---|" + "---|" * len(columns),
        ]
        for head, columns in (
            (f"{report['pictures']} pictures", [*titles, "seconds"]),
            ("SAD by ground", counted),
        )
    ]
    for name, scores in report["ways"].items():
        cells = [_cell(metric, scores[metric]) for metric in METRICS]
        lines.append(f"| {name} | {' | '.join(cells)} | {scores['seconds']:.1f} |")
        cells = [f"{scores['by_ground'][ground]['sad']:.2f}" for ground in grounds]
        by_ground.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *by_ground]) + "\n"


def _cell(metric: str, score: Mapping[str, Any]) -> str:
    """A mean, for some scores with the interval of its difference from the first way."""
    factor = METRICS[metric][1]
    text = f"{factor * score['mean']:.2f}"
    difference = score.get("difference")
    if metric not in _WITH_INTERVAL or difference is None or difference["low"] is None:
        return text
    return f"{text} [{factor * difference['low']:+.2f}, {factor * difference['high']:+.2f}]"


def _ways(before: str | None, after: str) -> tuple[dict[str, Predictor], list[Way]]:
    joint = "&" if "?" in after else "?"
    ours = {
        refine: load_predictor(f"{after}{joint}refine={refine}")
        for refine in ("off", "on", "matting")
    }
    models = {"after": ours["on"]}
    if before is not None:
        models = {"before": load_predictor(before), **models}
    ways = [
        through_rembg(f"{_short(model)}: rembg{' -a' if matted else ''}", model.segment, matted)
        for model in models.values()
        for matted in (False, True)
    ]
    ways += [
        refined(f"{_short(model)}: refine={key}", model.segment) for key, model in ours.items()
    ]
    return models, [*ways, told_the_trimap("closed form, told the true band")]


def _short(model: Predictor) -> str:
    """A model's file, or "bundled", without folder and options."""
    return Path(model.spec.partition("?")[0].rpartition(":")[2]).name


def _measured(row: Row, folder: Path, ways: Sequence[Way]) -> dict[str, Any]:
    result: dict[str, Any] = {"image": row.image.name, "ground": row.extra.get("ground", "")}
    try:
        image, truth = load_image(row), np.asarray(load_alpha(row))
        file = folder / row.extra["foreground"]
        colours = np.asarray(open_image(file, row.where).convert("RGB"))
        if colours.shape != (*truth.shape, 3):
            raise DataError(f"{file}: is not of the picture's size; run `hair` again.")
        return {
            **result,
            "sha256": " ".join(file_sha256(Path(one)) for one in (row.image, row.mask or "", file)),
            "ways": scores(image, np.dstack((colours, truth)), ways),
        }
    except Exception as error:  # noqa: BLE001 - one bad picture must not end the run
        return {**result, "error": f"{type(error).__name__}: {error}"}


def scores(
    image: Image.Image, truth: matting.Mask, ways: Sequence[Way]
) -> dict[str, dict[str, float]]:
    """Each cut-out's errors and the seconds from the picture to it, by name.

    Shape:
        - truth: (H,W,4) uint8: the foreground's colours, and alpha.
    """
    unknown = matting.unknown_band(truth[..., 3])
    trimap = np.where(unknown, np.float32(0.5), truth[..., 3] > 127).astype(np.float32)
    found = {}
    for way in ways:
        start = time.perf_counter()
        ready = [(name, one, time.perf_counter() - start) for name, one in way(image, trimap)]
        for name, one, seconds in ready:
            cutout = np.asarray(one)
            of_alpha = cutout[..., 3], truth[..., 3], unknown
            found[name] = {
                "sad": matting.sad(*of_alpha),
                "mse": matting.mse(*of_alpha),
                "grad": matting.gradient_error(*of_alpha),
                "conn": matting.connectivity_error(*of_alpha),
                "colour": matting.colour_error(cutout, truth, unknown),
                "seconds": seconds,
            }
    return found


def _summary(pictures: Sequence[Mapping[str, Any]], name: str, first: str) -> dict[str, Any]:
    def values(way: str, metric: str) -> Any:
        return np.array([picture["ways"][way][metric] for picture in pictures], np.float64)

    summary: dict[str, Any] = {"seconds": float(np.median(values(name, "seconds")))}
    for metric in METRICS:
        summary[metric] = dict(estimate(values(name, metric)))
        if name != first:
            paired = compare(values(first, metric), values(name, metric))
            summary[metric]["difference"] = paired["difference"]
    grounds = np.array([picture["ground"] for picture in pictures])
    known = [ground for ground in GROUNDS if (grounds == ground).any()]
    summary["by_ground"] = {
        ground: {
            metric: float(values(name, metric)[grounds == ground].mean()) for metric in METRICS
        }
        for ground in known
    }
    return summary
