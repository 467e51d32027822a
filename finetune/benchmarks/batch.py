"""python -m finetune benchmark batch: photos a second of `rembg p`, one process and `batch`.

    python -m finetune benchmark batch PHOTOS --json report.json
    python -m finetune benchmark scale report.json --page docs/pages/batch.md

The three take the same photos in turn; the one process is this plugin's, without `batch`. The times
include the start-up, because a user waits for that, too. The report also says what one photo costs
without the start-up, and what it costs the driver: the command's own process, which hands out the
names and keeps the rows. From these, :mod:`.scale` estimates what many more photos cost.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from u2net_human_plugin.batch.storage import PICTURES
from u2net_human_plugin.batch.table import NAME
from u2net_human_plugin.errors import DataError

from ..files import write_text

#: Seconds between two measurements of the memory of a command's processes.
_EVERY = 0.5
#: How many names the driver hands out to actors that do nothing, to measure its own cost.
_HANDED_OUT = 4000

_ONE_PROCESS = """
import sys
from pathlib import Path
from u2net_human_plugin.batch.actor import CutOut, Recipe
make = CutOut(Recipe())
for file in sorted(Path(sys.argv[1]).iterdir()):
    Path(sys.argv[2], file.stem + ".png").write_bytes(make.cut(file.read_bytes())["cutout"])
"""

# The command's own code for names and rows, with actors that do nothing.
_HAND_OUT = """
import json, sys, time
import psutil
from u2net_human_plugin.batch import command
from u2net_human_plugin.batch.actor import Recipe
from u2net_human_plugin.batch.cluster import cluster
from u2net_human_plugin.batch.plan import output_names
from u2net_human_plugin.batch.storage import destination
from u2net_human_plugin.batch.table import Table, from_rows

class Nothing(command.CutOutFiles):
    def __init__(self, job, attempts):
        self.job = job
    def _row(self, source, output):
        return self.job.row(source, output, width=1, height=1, share=0, people=0, seconds=0)

command.CutOutFiles = Nothing
count, folder = int(sys.argv[1]), destination(sys.argv[2])
job = command.Job(folder, folder, Recipe.from_environment(), False)
given = type("Given", (), {"actors": 1, "gpus_per_actor": 0})
with cluster(actors=1) as ray:
    first = output_names([f"first/{n:09}.jpg" for n in range(8)], ".png", {})
    command._make(ray, job, first, given)  # starts the actors, before time is taken
    started, before = time.perf_counter(), psutil.Process().memory_info().rss
    names = output_names([f"{n // 1000:06}/{n:09}.jpg" for n in range(count)], ".png", {})
    command._make(ray, job, names, given)
    rows = Table(folder).collect().to_pylist()
    seconds = time.perf_counter() - started
    grown = psutil.Process().memory_info().rss - before
print(json.dumps({"seconds": seconds / count, "bytes": grown / count}))
"""


def measure(photos: Path, count: int = 200, actors: int = 2) -> dict[str, Any]:
    """Run the three commands in turn on the same photos, and return the report.

    Args:
        photos: a folder of photos.
        count: how many photos to take, in the order of their names; the folder's photos are
            repeated if there are fewer.
        actors: how many processes `batch` starts.

    Returns:
        ``photos``, ``cores`` and ``actors``: numbers; ``load``: the machine's load average of the
        last minute, None on Windows. ``ways``: for each command, photos ``a second``, ``seconds``
        of the whole run, and ``MB``, the peak resident memory of its largest process (0 where
        there is no /proc). ``photo``: means for one photo, the ``seconds`` an actor needs, and
        ``bytes_in`` and ``bytes_out`` of the files. ``driver``: for one photo, the ``seconds`` the
        driver needs and the ``bytes`` its memory grows by.

    Raises:
        DataError: there is no picture in ``photos``, or a command did not make all cut-outs.
    """
    files = sorted(file for file in photos.iterdir() if file.name.lower().endswith(PICTURES))
    if not files:
        raise DataError(f"{photos}: no pictures there.")
    python = sys.executable
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "photos")
        source.mkdir()
        for number in range(count):
            file = files[number % len(files)]
            source.joinpath(f"{number:06}{file.suffix}").write_bytes(file.read_bytes())
        s, batch = str(source), f"batch, {actors} actors"
        rembg = "import rembg.cli; rembg.cli.main()"
        ways: dict[str, Callable[[str], list[str]]] = {
            "rembg p": lambda out: [python, "-c", rembg, "p", "-m", "u2net_human_ft", *(s, out)],
            "one process": lambda out: [python, "-c", _ONE_PROCESS, s, out],
            batch: lambda out: [
                *(python, "-m", "u2net_human_plugin", "batch", s, out, "--actors", str(actors))
            ],
        }
        # The shortest comes first: if Ray does not start, the user learns it at once.
        hand_out = [python, "-c", _HAND_OUT, str(_HANDED_OUT), str(Path(folder, "none"))]
        driver = json.loads(_said(hand_out))
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
        timed = {name: _timed(command, Path(folder, name), count) for name, command in ways.items()}
        return {
            "photos": count,
            "cores": os.cpu_count(),
            "actors": actors,
            "load": load,
            "ways": timed,
            "photo": _photo(source, Path(folder, batch)),
            "driver": driver,
        }


def _photo(source: Path, out: Path) -> dict[str, float]:
    """Means for one photo, from the table that `batch` wrote and the sizes of the files."""
    import pyarrow.compute as pc
    from pyarrow import parquet

    rows = parquet.read_table(out / NAME)
    sizes = {
        name: sum(file.stat().st_size for file in files) / len(rows)
        for name, files in {"bytes_in": source.iterdir(), "bytes_out": out.glob("*.png")}.items()
    }
    return {"seconds": pc.mean(rows["seconds"]).as_py(), **sizes}


def _timed(command: Callable[[str], list[str]], out: Path, count: int) -> dict[str, float]:
    """Run a command that makes ``count`` cut-outs in ``out``; watch its time and memory."""
    out.mkdir()
    largest = 0
    with tempfile.TemporaryFile() as log:
        started = time.perf_counter()
        process = subprocess.Popen(command(str(out)), stdout=log, stderr=log)  # noqa: S603
        while process.poll() is None:
            largest = max([largest, *map(_peak_kilobytes, _family(process.pid))])
            time.sleep(_EVERY)
        seconds = time.perf_counter() - started
        log.seek(0)
        last = log.read().decode(errors="replace").strip().splitlines()[-1:]
    made = len(list(out.glob("*.png")))
    if made != count:
        status = process.returncode
        raise DataError(f"{out.name}: made {made} of {count} (exit status {status}): {last}")
    return {"a second": count / seconds, "seconds": seconds, "MB": largest / 1024}


def _said(command: list[str]) -> str:
    """Run a command and return the last line that it prints."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise DataError(f"the driver's cost could not be measured: {done.stderr[-500:]}")
    return done.stdout.strip().splitlines()[-1]


def _family(pid: int) -> list[int]:
    """A process and all that it started, by their ids; on Linux only."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:  # the process has ended, or this is not Linux
        return [pid]
    return [pid, *(one for child in children for one in _family(int(child)))]


def _peak_kilobytes(pid: int) -> int:
    """Peak resident memory of a process in kB; 0 if it has ended, or without /proc."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)


def batch(
    photos: Annotated[Path, typer.Argument(help="A folder of photos.")],
    count: Annotated[
        int,
        typer.Option(
            "--photos", min=1, help="How many; the folder's are repeated if there are fewer."
        ),
    ] = 200,
    actors: Annotated[int, typer.Option(min=1, help="How many processes `batch` starts.")] = 2,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="write the figures to this file as well")
    ] = None,
) -> None:
    """Photos a second: `rembg p`, one process of this plugin, `batch` with several actors."""
    figures = measure(photos, count, actors)
    typer.echo(f"{count} photos of {photos}, {figures['cores']} cores, load {figures['load']}")
    slowest = figures["ways"]["rembg p"]["a second"]
    for name, row in figures["ways"].items():
        typer.echo(
            f"{name:<20}{row['a second']:8.2f} a second, {row['a second'] / slowest:.2f} times "
            f"rembg's{row['MB']:8.0f} MB of the largest process"
        )
    if json_file:
        write_text(json_file, json.dumps(figures, indent=1) + "\n")
