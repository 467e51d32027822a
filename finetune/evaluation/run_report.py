"""python -m finetune report RUN: a training run's curves, as one HTML file.

    python -m finetune report runs/mine

It reads the record of the run's newest checkpoint (``last.json``, or another of its records) and
writes ``report.html`` into the folder: the loss of every step, each validation score over the
steps, and all arguments. It works while the run goes on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from u2net_human_plugin.errors import DataError

from ..files import write_text
from .html_report import template

#: In a run's folder; `train` writes it at the end.
REPORT = "report.html"
#: Points of a curve; longer ones are averaged.
_POINTS = 400


def report(
    run: Annotated[Path, typer.Argument(help="The run's folder: train's --out.")],
) -> None:
    """Draw a training run's losses and scores: RUN/report.html."""
    file, record = _newest_record(run)
    write_text(run / REPORT, run_html(record, run.name))
    best = best_validation(record["history"])
    typer.echo(
        f"{run / REPORT}: {record['step']} of {record['steps']} steps, from {file.name}"
        + (f"; best score {best['score']:.4f} at step {best['step']}" if best else "")
    )


def result_of(record: Mapping[str, Any]) -> str:
    """Which step's weights a run gives, in words."""
    best = best_validation(record["history"])
    if best is None:
        return f"step {record['step']}, the last; nothing was measured"
    if best["step"] == 0:
        return "the starting weights; nothing was gained"
    return f"step {best['step']}, score {best['score']:.4f}"


def best_validation(history: Sequence[dict[str, float]]) -> dict[str, float] | None:
    """The one with the highest score, the first of equals, whose weights are best.pt."""
    return max(history, key=lambda entry: entry.get("score", 0), default=None)


def run_html(record: Mapping[str, Any], name: str, finished: bool = False) -> str:
    """The page of a run's record, with its "losses" by step and its "history" of validations.

    ``finished`` says that a run has its result, although it may have been stopped.
    """
    history = record["history"]
    keys = list(dict.fromkeys(key for entry in history for key in entry if key != "step"))
    charts = []
    if losses := record["losses"]:
        charts.append(_chart("loss", *_averaged(losses)))
    for key in keys:
        entries = [entry for entry in history if key in entry]
        steps = [entry["step"] for entry in entries]
        charts.append(_chart(key, steps, [entry[key] for entry in entries]))
    facts = {key: value for key, value in record.items() if key not in ("losses", "history")}
    return template("run.html.jinja").render(
        name=name,
        label="result" if finished or record["step"] >= record["steps"] else "result so far",
        result=result_of(record),
        step=record["step"],
        steps=record["steps"],
        seconds=record["seconds"],
        charts=charts,
        facts=json.dumps(facts, indent=1, ensure_ascii=False),
    )


def _newest_record(run: Path) -> tuple[Path, dict[str, Any]]:
    files = sorted(run.glob("*.json"), key=lambda file: (file.name == "last.json", file.name))
    for file in reversed(files):
        try:
            record = json.loads(file.read_text("utf-8"))
        except ValueError:
            continue
        if isinstance(record, dict) and {"losses", "history"} <= record.keys():
            return file, record
    raise DataError(
        f"{run}: holds no record of a training run (last.json, which `train` writes with its first "
        "checkpoint); name the folder that was train's --out."
    )


def _averaged(losses: Sequence[float]) -> tuple[list[float], list[float]]:
    """Steps and losses; if there are more than the points of a curve, means of equal parts."""
    parts = np.array_split(np.asarray(losses, np.float64), min(_POINTS, len(losses)))
    ends = np.cumsum([len(part) for part in parts])
    return ends.tolist(), [float(part.mean()) for part in parts]


def _chart(title: str, steps: Sequence[float], values: Sequence[float]) -> dict[str, Any]:
    """A curve scaled to 100 x 50, its limits as text, and its points for tooltips."""
    finite = [value for value in values if np.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
    last = max(*steps, 1)
    points = [
        (100 * step / last, 50 - 50 * (value - low) / ((high - low) or 1), step, value)
        for step, value in zip(steps, values, strict=True)
        if np.isfinite(value)
    ]
    return {
        "title": title.replace("_", " "),
        "line": " ".join(f"{x:.2f},{y:.2f}" for x, y, _, _ in points),
        "points": points if len(points) <= 100 else [],
        "low": f"{low:.4g}",
        "high": f"{high:.4g}",
        "last_step": last,
        "end": f"{values[-1]:.4g}",
    }
