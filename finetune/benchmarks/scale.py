"""What a million and a hundred million photos cost: reckoned from a report of `benchmark batch`.

Nothing here was run at that size. The photos of the report stand for the others; a core does what
an actor did; whoever hands out the names and keeps the rows is one process, as it was.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from u2net_human_plugin.errors import DataError

from ..files import write_text
from ..publishing.readme import fill

#: Numbers of photos, and the cores that are given to them.
PHOTOS = (1_000_000, 100_000_000)
CORES = (16, 1_000)
#: Bytes of memory of the machine that hands out, for want of a better one.
MEMORY = 64e9
_GB = 1e9
_MARK = "scale"


def reckon(report: dict[str, Any]) -> dict[str, Any]:
    """What :data:`PHOTOS` cost, and where the one process that hands out ends.

    Args:
        report: as :func:`finetune.benchmarks.batch.measure` returns it.

    Returns:
        ``rows``, of each number of ``photos`` with ``cores``: ``core_hours``, ``hours`` as long
        as all cores have work, ``gigabytes`` read and written, ``megabits`` a second of
        all cores together, and ``driver_hours`` and ``driver_gigabytes`` of the process that
        hands out; ``cores``: how many actors it keeps busy; ``photos``: how many fit into
        :data:`MEMORY`.
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
    """The reckoning as Markdown."""
    scale, photo, driver = reckon(report), report["photo"], report["driver"]
    lines = [
        f"Reckoned from {report['photos']} photos on {report['cores']} cores (load "
        f"{report['load']} at the start). A photo took an actor {photo['seconds']:.2f} s, had "
        f"{photo['bytes_in'] / 1e6:.2f} MB and became {photo['bytes_out'] / 1e6:.2f} MB; handing "
        f"it out took the command's own process {driver['seconds'] * 1e3:.1f} ms and "
        f"{driver['bytes'] / 1e3:.1f} kB.",
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
        "What breaks first is the one process that hands out the names and keeps the rows. It "
        f"keeps {scale['cores']:,.0f} cores busy; more of them wait for it. "
        f"{MEMORY / _GB:.0f} GB of its memory hold the rows of "
        f"{scale['photos'] / 1e6:,.0f} million photos. Beyond either, "
        "give each of several commands a folder of the photos and a DEST of its own.",
    ]
    return "\n".join(lines)


def scale(
    report: Annotated[Path, typer.Argument(help="of `benchmark batch --json`")],
    page: Annotated[
        Path | None, typer.Option(help="a page to write the reckoning into, between its marks")
    ] = None,
) -> None:
    """Reckon what a million and a hundred million photos cost, from a report of `batch`."""
    try:
        text = render(json.loads(report.read_text("utf-8")))
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{report}: not a report of `benchmark batch` ({error!r}).") from None
    if page is None:
        typer.echo(text)
        return
    old = page.read_text("utf-8")
    write_text(page, fill(old, _MARK, text, file=str(page)))
