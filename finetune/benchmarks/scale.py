"""python -m finetune benchmark scale: estimates what a million photos and more would cost.

The estimate comes from a report of `benchmark batch`; nothing is run at that size. It assumes that
all photos are like those of the report, that each core does what one actor did, and that one
process, the driver, hands out all names and keeps all rows.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from u2net_human_plugin.errors import DataError

from ..files import write_text
from ..publishing.readme import fill

#: Numbers of photos, and of cores, that the cost is estimated for.
PHOTOS = (1_000_000, 100_000_000)
CORES = (16, 1_000)
#: Bytes of memory that the driver's machine is assumed to have.
MEMORY = 64e9
_GB = 1e9
_MARK = "scale"


def estimate(report: dict[str, Any]) -> dict[str, Any]:
    """Estimate what :data:`PHOTOS` cost on :data:`CORES`, and the limits of the driver.

    Args:
        report: as :func:`.batch.measure` returns it.

    Returns:
        ``rows``, one for each number of ``photos`` and of ``cores``: ``core_hours``; ``hours``,
        of the cores or of the driver, whichever need more; ``gigabytes``, read and
        written; ``megabits`` a second, of all cores together; ``driver_hours`` and
        ``driver_gigabytes``, the time and the memory of the driver. ``cores``: how many actors
        the driver keeps busy. ``photos``: how many photos' rows fit into :data:`MEMORY`.

    Raises:
        KeyError, TypeError: this is not such a report.
    """
    photo, driver = report["photo"], report["driver"]
    size = photo["bytes_in"] + photo["bytes_out"]
    rows = []
    for photos in PHOTOS:
        for cores in CORES:
            hours = photos * max(photo["seconds"] / cores, driver["seconds"]) / 3600
            rows.append(
                {
                    "photos": photos,
                    "cores": cores,
                    "core_hours": photos * photo["seconds"] / 3600,
                    "hours": hours,
                    "gigabytes": photos * size / _GB,
                    "megabits": photos * size * 8 / 1e6 / (hours * 3600),
                    "driver_hours": photos * driver["seconds"] / 3600,
                    "driver_gigabytes": photos * driver["bytes"] / _GB,
                }
            )
    return {
        "rows": rows,
        "cores": photo["seconds"] / driver["seconds"],
        "photos": MEMORY / driver["bytes"],
    }


def render(report: dict[str, Any]) -> str:
    """What was measured and the estimate as Markdown tables, and the driver's limits."""
    scale, photo, driver = estimate(report), report["photo"], report["driver"]
    load = "" if report["load"] is None else f", load {report['load']:.1f} at the start"
    lines = [
        f"Measured in turn on {report['photos']} photos ({report['cores']} cores{load}); one "
        "process and each actor use one core, `rembg p` all:",
        "",
        "| | photos a second | memory of the largest process |",
        "|---|---|---|",
        *(
            f"| {name} | {way['a second']:.2f} | {way['MB']:,.0f} MB |"
            for name, way in report["ways"].items()
        ),
        "",
        "From that is estimated what follows. An actor needed "
        f"{photo['seconds']:.2f} s for a photo of {photo['bytes_in'] / 1e6:.2f} MB, and wrote "
        f"{photo['bytes_out'] / 1e6:.2f} MB; the command's own process needed "
        f"{driver['seconds'] * 1e3:.1f} ms and {driver['bytes'] / 1e3:.1f} kB of memory to hand it "
        "out and to keep its row.",
        "",
        "| photos | cores | core-hours | hours | read and written | network "
        "| the command's own hours | its memory |",
        "|---|---|---|---|---|---|---|---|",
        *(
            f"| {row['photos']:,} | {row['cores']:,} | {row['core_hours']:,.0f} "
            f"| {row['hours']:,.1f} | {row['gigabytes']:,.0f} GB | {row['megabits']:,.0f} Mbit/s "
            f"| {row['driver_hours']:,.1f} | {row['driver_gigabytes']:,.1f} GB |"
            for row in scale["rows"]
        ),
        "",
        "The command's own process, which hands out the names and keeps the rows, is the first "
        f"limit. It keeps {scale['cores']:,.0f} cores busy; with more of them, some wait. "
        f"{MEMORY / _GB:.0f} GB of memory hold the rows of "
        f"{scale['photos'] / 1e6:,.0f} million photos. Beyond either limit, run several commands, "
        "each with a folder of the photos and a DEST of its own.",
    ]
    return "\n".join(lines)


def scale(
    report: Annotated[Path, typer.Argument(help="the file that `benchmark batch --json` wrote")],
    page: Annotated[
        Path | None, typer.Option(help="Markdown file; its block `scale` gets the estimate")
    ] = None,
) -> None:
    """Estimate what a million and a hundred million photos cost, from a report of `batch`."""
    try:
        text = render(json.loads(report.read_text("utf-8")))
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{report}: not a report of `benchmark batch` ({error!r}).") from None
    if page is None:
        typer.echo(text)
        return
    old = page.read_text("utf-8")
    write_text(page, fill(old, _MARK, text, file=str(page)))
