"""How good two models are, on the same pictures at their own resolution.

    python -m finetune evaluate --manifest data --split test \
        --before minmax:u2netp.onnx --after bundled --out report

The scores are those of :mod:`.metrics`, the models those of
:mod:`..predictors`. Written to ``--out``: ``report.json`` (means, intervals, slices,
every setting and checksum), ``report.md``, ``pictures.jsonl`` (each picture's scores) and
three sheets of pictures.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
import typer

import u2net_human_plugin
from u2net_human_plugin.errors import DataError
from u2net_human_plugin.options import Options

from ..data.manifest import Row, load_alpha, load_image, read_manifest
from ..data.splits import in_split
from ..files import file_sha256, write_text
from ..predictors import Predictor, load_predictor
from . import metrics
from .bootstrap import RESAMPLES
from .contact_sheet import Example, save_sheet
from .report import markdown, summarise
from .results_file import ResultsFile

T = TypeVar("T")

_MODEL = "bundled, a .onnx or .pth file, minmax:FILE.onnx (as rembg runs it) or rembg:NAME"
#: Pictures on each sheet.
_SHEET = 10


@dataclass(frozen=True)
class Settings:
    """What a run measures, apart from the two models."""

    #: As given: a manifest or the folder that holds it.
    manifest: str
    split: str = "test"
    sources: tuple[str, ...] = ()
    #: How many pictures with people are also measured for visual consistency (five more passes
    #: each).
    consistency: int = 50
    #: Where to look closer, of both models; None, the default or what a model's own name says.
    crop: str | None = None
    #: Measure only so many pictures, evenly drawn from the split; None, all.
    limit: int | None = None
    #: How many pictures are in work at a time.
    workers: int = 1


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
    # How many are in work at a time changes no score.
    facts = {name: fact for name, fact in _facts(settings).items() if name != "workers"}
    belongs_to = {"settings": facts, "models": _models(models)}
    with ResultsFile(out / "pictures.jsonl", belongs_to, resume) as results_file:
        results = measure(rows, models, settings, results_file)
    report = make_report(results, models, settings)
    write_text(out / "report.json", json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    write_text(out / "report.md", markdown(report))
    if sheets:
        _draw(results, rows, models, out)
    print(markdown(report))
    for failure in report["failures"]:
        typer.echo(f"failed: {failure['image']}: {failure['error']}", err=True)
    if report["failures"]:
        raise typer.Exit(1)


def measure(
    rows: Sequence[Row],
    models: dict[str, Predictor],
    settings: Settings,
    results_file: ResultsFile | None = None,
) -> list[dict[str, Any]]:
    """Each row's result, in order: its scores, or a "reason" it was set aside, or an "error".

    Results that ``results_file`` has already are taken from it.
    """
    people = [index for index, row in enumerate(rows) if not _is_empty_scene(row)]
    measured = set(evenly(people, settings.consistency))
    done = results_file.done if results_file else {}

    def work(index: int) -> dict[str, Any]:
        place = {"row": index, "image": _name(rows[index], settings)}
        kept = done.get(index, {})
        if kept.get("image") == place["image"]:  # else an earlier version chose other rows
            return kept
        try:
            result = {**place, **_score(rows[index], models, index in measured)}
        except Exception as error:  # noqa: BLE001 - one bad picture must not end the run
            return {**place, "error": f"{type(error).__name__}: {error}"}
        if results_file:
            results_file.add(result)
        return result

    with ThreadPoolExecutor(settings.workers) as pool:
        return list(_progress(pool.map(work, range(len(rows))), len(rows)))


def make_report(
    results: Sequence[dict[str, Any]], models: dict[str, Predictor], settings: Settings
) -> dict[str, Any]:
    """Everything there is to say about a run, ready for JSON."""
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
            "resamples": RESAMPLES,
        },
        "models": _models(models),
        "machine": _machine(),
        "pictures": len(pictures),
        # Of every measured picture's name and the SHA-256 of its files.
        "data_sha256": hashlib.sha256(checksums.encode(errors="backslashreplace")).hexdigest(),
        **summarise(pictures),
        "set_aside": [result for result in results if "reason" in result],
        "failures": [result for result in results if "error" in result],
    }


def choose_rows(settings: Settings) -> list[Row]:
    """The manifest's pictures of the split and sources asked for; things are none.

    Raises:
        DataError: the manifest cannot be read, or nothing is left.
    """
    rows = [
        row
        for row in read_manifest(settings.manifest, check_files=False)
        if in_split(row, settings.split)
        and not row.is_thing
        and (not settings.sources or row.source in settings.sources)
    ]
    if not rows:
        wanted = f"split {settings.split!r}" + "".join(f", source {s!r}" for s in settings.sources)
        raise DataError(f"{settings.manifest}: holds no picture of {wanted}.")
    return evenly(rows, settings.limit)


def evenly(items: Sequence[T], count: int | None) -> list[T]:
    """``count`` of the items at equal steps; all of them if there are fewer."""
    if count is None or count >= len(items):
        return list(items)
    return [items[index * len(items) // count] for index in range(count)]


def _score(row: Row, models: dict[str, Predictor], consistency: bool) -> dict[str, Any]:
    image, truth = load_image(row), np.asarray(load_alpha(row))
    person = metrics.binary(truth)
    empty_scene = _is_empty_scene(row)
    if not empty_scene and not person.any():
        return {"reason": "its mask is empty, but its row does not call it an empty scene"}
    if row.is_scene and row.has_unlabelled_person:
        return {"reason": "its row calls it an empty scene, but a detector saw somebody"}
    files = [row.image, *([row.mask] if isinstance(row.mask, Path) else [])]
    result: dict[str, Any] = {
        "sha256": " ".join(file_sha256(file) for file in files),
        "source": row.source,
        "empty_scene": empty_scene,
        # Of one person, where the manifest knows; otherwise from the mask's top to its foot.
        "height": row.extra.get("person_height") or _height(person),
        "area": float(person.mean()),
        "persons": row.extra.get("persons"),
        # What `prepare` doubts about the mask; None where no detector has looked.
        "flags": row.extra.get("flags", [] if row.was_searched else None),
    }
    for name, model in models.items():
        start = time.perf_counter()
        mask = model.segment(image)
        scores: dict[str, Any] = {"seconds": round(time.perf_counter() - start, 4)}
        scores["mae"] = metrics.mae(mask, truth)
        if empty_scene:
            scores["empty"] = metrics.is_empty(mask)
        else:
            scores["missed"] = metrics.is_missed(mask, person)
            scores["iou"] = metrics.iou(mask, person)
            scores["boundary_iou"] = metrics.boundary_iou(mask, person)
            scores["boundary_accuracy"] = metrics.boundary_accuracy(mask, person)
            if consistency:
                scores["consistency"] = metrics.visual_consistency(model.segment, image, mask)
        result[name] = scores
    return result


def _is_empty_scene(row: Row) -> bool:
    return row.is_scene or row.extra.get("persons") == 0


def _height(person: metrics.Binary) -> float:
    rows = np.flatnonzero(person.any(axis=1))
    return float((rows[-1] - rows[0] + 1) / person.shape[0]) if rows.size else 0.0


def _draw(
    results: Sequence[dict[str, Any]],
    rows: Sequence[Row],
    models: dict[str, Predictor],
    out: Path,
) -> None:
    scored = [result for result in results if "iou" in result.get("after", ())]
    ranked = sorted(scored, key=lambda result: float(result["after"]["iou"]))
    drawn = random.Random(0).sample(scored, min(_SHEET, len(scored)))  # noqa: S311 - no secret
    for title, chosen in (
        ("worst", ranked[:_SHEET]),
        ("best", ranked[::-1][:_SHEET]),
        ("random", drawn),
    ):
        examples = []
        for result in chosen:
            image = load_image(rows[result["row"]])
            masks = [model.segment(image) for model in models.values()]
            scores = [
                f"{n}: IoU {result[n]['iou']:.3f}, boundary {result[n]['boundary_iou']:.3f}"
                for n in models
            ]
            examples.append(Example(image, masks, [Path(result["image"]).name, *scores]))
        if examples:
            save_sheet(examples, out / f"{title}.jpg")


def _models(models: dict[str, Predictor]) -> dict[str, Any]:
    return {name: {"spec": model.spec, **model.facts} for name, model in models.items()}


def _facts(settings: Settings) -> dict[str, Any]:
    path = Path(settings.manifest)
    path = path / "manifest.jsonl" if path.is_dir() else path
    return {**asdict(settings), "manifest_sha256": file_sha256(path)}


def _machine() -> dict[str, Any]:
    import onnxruntime

    return {
        "system": platform.system(),
        "processor": platform.machine(),
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
        "numpy": np.__version__,
        "cores": os.cpu_count(),
    }


def _name(row: Row, settings: Settings) -> str:
    folder = Path(settings.manifest)
    folder = (folder if folder.is_dir() else folder.parent).absolute()
    return (
        row.image.relative_to(folder) if row.image.is_relative_to(folder) else row.image
    ).as_posix()


def _progress(results: Iterable[T], total: int) -> Iterator[T]:
    from rich.console import Console
    from rich.progress import track

    yield from track(results, "measuring", total=total, console=Console(stderr=True))
