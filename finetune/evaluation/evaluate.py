"""python -m finetune evaluate: compare two models on the same pictures at their own resolution.

    python -m finetune evaluate --manifest data --split test \
        --before minmax:u2netp.onnx --after bundled --out report

The scores are those of :mod:`.metrics` and :mod:`.matting`, the models those of
:mod:`..predictors`. The command writes to ``--out``: ``report.html`` (tables, and pictures to
compare), ``report.json`` (means, intervals, slices, all settings and checksums), ``report.md``,
``pictures.jsonl`` (each picture's scores), three sheets of pictures, and ``progress.sqlite``, from
which ``--resume`` goes on.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

import u2net_human_plugin
from u2net_human_plugin.errors import DataError
from u2net_human_plugin.options import Options

from ..files import file_sha256, write_text
from ..predictors import Predictor, load_predictor
from ..store import Store
from . import matting, metrics
from .bootstrap import RESAMPLES
from .examples import choose_examples, draw_examples, save_sheets
from .html_report import html
from .measure import Settings, choose_rows, measure
from .report import summarise
from .tables import markdown

#: The store of what a run has measured.
PROGRESS = "progress.sqlite"
_MODEL = "bundled, a .onnx or .pth file, minmax:FILE.onnx (as rembg runs it) or rembg:NAME"


def evaluate(
    manifest: Annotated[str, typer.Option(help="manifest.jsonl, or the folder that holds it")],
    after: Annotated[str, typer.Option(help=f"the model to judge: {_MODEL}")],
    out: Annotated[Path, typer.Option(help="folder for the report; made if missing")],
    before: Annotated[str, typer.Option(help="the model to compare it with")] = "bundled",
    split: Annotated[
        str, typer.Option(help="val (what train holds back), train, test or all")
    ] = "test",
    source: Annotated[list[str] | None, typer.Option(help="only this source; repeatable")] = None,
    crop: Annotated[
        str | None,
        typer.Option(help="off, self or yolo, for both; for one: --after 'bundled?crop=self'"),
    ] = None,
    consistency: Annotated[
        int, typer.Option(min=0, help="pictures with people also measured for consistency")
    ] = Settings.consistency,
    limit: Annotated[
        int | None, typer.Option(min=1, help="measure only so many pictures, evenly drawn")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="pictures in work at a time")] = 1,
    resume: Annotated[bool, typer.Option(help="go on from an interrupted run")] = False,
    sheets: Annotated[bool, typer.Option(help="draw worst, best and random pictures")] = True,
) -> None:
    """Compare two models on a split: scores with intervals, by slice, and pictures."""
    options = Options().updated({"crop": crop})
    settings = Settings(
        manifest,
        split,
        tuple(source or ()),
        consistency=consistency,
        crop=crop,
        limit=limit,
        workers=workers,
    )
    models = {
        "before": load_predictor(before, options),
        "after": load_predictor(after, options),
    }
    rows = choose_rows(settings)
    out.mkdir(parents=True, exist_ok=True)
    # The number of workers changes no score.
    facts = {name: fact for name, fact in _facts(settings).items() if name != "workers"}
    belongs_to = {"settings": facts, "models": _models(models)}
    with Store(out / PROGRESS) as store:
        begin(store, belongs_to, resume)
        results = measure(rows, models, settings, store)
    write_text(out / "pictures.jsonl", "".join(json.dumps(result) + "\n" for result in results))
    report = make_report(results, models, settings)
    write_text(out / "report.json", json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    write_text(out / "report.md", markdown(report))
    chosen = choose_examples(results) if sheets else []
    examples = draw_examples(chosen, results, rows, models)
    save_sheets(examples, out)
    write_text(out / "report.html", html(report, results, examples))
    print(markdown(report))
    for failure in report["failures"]:
        typer.echo(f"failed: {failure['image']}: {failure['error']}", err=True)
    if report["failures"]:
        raise typer.Exit(1)


def begin(store: Store, belongs_to: dict[str, Any], resume: bool) -> None:
    """Empty ``store``; with ``resume``, keep its results if they belong to the same run.

    Raises:
        DataError: with ``resume``, they belong to something else.
    """
    belongs_to = json.loads(json.dumps(belongs_to))
    earlier = store.get("run", "belongs_to")
    if resume and earlier == belongs_to:
        return
    if resume and earlier is not None:
        raise DataError(
            f"{store.path}: holds results of other models, pictures or settings; leave out "
            "--resume to replace them, or name another folder."
        )
    store.clear()
    store.put("run", "belongs_to", belongs_to)


def make_report(
    results: Sequence[dict[str, Any]], models: dict[str, Predictor], settings: Settings
) -> dict[str, Any]:
    """The report of a run, ready for JSON."""
    pictures = [result for result in results if "before" in result]
    if not pictures:
        raise DataError(f"{settings.manifest}: not one picture could be measured: {results[:3]}")
    checksums = "\n".join(sorted(f"{p['image']} {p['sha256']}" for p in pictures))
    return {
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "version": u2net_human_plugin.__version__,
        "settings": {
            **_facts(settings),
            "boundary": metrics.BOUNDARY,
            "empty": metrics.EMPTY,
            "missed": metrics.MISSED,
            "band": matting.BAND,
            "resamples": RESAMPLES,
        },
        "models": _models(models),
        "machine": machine(),
        "pictures": len(pictures),
        # SHA-256 of the names of all measured pictures and of the SHA-256 of their files.
        "data_sha256": hashlib.sha256(checksums.encode(errors="backslashreplace")).hexdigest(),
        **summarise(pictures),
        "set_aside": [result for result in results if "reason" in result],
        "failures": [result for result in results if "error" in result],
    }


def _models(models: dict[str, Predictor]) -> dict[str, Any]:
    return {name: {"spec": model.spec, **model.facts} for name, model in models.items()}


def _facts(settings: Settings) -> dict[str, Any]:
    path = Path(settings.manifest)
    path = path / "manifest.jsonl" if path.is_dir() else path
    return {**asdict(settings), "manifest_sha256": file_sha256(path)}


def machine() -> dict[str, Any]:
    """The machine and the versions of libraries, for a report."""
    import onnxruntime

    return {
        "system": platform.system(),
        "processor": platform.machine(),
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
        "numpy": np.__version__,
        "cores": os.cpu_count(),
    }
