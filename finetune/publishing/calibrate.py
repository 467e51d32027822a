"""python -m finetune calibrate: fit thresholds to weights and store them in the weights' file.

    python -m finetune calibrate runs/mine/u2net_finetuned.pth --manifest data \
        --out report.json --write runs/mine/u2net_finetuned.pth

Each threshold of :class:`u2net_human_plugin.settings.Settings` gets the best of a few values
(:mod:`..evaluation.thresholds`), measured on held-back pictures; the tables show what each value
gains and costs. Test pictures are not used. `export` copies the settings of a checkpoint into the
ONNX file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

import typer

import u2net_human_plugin
from u2net_human_plugin.errors import DataError, OptionError

from ..data.manifest import Row, read_manifest
from ..data.splits import in_split
from ..evaluation.measure import evenly, is_empty_scene
from ..evaluation.thresholds import CHEAP, GRID, Trials, fit
from ..files import file_sha256, write_text
from ..predictors import open_network
from .settings_file import store_settings

_COLUMNS = {
    "lost": ("people lost", "d"),
    "ghosts": ("ghosts", "d"),
    "left_empty": ("left empty", ".3f"),
    "iou": ("IoU", ".4f"),
    "boundary_iou": ("Boundary IoU", ".4f"),
    "looks": ("looks", ".2f"),
    "score": ("score", ".4f"),
    "standard_error": ("± of the change", ".4f"),
}


def calibrate(
    weights: Annotated[str, typer.Argument(help="bundled, or a .onnx or .pth file")],
    manifest: Annotated[str, typer.Option(help="manifest.jsonl, or the folder that holds it")],
    out: Annotated[Path, typer.Option(help="the JSON report to write")],
    write: Annotated[
        Path | None, typer.Option(help="store the chosen settings in this .onnx, or with this .pth")
    ] = None,
    threshold: Annotated[
        list[str] | None,
        typer.Option(
            help=f"only this one; repeatable: {', '.join(GRID)}  [default: {', '.join(CHEAP)}]"
        ),
    ] = None,
    scenes: Annotated[
        float, typer.Option(min=0, max=1, help="how much empty scenes count beside people")
    ] = 0.25,
    limit: Annotated[
        int | None, typer.Option(min=1, help="only so many pictures, evenly drawn")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="pictures in work at a time")] = 1,
) -> None:
    """Fit the pipeline's thresholds to weights, on held-back pictures alone."""
    names = threshold or list(CHEAP)
    for name in names:
        if name not in GRID:
            raise OptionError(f"--threshold {name}: expected one of {', '.join(GRID)}.")
    rows = evenly(held_back_rows(manifest), limit)
    network, facts = open_network(weights)
    start = network.settings
    trials = Trials(network, rows, workers)
    with _progress(len(rows)) as advance:
        chosen, tables = fit(trials, start, names, scenes, advance)
    path = Path(manifest)
    path = path / "manifest.jsonl" if path.is_dir() else path
    measured = trials.scores(chosen)
    report: dict[str, Any] = {
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "version": u2net_human_plugin.__version__,
        "weights": facts,
        "manifest": manifest,
        "manifest_sha256": file_sha256(path),
        "split": "val",
        "pictures": len(measured),
        "empty_scenes": sum(score.is_scene for score in measured),
        "scenes_count": scenes,
        "before": asdict(start),
        "chosen": asdict(chosen),
        "tables": tables,
        "failures": list(trials.failures.values()),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    print(markdown(report))
    if write is not None:
        store_settings(write, chosen)
        print(f"Stored with {write}.")
    for failure in report["failures"]:
        typer.echo(f"failed: {failure}", err=True)
    if report["failures"]:
        raise typer.Exit(1)


def held_back_rows(manifest: str) -> list[Row]:
    """The held-back rows, people and empty scenes, without those whose mask lacks somebody.

    Raises:
        DataError: the manifest cannot be read, or one of the two kinds is missing.
    """
    rows = [
        row
        for row in read_manifest(manifest, check_files=False)
        if in_split(row, "val") and not row.is_distractor and not row.has_unlabelled_person
    ]
    empty = sum(map(is_empty_scene, rows))
    if not 0 < empty < len(rows):
        raise DataError(
            f"{manifest}: of its held-back pictures, {len(rows) - empty} show people and {empty} "
            "are empty scenes; thresholds trade one for the other and need both. Test pictures "
            'are not used: mark others "val" or "train", or run `prepare`, which does.'
        )
    return rows


def markdown(report: Mapping[str, Any]) -> str:
    """The tables of a report; the present value is in brackets, the chosen one bold."""
    lines = [
        f"{report['pictures']} held-back pictures, {report['empty_scenes']} of them empty scenes, "
        f"which count {report['scenes_count']:g} of the score."
    ]
    for name, rows in report["tables"].items():
        titles = [title for title, _ in _COLUMNS.values()]
        lines += ["", f"| {name} | {' | '.join(titles)} |", "|---" * (len(titles) + 1) + "|"]
        for row in rows:
            cells = [format(row[key], form) for key, (_, form) in _COLUMNS.items()]
            lines.append(f"| {' | '.join([_value(row['value'], name, report), *cells])} |")
    return "\n".join(lines)


def _value(value: float, name: str, report: Mapping[str, Any]) -> str:
    text = f"{value:g}"
    if value == report["before"][name]:
        text = f"({text})"
    return f"**{text}**" if value == report["chosen"][name] else text


@contextmanager
def _progress(pictures: int) -> Iterator[Callable[[], None]]:
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("threshold 1", total=pictures)
        done = 0

        def advance() -> None:
            nonlocal done
            done += 1
            turn, within = divmod(done, pictures)
            progress.update(task, description=f"threshold {turn + 1}", completed=within)

        yield advance
